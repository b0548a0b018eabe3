"""Weight decay that no learning rate and no schedule reaches."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from optlab.errors import check_range


def decay_independently(
    optimizer: Optimizer, weight_decay: float, params: Iterable[Tensor] | None = None
) -> RemovableHandle:
    """Multiply parameters by ``1 - weight_decay`` before each step, whatever the learning rate.

    The decoupled decay of :class:`~optlab.optimizers.adam.AdamW`, as of torch's, takes off the
    share ``lr * weight_decay``, so it follows the schedule of the rate and is retuned with it.
    Loshchilov and Hutter (2019, algorithm 2) keep the rate out; here the schedule is kept out too.
    A step that a loss scaler leaves out does not decay, nor does a parameter without a gradient.

    Args:
        optimizer: any of torch's kind, with a ``weight_decay`` of 0; a closure is evaluated at the
            parameters that have decayed.
        weight_decay: the share that a step takes off, in [0, 1].
        params: those that decay; by default all of the optimizer's.

    Returns:
        A handle, whose ``remove()`` ends it.

    Raises:
        ValueError: a parameter is not the optimizer's, or the optimizer has a decay of its own.

    >>> theta = torch.nn.Parameter(torch.tensor([2.0]))
    >>> optimizer = torch.optim.SGD([theta], lr=0.0)
    >>> handle = decay_independently(optimizer, 0.25)
    >>> theta.grad = torch.tensor([1.0])
    >>> optimizer.step()
    >>> theta.item()
    1.5
    """
    check_range("weight_decay", weight_decay, "[0, 1]")
    known = {p for group in optimizer.param_groups for p in group["params"]}
    chosen = None if params is None else list(params)
    if chosen is not None and not known.issuperset(chosen):
        raise ValueError("params must be among those of the optimizer")
    for number, group in enumerate(optimizer.param_groups):
        if group.get("weight_decay", 0) != 0:
            raise ValueError(
                f"parameter group {number} has weight_decay={group['weight_decay']!r} already: "
                "it must be 0"
            )

    @torch.no_grad()
    def shrink(*_: Any) -> None:
        own = [p for group in optimizer.param_groups for p in group["params"]]
        for p in own if chosen is None else chosen:
            if p.grad is not None:
                p.mul_(1 - weight_decay)

    return optimizer.register_step_pre_hook(shrink)
