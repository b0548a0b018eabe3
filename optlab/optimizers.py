"""First-order optimizers, in order of complexity: each names its rule, its ranges and its state.

Names, keywords, defaults and numbers are those of ``torch.optim``, and a ``state_dict`` of either
loads into the other.  Beside what each names itself, all take these:

``params``
    tensors to optimise, or dicts of parameter groups.
``lr``
    the learning rate (eta), in [0, inf); a float or a tensor of one element.
``weight_decay``
    in [0, inf): its product with the parameter is added to the gradient; where the decay is
    decoupled, its product with ``lr`` is the share that a step takes off the parameter.
``maximize``
    step along the gradient instead of against it.
``compile``
    run each rule as one kernel, made at the first step; the numbers agree but for rounding.

They raise a ValueError for a value out of its range, for no parameters and, at a step, for a sparse
gradient; a TypeError for a misspelt keyword or a value of the wrong kind.  The rules, in
:mod:`optlab.rules`, name their papers.
"""

from typing import Any, ClassVar

from torch import Tensor, full_like, tensor

from optlab import rules
from optlab.engine import Engine
from optlab.errors import strict_keywords
from optlab.kernels import working

Bound = tuple[rules.Rule, dict[str, Any]]
POSITIVE = "[0, inf)"
MOMENTS = {"m": "exp_avg", "v": "exp_avg_sq"}


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
    >>> theta.tolist()
    [9.899999618530273, 0.0]
    """

    ranges: ClassVar = {
        "lr": POSITIVE,
        "momentum": "[0, 1)",
        "dampening": "[0, 1]",
        "weight_decay": POSITIVE,
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
        settings = dict(
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
            maximize=maximize,
        )
        super().__init__(params, settings, compile)

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
        ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps"), POSITIVE
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
        settings = dict(
            lr=lr,
            lr_decay=lr_decay,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            eps=eps,
            maximize=maximize,
        )
        super().__init__(params, settings, compile)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for p in group["params"]:  # torch's has its state from the start, and counts on it
            start = full_like(p, group["initial_accumulator_value"], dtype=working(p.dtype))
            self.state[p].update(step=tensor(0.0), sum=start.detach())

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

    ranges: ClassVar = {"lr": POSITIVE, "rho": "[0, 1]", "eps": POSITIVE, "weight_decay": POSITIVE}
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
        settings = dict(lr=lr, rho=rho, eps=eps, weight_decay=weight_decay, maximize=maximize)
        super().__init__(params, settings, compile)

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
        "lr": POSITIVE,
        "alpha": "[0, 1]",
        "eps": POSITIVE,
        "weight_decay": POSITIVE,
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
        settings = dict(
            lr=lr,
            alpha=alpha,
            eps=eps,
            weight_decay=weight_decay,
            momentum=momentum,
            centered=centered,
            maximize=maximize,
        )
        super().__init__(params, settings, compile)

    def bind(self, group: dict[str, Any]) -> Bound:
        settings = {name: group[name] for name in ("lr", "alpha", "eps")}
        if group["momentum"] == 0:
            return (rules.rmsprop_centered if group["centered"] else rules.rmsprop), settings
        rule = rules.rmsprop_centered_momentum if group["centered"] else rules.rmsprop_momentum
        return rule, {**settings, "beta": group["momentum"]}


class _Moments(Engine):
    """Base of those with two decaying means."""

    ranges: ClassVar = {
        "lr": POSITIVE,
        "betas": "[0, 1)",
        "eps": POSITIVE,
        "weight_decay": POSITIVE,
    }
    memory: ClassVar = MOMENTS
    numbers: ClassVar = ("step",)

    def settings(self, group: dict[str, Any]) -> dict[str, Any]:
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
    memory: ClassVar = {**MOMENTS, "v_max": "max_exp_avg_sq"}

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
        settings = dict(
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
            maximize=maximize,
            decoupled_weight_decay=decoupled_weight_decay,
        )
        super().__init__(params, settings, compile)

    def bind(self, group: dict[str, Any]) -> Bound:
        return (rules.amsgrad if group["amsgrad"] else rules.adam), self.settings(group)


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
        decay = {"weight_decay": weight_decay, "decoupled_weight_decay": True}
        super().__init__(
            params, lr, betas, eps, amsgrad=amsgrad, maximize=maximize, compile=compile, **decay
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

    ranges: ClassVar = {**_Moments.ranges, "momentum_decay": POSITIVE}
    flags: ClassVar = ("maximize", "decoupled_weight_decay")
    memory: ClassVar = {**MOMENTS, "mu_product": "mu_product"}
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
        settings = dict(
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            momentum_decay=momentum_decay,
            decoupled_weight_decay=decoupled_weight_decay,
            maximize=maximize,
        )
        super().__init__(params, settings, compile)

    def bind(self, group: dict[str, Any]) -> Bound:
        settings = self.settings(group)
        return rules.nadam, {**settings, "momentum_decay": group["momentum_decay"]}


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
        settings = dict(
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay,
            maximize=maximize,
        )
        super().__init__(params, settings, compile)

    def bind(self, group: dict[str, Any]) -> Bound:
        return rules.radam, self.settings(group)


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
        settings = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize)
        super().__init__(params, settings, compile)

    def bind(self, group: dict[str, Any]) -> Bound:
        return rules.adamax, self.settings(group)
