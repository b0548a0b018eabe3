"""Adaptive rates without a first moment: each coordinate by the size of its gradients."""

from typing import Any, ClassVar

from torch import Tensor, full_like, tensor

from optlab import rules
from optlab.engine import Engine, settings
from optlab.engine.binding import Bound
from optlab.engine.kernels import working
from optlab.errors import strict_keywords


@strict_keywords
class Adagrad(Engine):
    """A rate for each coordinate, falling with the sum of its squared gradients.

    Args:
        lr_decay: in [0, inf): step t has the rate lr / (1 + (t - 1) lr_decay).
        initial_accumulator_value: where the sum starts, in [0, inf).
        eps: added to its root, in [0, inf).

    Rule: :func:`~optlab.rules.adagrad`.
    """

    ranges: ClassVar = dict.fromkeys(
        ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps"), "[0, inf)"
    )
    memory: ClassVar = {"s": "sum"}
    numbers: ClassVar = ("step",)

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__(params, settings(locals()), compile)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for p in group["params"]:  # torch's has its state from the start, and counts on it
            start = group["initial_accumulator_value"] * (1 + 1j if p.is_complex() else 1)
            total = full_like(p, start, dtype=working(p.dtype), requires_grad=False)
            self.state[p].update(step=tensor(0.0), sum=total)

    def start(self, rule: rules.Rule, variable: str, group: dict[str, Any]) -> float:
        return float(group["initial_accumulator_value"])

    def bind(self, group: dict[str, Any]) -> Bound:
        return rules.adagrad, {name: group[name] for name in ("lr", "lr_decay", "eps")}


@strict_keywords
class Adadelta(Engine):
    """Steps in proportion to past steps: no rate to choose.

    Args:
        rho: decay of both running means, in [0, 1].
        eps: added to both inside the root, in [0, inf).

    Rule: :func:`~optlab.rules.adadelta`.
    """

    ranges: ClassVar = {
        "lr": "[0, inf)",
        "rho": "[0, 1]",
        "eps": "[0, inf)",
        "weight_decay": "[0, inf)",
    }
    memory: ClassVar = {"v": "square_avg", "d": "acc_delta"}
    numbers: ClassVar = ("step",)

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__(params, settings(locals()), compile)

    def bind(self, group: dict[str, Any]) -> Bound:
        return rules.adadelta, {name: group[name] for name in ("lr", "rho", "eps")}


@strict_keywords
class RMSprop(Engine):
    """Gradients divided by their recent root mean square.

    Args:
        alpha: decay of the running mean of squares, in [0, 1].
        eps: added to its root, in [0, inf).
        momentum: heavy ball behind, in [0, 1).
        centered: divide by the standard deviation instead.

    Rules: :func:`~optlab.rules.rmsprop`, :func:`~optlab.rules.rmsprop_momentum`,
    :func:`~optlab.rules.rmsprop_centered`, :func:`~optlab.rules.rmsprop_centered_momentum`.
    """

    ranges: ClassVar = {
        "lr": "[0, inf)",
        "alpha": "[0, 1]",
        "eps": "[0, inf)",
        "weight_decay": "[0, inf)",
        "momentum": "[0, 1)",
    }
    flags: ClassVar = ("centered", "maximize")
    memory: ClassVar = {"v": "square_avg", "m": "grad_avg", "b": "momentum_buffer"}
    numbers: ClassVar = ("step",)

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        *,
        maximize: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__(params, settings(locals()), compile)

    def bind(self, group: dict[str, Any]) -> Bound:
        settings = {name: group[name] for name in ("lr", "alpha", "eps")}
        if group["momentum"] == 0:
            return (rules.rmsprop_centered if group["centered"] else rules.rmsprop), settings
        rule = rules.rmsprop_centered_momentum if group["centered"] else rules.rmsprop_momentum
        return rule, {**settings, "beta": group["momentum"]}
