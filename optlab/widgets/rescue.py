"""A slider for the loss scale: what of a network's gradients a number format keeps at each.

The shares are counted in Python, by :meth:`optlab.precision.formats.Format.census`, for every
position of the slider; the view draws the ones that belong to where it stands.
"""

import math
from typing import Any

import anywidget
import ipywidgets
import traitlets
from torch import Tensor

from optlab.errors import check_range
from optlab.precision.formats import BF16, E5M2, FP16, Format, histogram
from optlab.widgets.controls import Question, beside

CHOICES = (FP16, BF16, E5M2)
LABELS = {"fp16": "float16", "bf16": "bfloat16", "fp8 e5m2": "float8 (e5m2)"}
HIGHEST = 40  # the largest scale is 2 to this


class Histogram(anywidget.AnyWidget):
    """The picture: values by their exponents, and where the format ends.

    Attributes:
        power: the scale is 2 to this.
        chosen: which of the formats, counted from 0.
        settings: what stays: goal, histogram, formats with their shares at every power.
    """

    _esm = "\n".join([beside("drawing.js"), beside("rescue.js")])
    _css = beside("view.css")
    power = traitlets.Int().tag(sync=True)
    chosen = traitlets.Int().tag(sync=True)
    settings = traitlets.Dict().tag(sync=True)


class Rescue(Question):
    """A question, its slider and its view; made by :func:`rescue`.

    Attributes:
        question: what the reader is asked.
        slider: the power of two that the loss is multiplied by.
        format: the buttons that choose the format.
        view: the picture.
    """

    def __init__(self, question: str, settings: dict[str, Any]) -> None:
        self.view = Histogram(settings=settings, power=0, chosen=0)
        self.slider = ipywidgets.IntSlider(
            value=0,
            min=0,
            max=HIGHEST,
            description="scale 2 to the",
            style={"description_width": "8.7em"},
        )
        self.slider.add_class("optlab-lr")
        labels = [LABELS[kind["name"]] for kind in settings["formats"]]
        self.format = ipywidgets.ToggleButtons(options=labels, index=0)
        self.format.add_class("optlab-rule")
        ipywidgets.jslink((self.slider, "value"), (self.view, "power"))
        ipywidgets.jslink((self.format, "index"), (self.view, "chosen"))
        super().__init__(question, [self.format, self.slider], self.view)

    def __repr__(self) -> str:
        return f"{self.question} [slider: scale]"


def rescue(question: str, values: Tensor, *, goal: float = 0.01) -> Rescue:
    """Ask for the scale at which a format keeps these values.

    Args:
        question: one or two sentences, as plain text.
        values: gradients, not all of them zero.
        goal: the share of values other than zero that may be lost to zero, with none too large;
            within (0, 1).

    Raises:
        ValueError: no value is different from zero, or the goal is out of its range.
        TypeError: the question is not a text.

    >>> import torch
    >>> rescue("Which scale keeps them?", torch.tensor([1e-9, 1e-3]))
    Which scale keeps them? [slider: scale]
    """
    if not isinstance(question, str) or not question.strip():
        raise TypeError(f"question must be a text that is not empty, got {question!r}")
    check_range("goal", goal, "(0, 1)")
    nonzero = values.detach().double().flatten()
    nonzero = nonzero[nonzero != 0]
    if not nonzero.numel():
        raise ValueError("values must have one other than zero at least, got none")
    counts = histogram(nonzero)
    settings = {
        "goal": goal,
        "bins": [[k, counts[k] / nonzero.numel()] for k in sorted(counts)],
        "formats": [_shares(kind, nonzero) for kind in CHOICES],
    }
    return Rescue(question, settings)


def _shares(kind: Format, values: Tensor) -> dict[str, Any]:
    """A format's ends as powers of two, and what it does to the values at each scale."""
    found = [kind.census(values * 2.0**power) for power in range(HIGHEST + 1)]
    return {
        "name": kind.name,
        "smallest": math.log2(kind.smallest),
        "normal": math.log2(kind.normal),
        "largest": math.log2(kind.largest),
        "lost": [share["underflow"] for share in found],
        "subnormal": [share["subnormal"] for share in found],
        "overflow": [share["overflow"] for share in found],
    }
