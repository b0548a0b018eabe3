"""Modes: a rule on one eigendirection of a quadratic, where it is a 2 x 2 matrix.

On f = lam theta^2 / 2 the gradient is ``lam * theta``, every rule of the momentum family is
linear in (theta, v), and its roots tell the whole story.  The matrix is read off the rule
itself, so there is no second copy of the equation to keep in step.  Rules that divide by what
they remember, such as Adam, are not linear and are refused.

>>> from optlab.rules import momentum
>>> trace, det = invariants(momentum, lam=1.0, lr=0.1, beta=0.9)
>>> round(radius(trace, det), 4), regime(trace, det)
(0.9487, 'ripples')
"""

from collections.abc import Iterable

from optlab.errors import check_range
from optlab.rules import Rule
from optlab.signatures import check_settings, states


def invariants(rule: Rule, *, lam: float, **settings: float) -> tuple[float, float]:
    """Trace and determinant of the matrix by which one step multiplies (theta, v).

    Both are found by applying the rule to (1, 0) and to (0, 1).  A rule without a velocity
    has determinant 0: its second root is 0.

    Args:
        rule: linear, with one state variable at most.
        lam: the mode's curvature.
        settings: the rule's hyperparameters.

    Raises:
        ValueError: a rule with more state or that is not linear, or a hyperparameter out of range.
        TypeError: a keyword that the rule does not take, or one that is missing.
    """
    check_settings(rule, settings)
    if len(states(rule)) > 1:
        raise ValueError(f"rule must have one state variable at most, got {rule.__name__}()")
    if not _is_linear(rule, settings):
        raise ValueError(f"rule must be linear in theta, g and its state, got {rule.__name__}()")
    if not states(rule):
        return rule(1.0, lam, **settings)[0], 0.0
    from_theta = rule(1.0, lam, 0.0, **settings)
    from_v = rule(0.0, 0.0, 1.0, **settings)
    trace = from_theta[0] + from_v[1]
    det = from_theta[0] * from_v[1] - from_v[0] * from_theta[1]
    return trace, det


def _is_linear(rule: Rule, settings: dict[str, float]) -> bool:
    """Whether the rule's results at two points add up to those at the points' sum."""
    points = ((2.0, 1.0, 1.0), (-5.0, -3.0, 4.0), (-3.0, -2.0, 5.0))
    results = [rule(*point[: 2 + len(states(rule))], **settings) for point in points]
    return not any(
        abs(one + other - both) > 1e-12 * (10 + abs(one) + abs(other))
        for one, other, both in zip(*results, strict=True)
    )


def radius(trace, det):
    """The greater modulus of the roots of z^2 - trace z + det: the rate of a mode."""
    discriminant = trace * trace - 4 * det
    if discriminant < 0:
        return det**0.5
    return (abs(trace) + discriminant**0.5) / 2


def regime(trace, det):
    """How the mode moves: 'monotone', 'ripples', 'alternates' or 'diverges' (at 1 too)."""
    if not radius(trace, det) < 1:  # also where it is not a number
        return "diverges"
    if trace * trace - 4 * det < 0:
        return "ripples"
    if trace < 0:
        return "alternates"
    return "monotone"


def rate(rule: Rule, curvatures: Iterable[float], **settings: float) -> float:
    """The slowest mode's rate: the factor that a step leaves of the error, in the long run.

    Raises what :func:`invariants` does, and a ValueError when there are no ``curvatures``.

    >>> from optlab.rules import nesterov
    >>> round(rate(nesterov, [1.0, 100.0], lr=1 / 100, beta=9 / 11), 6)
    0.9
    """
    rates: list[float] = [radius(*invariants(rule, lam=lam, **settings)) for lam in curvatures]
    if not rates:
        raise ValueError("curvatures must hold at least one number, got none")
    return max(rates)


def polyak(mu: float, L: float) -> tuple[float, float]:
    """(lr, beta) with the least rate of heavy ball over all curvatures in [mu, L].

    Polyak (1964); chapter 3 proves it: the rate is (sqrt(L/mu) - 1) / (sqrt(L/mu) + 1).
    """
    check_range("L", L, "(0, inf)")
    check_range("mu", mu, f"(0, {L}]")
    small, large = mu**0.5, L**0.5
    return 4 / (large + small) ** 2, ((large - small) / (large + small)) ** 2


def ridge_share(lam, decay):
    """What ridge leaves of a mode of the exact solution (Hoerl and Kennard 1970).

    Args:
        lam: the mode's curvature.
        decay: coefficient of half the squared norm in the loss; not zero where ``lam`` is.

    >>> ridge_share(3.0, 1.0)
    0.75
    """
    return lam / (lam + decay)


def stopping_share(lam, lr, steps):
    """What gradient descent from zero has reached of a mode of the exact solution.

    Args:
        lam: the mode's curvature.
        lr: learning rate.
        steps: how many have been taken.

    >>> stopping_share(1.0, 0.5, 2)
    0.75
    """
    return 1 - (1 - lr * lam) ** steps
