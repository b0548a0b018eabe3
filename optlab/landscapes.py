"""Landscapes: small problems with known gradients, to watch an optimizer move on.

Each is a value and a gradient in plain arithmetic on the coordinates, so that Python floats,
NumPy arrays, torch tensors and a browser compute the same numbers.

>>> ellipse.value(10.0, 1.0), ellipse.gradient(10.0, 1.0)
(100.0, (10.0, 100.0))
>>> landscape("elipse")
Traceback (most recent call last):
ValueError: no landscape 'elipse': did you mean 'ellipse'? Known: ellipse, ...
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from optlab.errors import nearest


@dataclass(frozen=True)
class Landscape:
    """A function to minimise.

    Attributes:
        name: what :func:`landscape` finds it by.
        value: coordinates in, height out.
        gradient: coordinates in, tuple of partial derivatives out.
        start: where the chapters' runs begin.
        minimum: a global minimiser.
        view: (low, high) of each coordinate in the chapters' pictures.
        curvature: (mu, L), the least and the greatest second derivative: at the minimum, or
            of ``bend`` on the whole line.
    """

    name: str
    value: Callable[..., Any]
    gradient: Callable[..., tuple[Any, ...]]
    start: tuple[float, ...]
    minimum: tuple[float, ...]
    view: tuple[tuple[float, float], ...]
    curvature: tuple[float, float]

    @property
    def condition(self) -> float:
        """The condition number L / mu."""
        return self.curvature[1] / self.curvature[0]


def _ellipse_value(x, y):
    return 0.5 * (x**2 + 100.0 * y**2)


def _ellipse_gradient(x, y):
    return x, 100.0 * y


def _rosenbrock_value(x, y):
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def _rosenbrock_gradient(x, y):
    return -2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)


def _saddle_value(x, y):
    return 0.25 * x**4 - 0.5 * x**2 + 0.5 * y**2


def _saddle_gradient(x, y):
    return x * (x * x - 1), y


def _bend_value(x):
    right = (x >= 2) * (12.5 * x**2 - 24 * x + 36)
    middle = (x >= 1) * (x < 2) * (0.5 * x**2 + 24 * x - 12)
    return (x < 1) * 12.5 * x**2 + middle + right


def _bend_gradient(x):
    return ((x < 1) * 25 * x + (x >= 1) * (x < 2) * (x + 24) + (x >= 2) * (25 * x - 24),)


#: The course's fixed ellipse: two independent modes, curvatures 1 and 100.
ellipse = Landscape(
    name="ellipse",
    value=_ellipse_value,
    gradient=_ellipse_gradient,
    start=(10.0, 1.0),
    minimum=(0.0, 0.0),
    view=((-11.0, 11.0), (-2.2, 2.2)),
    curvature=(1.0, 100.0),
)

#: Rosenbrock (1960), *An automatic method for finding the greatest or least value of a
#: function*: a curved valley.  The curvatures are the Hessian's eigenvalues at (1, 1).
rosenbrock = Landscape(
    name="rosenbrock",
    value=_rosenbrock_value,
    gradient=_rosenbrock_gradient,
    start=(-1.2, 1.0),
    minimum=(1.0, 1.0),
    view=((-1.8, 1.8), (-0.8, 2.2)),
    curvature=(501 - 250601**0.5, 501 + 250601**0.5),
)

#: Two minima at (-1, 0) and (1, 0), a saddle point between them at the origin.
saddle = Landscape(
    name="saddle",
    value=_saddle_value,
    gradient=_saddle_gradient,
    start=(0.001, 1.0),
    minimum=(1.0, 0.0),
    view=((-1.8, 1.8), (-1.4, 1.4)),
    curvature=(1.0, 2.0),
)

#: Lessard, Recht and Packard (2016), section 4.6: a strongly convex function of one variable,
#: curvature 25, then 1, then 25, on which the heavy ball tuned for quadratics cycles.
bend = Landscape(
    name="bend",
    value=_bend_value,
    gradient=_bend_gradient,
    start=(3.3,),
    minimum=(0.0,),
    view=((-3.0, 4.0),),
    curvature=(1.0, 25.0),
)

LANDSCAPES = {scene.name: scene for scene in (ellipse, rosenbrock, saddle, bend)}


def landscape(name: str) -> Landscape:
    """The landscape of that name.

    Raises:
        ValueError: there is none; the message gives the nearest names.
    """
    if name not in LANDSCAPES:
        raise ValueError(f"no landscape {name!r}: {nearest(name, LANDSCAPES)}")
    return LANDSCAPES[name]
