"""Sliders with a view: what ridge and early stopping leave of each mode, drawn on every move.

The equations are those of :mod:`optlab.modes`, as in the other views.
"""

import math
from typing import Any

import anywidget
import ipywidgets
import traitlets

from optlab.errors import check_range, strict_keywords
from optlab.modes import ridge_share, stopping_share
from optlab.widgets.controls import Question, beside, ends, positions
from optlab.widgets.javascript import translate

NAMES = {"decay": "decay λ", "steps": "steps t"}
SHARES = (
    f"const SHARES = (() => {{\n{translate(ridge_share, stopping_share)}\n"
    "return {ridge_share, stopping_share};\n})();\n"
)


class ShrinkingView(anywidget.AnyWidget):
    """The picture: both shares against the curvature.

    Attributes:
        decay: ridge's coefficient.
        steps: of gradient descent.
        settings: what stays: goal and learning rate.
    """

    _esm = "\n".join([SHARES, *map(beside, ("drawing.js", "shrinking.js"))])
    _css = beside("view.css")
    decay = traitlets.Float().tag(sync=True)
    steps = traitlets.Float().tag(sync=True)
    settings = traitlets.Dict().tag(sync=True)


class Shrinking(Question):
    """A question, its sliders and its view; made by :func:`shrink`.

    Attributes:
        question: what the reader is asked.
        sliders: by name, ``decay`` and ``steps``.
        view: the picture.
    """

    def __init__(self, question: str, settings: dict[str, Any], **ranges: list[float]) -> None:
        at = {name: start for name, (_, _, start) in ranges.items()}
        self.view = ShrinkingView(settings=settings, **at)
        self.sliders = {}
        for name, (low, high, start) in ranges.items():
            low, high = math.log10(low), math.log10(high)
            slider = ipywidgets.FloatLogSlider(
                value=start,
                min=low,
                max=high,
                step=(high - low) / positions(low, high, math.log10(start), wanted=300),
                description=NAMES[name],
                readout_format=".3g" if name == "decay" else ".0f",
                style={"description_width": "5.5em"},
            )
            slider.add_class(f"optlab-{name}")
            ipywidgets.jslink((slider, "value"), (self.view, name))
            self.sliders[name] = slider
        super().__init__(question, list(self.sliders.values()), self.view)

    def __repr__(self) -> str:
        return f"{self.question} [sliders: {' and '.join(self.sliders)}]"


@strict_keywords
def shrink(
    question: str,
    *,
    goal: float = 0.11,
    lr: float = 0.01,
    decay: tuple[float, float, float] = (0.001, 100.0, 10.0),
    steps: tuple[float, float, float] = (10.0, 10000.0, 100.0),
) -> Shrinking:
    """Ask for the decay with which ridge comes near to early stopping.

    Args:
        question: one or two sentences, as plain text.
        goal: how far apart the shares of a mode may be, within (0, 1).
        lr: learning rate of gradient descent, in (0, 0.01], so that no curvature shown is beyond
            its inverse.
        decay: low end, high end and start of the decay's slider, which is logarithmic.
        steps: the same of the number of steps.

    Returns:
        A widget: show it as the last line of a cell.

    Raises:
        ValueError: a number out of its range.
        TypeError: an argument of the wrong kind.

    >>> shrink("Which decay?")
    Which decay? [sliders: decay and steps]
    """
    if not isinstance(question, str) or not question.strip():
        raise TypeError(f"question must be a text that is not empty, got {question!r}")
    check_range("goal", goal, "(0, 1)")
    check_range("lr", lr, "(0, 0.01]")
    settings = {"goal": float(goal), "lr": float(lr)}
    ranges = {"decay": ends("decay", decay, "(0, inf)"), "steps": ends("steps", steps, "[1, inf)")}
    return Shrinking(question, settings, **ranges)
