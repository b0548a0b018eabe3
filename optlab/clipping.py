"""Clipping: gradients made shorter, in place, between the backward pass and the step.

Gradients that a loss scaler has multiplied must be unscaled first, and those of several processes
averaged: a norm is that of the gradient which the optimizer is to see.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, distributed

#: In the denominator, as torch has it.
TINY = 1e-6


@torch.no_grad()
def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    *,
    process_group: Any = None,
) -> Tensor:
    """Scale all gradients together, so that their norm is at most ``max_norm``.

    Pascanu et al. (2013, algorithm 1); as :func:`torch.nn.utils.clip_grad_norm_`, but that norms of
    half precision are computed in float32, and that gradients are left alone where that can be seen
    without waiting for a device or leaving a compiled graph.

    Args:
        parameters: whose ``.grad`` is clipped; those without are skipped.
        max_norm: in (0, inf].
        norm_type: the ``p`` of the norm; ``inf`` for the largest entry.
        error_if_nonfinite: raise where the norm is NaN or infinite; this waits for the device.
        process_group: ranks that hold a part of the gradients each, not a copy.

    Returns:
        The norm before, a tensor without dimensions.

    Raises:
        ValueError: ``max_norm`` is not above zero.
        RuntimeError: the norm is not finite; no gradient has been changed then.

    >>> p = torch.zeros(2, requires_grad=True)
    >>> p.grad = torch.tensor([3.0, 4.0])
    >>> clip_grad_norm_(p, 1.0), p.grad
    (tensor(5.), tensor([0.6000, 0.8000]))
    """
    max_norm, p = float(max_norm), float(norm_type)
    _check_positive("max_norm", max_norm)
    grads = _gradients(parameters)
    if not grads and process_group is None:
        return torch.tensor(0.0)
    place = grads[0].device if grads else torch.device("cpu")
    norms = [norm.to(place) for same in _alike(grads) for norm in _norms(same, p)]
    total = torch.linalg.vector_norm(torch.stack(norms), p) if norms else torch.zeros(())
    if process_group is not None:
        total = _over_ranks(total, p, process_group)
    if error_if_nonfinite and not bool(total.isfinite()):
        raise RuntimeError(
            f"the norm of the gradients is {total.item()}, so they cannot be clipped; "
            "error_if_nonfinite=False scales them all the same"
        )
    share = (max_norm / (total + TINY)).clamp(max=1.0)
    costly = share.device.type != "cpu" or torch.compiler.is_compiling()
    if costly or not share >= 1:  # NaN is passed on
        for same in _alike(grads):
            torch._foreach_mul_(same, share.to(same[0].device))
    return total


@torch.no_grad()
def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Bring every entry of the gradients into ``[-clip_value, clip_value]``.

    As :func:`torch.nn.utils.clip_grad_value_`.

    Raises:
        ValueError: ``clip_value`` is not above zero.
    """
    clip_value = float(clip_value)
    _check_positive("clip_value", clip_value)
    for same in _alike(_gradients(parameters)):
        torch._foreach_clamp_min_(same, -clip_value)
        torch._foreach_clamp_max_(same, clip_value)


@torch.no_grad()
def clip_grad_unitwise_(
    parameters: Tensor | Iterable[Tensor], clipping: float = 0.01, eps: float = 1e-3
) -> None:
    """Adaptive clipping: bound each unit's gradient by its weights (Brock et al. 2021, equation 3).

    A unit is an entry of a parameter's first dimension; a parameter of one dimension is one unit.
    Where the norm of its gradient is more than ``clipping`` times that of its weights, or of
    ``eps`` if these are smaller, it is scaled down to that.  The paper leaves the last layer out.

    Raises:
        ValueError: ``clipping`` or ``eps`` is not above zero.
    """
    _check_positive("clipping", clipping)
    _check_positive("eps", eps)
    for p in [parameters] if isinstance(parameters, Tensor) else list(parameters):
        if p.grad is None:
            continue
        most = clipping * _unit_norm(p).clamp(min=eps)
        norm = _unit_norm(p.grad)
        p.grad.mul_(torch.where(norm > most, most / norm, torch.ones_like(norm)))


def _unit_norm(tensor: Tensor) -> Tensor:
    """Norms of the entries of the first dimension, to be broadcast."""
    units = [*range(1, tensor.dim())] if tensor.squeeze().dim() > 1 else None
    norm: Tensor = torch.linalg.vector_norm(tensor, dim=units, keepdim=True)
    return norm


def _norms(grads: list[Tensor], p: float) -> Iterable[Tensor]:
    """Norms of tensors of one kind; half precision would overflow in its own."""
    exact = torch.promote_types(grads[0].dtype, torch.float32)
    norms: Iterable[Tensor] = torch._foreach_norm(grads, p, dtype=exact)
    return norms


def _over_ranks(norm: Tensor, p: float, group: Any) -> Tensor:
    if p == float("inf"):
        distributed.all_reduce(norm, distributed.ReduceOp.MAX, group)
        return norm
    power = norm**p
    distributed.all_reduce(power, group=group)
    total: Tensor = power ** (1 / p)
    return total


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    given = [parameters] if isinstance(parameters, Tensor) else parameters
    return [p.grad for p in given if p.grad is not None]


def _alike(grads: list[Tensor]) -> Iterable[list[Tensor]]:
    """The gradients of one dtype and device together."""
    kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for g in grads:
        kinds.setdefault((g.dtype, g.device), []).append(g)
    return kinds.values()


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be above 0, got {value!r}")
