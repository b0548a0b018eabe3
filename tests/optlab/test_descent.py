"""Descent: paths against torch's optimizer and against closed forms; bad input."""

import numpy as np
import pytest
import torch

from optlab.descent import descend
from optlab.landscapes import LANDSCAPES, bend, ellipse

CASES = {
    "sgd": ({"lr": 0.001}, {"lr": 0.001}),
    "momentum": (
        {"lr": 0.0005, "beta": 0.9, "dampening": 0.2},
        {"lr": 0.0005, "momentum": 0.9, "dampening": 0.2},
    ),
    "nesterov": (
        {"lr": 0.0005, "beta": 0.9},
        {"lr": 0.0005, "momentum": 0.9, "nesterov": True},
    ),
}


@pytest.mark.parametrize("scene", LANDSCAPES)
@pytest.mark.parametrize("method", CASES)
def test_path_is_that_of_torch(method, scene):
    ours, theirs = CASES[method]
    path = descend(method, scene, steps=100, **ours)
    problem = LANDSCAPES[scene]
    theta = torch.tensor(problem.start, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([theta], **theirs)
    for point in path:
        assert list(point) == pytest.approx(theta.tolist(), rel=1e-9, abs=1e-12)
        optimizer.zero_grad()
        problem.value(*theta).backward()
        optimizer.step()


def test_gradient_descent_on_the_ellipse_in_closed_form():
    path = descend("sgd", "ellipse", steps=50, lr=0.015)
    for t, (x, y) in enumerate(path):
        assert x == pytest.approx(10 * (1 - 0.015) ** t)
        assert y == pytest.approx((1 - 1.5) ** t)


def test_lessards_cycle():
    path = descend("momentum", bend, steps=300, lr=1 / 9, beta=4 / 9)
    cycle = sorted(theta for (theta,) in path[-3:])
    assert cycle == pytest.approx([-2208 / 1225, 792 / 1225, 2592 / 1225])


def test_arrays_run_many_starts_at_once():
    xs = np.array([1.0, -3.0])
    many = descend("nesterov", "ellipse", steps=20, start=(xs, xs / 10), lr=0.01, beta=0.5)
    for i, x in enumerate(xs):
        one = descend("nesterov", "ellipse", steps=20, start=(x, x / 10), lr=0.01, beta=0.5)
        assert [(p[0][i], p[1][i]) for p in many[1:]] == one[1:]


def test_noise_is_added_to_every_gradient():
    path = descend("sgd", "ellipse", steps=3, lr=0.1, start=(0.0, 0.0), noise=lambda: (1.0, 0.0))
    assert [x for x, _ in path] == pytest.approx([0.0, -0.1, -0.19, -0.271])


def test_no_steps_is_the_start_alone():
    assert descend("sgd", "ellipse", steps=0, lr=0.1) == [ellipse.start]


@pytest.mark.parametrize(
    ("error", "message", "method", "scene", "settings"),
    [
        (ValueError, r"no rule 'momentun': did you mean 'momentum'", "momentun", "ellipse", {}),
        (ValueError, r"no landscape 'elipse': did you mean 'ellipse'", "sgd", "elipse", {}),
        (
            TypeError,
            r"no argument 'betta': did you mean 'beta'",
            "momentum",
            "ellipse",
            {"betta": 1},
        ),
        (TypeError, r"momentum\(\) needs beta, a number in \[0, 1\)", "momentum", "ellipse", {}),
        (ValueError, r"beta must be in \[0, 1\), got 1", "momentum", "ellipse", {"beta": 1}),
        (ValueError, r"lr must be in \[0, inf\), got nan", "sgd", "ellipse", {"lr": float("nan")}),
        (ValueError, r"lr must be in \[0, inf\), got -0.1", "sgd", "ellipse", {"lr": -0.1}),
        (ValueError, r"start must have 2 coordinates", "sgd", "ellipse", {"start": (1.0,)}),
        (
            ValueError,
            r"steps must be a whole number in \[0, inf\), got -1",
            "sgd",
            "ellipse",
            {"steps": -1},
        ),
    ],
)
def test_bad_input_is_named(error, message, method, scene, settings):
    with pytest.raises(error, match=message):
        descend(method, scene, **{"steps": 5, "lr": 0.1, **settings})
