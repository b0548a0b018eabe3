"""The view of ridge beside early stopping: its numbers are Python's, and its sliders are real."""

import math

import ipywidgets
import numpy as np
import pytest

from optlab import rules
from optlab.modes import ridge_share, stopping_share
from optlab.widgets import shrink
from optlab.widgets.shrinking import ShrinkingView
from tests.optlab.node import module


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory):
    """What a JavaScript expression gives in the module that the page loads as ``m``."""
    return module(ShrinkingView._esm, tmp_path_factory.mktemp("view"))


def test_shares_are_those_that_training_leaves():
    w, lr, target = 0.0, 0.1, 5.0
    for t in range(1, 30):
        (w,) = rules.sgd(w, 3.0 * (w - target), lr=lr)
        assert w / target == pytest.approx(stopping_share(3.0, lr, t), rel=1e-12)
    for _ in range(500):
        (w,) = rules.sgd(w, rules.l2_decay(w, 3.0 * (w - target), 2.0), lr=lr)
    assert w / target == pytest.approx(ridge_share(3.0, 2.0), rel=1e-12)


@pytest.mark.parametrize(("lr", "decay", "steps"), [(0.01, 1.0, 100), (0.002, 0.05, 3000)])
def test_the_gap_is_pythons(evaluate, lr, decay, steps):
    lam = np.logspace(-3, 2, 401)
    gaps = np.abs(ridge_share(lam, decay) - stopping_share(lam, lr, steps))
    got = evaluate(f"m.compare({lr}, {decay}, {steps})")
    assert got["gap"] == pytest.approx(gaps.max(), rel=1e-9)
    assert got["at"]["lam"] == pytest.approx(lam[gaps.argmax()], rel=1e-9)


def test_the_customary_decay_is_a_fifth_away_and_half_of_it_a_tenth(evaluate):
    assert evaluate("m.compare(1e-4, 1, 10000).gap") == pytest.approx(0.2036, abs=1e-3)
    assert evaluate("m.compare(1e-4, 0.532, 10000).gap") == pytest.approx(0.102, abs=1e-3)


def test_sliders_are_real_and_tied_to_the_view():
    box = shrink("Which?", decay=(0.01, 10.0, 2.0), steps=(10, 1000, 30))
    for name, start in (("decay", 2.0), ("steps", 30.0)):
        slider = box.sliders[name]
        assert isinstance(slider, ipywidgets.FloatLogSlider)
        assert slider.value == getattr(box.view, name) == start
        place = (math.log10(start) - slider.min) / slider.step
        assert abs(place - round(place)) < 0.02
    assert repr(box) == "Which? [sliders: decay and steps]"
    assert len(ShrinkingView._esm.encode()) < 15_000


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"question": ""}, TypeError, "question must be a text"),
        ({"goal": 1}, ValueError, r"goal must be in \(0, 1\), got 1"),
        ({"lr": 0.02}, ValueError, r"lr must be in \(0, 0.01\], got 0.02"),
        ({"decay": (0.0, 1.0, 0.5)}, ValueError, r"decay must be in \(0, inf\), got 0.0"),
        ({"decay": 3}, TypeError, r"decay must be \(low, high, start\), got 3"),
        ({"steps": (0.5, 9, 3)}, ValueError, r"steps must be in \[1, inf\), got 0.5"),
        ({"steps": (1, 9, 10)}, ValueError, "low <= start <= high"),
        ({"step": (1, 9, 3)}, TypeError, r"shrink\(\) has no argument 'step'"),
    ],
)
def test_bad_input_is_named(change, error, message):
    with pytest.raises(error, match=message):
        shrink(**({"question": "Which?"} | change))
