"""Values of mean zero and variance one, with the gradient derived by hand."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed

Count = int | Tensor


class Standardized(NamedTuple):
    """What :func:`standardize` returns.

    Args:
        x_hat: of the shape of ``x``.
        mean: what was subtracted; one entry along the dimensions that it is taken over.
        variance: likewise; neither is differentiated.
        entries: how many there are to a mean.
    """

    x_hat: Tensor
    mean: Tensor
    variance: Tensor
    entries: Count


def standardize(
    x: Tensor, over: Sequence[int], eps: float, *, centered: bool = True, process_group: Any = None
) -> Standardized:
    """``(x - mean) / sqrt(variance + eps)``; Ioffe and Szegedy (2015, algorithm 1).

    Args:
        x: in single or double precision.
        over: the dimensions that mean and variance are taken over.
        eps: in (0, inf).
        centered: whether a mean is subtracted; the variance is the mean square without.
        process_group: ranks that the entries are spread over, not all alike in number.

    >>> standardize(torch.tensor([[1.0, 3.0], [2.0, 6.0]]), [1], 1e-5).x_hat
    tensor([[-1.0000,  1.0000],
            [-1.0000,  1.0000]])
    """
    count: Count = math.prod([x.shape[dim] for dim in over])
    if process_group is not None:
        count = _over_ranks(x.new_tensor(count), process_group)
    settings = tuple(over), eps, centered, count, process_group
    apply: Any = _Standardize.apply
    x_hat, _, mean, variance = apply(x, *settings)
    return Standardized(x_hat, mean, variance, count)


class _Standardize(torch.autograd.Function):
    """With ``r = 1 / sqrt(variance + eps)``, so that ``x_hat = r (x - mean)``.

    An entry ``x_j`` moves ``x_hat_i`` by itself, by the mean and by ``r``.  From

        d mean / d x_j = 1 / n        d variance / d x_j = 2 (x_j - mean) / n
        d r / d x_j = -r^3 / 2 * d variance / d x_j = -r^2 x_hat_j / n

    it follows that ``d x_hat_i / d x_j = r (delta_ij - 1 / n - x_hat_i x_hat_j / n)``, a symmetric
    matrix; times the gradient ``d`` of ``x_hat``,

        d x = r (d - mean(d) - x_hat mean(d x_hat))

    ``r`` is returned too, with a gradient of its own, since this formula is differentiated in turn.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        over: tuple[int, ...],
        eps: float,
        centered: bool,
        count: Count,
        group: Any,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ctx.terms = over, centered, count, group
        mean = _mean(x, over, count, group) if centered else torch.zeros_like(x.mean(over, True))
        x_hat = x - mean
        squares = torch.linalg.vector_norm(x_hat, 2, over, keepdim=True).square()
        variance = (squares if group is None else _over_ranks(squares, group)) / count
        r = (variance + eps).rsqrt()
        x_hat.mul_(r)
        ctx.save_for_backward(x_hat, r)
        ctx.mark_non_differentiable(mean, variance)
        return x_hat, r, mean, variance

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (d, d_r, *_), (x_hat, r) = grads, ctx.saved_tensors
        over, centered, count, group = ctx.terms
        if group is not None and torch.is_grad_enabled():
            raise RuntimeError("statistics over ranks have no second derivative")
        inner = _mean(d * x_hat, over, count, group) + d_r * r / count
        if centered:
            d = d - _mean(d, over, count, group)
        return (d - x_hat * inner).mul_(r), None, None, None, None, None


def _mean(values: Tensor, over: tuple[int, ...], count: Count, group: Any) -> Tensor:
    total = values.sum(over, keepdim=True)
    return (total if group is None else _over_ranks(total, group)) / count


def _over_ranks(total: Tensor, group: Any) -> Tensor:
    distributed.all_reduce(total, group=group)
    return total
