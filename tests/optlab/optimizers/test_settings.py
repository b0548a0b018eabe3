"""Names, defaults and ranges: torch's where torch has them, and every slip is named."""

import inspect

import pytest
import torch

import optlab
from tests.optlab.driving import parameters
from tests.optlab.registry import CLASSES, EACH_CLASS

#: What torch's optimizers offer and ours do not: the engine has one way for all of it.
NOT_OFFERED = ("foreach", "fused", "capturable", "differentiable")
POSITIVE, BELOW_ONE, UP_TO_ONE = "[0, inf)", "[0, 1)", "[0, 1]"
RATES = {"lr": POSITIVE, "weight_decay": POSITIVE}
ADAMS = {**RATES, "eps": POSITIVE, "betas": BELOW_ONE}
#: Where each hyperparameter may lie, written down a second time.
RANGES = {
    "SGD": {**RATES, "momentum": BELOW_ONE, "dampening": UP_TO_ONE},
    "Adagrad": {
        **RATES,
        "eps": POSITIVE,
        "lr_decay": POSITIVE,
        "initial_accumulator_value": POSITIVE,
    },
    "Adadelta": {**RATES, "eps": POSITIVE, "rho": UP_TO_ONE},
    "RMSprop": {**RATES, "eps": POSITIVE, "alpha": UP_TO_ONE, "momentum": BELOW_ONE},
    "Adam": ADAMS,
    "AdamW": ADAMS,
    "NAdam": {**ADAMS, "momentum_decay": POSITIVE},
    "RAdam": ADAMS,
    "Adamax": ADAMS,
    "LARS": {**RATES, "momentum": BELOW_ONE, "trust_coefficient": POSITIVE, "eps": POSITIVE},
    "LAMB": ADAMS,
}
FLAGS = {
    "SGD": {"nesterov", "maximize"},
    "Adagrad": {"maximize"},
    "Adadelta": {"maximize"},
    "RMSprop": {"centered", "maximize"},
    "Adam": {"amsgrad", "maximize", "decoupled_weight_decay"},
    "AdamW": {"amsgrad", "maximize"},
    "NAdam": {"decoupled_weight_decay", "maximize"},
    "RAdam": {"decoupled_weight_decay", "maximize"},
    "Adamax": {"maximize"},
    "LARS": {"trust", "maximize"},
    "LAMB": {"trust", "maximize"},
}
#: What lies outside of each range, and of what kind the error is.
OUTSIDE = {
    POSITIVE: [-0.1, -1, float("inf"), float("nan")],
    BELOW_ONE: [-0.1, 1.0, 1, 1.5, float("inf"), float("nan")],
    UP_TO_ONE: [-0.1, 1.5, 2, float("nan")],
}
NO_NUMBERS = ["0.1", None, True, [0.1, 0.2], b"1", 1j]


NO_PAIRS = [0.9, (0.9,), (0.9, 0.9, 0.9), "ab", None]
BAD = pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in RANGES for name in (*RANGES[kind], *sorted(FLAGS[kind]))],
)


def wrong(kind, name):
    """Each way to get a hyperparameter wrong: its value, and what is said of it."""
    if name in FLAGS[kind]:
        for value in (1, 0, None, "False"):
            yield value, TypeError, name, value, "True or False"
        return
    allowed = RANGES[kind][name]
    bad = [(value, ValueError) for value in (*OUTSIDE[allowed], torch.tensor(-1.0))]
    bad += [(value, TypeError) for value in (*NO_NUMBERS, torch.ones(2))]
    for value, error in bad:
        if name == "betas":
            yield (value, 0.9), error, "betas[0]", value, allowed
            yield (0.9, value), error, "betas[1]", value, allowed
        else:
            yield value, error, name, value, allowed
    if name == "betas":
        for value in NO_PAIRS:
            yield value, TypeError, name, value, allowed


def test_every_hyperparameter_has_its_range_here():
    for entry in CLASSES:
        kind = entry.ours.__name__
        given = set(entry.ours([torch.zeros(1)]).defaults) - {"decoupled_weight_decay"}
        assert given == set(RANGES[kind]) | FLAGS[kind] - {"decoupled_weight_decay"}
    first_order = set(optlab.__all__) - {"GaussNewton", "KFAC", "NaturalGradient", "Newton"}
    assert {entry.ours.__name__ for entry in CLASSES} == set(RANGES) == first_order


@BAD
def test_bad_settings_are_named(kind, name):
    for value, error, named, shown, allowed in wrong(kind, name):
        with pytest.raises(error) as raised:
            getattr(optlab, kind)(parameters(), **{name: value})
        message = str(raised.value)
        assert message.startswith(f"{named} must be ")
        assert allowed in message
        assert message.endswith(f"got {shown!r}")


@BAD
def test_a_bad_group_is_named_and_changes_nothing(kind, name):
    first, second = parameters()[:2]
    optimizer = getattr(optlab, kind)([first])
    for value, error, named, shown, _ in wrong(kind, name):
        with pytest.raises(error) as raised:
            optimizer.add_param_group({"params": [second], name: value})
        assert str(raised.value).startswith(f"{named} must be ")
        assert str(raised.value).endswith(f"got {shown!r} (parameter group 1)")
        assert len(optimizer.param_groups) == 1
        assert second not in optimizer.state


@pytest.mark.parametrize("kind", RANGES)
def test_the_ends_of_each_range(kind):
    for name, allowed in RANGES[kind].items():
        low, high = 0, {POSITIVE: 1e30, BELOW_ONE: 0.999999, UP_TO_ONE: 1.0}[allowed]
        for value in (low, high):
            settings = {name: (value, value) if name == "betas" else value}
            getattr(optlab, kind)(parameters(), **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"nesterov": True},
        {"nesterov": True, "momentum": 0},
        {"nesterov": True, "momentum": 0.9, "dampening": 0.1},
    ],
)
def test_nesterov_needs_momentum_and_no_dampening(settings):
    with pytest.raises(ValueError, match=r"nesterov=True needs momentum in \(0, 1\)"):
        optlab.SGD(parameters(), **settings)


@EACH_CLASS
def test_names_order_and_defaults_are_the_oracles(entry):
    ours = inspect.signature(entry.ours).parameters
    theirs = inspect.signature(entry.theirs).parameters
    for name, parameter in ours.items():
        if name == "compile":
            assert (parameter.default, parameter.kind) == (False, parameter.KEYWORD_ONLY)
        else:
            assert name in theirs, f"{entry.theirs} has no {name}"
            assert parameter.default == theirs[name].default, name
    positional = [name for name, p in ours.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert (
        positional
        == [name for name, p in theirs.items() if p.kind is p.POSITIONAL_OR_KEYWORD][
            : len(positional)
        ]
    )
    assert set(theirs) - set(ours) == set(theirs) & set(NOT_OFFERED)
    assert issubclass(entry.ours, torch.optim.Optimizer)


@EACH_CLASS
@pytest.mark.parametrize("name", NOT_OFFERED)
@pytest.mark.parametrize("value", [True, False, None])
def test_what_is_not_offered_is_refused_by_name(entry, name, value):
    with pytest.raises(TypeError, match=f"{entry.ours.__name__}.* no argument '{name}'"):
        entry.ours(parameters(), **{name: value})


@EACH_CLASS
def test_compile_is_true_or_false(entry):
    for value in (1, None, "inductor"):
        with pytest.raises(TypeError, match=f"compile must be True or False, got {value!r}"):
            entry.ours(parameters(), compile=value)


@pytest.mark.parametrize(
    ("kind", "slip", "meant"),
    [
        ("SGD", "momentun", "momentum"),
        ("Adam", "beta", "betas"),
        ("AdamW", "weight_deacy", "weight_decay"),
        ("AdamW", "decoupled_weight_decay", None),
        ("RMSprop", "centred", "centered"),
    ],
)
def test_a_misspelt_keyword_is_refused(kind, slip, meant):
    guess = f": did you mean '{meant}'" if meant else ""
    with pytest.raises(TypeError, match=f"{kind}.* no argument '{slip}'{guess}"):
        getattr(optlab, kind)(parameters(), **{slip: 0.9})


@pytest.mark.parametrize("key", ["momentun", "weight_deacy", "LR", "lr_"])
def test_a_slip_in_a_group_is_named(key):
    with pytest.raises(TypeError, match=f"no hyperparameter '{key}'.*did you mean"):
        optlab.SGD([{"params": parameters()[:1], key: 0.9}])


@pytest.mark.parametrize("key", ["name", "initial_lr", "max_lr", "base_momentum", "lr_scale"])
def test_a_users_own_key_is_kept(key):
    optimizer = optlab.SGD([{"params": parameters()[:1], key: 0.9}])
    assert optimizer.param_groups[0][key] == 0.9


@EACH_CLASS
def test_no_parameters_is_an_error(entry):
    for nothing in ([], (), iter(())):
        with pytest.raises(ValueError, match="params must hold at least one parameter"):
            entry.ours(nothing)


@pytest.mark.parametrize("params", [torch.zeros(2, requires_grad=True), [1.0], [{"lr": 0.1}], 3])
def test_bad_parameters_are_refused_with_torchs_kinds_of_error(params):
    with pytest.raises((TypeError, ValueError, KeyError)) as theirs:
        torch.optim.SGD(params)
    with pytest.raises(theirs.type):
        optlab.SGD(params)


def test_parameters_that_are_no_leaves_or_twice_in_two_groups_are_refused():
    p = torch.zeros(2, requires_grad=True)
    with pytest.raises(ValueError, match="non-leaf"):
        optlab.Adam([p * 2])
    with pytest.raises(ValueError, match="more than one parameter group"):
        optlab.Adam([{"params": [p]}, {"params": [p]}])


def test_params_may_be_a_generator_or_named():
    model = torch.nn.Linear(2, 2)
    assert len(optlab.Adam(model.parameters()).param_groups[0]["params"]) == 2
    named = optlab.Adam(model.named_parameters()).param_groups[0]
    assert named["param_names"] == ["weight", "bias"]
