"""Every rule against an oracle of its own, on floats, NumPy arrays and torch tensors."""

import inspect
import random

import numpy as np
import pytest
import torch

from optlab import rules, signatures

SETTINGS = {
    "sgd": {"lr": 0.1},
    "momentum": {"lr": 0.1, "beta": 0.9, "dampening": 0.3, "step": 3},
    "nesterov": {"lr": 0.1, "beta": 0.9},
}
RULES = list(rules.RULES.values())
ids = list(rules.RULES)


def gradients(rng, steps):
    """Gradients over eleven orders of magnitude, of both signs."""
    return [rng.uniform(-1, 1) * 10.0 ** rng.randint(-9, 2) for _ in range(steps)]


def heavy_ball_by_history(gs, *, lr, beta, dampening):
    """Oracle: the displacement from the weights of all past gradients, no recursion."""
    theta = 0.0
    for t in range(1, len(gs) + 1):
        weights = [beta ** (t - 1)] + [(1 - dampening) * beta ** (t - 1 - k) for k in range(1, t)]
        theta -= lr * sum(w * g for w, g in zip(weights, gs[:t], strict=True))
    return theta


def test_every_rule_has_a_setting_here():
    assert SETTINGS.keys() == rules.RULES.keys()


def test_sgd_is_the_sum_of_its_steps():
    gs, theta = gradients(random.Random(0), 50), 0.0
    for g in gs:
        (theta,) = rules.sgd(theta, g, lr=0.1)
    assert theta == pytest.approx(-0.1 * sum(gs), rel=1e-12)


@pytest.mark.parametrize("dampening", [0.0, 0.4, 1.0])
def test_momentum_is_a_weighted_history(dampening):
    gs = gradients(random.Random(1), 40)
    theta = v = 0.0
    for step, g in enumerate(gs, 1):
        theta, v = rules.momentum(theta, g, v, lr=0.1, beta=0.8, dampening=dampening, step=step)
    expected = heavy_ball_by_history(gs, lr=0.1, beta=0.8, dampening=dampening)
    assert theta == pytest.approx(expected, rel=1e-12)


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


@pytest.mark.parametrize("rule", RULES, ids=ids)
def test_floats_arrays_and_tensors_agree(rule):
    rng = random.Random(2)
    count = 2 + len(signatures.states(rule))
    columns = [gradients(rng, 20) for _ in range(count)]
    settings = SETTINGS[rule.__name__]
    floats = [rule(*values, **settings) for values in zip(*columns, strict=True)]
    arrays = rule(*map(np.array, columns), **settings)
    tensors = rule(*(torch.tensor(c, dtype=torch.float64) for c in columns), **settings)
    for position, (array, tensor) in enumerate(zip(arrays, tensors, strict=True)):
        expected = [result[position] for result in floats]
        assert array.tolist() == expected
        assert tensor.tolist() == expected


@pytest.mark.parametrize("rule", RULES, ids=ids)
def test_a_rule_changes_nothing_in_place(rule):
    inputs = [torch.randn(5) for _ in range(2 + len(signatures.states(rule)))]
    copies = [tensor.clone() for tensor in inputs]
    rule(*inputs, **SETTINGS[rule.__name__])
    assert all(torch.equal(a, b) for a, b in zip(inputs, copies, strict=True))


@pytest.mark.parametrize("rule", RULES, ids=ids)
def test_a_rule_is_short_and_says_where_it_is_from(rule):
    lines = inspect.getsource(rule).split('"""')[2].strip().splitlines()
    assert len(lines) <= 10
    assert "(19" in rule.__doc__ or "(20" in rule.__doc__


def test_unknown_rule_is_named_with_the_nearest():
    with pytest.raises(ValueError, match=r"no rule 'nestrov': did you mean 'nesterov'\?"):
        signatures.rule("nestrov")
