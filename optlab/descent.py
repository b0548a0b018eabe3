"""Descent: run a rule on a landscape and keep the path."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from optlab.errors import check_keywords, check_range
from optlab.landscapes import Landscape, landscape
from optlab.rules import Rule, hyperparameters, rule, states

#: Ranges of the hyperparameters that rules share.
RANGES = {"lr": "[0, inf)", "beta": "[0, 1)", "dampening": "[0, 1]"}


def descend(
    method: str | Rule,
    scene: str | Landscape,
    *,
    steps: int,
    start: Sequence[Any] | None = None,
    noise: Callable[[], Sequence[Any]] | None = None,
    **settings: Any,
) -> list[tuple[Any, ...]]:
    """Run ``steps`` updates and return the path, ``steps + 1`` points with the start first.

    The rule is applied to each coordinate by itself, as optimizers do.  Coordinates may be
    floats, NumPy arrays or torch tensors (many runs side by side).

    Args:
        method: a rule, or its name.
        scene: a landscape, or its name.
        steps: how many updates, 0 or more.
        start: coordinates of the first point; the landscape's own by default.
        noise: called once a step, gives what is added to the gradient's coordinates.
        settings: the rule's hyperparameters, such as ``lr`` and ``beta``.

    Raises:
        ValueError: an unknown name, a hyperparameter out of range, a start of the wrong length.
        TypeError: a keyword that the rule does not take.

    >>> descend("sgd", "ellipse", steps=1, lr=0.01)
    [(10.0, 1.0), (9.9, 0.0)]
    """
    update = rule(method) if isinstance(method, str) else method
    scene = landscape(scene) if isinstance(scene, str) else scene
    point = tuple(scene.start if start is None else start)
    _check(update, scene, point, steps, settings)
    state = [[0.0 * theta] * len(states(update)) for theta in point]
    path = [point]
    for step in range(1, steps + 1):
        if "step" in hyperparameters(update):
            settings["step"] = step
        gradient = scene.gradient(*point)
        if noise is not None:
            gradient = tuple(g + e for g, e in zip(gradient, noise(), strict=True))
        moved = [
            update(theta, g, *memory, **settings)
            for theta, g, memory in zip(point, gradient, state, strict=True)
        ]
        point = tuple(theta for theta, *_ in moved)
        state = [memory for _, *memory in moved]
        path.append(point)
    return path


def _check(
    update: Rule, scene: Landscape, point: tuple[Any, ...], steps: int, given: dict[str, Any]
) -> None:
    if steps < 0 or steps != int(steps):
        raise ValueError(f"steps must be a whole number in [0, inf), got {steps!r}")
    if len(point) != len(scene.start):
        raise ValueError(f"start must have {len(scene.start)} coordinates, got {point!r}")
    check_keywords(update, given)
    for name, parameter in inspect.signature(update).parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        if parameter.default is parameter.empty and name not in given:
            raise TypeError(f"{update.__name__}() needs {name}, a number in {RANGES[name]}")
        if name in given and name in RANGES and isinstance(given[name], (int, float)):
            check_range(name, given[name], RANGES[name])
