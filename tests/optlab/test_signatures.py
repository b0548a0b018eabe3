"""Signatures: what a rule takes is read off it, and settings are checked against it."""

import math

import numpy as np
import pytest
import torch

from optlab import rules
from optlab.signatures import RANGES, check_settings, hyperparameters, rule, starts, states

EVERY = pytest.mark.parametrize("update", rules.RULES.values(), ids=rules.RULES)
WANTED = {
    "sgd": ((), {"lr"}),
    "momentum": (("v",), {"lr", "beta"}),
    "nesterov": (("v",), {"lr", "beta"}),
    "adagrad": (("s",), {"lr", "eps"}),
    "adadelta": (("v", "d"), {"lr", "rho", "eps"}),
    "rmsprop": (("v",), {"lr", "alpha", "eps"}),
    "rmsprop_momentum": (("v", "b"), {"lr", "alpha", "eps", "beta"}),
    "rmsprop_centered": (("v", "m"), {"lr", "alpha", "eps"}),
    "rmsprop_centered_momentum": (("v", "m", "b"), {"lr", "alpha", "eps", "beta"}),
    "adam": (("m", "v"), {"lr", "beta1", "beta2", "eps", "step"}),
    "adamw": (("m", "v"), {"lr", "beta1", "beta2", "eps", "weight_decay", "step"}),
    "amsgrad": (("m", "v", "v_max"), {"lr", "beta1", "beta2", "eps", "step"}),
    "nadam": (
        ("m", "v", "mu_product"),
        {"lr", "beta1", "beta2", "eps", "momentum_decay", "step"},
    ),
    "radam": (("m", "v"), {"lr", "beta1", "beta2", "eps", "step"}),
    "adamax": (("m", "u"), {"lr", "beta1", "beta2", "eps", "step"}),
    "lars": (("v",), {"lr", "beta", "weight_decay", "trust_coefficient", "eps"}),
    "lamb": (("m", "v"), {"lr", "beta1", "beta2", "eps", "weight_decay", "step"}),
}


def needed(update):
    return {name for name, need in hyperparameters(update).items() if need}


def test_what_every_rule_remembers_and_needs():
    assert {name: (states(r), needed(r)) for name, r in rules.RULES.items()} == WANTED


def test_what_a_rule_takes_beside():
    beside = {name: hyperparameters(r).keys() - needed(r) for name, r in rules.RULES.items()}
    assert {name: names for name, names in beside.items() if names} == {
        "momentum": {"dampening", "step"},
        "adagrad": {"lr_decay", "step"},
        "lars": {"trust"},
        "lamb": {"trust"},
    }


@EVERY
def test_state_starts_at_zero_but_for_nadams_product(update):
    first = {"mu_product": 1.0} if update is rules.nadam else {}
    assert starts(update) == {name: first.get(name, 0.0) for name in states(update)}


@EVERY
def test_a_rule_runs_from_its_starts(update):
    settings = dict.fromkeys(needed(update) - {"step"}, 0.5)
    check_settings(update, settings)
    step = {"step": 1} if "step" in hyperparameters(update) else {}
    after = update(1.0, 0.25, *starts(update).values(), **settings, **step)
    assert len(after) == 1 + len(states(update))
    assert all(math.isfinite(value) for value in after)


@EVERY
def test_every_hyperparameter_has_a_range(update):
    assert hyperparameters(update).keys() - {"step"} <= RANGES.keys()


def test_every_range_is_of_a_hyperparameter():
    assert set(RANGES) == {n for r in rules.RULES.values() for n in hyperparameters(r)} - {"step"}


def test_which_shares_may_be_one():
    found = {end: {name for name in RANGES if RANGES[name].endswith(end)} for end in ("1]", "1)")}
    assert found == {
        "1]": {"alpha", "rho", "dampening", "trust"},
        "1)": {"beta", "beta1", "beta2"},
    }


@pytest.mark.parametrize("name", RANGES)
def test_both_ends_of_a_range_are_kept(name):
    update = next(r for r in rules.RULES.values() if name in hyperparameters(r))
    good = dict.fromkeys(needed(update) - {"step"}, 0.5)
    allowed = RANGES[name]
    assert allowed.startswith("[0, ")
    check_settings(update, {**good, name: 0.0})
    bad = [-1e-9, math.nan, math.inf]
    if allowed == "[0, 1]":
        check_settings(update, {**good, name: 1.0})
        bad.append(1.0 + 1e-9)
    elif allowed == "[0, 1)":
        check_settings(update, {**good, name: 1.0 - 1e-9})
        bad.append(1.0)
    else:
        check_settings(update, {**good, name: 1e9})
    for value in bad:
        for given in (
            value,
            np.array([0.5, value]),
            torch.tensor([[0.5], [value]], dtype=torch.float64),
        ):
            with pytest.raises(ValueError, match=rf"^{name} must be in "):
                check_settings(update, {**good, name: given})


@EVERY
def test_what_is_missing_is_named(update):
    good = dict.fromkeys(needed(update) - {"step"}, 0.5)
    for name in good:
        rest = {other: value for other, value in good.items() if other != name}
        with pytest.raises(TypeError, match=rf"{update.__name__}\(\) needs {name}, a number in "):
            check_settings(update, rest)


@EVERY
def test_the_steps_number_is_no_setting(update):
    good = dict.fromkeys(needed(update) - {"step"}, 0.5)
    with pytest.raises(TypeError, match=r"no argument 'step'"):
        check_settings(update, {**good, "step": 1})


def test_a_misspelt_setting_is_named_with_the_nearest():
    with pytest.raises(TypeError, match=r"nadam\(\) has no argument 'momentun_decay': did you"):
        check_settings(rules.nadam, {"momentun_decay": 0.1})


def test_a_hyperparameter_of_the_users_own_is_any_finite_number():
    def own(theta, g, *, lr, pull):
        return (theta - lr * g + pull,)

    check_settings(own, {"lr": 0.1, "pull": -7.0})
    with pytest.raises(ValueError, match=r"pull must be in \(-inf, inf\), got nan"):
        check_settings(own, {"lr": 0.1, "pull": math.nan})


def test_rules_are_found_by_name():
    assert all(rule(name) is update for name, update in rules.RULES.items())


def test_unknown_rule_is_named_with_the_nearest():
    with pytest.raises(ValueError, match=r"no rule 'nestrov': did you mean 'nesterov'\?"):
        rule("nestrov")
