"""A slider over pictures that were drawn beforehand, for methods whose steps no browser computes.

There is one set of pictures for each position of the slider, from :mod:`optlab.plots`: what is seen
is what Python measured.
"""

from collections.abc import Mapping
from itertools import starmap
from typing import NamedTuple

import anywidget
import ipywidgets
import traitlets
from matplotlib.axes import Axes

from optlab import plots
from optlab.errors import strict_keywords
from optlab.widgets.controls import Question, beside


class Frame(NamedTuple):
    """What is seen at one position.

    Args:
        panels: from :func:`optlab.plots.panel`.
        alt: what each panel shows.
        says: a sentence on what happened.
        reached: whether the goal is met.
    """

    panels: tuple[Axes, ...]
    alt: tuple[str, ...]
    says: str
    reached: bool


class Pictures(anywidget.AnyWidget):
    """The view: one frame out of several.

    Attributes:
        at: which, counted from 0.
        label: what the slider sets.
        frames: figure, sentence, whether the goal is met, and the slider's position in words.
    """

    _esm = "\n".join([beside("drawing.js"), beside("frames.js")])
    _css = "\n".join([beside("view.css"), beside("frames.css"), plots._CSS])
    at = traitlets.Int().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    frames: traitlets.List[dict[str, object]] = traitlets.List().tag(sync=True)


class Album(Question):
    """A question, its slider and its view; made by :func:`browse`.

    Attributes:
        question: what the reader is asked.
        slider: with the positions in words.
        view: the pictures.
    """

    def __init__(self, question: str, label: str, frames: Mapping[str, Frame], at: int) -> None:
        shown = [
            {
                "figure": _figure(frame),
                "says": frame.says,
                "reached": frame.reached,
                "at": position,
            }
            for position, frame in frames.items()
        ]
        self.view = Pictures(frames=shown, label=label, at=at)
        self.slider = ipywidgets.SelectionSlider(
            options=[*frames],
            index=at,
            description=label,
            style={"description_width": "8.7em"},
        )
        self.slider.add_class("optlab-choice")
        ipywidgets.jslink((self.slider, "index"), (self.view, "at"))
        super().__init__(question, [self.slider], self.view)

    def __repr__(self) -> str:
        return f"{self.question} [slider: {self.slider.description}]"


def _figure(frame: Frame) -> str:
    """The panels as :func:`optlab.plots.show` has them, its style apart."""
    if len(frame.alt) != len(frame.panels) or not all(text.strip() for text in frame.alt):
        raise ValueError(f"alt must hold one text for each panel, got {frame.alt!r}")
    pictures = "".join(starmap(plots._svg, zip(frame.panels, frame.alt, strict=True)))
    return f'<div class="optlab-figure">{pictures}</div>'


@strict_keywords
def browse(question: str, label: str, frames: Mapping[str, Frame], start: str) -> Album:
    """Ask a question whose answer is found with a slider over pictures.

    Args:
        question: one or two sentences, as plain text.
        label: what the slider sets, in Unicode.
        frames: a frame for each position in words, in order; two at least.
        start: the position at first.

    Returns:
        A widget: show it as the last line of a cell.

    Raises:
        ValueError: an empty text, fewer than two frames, or a start that is none of them.

    >>> axes = plots.panel("A line")
    >>> frames = {name: Frame((axes,), ("A line.",), "Nothing.", False) for name in "ab"}
    >>> browse("Which?", "letter", frames, start="a")
    Which? [slider: letter]
    """
    for name, text in (("question", question), ("label", label)):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{name} must be a text that is not empty, got {text!r}")
    if len(frames) < 2:
        raise ValueError(f"frames must be two at least, got {len(frames)}")
    if start not in frames:
        raise ValueError(f"start must be one of {', '.join(frames)}, got {start!r}")
    return Album(question, label, frames, [*frames].index(start))
