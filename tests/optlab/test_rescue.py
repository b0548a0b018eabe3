"""The loss scale's slider: shares are those of the formats, and the goal is judged by them."""

import json

import pytest
import torch

from optlab.precision import FP16
from optlab.widgets.rescue import HIGHEST, Histogram, rescue
from tests.optlab.node import module

VALUES = torch.tensor([0.0, 2.0**-30, 2.0**-20, 1.0, -3.0])


@pytest.fixture
def evaluate(tmp_path):
    return module(Histogram._esm, tmp_path)


def test_shares_are_of_the_values_other_than_zero():
    settings = rescue("Which?", VALUES).view.settings
    half = settings["formats"][0]
    assert half["name"] == "fp16" and half["lost"][0] == 0.25 and half["lost"][10] == 0.0
    assert half["subnormal"][0] == 0.25  # 2^-20
    assert half["overflow"][15] == 0.25 and half["overflow"][14] == 0.0  # 3 * 2^15 is above 65504
    assert half["overflow"][16] == 0.5
    assert settings["bins"] == [[-30, 0.25], [-20, 0.25], [0, 0.25], [1, 0.25]]
    torch_says = (VALUES[VALUES != 0] * 2.0**15).half().isinf().double().mean()
    assert half["overflow"][15] == float(torch_says)


def test_the_view_judges_by_them(evaluate):
    settings = json.dumps(rescue("Which?", VALUES, goal=0.1).view.settings)
    reached = evaluate(
        f"[0, 4, 5, 6, 14, 15].map((power) => m.judge({settings}, 0, power).reached)"
    )
    assert reached == [False, False, False, True, True, False]
    kind = {"smallest": -24, "normal": FP16.lowest, "largest": 15.9993}
    fates = evaluate(f"[-26, -25, -24, -15, -14, 15, 16].map((k) => m.fate({json.dumps(kind)}, k))")
    assert fates == ["lost", "subnormal", "subnormal", "subnormal", "kept", "kept", "beyond"]


def test_the_slider_moves_the_view_without_a_kernel():
    box = rescue("Which?", VALUES)
    assert (box.slider.min, box.slider.max, box.slider.step) == (0, HIGHEST, 1)
    assert all(len(kind["lost"]) == HIGHEST + 1 for kind in box.view.settings["formats"])
    assert list(box.format.options) == ["float16", "bfloat16", "float8 (e5m2)"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("", VALUES), TypeError, "question must be a text"),
        (("Which?", torch.zeros(3)), ValueError, "one other than zero"),
    ],
)
def test_bad_input_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        rescue(*arguments)


def test_the_goal_has_a_range():
    with pytest.raises(ValueError, match=r"goal must be in \(0, 1\), got 1"):
        rescue("Which?", VALUES, goal=1.0)
