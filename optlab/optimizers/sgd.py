"""Stochastic gradient descent: one rate for all coordinates."""

from typing import Any, ClassVar

from torch import Tensor

from optlab import rules
from optlab.engine import Engine, settings
from optlab.engine.binding import Bound
from optlab.errors import strict_keywords


@strict_keywords
class SGD(Engine):
    """Stochastic gradient descent, with heavy-ball or Nesterov momentum.

    Args:
        momentum: the coefficient (beta), in [0, 1).
        dampening: the share of each gradient kept out of the velocity, in [0, 1].
        nesterov: look ahead; needs ``momentum > 0`` and no dampening.

    Rules: :func:`~optlab.rules.sgd`, :func:`~optlab.rules.momentum`,
    :func:`~optlab.rules.nesterov`.

    >>> import torch
    >>> theta = torch.nn.Parameter(torch.tensor([10.0, 1.0]))
    >>> optimizer = SGD([theta], lr=0.01, momentum=0.9)
    >>> optimizer.step(lambda: (theta**2 @ torch.tensor([0.5, 50.0])).backward())
    >>> [round(entry, 6) for entry in theta.tolist()]
    [9.9, 0.0]
    """

    ranges: ClassVar = {
        "lr": "[0, inf)",
        "momentum": "[0, 1)",
        "dampening": "[0, 1]",
        "weight_decay": "[0, inf)",
    }
    flags: ClassVar = ("nesterov", "maximize")
    memory: ClassVar = {"v": "momentum_buffer"}

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__(params, settings(locals()), compile)

    def check_group(self, group: dict[str, Any]) -> None:
        super().check_group(group)
        if group["nesterov"] and not (group["momentum"] > 0 and group["dampening"] == 0):
            raise ValueError(
                "nesterov=True needs momentum in (0, 1) and dampening=0, "
                f"got momentum={group['momentum']!r}, dampening={group['dampening']!r}"
            )

    def bind(self, group: dict[str, Any]) -> Bound:
        lr, beta = group["lr"], group["momentum"]
        if beta == 0:
            return rules.sgd, {"lr": lr}
        if group["nesterov"]:
            return rules.nesterov, {"lr": lr, "beta": beta}
        return rules.momentum, {"lr": lr, "beta": beta, "dampening": group["dampening"]}
