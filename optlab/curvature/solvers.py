"""Conjugate gradients: a linear system solved by products with its matrix."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

#: Over how many iterations progress is judged: at least these, and this share of all.
LEAST, SHARE = 10, 0.1


class Solution(NamedTuple):
    """What :func:`conjugate_gradients` has found.

    Args:
        x: the solution, or the best of what was asked for.
        residual: norm of ``b - matrix @ x``.
        iterations: products with the matrix that it took.
        reason: why it ended: ``"converged"``, ``"iterations"``, ``"progress"``, ``"radius"`` or
            ``"negative curvature"``.
        direction: along which the curvature is not above zero, or None.
    """

    x: Tensor
    residual: float
    iterations: int
    reason: str
    direction: Tensor | None


def conjugate_gradients(
    matrix: Any,
    b: Tensor,
    *,
    start: Tensor | None = None,
    preconditioner: Callable[[Tensor], Tensor] | None = None,
    tolerance: float = 1e-10,
    iterations: int | None = None,
    radius: float | None = None,
    progress: float | None = None,
) -> Solution:
    """Solve ``matrix @ x = b`` for a symmetric matrix (Hestenes and Stiefel 1952).

    It lowers ``x^T matrix x / 2 - b^T x``.  Where that has no lowest point, because the curvature
    along a direction is not above zero, it ends: at ``x`` so far, or with a radius on the boundary
    (Steihaug 1983).

    Args:
        matrix: what has a product, ``matrix @ v``, with vectors of the shape of ``b``.
        b: of shape ``(n,)``.
        start: where to begin; zero by default, and with a radius.
        preconditioner: what is near to the inverse's product, symmetric and positive.
        tolerance: end when the residual is at most so many times the norm of ``b``.
        iterations: end after so many; ``2 n`` by default, since rounding costs some.
        radius: stay in the ball of this radius round zero.
        progress: end when the quadratic falls by less than this share for each iteration, over
            the last tenth of them (Martens 2010, section 4.4); 0.0005 there.

    Raises:
        ValueError: shapes that do not match, a start with a radius, or a setting out of its range.
        FloatingPointError: a product is not finite.

    >>> conjugate_gradients(torch.diag(torch.tensor([1.0, 4.0])), torch.tensor([1.0, 2.0])).x
    tensor([1.0000, 0.5000])
    """
    if b.dim() != 1 or (start is not None and start.shape != b.shape):
        raise ValueError(f"b must be a vector, and start of its shape; got {tuple(b.shape)}")
    if radius is not None and (start is not None or not radius > 0):
        raise ValueError(f"radius must be above 0 and comes without a start, got {radius!r}")
    apply = preconditioner or (lambda r: r)
    most = 2 * len(b) if iterations is None else iterations
    x = torch.zeros_like(b) if start is None else start.clone()
    r = b.clone() if start is None else b - matrix @ x
    z = apply(r)
    p, rz = z.clone(), r @ z
    limit = tolerance * float(b.norm())
    history = [float(-(x @ (b + r)) / 2)]  # the quadratic, since matrix @ x = b - r
    for iteration in range(most + 1):
        residual = float(r.norm())
        if not math.isfinite(residual):
            raise FloatingPointError("conjugate gradients met a product that is not finite")
        if residual <= limit:
            return Solution(x, residual, iteration, "converged", None)
        if progress is not None and _stalled(history, progress):
            return Solution(x, residual, iteration, "progress", None)
        if iteration == most:
            break
        Ap = matrix @ p
        curvature = p @ Ap
        if not curvature > 0:
            if not bool(curvature.isfinite()):
                raise FloatingPointError("conjugate gradients met a product that is not finite")
            if radius is not None:
                x = x + _to_boundary(x, p, radius) * p
                residual = float((b - matrix @ x).norm())
            return Solution(x, residual, iteration + 1, "negative curvature", p)
        alpha = rz / curvature
        if radius is not None and float((x + alpha * p).norm()) >= radius:
            alpha = _to_boundary(x, p, radius)
            residual = float((r - alpha * Ap).norm())
            return Solution(x + alpha * p, residual, iteration + 1, "radius", None)
        x = x + alpha * p
        r = r - alpha * Ap
        z = apply(r)
        rz, before = r @ z, rz
        p = z + (rz / before) * p
        history.append(float(-(x @ (b + r)) / 2))
    return Solution(x, residual, most, "iterations", None)


def _stalled(history: list[float], progress: float) -> bool:
    """Whether the quadratic has hardly fallen over the last iterations."""
    i = len(history) - 1
    k = max(LEAST, math.ceil(SHARE * i))
    return i > k and history[i] < 0 and (history[i] - history[i - k]) / history[i] < k * progress


def _to_boundary(x: Tensor, p: Tensor, radius: float) -> float:
    """How far it is from ``x`` along ``p`` to the sphere, forwards."""
    a, b, c = float(p @ p), float(x @ p), float(x @ x) - radius**2
    return (-b + math.sqrt(b * b - a * c)) / a
