"""First-order optimizers: drop-in classes, each naming its rule, its ranges and its state."""

from typing import Any, ClassVar

from torch import Tensor

from optlab import rules
from optlab.engine import Engine
from optlab.errors import strict_keywords


@strict_keywords
class SGD(Engine):
    """Stochastic gradient descent, with heavy-ball or Nesterov momentum.

    Names, defaults and numbers are those of ``torch.optim.SGD``, and a ``state_dict`` of
    either loads into the other.

    Args:
        params: tensors to optimise, or dicts of parameter groups.
        lr: the learning rate (eta), in [0, inf); a float or a tensor of one element.
        momentum: the coefficient (beta), in [0, 1).
        dampening: the share of each gradient kept out of the velocity, in [0, 1].
        weight_decay: L2 coefficient, in [0, inf): its product with the parameter is added to the
            gradient.
        nesterov: look ahead; needs ``momentum > 0`` and no dampening.
        maximize: step along the gradient instead of against it.

    Raises:
        ValueError: a value out of its range, no parameters, or (at a step) a sparse gradient.
        TypeError: a misspelt keyword, or a value of the wrong kind.

    The rules are :func:`optlab.rules.sgd`, :func:`~optlab.rules.momentum` and
    :func:`~optlab.rules.nesterov`, which name their papers.

    >>> import torch
    >>> theta = torch.nn.Parameter(torch.tensor([10.0, 1.0]))
    >>> optimizer = SGD([theta], lr=0.01, momentum=0.9)
    >>> optimizer.step(lambda: (theta**2 @ torch.tensor([0.5, 50.0])).backward())
    >>> theta.tolist()
    [9.899999618530273, 0.0]
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
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
            },
        )

    def check_group(self, group: dict[str, Any]) -> None:
        super().check_group(group)
        if group["nesterov"] and not (group["momentum"] > 0 and group["dampening"] == 0):
            raise ValueError(
                "nesterov=True needs momentum in (0, 1) and dampening=0, "
                f"got momentum={group['momentum']!r}, dampening={group['dampening']!r}"
            )

    def bind(self, group: dict[str, Any]) -> tuple[rules.Rule, dict[str, Any]]:
        lr, beta = group["lr"], group["momentum"]
        if isinstance(lr, Tensor):
            lr = lr.squeeze()  # of shape (1,), it would give a 0-dim parameter a dimension
        if beta == 0:
            return rules.sgd, {"lr": lr}
        if group["nesterov"]:
            return rules.nesterov, {"lr": lr, "beta": beta}
        return rules.momentum, {"lr": lr, "beta": beta, "dampening": group["dampening"]}
