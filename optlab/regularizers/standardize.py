"""Values of mean zero and variance one, scaled and shifted, with the gradient derived by hand."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed

Count = int | Tensor


class Standardized(NamedTuple):
    """What :func:`standardize` returns.

    Args:
        y: of the shape of ``x``.
        mean: what was subtracted; one entry along the dimensions that it is taken over.
        variance: likewise; neither is differentiated.
        entries: how many there are to a mean.
    """

    y: Tensor
    mean: Tensor
    variance: Tensor
    entries: Count


def standardize(
    x: Tensor,
    over: Sequence[int],
    eps: float,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    centered: bool = True,
    process_group: Any = None,
) -> Standardized:
    """``weight * (x - mean) / sqrt(variance + eps) + bias``: Ioffe and Szegedy (2015, algorithm 1).

    Args:
        x: in single or double precision.
        over: the dimensions that mean and variance are taken over.
        eps: in (0, inf).
        weight, bias: to be broadcast with ``x``; a bias needs a weight.
        centered: whether a mean is subtracted; the variance is the mean square without.
        process_group: ranks that the entries are spread over, not all alike in number.

    >>> standardize(torch.tensor([[1.0, 3.0], [2.0, 6.0]]), [1], 1e-5).y
    tensor([[-1.0000,  1.0000],
            [-1.0000,  1.0000]])
    """
    entries: Count = math.prod([x.shape[dim] for dim in over])
    if process_group is not None:
        entries = _over_ranks(x.new_tensor(entries), process_group)
    apply: Any = _Standardize.apply
    settings = tuple(over), eps, centered, entries, process_group
    y, mean, variance = apply(x, weight, bias, settings)
    return Standardized(y, mean, variance, entries)


class _Standardize(torch.autograd.Function):
    """With ``r = 1 / sqrt(variance + eps)``, so that ``x_hat = r (x - mean)``.

    An entry ``x_j`` moves ``x_hat_i`` by itself, by the mean and by ``r``.  From

        d mean / d x_j = 1 / n        d variance / d x_j = 2 (x_j - mean) / n
        d r / d x_j = -r^3 / 2 * d variance / d x_j = -r^2 x_hat_j / n

    it follows that ``d x_hat_i / d x_j = r (delta_ij - 1 / n - x_hat_i x_hat_j / n)``, a symmetric
    matrix.  Times the gradient of ``x_hat``, which is ``g = weight d`` for that of ``y``, ``d``,

        d x = r (g - mean(g) - x_hat mean(g x_hat))

    Operations in place save passes over memory; what they overwrite is never needed again.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, settings: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance, r, x_hat = _parts(x, *settings)
        ctx.settings = settings
        ctx.save_for_backward(x, weight, bias, mean, r)
        ctx.mark_non_differentiable(mean, variance)
        y = x_hat.mul_(r)
        if weight is not None:
            y.mul_(weight)
        if bias is not None:
            y.add_(bias)
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, d: Tensor, *others: Any) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, r = ctx.saved_tensors
        over, _, centered, entries, group = ctx.settings
        if torch.is_grad_enabled():  # to be differentiated in turn
            if group is not None:
                raise RuntimeError("statistics over ranks have no second derivative")
            mean, _, r, _ = _parts(x, *ctx.settings)
        x_hat = (x - mean).mul_(r)
        product = d * x_hat
        d_weight = None if weight is None else product.sum_to_size(weight.shape)
        d_bias = None if bias is None else d.sum_to_size(bias.shape)
        if weight is not None:
            product.mul_(weight)
        g = d.clone() if weight is None else d * weight
        inner = _mean(product, over, entries, group)
        if centered:
            g.sub_(_mean(g, over, entries, group))
        return g.addcmul_(x_hat, inner, value=-1).mul_(r), d_weight, d_bias, None


def _parts(
    x: Tensor, over: tuple[int, ...], eps: float, centered: bool, entries: Count, group: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean, variance, ``r`` and the differences from the mean, of which all are made."""
    mean = _mean(x, over, entries, group) if centered else torch.zeros_like(x.mean(over, True))
    difference = x - mean
    squares = torch.linalg.vector_norm(difference, 2, over, keepdim=True).square()
    variance = (squares if group is None else _over_ranks(squares, group)) / entries
    return mean, variance, (variance + eps).rsqrt(), difference


def _mean(values: Tensor, over: tuple[int, ...], entries: Count, group: Any) -> Tensor:
    total = values.sum(over, keepdim=True)
    return (total if group is None else _over_ranks(total, group)) / entries


def _over_ranks(total: Tensor, group: Any) -> Tensor:
    distributed.all_reduce(total, group=group)
    return total
