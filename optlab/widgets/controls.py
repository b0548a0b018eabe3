"""What all views have in common: a question, its sliders and the files that draw."""

import html
from collections.abc import Sequence
from pathlib import Path

import ipywidgets

from optlab.errors import check_range


class Question(ipywidgets.VBox):  # type: ignore[misc]
    """A question, a row of controls below it, and the view that they move.

    Args:
        question: what the reader is asked, as plain text.
        controls: sliders and buttons.
        view: the picture.
    """

    def __init__(
        self, question: str, controls: Sequence[ipywidgets.Widget], view: ipywidgets.Widget
    ) -> None:
        self.question = question
        title = ipywidgets.HTML(f"<p>{html.escape(question)}</p>")
        title.add_class("optlab-question")
        row = ipywidgets.Box(list(controls))
        row.add_class("optlab-controls")
        super().__init__([title, row, view])
        self.add_class("optlab-play")


def beside(name: str) -> str:
    """A file of this folder, without its comments: the page carries it once for every view."""
    lines = Path(__file__).with_name(name).read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if line.strip() and not line.strip().startswith("//"))


def positions(low: float, high: float, start: float, *, wanted: int) -> int:
    """How many steps from end to end, near the wanted number, such that the start is one of them.

    A slider rounds to its steps whatever it is given.
    """
    share = (start - low) / (high - low)

    def misses(number: int) -> tuple[float, int]:
        return round(abs(share * number - round(share * number)), 2), abs(number - wanted)

    return min(range(max(1, wanted - 50), wanted + 51), key=misses)


def ends(name: str, given: tuple[float, float, float], allowed: str) -> list[float]:
    """Low end, high end and start of a slider, checked."""
    if not isinstance(given, (list, tuple)) or len(given) != 3:
        raise TypeError(f"{name} must be (low, high, start), got {given!r}")
    low, high, start = given
    for end in given:
        check_range(name, end, allowed)
    if not low < high or not low <= start <= high:
        raise ValueError(
            f"{name} must be (low, high, start) with low <= start <= high, got {given!r}"
        )
    return [float(low), float(high), float(start)]
