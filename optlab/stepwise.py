"""Functions of the step: what :mod:`optlab.schedules` makes of an equation and hyperparameters.

A factory, which :func:`schedule` makes of an equation, checks hyperparameters and returns a
:class:`Schedule`, which torch's ``LambdaLR`` takes as it is.
"""

import functools
import inspect
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec

from optlab.errors import check_flag, check_keywords, check_range, nearest

P = ParamSpec("P")

COUNT, LENGTH = "whole [0, inf)", "whole [1, inf)"
SHARE = "[0, 1]"


@dataclass(frozen=True)
class Schedule:
    """A pure function of the step, which compares, copies and pickles, and prints as its call.

    Attributes:
        factory: the function that made it.
        settings: name and value of each hyperparameter.

    >>> from optlab.schedules import cosine
    >>> cosine(total=100), cosine(total=100)(50)
    (cosine(total=100, end=0.0), 0.5)
    """

    # LambdaLR saves a callable's __dict__, and writes a loaded one over it.  This one stays empty,
    # so a run goes on with the schedule that it is given now, not with its checkpoint's.
    __slots__ = ("__dict__", "factory", "settings")

    factory: Any
    settings: tuple[tuple[str, Any], ...]

    def __call__(self, step: float) -> float:
        """The value at ``step``, a real number from 0.

        Raises:
            TypeError: the step is no real number.
            ValueError: it is negative, infinite or NaN.
        """
        check_range("step", step, "[0, inf)")
        return float(self.factory.__wrapped__(step, **dict(self.settings)))

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings)
        return f"{self.factory.__name__}({settings})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Schedule, (self.factory, self.settings)


def schedule(
    agree: Callable[[Mapping[str, Any]], None] | None = None, /, **allowed: Any
) -> Callable[[Callable[Concatenate[Any, P], Any]], Callable[P, Schedule]]:
    """Decorate an equation, a function of the step and hyperparameters, to make a factory of it.

    The factory takes the hyperparameters, by position or keyword, and raises a ``TypeError`` or
    ``ValueError`` that names the one at fault.

    Args:
        agree: a function that raises when the hyperparameters, a mapping, do not go together.
        allowed: for a hyperparameter, an interval, with ``whole`` before it for whole numbers, a
            tuple of words, or a function of name and value that raises or returns the value.
            ``None`` is allowed where it is the default.

    >>> @schedule(rate="(0, inf)")
    ... def harmonic(step, rate):
    ...     return 1 / (1 + rate * step)
    >>> harmonic(rate=0.5)(2)
    0.5
    >>> harmonic(rate=0)
    Traceback (most recent call last):
    ValueError: rate must be in (0, inf), got 0
    """

    def decorate(equation: Callable[Concatenate[Any, P], Any]) -> Callable[P, Schedule]:
        name = equation.__name__
        _, *parameters = inspect.signature(equation).parameters.values()
        signature = inspect.Signature(parameters, return_annotation=Schedule)
        check_keywords(name, signature.parameters, allowed)

        @functools.wraps(equation)
        def factory(*args: P.args, **keywords: P.kwargs) -> Schedule:
            check_keywords(name, signature.parameters, keywords)
            try:
                bound = signature.bind(*args, **keywords)
            except TypeError as error:
                raise TypeError(f"{name}(): {error}") from None
            bound.apply_defaults()
            settings = bound.arguments
            for key, rule in allowed.items():
                if settings[key] is not None or signature.parameters[key].default is not None:
                    settings[key] = checked(key, settings[key], rule)
            if agree:
                agree(settings)
            return Schedule(factory, tuple(settings.items()))

        vars(factory)["__signature__"] = signature  # that of the call, which has no step
        return factory

    return decorate


def checked(name: str, value: Any, allowed: Any) -> Any:
    """The value as a float, a whole number or what else ``allowed`` makes of it, or an error.

    >>> checked("total", 1e3, "whole [1, inf)")
    Traceback (most recent call last):
    TypeError: total must be a whole number in [1, inf), got 1000.0
    """
    if callable(allowed):
        return allowed(name, value)
    if isinstance(allowed, tuple):
        if value not in allowed:
            raise ValueError(
                f"{name} must be one of these, not {value!r}: {nearest(value, allowed)}"
            )
        return value
    interval = allowed.removeprefix("whole ")
    check_range(name, value, interval)
    if interval == allowed:
        return float(value)
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number in {interval}, got {value!r}") from None


def flag(name: str, value: Any) -> bool:
    """The value, which must be ``True`` or ``False``."""
    check_flag(name, value)
    return bool(value)


def lengths(name: str, value: Any) -> tuple[int, ...]:
    """The value as a tuple of whole numbers, at least 1 each."""
    if not isinstance(value, (list, tuple, range)):
        raise TypeError(f"{name} must be a list of whole numbers in [1, inf), got {value!r}")
    return tuple(checked(f"{name}[{i}]", length, LENGTH) for i, length in enumerate(value))


def function(name: str, value: Any) -> Any:
    """The value, which must be a function of the step, and not the factory of one."""
    signature = getattr(value, "__signature__", None)
    if not callable(value) or getattr(signature, "return_annotation", None) is Schedule:
        raise TypeError(f"{name} must be a function of the step, such as constant(), got {value!r}")
    return value
