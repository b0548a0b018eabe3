"""The equations that the sliders' view runs on: which of them, and what it must know of them.

They are translated by :mod:`optlab.widgets.javascript` when the widgets are imported.
"""

import json
from collections.abc import Callable
from typing import Any

from optlab.landscapes import LANDSCAPES, Landscape
from optlab.modes import invariants, radius, regime
from optlab.rules import PARTS, RULES
from optlab.signatures import hyperparameters, states
from optlab.widgets.javascript import translate

#: The hyperparameters that the sliders set; a rule that needs others has no view.
SLIDERS = {"lr", "beta"}
#: Rules that divide by what they remember and so have no modes: what momentum's slider sets, if
#: anything, and what stays fixed.
ADAPTIVE: dict[str, tuple[str | None, dict[str, float]]] = {
    "adagrad": (None, {"eps": 1e-8}),
    "adam": ("beta1", {"beta2": 0.999, "eps": 1e-8}),
}


def is_quadratic(scene: Landscape) -> bool:
    """Whether the gradient is linear around the minimum, each coordinate by itself.

    >>> [name for name, scene in LANDSCAPES.items() if is_quadratic(scene)]
    ['ellipse']
    """
    curvatures = []
    for i in range(len(scene.start)):
        for size in (-3.0, 1.0, 2.0):
            point = [x + size * (i == j) for j, x in enumerate(scene.minimum)]
            gradient = scene.gradient(*point)
            if any(g != 0 for j, g in enumerate(gradient) if j != i):
                return False
            curvatures.append((i, gradient[i] / size))
    return len(set(curvatures)) == len(scene.start)


def has_momentum(update: Callable[..., Any]) -> bool:
    """Whether a rule needs beta; a ValueError where it has no view: the one place that decides."""
    if update.__name__ in ADAPTIVE:
        return ADAPTIVE[update.__name__][0] is not None
    needed = {name for name, needed in hyperparameters(update).items() if needed}
    if "lr" not in needed or needed - SLIDERS:
        others = ", ".join(sorted(needed)) or "nothing"
        raise ValueError(f"rules must need lr and at most beta; {update.__name__} needs {others}")
    invariants(update, lam=1.0, **dict.fromkeys(needed, 0.5))
    return "beta" in needed


def has_view(update: Callable[..., Any]) -> bool:
    """Whether the sliders, with what stays fixed, set all that a rule needs.

    >>> [name for name, update in RULES.items() if has_view(update)]
    ['sgd', 'momentum', 'nesterov', 'adagrad', 'adam']
    """
    try:
        has_momentum(update)
    except ValueError:
        return False
    return True


def script() -> str:
    """JavaScript that defines OPTLAB: rules with a view, landscapes, ``radius`` and ``regime``."""
    shown = {name: update for name, update in RULES.items() if has_view(update)}
    called = {name for update in shown.values() for name in update.__code__.co_names}
    parts = [part for part in PARTS if part.__name__ in called]
    parts += [part for scene in LANDSCAPES.values() for part in (scene.value, scene.gradient)]
    functions = translate(*parts, *shown.values(), radius, regime)
    rules = {
        name: f"{{update: {update.__name__}, states: {len(states(update))}{_fixed(name)}}}"
        for name, update in shown.items()
    }
    scenes = {
        name: f"{{value: {scene.value.__name__}, gradient: {scene.gradient.__name__}, "
        f"start: {json.dumps(scene.start)}, minimum: {json.dumps(scene.minimum)}, "
        f"view: {json.dumps(scene.view)}, curvature: {json.dumps(scene.curvature)}, "
        f"quadratic: {json.dumps(is_quadratic(scene))}}}"
        for name, scene in LANDSCAPES.items()
    }
    members = ["radius", "regime"]
    for name, table in (("rules", rules), ("landscapes", scenes)):
        rows = ",\n".join(f"  {json.dumps(key)}: {value}" for key, value in table.items())
        members.append(f"{name}: {{\n{rows}\n}}")
    return f"const OPTLAB = (() => {{\n{functions}\n\nreturn {{{', '.join(members)}}};\n}})();\n"


def _fixed(name: str) -> str:
    """What JavaScript must know of a rule without modes."""
    slot, fixed = ADAPTIVE.get(name, (None, {}))
    return f", slot: {json.dumps(slot)}, fixed: {json.dumps(fixed)}" if fixed else ""
