"""What a user is told: errors that name the argument, its value and what is allowed."""

import difflib
import functools
import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

Class = TypeVar("Class", bound=type)


def nearest(name: object, options: Iterable[str]) -> str:
    """The options in a sentence, the nearest to ``name`` first.

    >>> nearest("momentun", ["lr", "momentum"])
    "did you mean 'momentum'? Known: lr, momentum"
    """
    options = list(options)
    close = difflib.get_close_matches(str(name), options, n=2, cutoff=0.5)
    guess = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{guess}Known: {', '.join(options)}"


def check_range(name: str, value: Any, allowed: str) -> None:
    """Raise unless ``value`` is a finite number inside ``allowed``, such as ``"[0, 1)"``.

    Raises:
        TypeError: the value is not a real number.
        ValueError: it is NaN, infinite or outside the interval.

    >>> check_range("momentum", 1.5, "[0, 1)")
    Traceback (most recent call last):
    ValueError: momentum must be in [0, 1), got 1.5
    """
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be a number in {allowed}, got {value!r}") from None
    low, high = (float(end) for end in allowed[1:-1].split(","))
    above = number >= low if allowed[0] == "[" else number > low
    below = number <= high if allowed[-1] == "]" else number < high
    if not (above and below and math.isfinite(number)):
        raise ValueError(f"{name} must be in {allowed}, got {value!r}")


def check_keywords(function: Callable[..., Any], keywords: Iterable[str]) -> None:
    """Raise a TypeError that names the nearest keyword when ``function`` lacks one.

    >>> check_keywords(check_range, ["alowed"])
    Traceback (most recent call last):
    TypeError: check_range() has no argument 'alowed': did you mean 'allowed'? Known: name, \
value, allowed
    """
    known = [name for name in inspect.signature(function).parameters if name != "self"]
    for keyword in keywords:
        if keyword not in known:
            name = function.__qualname__.removesuffix(".__init__")
            raise TypeError(f"{name}() has no argument {keyword!r}: {nearest(keyword, known)}")


def strict_keywords(cls: Class) -> Class:
    """Class decorator: a misspelt keyword of the constructor is answered with the nearest."""
    init: Callable[..., None] = vars(cls)["__init__"]

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **keywords: Any) -> None:
        check_keywords(init, keywords)
        init(self, *args, **keywords)

    cls.__init__ = checked  # type: ignore[misc]
    return cls
