"""Modes: roots against NumPy's eigenvalues and against long runs."""

import math

import numpy as np
import pytest

from optlab import modes, rules, signatures

GRID = [(lr, beta) for lr in np.linspace(0.05, 3.9, 14) for beta in np.linspace(0, 0.95, 8)]
EXPLICIT = {
    "sgd": lambda x, b: np.array([[1 - x, 0], [1, 0]]),
    "momentum": lambda x, b: np.array([[1 - x, -b], [x, b]]),
    "nesterov": lambda x, b: np.array([[1 - x - b * x, -b * b], [x, b]]),
}


def settings(name, lr, beta):
    return {"lr": lr} if name == "sgd" else {"lr": lr, "beta": beta}


@pytest.mark.parametrize("name", EXPLICIT)
def test_radius_is_that_of_the_chapters_matrix(name):
    for x, beta in GRID:
        expected = np.abs(np.linalg.eigvals(EXPLICIT[name](x, beta))).max()
        rate = modes.rate(signatures.rule(name), [1.0], **settings(name, x, beta))
        assert rate == pytest.approx(expected, abs=2e-7)  # double roots lose half the digits


def test_regimes_are_those_of_the_theorem():
    for x, beta in GRID:
        trace, det = modes.invariants(rules.momentum, lam=1.0, lr=x, beta=beta)
        if x >= 2 * (1 + beta):
            expected = "diverges"
        elif (1 - math.sqrt(beta)) ** 2 < x < (1 + math.sqrt(beta)) ** 2:
            expected = "ripples"
        else:
            expected = "monotone" if x <= 1 else "alternates"
        assert modes.regime(trace, det) == expected, (x, beta)


@pytest.mark.parametrize("kappa", [2.0, 100.0, 1e5])
def test_polyaks_pair_is_best(kappa):
    lr, beta = modes.polyak(1.0, kappa)
    between = np.geomspace(1.0, kappa, 50)
    best = modes.rate(rules.momentum, between, lr=lr, beta=beta)
    assert best == pytest.approx((math.sqrt(kappa) - 1) / (math.sqrt(kappa) + 1), rel=1e-6)
    rng = np.random.default_rng(0)
    for _ in range(500):
        other = {"lr": lr * rng.uniform(0.3, 2), "beta": rng.uniform(0, 1)}
        assert modes.rate(rules.momentum, between, **other) >= best - 1e-9


def test_polyak_refuses_curvatures_out_of_order():
    with pytest.raises(ValueError, match=r"mu must be in \(0, 1.0\], got 2.0"):
        modes.polyak(2.0, 1.0)


def sign(theta, g, *, lr):
    return (theta - lr * ((g > 0) - (g < 0)),)


def size(theta, g, *, lr):
    return (theta - lr * abs(g),)


def shifted(theta, g, *, lr):
    return (theta - lr * (g + 1),)


def largest(theta, g, u, *, lr, beta):
    u = rules.maximum(beta * u, g)
    return theta - lr * u, u


@pytest.mark.parametrize("rule", [rules.adagrad, rules.rmsprop, sign, size, shifted, largest])
@pytest.mark.parametrize("lam", [0.0, 1e-9, 1.0, 1e200])
def test_a_rule_that_is_not_linear_is_refused(rule, lam):
    given = {"lr": 1e-3, "beta": 0.5, "alpha": 0.9, "eps": 0.0}
    given = {name: given[name] for name, need in signatures.hyperparameters(rule).items() if need}
    with pytest.raises(ValueError, match=rf"rule must be linear .*, got {rule.__name__}\(\)"):
        modes.invariants(rule, lam=lam, **given)


@pytest.mark.parametrize("name", [name for name in rules.RULES if name not in EXPLICIT])
def test_only_the_momentum_family_has_modes(name):
    rule = rules.RULES[name]
    given = {n for n, need in signatures.hyperparameters(rule).items() if need} - {"step"}
    with pytest.raises(ValueError, match=rf"rule must (be linear|have one).*{name}\(\)"):
        modes.rate(rule, [1.0], **dict.fromkeys(given, 0.5))


@pytest.mark.parametrize("name", EXPLICIT)
def test_rounding_does_not_make_a_rule_nonlinear(name):
    rng = np.random.default_rng(1)
    for _ in range(500):
        lr, beta = 10 ** rng.uniform(-12, 12), rng.uniform(0, 1)
        given = settings(name, lr, beta)
        assert modes.rate(rules.RULES[name], [1.0], **given) >= 0
    beyond = settings(name, 1e308, 0.9)
    assert modes.regime(*modes.invariants(rules.RULES[name], lam=100.0, **beyond)) == "diverges"
