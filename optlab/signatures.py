"""What a rule takes, read off its signature: state, hyperparameters, and where they may lie."""

import functools
import inspect
from collections.abc import Mapping
from typing import Any

from optlab.errors import check_keywords, check_range, nearest
from optlab.rules import RULES, Rule

#: Where the hyperparameters that rules share may lie.
RANGES = {
    "lr": "[0, inf)",
    "beta": "[0, 1)",
    "beta1": "[0, 1)",
    "beta2": "[0, 1)",
    "dampening": "[0, 1]",
    "alpha": "[0, 1]",
    "rho": "[0, 1]",
    "eps": "[0, inf)",
    "lr_decay": "[0, inf)",
    "momentum_decay": "[0, inf)",
    "weight_decay": "[0, inf)",
    "trust_coefficient": "[0, inf)",
    "trust": "[0, 1]",
}


def rule(name: str) -> Rule:
    """The rule of that name.

    Raises:
        ValueError: there is none; the message gives the nearest names.
    """
    if name not in RULES:
        raise ValueError(f"no rule {name!r}: {nearest(name, RULES)}")
    return RULES[name]


@functools.cache
def states(rule: Rule) -> tuple[str, ...]:
    """Names of a rule's state variables: what stands after ``theta`` and ``g``.

    >>> from optlab.rules import momentum, sgd
    >>> states(sgd), states(momentum)
    ((), ('v',))
    """
    parameters = inspect.signature(rule).parameters.items()
    return tuple(name for name, p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)[2:]


@functools.cache
def starts(rule: Rule) -> dict[str, float]:
    """What a rule's state variables are at first: zero, or the default that the rule gives.

    >>> from optlab.rules import nadam
    >>> starts(nadam)
    {'m': 0.0, 'v': 0.0, 'mu_product': 1.0}
    """
    parameters = inspect.signature(rule).parameters
    given = {name: parameters[name].default for name in states(rule)}
    return {
        name: 0.0 if start is inspect.Parameter.empty else start for name, start in given.items()
    }


@functools.cache
def hyperparameters(rule: Rule) -> dict[str, bool]:
    """Names of a rule's hyperparameters, what it takes by keyword, and whether each is needed.

    >>> from optlab.rules import momentum
    >>> hyperparameters(momentum)
    {'lr': True, 'beta': True, 'dampening': False, 'step': False}
    """
    parameters = inspect.signature(rule).parameters.items()
    return {name: p.default is p.empty for name, p in parameters if p.kind is p.KEYWORD_ONLY}


def check_settings(rule: Rule, settings: Mapping[str, Any]) -> None:
    """Raise unless ``settings`` are what the rule takes, each in its range.

    Entries of an array or tensor are checked one by one.  ``step`` is counted by whoever runs
    the rule, and is no setting.

    Raises:
        TypeError: a name that the rule does not take, or one that it needs and is not there.
        ValueError: a value out of its range.

    >>> from optlab.rules import momentum
    >>> check_settings(momentum, {"lr": 0.1, "beta": 1.0})
    Traceback (most recent call last):
    ValueError: beta must be in [0, 1), got 1.0
    """
    known = {name: need for name, need in hyperparameters(rule).items() if name != "step"}
    check_keywords(rule.__name__, known, settings)
    for name, needed in known.items():
        allowed = RANGES.get(name, "(-inf, inf)")
        if name not in settings:
            if needed:
                raise TypeError(f"{rule.__name__}() needs {name}, a number in {allowed}")
            continue
        value = settings[name]
        for number in value.ravel().tolist() if hasattr(value, "ravel") else [value]:
            check_range(name, number, allowed)
