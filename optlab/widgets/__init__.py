"""Sliders with a view: a rule on a landscape, drawn in the reader's browser on every move.

The equations that move the picture are those of :mod:`optlab.rules`, :mod:`optlab.landscapes` and
:mod:`optlab.modes`; :mod:`optlab.widgets.equations` gives them in the browser's language.
So the same cell works in JupyterLab, on Colab, and on a page with no kernel and no network.
"""

import math
from collections.abc import Sequence
from typing import Any

import anywidget
import ipywidgets
import traitlets

from optlab.errors import check_range, nearest, strict_keywords
from optlab.landscapes import LANDSCAPES, landscape
from optlab.rules import RULES
from optlab.signatures import rule as find_rule
from optlab.widgets.controls import Question, beside, ends, positions
from optlab.widgets.equations import has_momentum, script
from optlab.widgets.shrinking import shrink

__all__ = ["Playground", "View", "play", "shrink"]

LABELS = {
    "sgd": "gradient descent",
    "momentum": "heavy ball",
    "nesterov": "Nesterov",
    "adagrad": "AdaGrad",
    "adam": "Adam",
}


class View(anywidget.AnyWidget):
    """The pictures: path, error against step, and the plane of learning rate and momentum.

    Attributes:
        lr: learning rate.
        beta: momentum.
        chosen: which of the settings' rules, counted from 0.
        settings: what stays: question, landscape, goal, budget, rules, ranges of the sliders.
    """

    _esm = "\n".join([script(), *map(beside, ("drawing.js", "pictures.js", "view.js"))])
    _css = beside("view.css")
    lr = traitlets.Float().tag(sync=True)
    beta = traitlets.Float().tag(sync=True)
    chosen = traitlets.Int().tag(sync=True)
    settings = traitlets.Dict().tag(sync=True)


def _slider(name: str, settings: dict[str, Any], start: float) -> ipywidgets.Widget:
    low, high = settings[name]
    kind, text, shown = ipywidgets.FloatSlider, "momentum β", ".3f"
    if name == "lr":
        low, high = math.log10(low), math.log10(high)
        kind, text, shown = ipywidgets.FloatLogSlider, "learning rate η", ".3g"
    slider = kind(
        value=start,
        min=low,
        max=high,
        step=(high - low) / settings["positions"][name],
        description=text,
        readout_format=shown,
        style={"description_width": "8.7em"},
    )
    slider.add_class(f"optlab-{name}")
    return slider


class Playground(Question):
    """A question, its sliders and its view; made by :func:`play`.

    Attributes:
        question: what the reader is asked.
        sliders: by name: ``lr``, and ``beta`` where a rule has momentum.
        rule: the buttons that choose the rule; None where there is one rule.
        view: the pictures.
    """

    def __init__(self, question: str, settings: dict[str, Any], chosen: int, **at: float) -> None:
        self.view = View(settings=settings, chosen=chosen, **at)
        self.sliders = {"lr": _slider("lr", settings, at["lr"])}
        if any(momentum for _, _, momentum in settings["rules"]):
            self.sliders["beta"] = _slider("beta", settings, at["beta"])
        self.rule = None
        controls: list[ipywidgets.Widget] = list(self.sliders.values())
        if len(settings["rules"]) > 1:
            labels = [label for _, label, _ in settings["rules"]]
            self.rule = ipywidgets.ToggleButtons(options=labels, index=chosen)
            self.rule.add_class("optlab-rule")
            ipywidgets.jslink((self.rule, "index"), (self.view, "chosen"))
            controls.insert(0, self.rule)
        for name, slider in self.sliders.items():
            ipywidgets.jslink((slider, "value"), (self.view, name))
        super().__init__(question, controls, self.view)

    def __repr__(self) -> str:
        names = " and ".join(self.sliders)
        return f"{self.question} [sliders: {names}]"


@strict_keywords
def play(
    question: str,
    *,
    scene: str = "ellipse",
    goal: float = 1e-6,
    budget: int = 100,
    rules: Sequence[str] = ("sgd", "momentum", "nesterov"),
    rule: str | None = None,
    lr: tuple[float, float, float] = (0.001, 0.1, 0.01),
    beta: tuple[float, float, float] = (0.0, 0.98, 0.0),
    kicks: Sequence[Sequence[float]] = (),
) -> Playground:
    """Ask a question whose answer is found with sliders.

    Args:
        question: one or two sentences, as plain text.
        scene: the landscape's name.
        goal: what may be left, as a share of the start: of the distance to the minimum on a
            quadratic, of the loss elsewhere.  Within (0, 1).
        budget: in how many steps, 1 to 1000.
        rules: names of the rules to choose among.
        rule: the one that is chosen at first; by default the first.
        lr: low end, high end and start of the learning rate's slider, which is logarithmic.
        beta: the same of momentum's slider, within [0, 1); unused by rules without momentum.
        kicks: what noise adds to the gradient, a row of coordinates for each step; after the last
            row, or without any, the gradient is exact.

    Returns:
        A widget: show it as the last line of a cell.

    Raises:
        ValueError: a name that does not exist, a rule without a view, a number out of its range.
        TypeError: an argument of the wrong kind.

    >>> play("Can you reach 1e-6 in 100 steps?", rules=["momentum"], lr=(0.001, 0.1, 0.01))
    Can you reach 1e-6 in 100 steps? [sliders: lr and beta]
    """
    if not isinstance(question, str) or not question.strip():
        raise TypeError(f"question must be a text that is not empty, got {question!r}")
    if not isinstance(scene, str):
        raise TypeError(
            f"scene must be a landscape's name, got {scene!r}: {nearest('', LANDSCAPES)}"
        )
    landscape(scene)
    check_range("goal", goal, "(0, 1)")
    check_range("budget", budget, "[1, 1000]")
    if budget != int(budget):
        raise TypeError(f"budget must be a whole number in [1, 1000], got {budget!r}")
    if not isinstance(rules, (list, tuple)) or not all(isinstance(name, str) for name in rules):
        raise TypeError(f"rules must be a list of names, got {rules!r}: {nearest('', RULES)}")
    if not rules or len(set(rules)) < len(rules):
        raise ValueError(f"rules must be one or more names, each once, got {rules!r}")
    described = [[name, LABELS.get(name, name), has_momentum(find_rule(name))] for name in rules]
    first = rules[0] if rule is None else rule
    if first not in rules:
        raise ValueError(f"rule must be one of rules, got {first!r}: {nearest(first, rules)}")
    settings = {
        "scene": scene,
        "goal": float(goal),
        "budget": int(budget),
        "rules": described,
        "lr": ends("lr", lr, "(0, inf)")[:2],
        "beta": ends("beta", beta, "[0, 1)")[:2],
        "kicks": _rows(kicks, len(landscape(scene).start)),
        "positions": {
            "lr": positions(*map(math.log10, lr), wanted=200),
            "beta": positions(*beta, wanted=round((beta[1] - beta[0]) / 0.005)),
        },
    }
    at = {"lr": float(lr[2]), "beta": float(beta[2])}
    return Playground(question, settings, list(rules).index(first), **at)


def _rows(kicks: Sequence[Sequence[float]], width: int) -> list[list[float]]:
    try:
        rows = [[float(kick) for kick in row] for row in kicks]
    except TypeError:
        raise TypeError(f"kicks must be rows of {width} numbers, got {kicks!r}") from None
    for i, row in enumerate(rows):
        if len(row) != width or not all(map(math.isfinite, row)):
            raise ValueError(f"kicks[{i}] must be {width} finite numbers, got {row!r}")
    return rows
