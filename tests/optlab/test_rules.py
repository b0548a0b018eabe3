"""Every rule against an oracle of its own, on floats, NumPy arrays and torch tensors."""

import inspect
import math
import random
import sys

import numpy as np
import pytest
import torch

from optlab import rules
from optlab.signatures import hyperparameters, starts, states
from tests.optlab import oracles

ADAM = {"lr": 0.01, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8}
RMSPROP = {"lr": 0.01, "alpha": 0.9, "eps": 1e-8}
SETTINGS = {
    "sgd": {"lr": 0.1},
    "momentum": {"lr": 0.1, "beta": 0.8, "dampening": 0.3},
    "nesterov": {"lr": 0.1, "beta": 0.8},
    "adagrad": {"lr": 0.1, "eps": 1e-8, "lr_decay": 0.05},
    "adadelta": {"lr": 0.7, "rho": 0.9, "eps": 1e-6},
    "rmsprop": RMSPROP,
    "rmsprop_momentum": {**RMSPROP, "beta": 0.8},
    "rmsprop_centered": RMSPROP,
    "rmsprop_centered_momentum": {**RMSPROP, "beta": 0.8},
    "adam": ADAM,
    "adamw": {**ADAM, "weight_decay": 0.3},
    "amsgrad": ADAM,
    "nadam": {**ADAM, "momentum_decay": 0.004},
    "radam": ADAM,
    "adamax": ADAM,
    "lars": {"lr": 0.3, "beta": 0.8, "weight_decay": 0.2, "trust_coefficient": 0.1, "eps": 1e-3},
    "lamb": {**ADAM, "weight_decay": 0.3},
}
EVERY = pytest.mark.parametrize("rule", rules.RULES.values(), ids=rules.RULES)
APART = [rule for rule in rules.RULES.values() if rule not in rules.LAYERWISE]
ELEMENTWISE = pytest.mark.parametrize("rule", APART, ids=lambda rule: rule.__name__)
LAYERWISE = pytest.mark.parametrize("rule", rules.LAYERWISE, ids=lambda rule: rule.__name__)
#: Rules that take no root of a tensor, and state that holds none.
ROOTLESS_RULES = {"sgd", "momentum", "nesterov", "adamax"}
ROOTLESS_STATE = {"s", "v", "m", "u", "v_max", "mu_product"}


def gradients(seed, steps):
    """Gradients over eleven orders of magnitude, of both signs."""
    rng = random.Random(seed)
    return [rng.uniform(-1, 1) * 10.0 ** rng.randint(-9, 2) for _ in range(steps)]


def counted(rule, step):
    """The rule's settings here, with the step's number where it takes one."""
    number = {"step": step} if "step" in hyperparameters(rule) else {}
    return {**SETTINGS[rule.__name__], **number}


def run(rule, gs, theta=0.0, settings=None):
    """The rule's results on a row of gradients: after each, theta and state."""
    memory, results = list(starts(rule).values()), []
    for step, g in enumerate(gs, 1):
        theta, *memory = rule(theta, g, *memory, **{**counted(rule, step), **(settings or {})})
        results.append((theta, *memory))
    return results


def steps_alone(rule, gs, settings=None):
    """What each gradient adds to the parameter, unrounded by what the parameter is."""
    memory, moves = list(starts(rule).values()), []
    for step, g in enumerate(gs, 1):
        move, *memory = rule(0.0, g, *memory, **{**counted(rule, step), **(settings or {})})
        moves.append(move)
    return moves


def test_every_rule_has_a_setting_and_an_oracle_here():
    assert SETTINGS.keys() == rules.RULES.keys()
    assert all(callable(getattr(oracles, name)) for name in rules.RULES)


@pytest.mark.parametrize("seed", range(5))
@ELEMENTWISE
def test_every_step_is_its_oracles(rule, seed):
    gs = gradients(seed, 40)
    expected = getattr(oracles, rule.__name__)(gs, **SETTINGS[rule.__name__])
    assert steps_alone(rule, gs) == pytest.approx(expected, rel=1e-10, abs=0)


@pytest.mark.parametrize("start", [0.0, -3.0, 1e4])
@ELEMENTWISE
def test_the_path_is_made_of_the_steps(rule, start):
    gs, settings = gradients(11, 40), SETTINGS[rule.__name__]
    decay = settings.get("weight_decay", 0.0)
    steps = getattr(oracles, rule.__name__)(gs, **settings)
    expected = oracles.path(start, steps, settings["lr"], decay)[1:]
    path = [theta for theta, *_ in run(rule, gs, start)]
    assert path == pytest.approx(expected, rel=1e-11, abs=1e-11 * max(map(abs, steps)))


@pytest.mark.parametrize("dampening", [0.0, 0.4, 1.0])
def test_dampening_spares_the_first_gradient(dampening):
    gs, settings = gradients(1, 40), {"lr": 0.1, "beta": 0.8, "dampening": dampening}
    steps = steps_alone(rules.momentum, gs, settings)
    assert steps == pytest.approx(oracles.momentum(gs, **settings), rel=1e-10, abs=0)


@pytest.mark.parametrize("told", ["lr_decay", "step"])
def test_adagrad_keeps_its_learning_rate_unless_told_both(told):
    gs, theta, s = gradients(12, 40), 0.0, 0.0
    expected = oracles.path(0.0, oracles.adagrad(gs, lr=0.1, eps=1e-8))[1:]
    for step, (g, there) in enumerate(zip(gs, expected, strict=True), 1):
        one = {"lr_decay": 0.5} if told == "lr_decay" else {"step": step}
        theta, s = rules.adagrad(theta, g, s, lr=0.1, eps=1e-8, **one)
        assert theta == pytest.approx(there, rel=1e-12)


def test_momentum_is_polyaks_second_difference():
    lr, beta, lam = 0.05, 0.9, 3.0
    before = here = theta = 1.0
    v = 0.0
    for _ in range(60):
        before, here = here, here - lr * lam * here + beta * (here - before)
        theta, v = rules.momentum(theta, lam * theta, v, lr=lr, beta=beta)
        assert theta == pytest.approx(here, rel=1e-10)


def test_nesterov_is_the_look_ahead():
    lr, beta, lam = 0.05, 0.9, 3.0
    ball, speed = 1.0, 0.0
    theta, v = 1.0, 0.0
    for _ in range(60):
        speed = beta * speed + lam * (ball - lr * beta * speed)
        ball = ball - lr * speed
        theta, v = rules.nesterov(theta, lam * theta, v, lr=lr, beta=beta)
        assert theta == pytest.approx(ball - lr * beta * speed, rel=1e-10)


@pytest.mark.parametrize(("beta2", "plain"), [(0.6, 40), (0.8397, 6), (0.8398, 5), (0.999, 5)])
def test_radam_divides_only_once_enough_steps_are_behind(beta2, plain):
    gs, settings = gradients(3, 40), {**ADAM, "beta2": beta2}
    lengths = [oracles.length(beta2, t) for t in range(1, 41)]
    assert [rho > 5 for rho in lengths] == [False] * plain + [True] * (40 - plain)
    steps = steps_alone(rules.radam, gs, settings)
    assert steps == pytest.approx(oracles.radam(gs, **settings), rel=1e-9, abs=0)
    without = [-settings["lr"] * oracles.share(0.9, gs[:t]) for t in range(1, 41)]
    same = [math.isclose(a, b, rel_tol=1e-9) for a, b in zip(steps, without, strict=True)]
    assert same == [True] * plain + [False] * (40 - plain)


def test_nadams_state_holds_the_product_of_its_momenta():
    for t, (*_, product) in enumerate(run(rules.nadam, gradients(4, 50)), 1):
        mus = [oracles.warmed(k, 0.9, 0.004) for k in range(1, t + 1)]
        assert product == pytest.approx(math.prod(mus), rel=1e-13)


def test_amsgrads_second_moment_never_falls():
    gs = gradients(5, 60)
    largest = [v_max for *_, v_max in run(rules.amsgrad, gs)]
    now = [v for _, _, v, _ in run(rules.amsgrad, gs)]
    assert largest == [max(now[:t]) for t in range(1, 61)]
    assert largest != now


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999])
def test_an_average_holds_what_its_decay_has_left_of_the_truth(decay):
    held = 0.0
    for t in range(1, 200):
        held = rules.average(held, -3.0, decay)
        assert held == pytest.approx(-3.0 * (1 - decay**t), rel=1e-11)


def test_decays():
    theta = 2.0
    for _ in range(30):
        theta = rules.decoupled_decay(theta, 0.1, 0.5)
    assert theta == pytest.approx(2.0 * 0.95**30, rel=1e-13)
    bowl = torch.tensor([1.5, -2.0], dtype=torch.float64, requires_grad=True)
    (0.5 * 0.3 * bowl.square().sum()).backward()
    assert torch.equal(rules.l2_decay(bowl.detach(), 0.0, 0.3), bowl.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "rule", [rules.rmsprop_centered, rules.rmsprop_centered_momentum], ids=lambda r: r.__name__
)
def test_a_constant_gradient_has_no_negative_variance(rule, dtype):
    g = torch.tensor(gradients(6, 1000), dtype=dtype)
    theta, memory = torch.zeros_like(g), [torch.zeros_like(g) for _ in states(rule)]
    settings, below = {**SETTINGS[rule.__name__], "alpha": 0.95}, 0
    for _ in range(800):
        theta, *memory = rule(theta, g, *memory, **settings)
        v, m = memory[:2]
        below += int((v - m * m < 0).sum())
        assert (rules.variance(v, m) >= 0).all()
        assert theta.isfinite().all()
    assert below > 0  # else rounding would not have been tried


def test_the_same_on_floats():
    results = run(rules.rmsprop_centered, [1.1] * 800, settings={"alpha": 0.95})
    assert any(v - m * m < 0 for _, v, m in results)
    assert all(isinstance(theta, float) and math.isfinite(theta) for theta, *_ in results)


@ELEMENTWISE
def test_floats_arrays_and_tensors_agree(rule):
    """To the last bit, but for roots, which the libraries round in their own ways."""
    late = 7
    rows = [(random.Random(s).uniform(-9, 9), gradients(s, late)) for s in range(200)]
    olds = [run(rule, gs[:-1], theta)[-1] for theta, gs in rows]
    floats = [run(rule, gs, theta)[-1] for theta, gs in rows]
    theta, *memory = zip(*olds, strict=True)
    inputs = (theta, [gs[-1] for _, gs in rows], *memory)
    arrays = rule(*map(np.array, inputs), **counted(rule, late))
    tensors = rule(*(torch.tensor(c, dtype=torch.float64) for c in inputs), **counted(rule, late))
    for name, old, expected, *found in zip(
        ("theta", *states(rule)),
        (theta, *memory),
        zip(*floats, strict=True),
        arrays,
        tensors,
        strict=True,
    ):
        exact = rule.__name__ in ROOTLESS_RULES or name in ROOTLESS_STATE
        allowed = 0 if exact else 4 * sys.float_info.epsilon
        for column in found:
            for was, mine, theirs in zip(old, expected, column.tolist(), strict=True):
                assert abs(mine - theirs) <= allowed * (abs(was) + abs(mine)), (name, mine, theirs)


KINDS = {"floats": lambda x: x[0], "arrays": np.array, "tensors": torch.tensor}


@LAYERWISE
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", [0.0, 2.0, 1e4])
def test_a_layers_path_is_its_oracles(rule, kind, start, double):
    """It starts at zero, where the ratio is 1, or elsewhere; one gradient is zero."""
    width = 1 if kind == "floats" else 3
    rows = [gradients(seed, 30) for seed in range(width)]
    gs = [*zip(*rows, strict=True)]
    gs[0] = gs[9] = (0.0,) * width
    settings, theta = SETTINGS[rule.__name__], [start * (1 - 2 * i) for i in range(width)]
    expected = getattr(oracles, rule.__name__)(gs, theta, **settings)[1:]
    kept, made = [], KINDS[kind]
    theta, memory = made(theta), [0.0 * made(theta) for _ in states(rule)]
    for step, g in enumerate(gs, 1):
        theta, *memory = rule(theta, made(g), *memory, **counted(rule, step))
        kept.append([theta] if kind == "floats" else theta.tolist())
    for found, right in zip(kept, expected, strict=True):
        assert found == pytest.approx(right, rel=1e-10, abs=1e-13)


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_without_trust_lars_is_momentum_and_lamb_is_adamw():
    """LARS at a rate that stays: its velocity holds the rate."""
    rng = np.random.default_rng(0)
    theta, g, v, m = rng.normal(size=(4, 5))
    lars = {**SETTINGS["lars"], "weight_decay": 0.0}
    new, _ = rules.lars(theta, g, lars["lr"] * v, **lars, trust=0)
    old, _ = rules.momentum(theta, g, v, lr=lars["lr"], beta=lars["beta"])
    np.testing.assert_allclose(new, old, rtol=1e-14)
    new, *_ = rules.lamb(theta, g, m, v * v, **counted(rules.lamb, 3), trust=0)
    old, *_ = rules.adamw(theta, g, m, v * v, **counted(rules.adamw, 3))
    np.testing.assert_allclose(new, old, rtol=1e-14)


@LAYERWISE
def test_a_layer_moves_alike_whatever_its_gradients_size(rule):
    theta, g = np.array([3.0, -4.0]), np.array([0.6, 0.8])
    bare = {"weight_decay": 0.0, "eps": 0.0}
    memory = [0.0 * theta for _ in states(rule)]
    lengths = [
        np.linalg.norm(rule(theta, size * g, *memory, **{**counted(rule, 1), **bare})[0] - theta)
        for size in (1e-6, 1.0, 1e6)
    ]
    settings = SETTINGS[rule.__name__]
    share = settings["lr"] * settings.get("trust_coefficient", 1.0)
    assert lengths == pytest.approx([share * 5.0] * 3, rel=1e-12)


@pytest.mark.parametrize("zero", ["a", "b", "both"])
def test_a_ratio_without_norms_is_one(zero):
    a, b = (0.0 if zero in (name, "both") else 3.0 for name in "ab")
    for made in (float, np.float32, torch.tensor):
        assert rules.ratio(made(a), made(b), made(0.0)) == 1.0
    assert rules.ratio(np.float32(1e-9), np.float32(4e-9), np.float32(4e-18)) == 0.25
    assert rules.ratio(6.0, 2.0, torch.tensor(torch.inf)) == 3.0  # an overflow is no zero
    assert math.isnan(rules.ratio(math.nan, 1.0, math.nan))


@EVERY
def test_a_rule_changes_nothing_in_place(rule):
    inputs = [torch.rand(5) for _ in range(2 + len(states(rule)))]
    copies = [tensor.clone() for tensor in inputs]
    rule(*inputs, **counted(rule, 9))
    assert all(torch.equal(a, b) for a, b in zip(inputs, copies, strict=True))


@EVERY
def test_a_rule_is_short_and_says_where_it_is_from(rule):
    lines = inspect.getsource(rule).split('"""')[2].strip().splitlines()
    assert 2 <= len(lines) <= 10
    assert "(19" in rule.__doc__ or "(20" in rule.__doc__


PAIRS = [(1.0, 2.0), (2.0, 1.0), (-1.0, -1.0), (math.nan, 1.0), (1.0, math.nan), (math.inf, 1.0)]


def test_the_larger_is_nan_where_either_is():
    a, b = zip(*PAIRS, strict=True)
    expected = [2.0, 2.0, -1.0, math.nan, math.nan, math.inf]
    floats = [rules.maximum(*pair) for pair in PAIRS]
    for found in (floats, rules.maximum(np.array(a), np.array(b)).tolist()):
        assert found == pytest.approx(expected, nan_ok=True)
    tensors = rules.maximum(torch.tensor(a), torch.tensor(b)).tolist()
    assert tensors == pytest.approx(expected, nan_ok=True)
