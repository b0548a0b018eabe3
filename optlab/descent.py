"""Descent: run a rule on a landscape and keep the path."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

from optlab.landscapes import Landscape, landscape
from optlab.rules import LAYERWISE, Rule
from optlab.signatures import check_settings, hyperparameters, rule, starts


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
        ValueError: an unknown name, a hyperparameter out of range, a start of the wrong length,
            or many runs for a rule that takes norms: it would take that of all of them.
        TypeError: a keyword that the rule does not take, or steps that are no whole number.

    >>> descend("sgd", "ellipse", steps=1, lr=0.01)
    [(10.0, 1.0), (9.9, 0.0)]
    """
    update = method if callable(method) else rule(method)
    scene = scene if isinstance(scene, Landscape) else landscape(scene)
    check_settings(update, settings)
    point = _start(scene, start)
    if update in LAYERWISE and any(getattr(theta, "ndim", 0) for theta in point):
        raise ValueError(
            f"start must be floats for {update.__name__}(), which takes norms, got {start!r}"
        )
    state = [[0.0 * theta + start for start in starts(update).values()] for theta in point]
    path = [point]
    for step in range(1, _count(steps) + 1):
        if "step" in hyperparameters(update):
            settings["step"] = step
        gradient = scene.gradient(*point)
        if noise is not None:
            kicks = tuple(noise())
            if len(kicks) != len(point):
                raise ValueError(f"noise() must give {len(point)} numbers, gave {kicks!r}")
            gradient = tuple(g + kick for g, kick in zip(gradient, kicks, strict=True))
        moved = [
            update(theta, g, *memory, **settings)
            for theta, g, memory in zip(point, gradient, state, strict=True)
        ]
        point = tuple(theta for theta, *_ in moved)
        state = [memory for _, *memory in moved]
        path.append(point)
    return path


def _start(scene: Landscape, start: Sequence[Any] | None) -> tuple[Any, ...]:
    try:
        point = tuple(scene.start if start is None else start)
    except TypeError:
        point = ()
    if len(point) != len(scene.start):
        raise ValueError(f"start must have {len(scene.start)} coordinates, got {start!r}")
    return point


def _count(steps: Any) -> int:
    try:
        count = operator.index(steps)
    except TypeError:
        raise TypeError(f"steps must be a whole number in [0, inf), got {steps!r}") from None
    if count < 0:
        raise ValueError(f"steps must be a whole number in [0, inf), got {steps!r}")
    return count
