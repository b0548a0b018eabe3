"""What a user is told: errors that name the argument, its value and what is allowed."""

import difflib
import functools
import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

Target = TypeVar("Target", bound=Callable[..., Any])


def nearest(name: object, options: Iterable[str]) -> str:
    """The options in a sentence, the nearest to ``name`` first.

    >>> nearest("momentun", ["lr", "momentum"])
    "did you mean 'momentum'? Known: lr, momentum"
    """
    options = list(options)
    close = difflib.get_close_matches(str(name), options, n=2)
    guess = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{guess}Known: {', '.join(options)}"


def check_range(name: str, value: Any, allowed: str) -> None:
    """Raise unless ``value`` is a finite number inside ``allowed``, such as ``"[0, 1)"``.

    Raises:
        TypeError: the value is not one real number; truth values and texts are not.
        ValueError: it is NaN, infinite or outside the interval.

    >>> check_range("momentum", 1.5, "[0, 1)")
    Traceback (most recent call last):
    ValueError: momentum must be in [0, 1), got 1.5
    """
    try:
        if isinstance(value, (bool, str, bytes)):
            raise TypeError
        number = float(value)
    except OverflowError:
        number = math.inf
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be a number in {allowed}, got {value!r}") from None
    low, high = (float(end) for end in allowed[1:-1].split(","))
    above = number >= low if allowed[0] == "[" else number > low
    below = number <= high if allowed[-1] == "]" else number < high
    if not (above and below and math.isfinite(number)):
        raise ValueError(f"{name} must be in {allowed}, got {value!r}")


def check_pair(name: str, value: Any, allowed: str) -> None:
    """Raise unless ``value`` is two numbers inside ``allowed``; see :func:`check_range`."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name} must be two numbers in {allowed}, got {value!r}")
    for index, number in enumerate(value):
        check_range(f"{name}[{index}]", number, allowed)


def check_flag(name: str, value: Any) -> None:
    """Raise a TypeError unless ``value`` is ``True`` or ``False``."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def check_choice(name: str, value: Any, options: Iterable[str]) -> None:
    """Raise a ValueError unless ``value`` is one of the options.

    >>> check_choice("sharing", "extend", ["expand", "reduce"])
    Traceback (most recent call last):
    ValueError: sharing must be one of expand, reduce, got 'extend'
    """
    if value not in (options := list(options)):
        raise ValueError(f"{name} must be one of {', '.join(options)}, got {value!r}")


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raise unless ``value`` is a whole number of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")


def check_keywords(name: str, known: Iterable[str], given: Iterable[str]) -> None:
    """Raise a TypeError that names the nearest keyword when one given is not known.

    >>> check_keywords("sgd", ["lr"], ["rl"])
    Traceback (most recent call last):
    TypeError: sgd() has no argument 'rl': Known: lr
    """
    known = list(known)
    for keyword in given:
        if keyword not in known:
            raise TypeError(f"{name}() has no argument {keyword!r}: {nearest(keyword, known)}")


def strict_keywords(target: Target) -> Target:
    """Decorate a function or class: a misspelt keyword is answered with the nearest."""
    function = vars(target)["__init__"] if isinstance(target, type) else target
    known = [name for name in inspect.signature(function).parameters if name != "self"]

    @functools.wraps(function)
    def checked(*args: Any, **keywords: Any) -> Any:
        check_keywords(target.__name__, known, keywords)
        return function(*args, **keywords)

    if not isinstance(target, type):
        return checked  # type: ignore[return-value]
    target.__init__ = checked  # type: ignore[misc]
    return target
