"""The equations: every elementwise update as a pure function, in order of complexity.

A rule takes the parameter ``theta``, its gradient ``g`` and its state, then the hyperparameters
by keyword; it returns the new parameter and the new state as a tuple.  State starts at zero.
Rules use operators alone, so the same function runs on Python floats, NumPy arrays and torch
tensors, inside ``torch.compile``, and, translated by :mod:`optlab.javascript`, in a browser.

The symbols are the chapters': ``theta`` parameter, ``g`` gradient, ``v`` velocity, ``lr`` the
learning rate (eta), ``beta`` the momentum coefficient, ``step`` the update's number from 1.
Inputs of a rule share one shape; the outputs have it too.  A rule changes nothing in place.
"""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from optlab.errors import nearest

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
    velocity.  ``dampening`` scales the gradient that enters, from the second step on.

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
    return tuple(name for name, p in _parameters(rule) if p.kind is p.POSITIONAL_OR_KEYWORD)[2:]


@functools.cache
def hyperparameters(rule: Rule) -> tuple[str, ...]:
    """Names of a rule's hyperparameters: what it takes by keyword.

    >>> hyperparameters(momentum)
    ('lr', 'beta', 'dampening', 'step')
    """
    return tuple(name for name, p in _parameters(rule) if p.kind is p.KEYWORD_ONLY)


def _parameters(rule: Rule) -> Iterable[tuple[str, inspect.Parameter]]:
    return inspect.signature(rule).parameters.items()
