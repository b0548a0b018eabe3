"""The equations: every elementwise update as a pure function, in order of complexity.

A rule takes the parameter ``theta``, its gradient ``g`` and its state, then the hyperparameters
by keyword; it returns the new parameter and the new state as a tuple.  State starts at zero.
Rules use operators alone, so the same function runs on Python floats, NumPy arrays and torch
tensors, inside ``torch.compile``, and, translated by :mod:`optlab.widgets.javascript`, in a
browser.

The symbols are the chapters': ``theta`` parameter, ``g`` gradient, ``v`` velocity, ``lr`` the
learning rate (eta), ``beta`` the momentum coefficient, ``step`` the update's number from 1.
Inputs of a rule share one shape; the outputs have it too.  A rule changes nothing in place.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from optlab.errors import check_keywords, check_range, nearest

Rule = Callable[..., tuple[Any, ...]]


def sgd(theta, g, *, lr):
    """Step against the gradient.

    Robbins and Monro (1951), *A stochastic approximation method*, with the gradient of a
    loss as the observation.

    >>> sgd(1.0, 0.5, lr=0.1)
    (0.95,)
    """
    theta = theta - lr * g
    return (theta,)


def momentum(theta, g, v, *, lr, beta, dampening=0.0, step=2):
    """Step along the velocity, an exponentially decaying sum of past gradients.

    Polyak (1964), *Some methods of speeding up the convergence of iteration methods*, in the
    form of Sutskever et al. (2013), eqs. 1-2, with the learning rate moved out of the
    velocity.  ``dampening`` keeps that share of a gradient out, from the second step on
    (``step`` 2 stands for any later one).

    >>> momentum(1.0, 0.5, 0.0, lr=0.1, beta=0.9)
    (0.95, 0.5)
    >>> momentum(0.95, 0.5, 0.5, lr=0.1, beta=0.9)
    (0.855, 0.95)
    """
    # torch starts the velocity at the first gradient itself, undamped.
    v = beta * v + (1 - dampening * (step > 1)) * g
    theta = theta - lr * v
    return theta, v


def nesterov(theta, g, v, *, lr, beta):
    """Step along the velocity as it will be after one more decay.

    Nesterov (1983), in the form of Bengio et al. (2013), *Advances in optimizing recurrent
    networks*, section 3.5: ``theta`` is the anticipated position, so the gradient needs no
    second point.

    >>> nesterov(1.0, 0.5, 0.0, lr=0.1, beta=0.9)
    (0.905, 0.5)
    """
    v = beta * v + g
    theta = theta - lr * (g + beta * v)
    return theta, v


RULES: dict[str, Rule] = {"sgd": sgd, "momentum": momentum, "nesterov": nesterov}

#: Where the hyperparameters that rules share may lie.
RANGES = {"lr": "[0, inf)", "beta": "[0, 1)", "dampening": "[0, 1]"}


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

    >>> states(sgd), states(momentum)
    ((), ('v',))
    """
    parameters = inspect.signature(rule).parameters.items()
    return tuple(name for name, p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)[2:]


@functools.cache
def hyperparameters(rule: Rule) -> dict[str, bool]:
    """Names of a rule's hyperparameters, what it takes by keyword, and whether each is needed.

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
