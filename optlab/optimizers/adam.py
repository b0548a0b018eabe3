"""Adam and its kin: two decaying means, of the gradient and of its size."""

from typing import Any, ClassVar

from torch import Tensor

from optlab import rules
from optlab.engine import Engine, settings
from optlab.engine.binding import Bound
from optlab.errors import strict_keywords


class _Moments(Engine):
    """Base of those with two decaying means."""

    ranges: ClassVar = {
        "lr": "[0, inf)",
        "betas": "[0, 1)",
        "eps": "[0, inf)",
        "weight_decay": "[0, inf)",
    }
    memory: ClassVar = {"m": "exp_avg", "v": "exp_avg_sq"}
    numbers: ClassVar[tuple[str, ...]] = ("step",)

    def shared(self, group: dict[str, Any]) -> dict[str, Any]:
        """What their rules have in common."""
        beta1, beta2 = group["betas"]
        return {"lr": group["lr"], "beta1": beta1, "beta2": beta2, "eps": group["eps"]}


@strict_keywords
class Adam(_Moments):
    """Running means of gradient and square, both corrected for their start at zero.

    Args:
        betas: decays of the two means, each in [0, 1).
        eps: added to the root, in [0, inf).
        amsgrad: divide by the greatest mean square so far.
        decoupled_weight_decay: decay as in :class:`AdamW`.

    Rules: :func:`~optlab.rules.adam`, :func:`~optlab.rules.amsgrad`.
    """

    flags: ClassVar = ("amsgrad", "maximize", "decoupled_weight_decay")
    memory: ClassVar = {**_Moments.memory, "v_max": "max_exp_avg_sq"}

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__(params, settings(locals()), compile)

    def bind(self, group: dict[str, Any]) -> Bound:
        return (rules.amsgrad if group["amsgrad"] else rules.adam), self.shared(group)


@strict_keywords
class AdamW(Adam):
    """Adam whose weight decay passes its moments by.

    Args:
        betas: decays of the two means, each in [0, 1).
        eps: added to the root, in [0, inf).
        amsgrad: divide by the greatest mean square so far.

    Rule: :func:`~optlab.rules.adamw`; the engine sets the decay before Adam's rule or AMSGrad's.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__(
            *(params, lr, betas, eps, weight_decay, amsgrad),
            maximize=maximize,
            decoupled_weight_decay=True,
            compile=compile,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # of a checkpoint of Adam
            group["decoupled_weight_decay"] = True


@strict_keywords
class NAdam(_Moments):
    """Adam with Nesterov's look-ahead, and a momentum that warms up.

    Args:
        betas: decays of the two means, each in [0, 1).
        eps: added to the root, in [0, inf).
        momentum_decay: speed at which the momentum nears its end, in [0, inf).
        decoupled_weight_decay: decay as in :class:`AdamW`.

    Rule: :func:`~optlab.rules.nadam`.
    """

    ranges: ClassVar = {**_Moments.ranges, "momentum_decay": "[0, inf)"}
    flags: ClassVar = ("maximize", "decoupled_weight_decay")
    memory: ClassVar = {**_Moments.memory, "mu_product": "mu_product"}
    numbers: ClassVar = ("step", "mu_product")

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__(params, settings(locals()), compile)

    def bind(self, group: dict[str, Any]) -> Bound:
        return rules.nadam, {**self.shared(group), "momentum_decay": group["momentum_decay"]}


@strict_keywords
class RAdam(_Moments):
    """Adam that holds back while its second moment is uncertain.

    Args:
        betas: decays of the two means, each in [0, 1).
        eps: added to the root, in [0, inf).
        decoupled_weight_decay: decay as in :class:`AdamW`.

    Rule: :func:`~optlab.rules.radam`.
    """

    flags: ClassVar = ("maximize", "decoupled_weight_decay")

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__(params, settings(locals()), compile)

    def bind(self, group: dict[str, Any]) -> Bound:
        return rules.radam, self.shared(group)


@strict_keywords
class Adamax(_Moments):
    """Adam with a decaying maximum in place of the root mean square.

    Args:
        betas: decays of the mean and of the maximum, each in [0, 1).
        eps: added to each gradient's size, in [0, inf).

    Rule: :func:`~optlab.rules.adamax`.
    """

    memory: ClassVar = {"m": "exp_avg", "u": "exp_inf"}

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__(params, settings(locals()), compile)

    def bind(self, group: dict[str, Any]) -> Bound:
        return rules.adamax, self.shared(group)
