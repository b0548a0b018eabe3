"""K-FAC: the natural gradient, with a Kronecker product for each layer's Fisher information."""

import math
import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from optlab import rules
from optlab.curvature.blocks import DAMPINGS, Block
from optlab.curvature.capture import Settings
from optlab.curvature.estimate import Estimate
from optlab.curvature.kronecker import SHARINGS
from optlab.curvature.likelihoods import FISHERS, Likelihood
from optlab.curvature.likelihoods import likelihood as likelihood_of
from optlab.engine import Engine
from optlab.engine.binding import Bound
from optlab.engine.kernels import working
from optlab.errors import check_choice, check_count, check_flag, check_range, strict_keywords

#: Steps from one adaptation of the damping to the next, and its factor for each of them (Martens
#: and Grosse 2015, section 6.5).
ADAPT_EVERY, OMEGA = 5, 19 / 20

Gradients = list[list[Tensor | None]]


@strict_keywords
class KFAC(Engine):
    """Momentum on a gradient preconditioned layer by layer with ``(A (x) G + damping I)^-1``.

    Martens and Grosse (2015); for convolutions Grosse and Martens (2016), for shared weights
    Eschenhagen et al. (2023), with corrected eigenvalues George et al. (2018).  The loss must be
    the mean over the batch that the likelihood says.  Forward passes in training mode with
    gradients enabled are captured by hooks; nothing else changes in a training loop.

    Args:
        model: the network, which returns one tensor; hooks are put on it.
        likelihood: of its outputs: ``"categorical"``, ``"bernoulli"``, ``"gaussian"`` or a
            :class:`~optlab.curvature.likelihoods.Likelihood`.
        lr: the learning rate (eta), in [0, inf).
        params: parameters or groups to update; all that require a gradient by default.
        momentum: the coefficient (beta), in [0, 1).
        damping: added to the eigenvalues of the Fisher information, in [0, inf).
        damping_form: ``"factored"``, shared out between the factors, or ``"eigenbasis"``, exact
            with twice as many products in a step.
        adaptive: adapt the damping to how well the model of the loss foretells it (the
            Levenberg-Marquardt rule); needs ``step(closure)``, and costs it a call in five.
        fisher: ``"sampled"``, ``"exact"`` (a backward pass for each output) or ``"empirical"``.
        samples: how many targets are drawn for each sample, for ``"sampled"``.
        sharing: ``"expand"`` or ``"reduce"``, for weights used at several positions.
        ekfac: correct the eigenvalues in the eigenbasis.
        factor_decay: of the factors' running averages, in [0, 1).
        factor_every: steps from one update of the factors to the next.
        inverse_every: steps from one update of the inverses to the next.
        kl_clip: shorten steps whose quadratic ``step^T F step / 2`` is larger; None: never.
        weight_decay: in [0, inf); its product with the parameter is added to the preconditioned
            gradient (Zhang et al. 2019), so that curvature does not weaken it.
        loss_scale: what the loss was multiplied by, a number or what returns it, such as
            ``scaler.get_scale``; only ``"empirical"`` asks.
        seed: of the targets drawn.
        process_group: over whose ranks the batch is spread; that of a wrapper, which has the model
            as ``module`` and a ``process_group``, is found: of torch's ``DistributedDataParallel``
            and of :class:`~optlab.distributed.data_parallel.DataParallel`.

    Attributes:
        plain: parameters that keep their gradient as it is, by name, with the reason.
        closure: what ``step`` needs: ``"none"``, or one that calls ``backward()``.

    >>> torch.manual_seed(0).initial_seed()
    0
    >>> model = nn.Linear(3, 1)
    >>> exact = dict(fisher="exact", damping=0, kl_clip=None)
    >>> optimizer = KFAC(model, "gaussian", lr=1.0, momentum=0, **exact)
    >>> x = torch.randn(20, 3)
    >>> y = x @ torch.tensor([[1.0], [2.0], [3.0]]) + 4
    >>> optimizer.step(lambda: (0.5 * (model(x) - y).square().mean()).backward())
    >>> torch.cat([model.weight, model.bias[None]], 1).round(decimals=3).tolist()
    [[1.0, 2.0, 3.0, 4.0]]
    """

    ranges: ClassVar = {
        "lr": "[0, inf)",
        "momentum": "[0, 1)",
        "weight_decay": "[0, inf)",
        "damping": "[0, inf)",
        "factor_decay": "[0, 1)",
    }
    memory: ClassVar = {"v": "momentum_buffer"}

    def __init__(
        self,
        model: nn.Module,
        likelihood: str | Likelihood,
        lr: float | Tensor = 0.1,
        params: Any = None,
        *,
        momentum: float = 0.9,
        damping: float = 1e-3,
        damping_form: str = "factored",
        adaptive: bool = False,
        fisher: str = "sampled",
        samples: int = 1,
        sharing: str = "expand",
        ekfac: bool = False,
        factor_decay: float = 0.95,
        factor_every: int = 1,
        inverse_every: int = 10,
        kl_clip: float | None = 1e-3,
        weight_decay: float = 0,
        loss_scale: float | Callable[[], float] = 1.0,
        seed: int = 0,
        process_group: Any = None,
        maximize: bool = False,
        compile: bool = False,
    ) -> None:
        check_choice("fisher", fisher, FISHERS)
        check_choice("damping_form", damping_form, DAMPINGS)
        check_choice("sharing", sharing, SHARINGS)
        check_count("samples", samples)
        check_count("factor_every", factor_every)
        check_count("inverse_every", inverse_every)
        check_flag("adaptive", adaptive)
        check_flag("ekfac", ekfac)
        if kl_clip is not None:
            check_range("kl_clip", kl_clip, "(0, inf)")
        if adaptive and maximize:
            raise ValueError("adaptive damping is for minimizing: maximize must be False")
        self.adaptive, self.kl_clip = adaptive, kl_clip
        self.closure = "backward" if adaptive else "none"
        inner = getattr(model, "module", None)
        if isinstance(inner, nn.Module) and hasattr(model, "process_group"):
            model, process_group = inner, process_group or model.process_group
        if params is None:
            params = [p for p in model.parameters() if p.requires_grad]
        defaults = {
            **dict(lr=lr, momentum=momentum, weight_decay=weight_decay, damping=damping),
            **dict(factor_decay=factor_decay, maximize=maximize),
        }
        super().__init__(params, defaults, compile)
        scale = loss_scale if callable(loss_scale) else lambda: loss_scale
        self._estimate = Estimate(
            model,
            [*self._group_of()],
            Settings(likelihood_of(likelihood), fisher, samples, sharing, scale),
            damping_form=damping_form,
            corrected=ekfac,
            factor_every=factor_every,
            inverse_every=inverse_every,
            seed=seed,
            process_group=process_group,
        )
        self.plain = self._estimate.plain
        if self.plain:
            listed = ", ".join(f"{name} ({reason})" for name, reason in self.plain.items())
            warnings.warn(f"KFAC leaves the gradient as it is for {listed}", stacklevel=3)
        self._before: list[Tensor] = []

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError(
            "KFAC holds hooks on its model and cannot be copied or pickled: save its state_dict()"
        )

    def bind(self, group: dict[str, Any]) -> Bound:
        if group["momentum"] == 0:
            return rules.sgd, {"lr": group["lr"]}
        return rules.momentum, {"lr": group["lr"], "beta": group["momentum"]}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if hasattr(self, "_estimate"):
            raise RuntimeError("KFAC takes its parameters when it is made: make another")
        super().add_param_group(param_group)

    def factors(self) -> dict[str, tuple[Tensor, Tensor]]:
        """``{layer's name: (A, G)}``: averaged second moments of inputs and samples' gradients.

        The bias stands for the last row and column of ``A``; that of an embedding is a diagonal.
        """
        averages = {block.layer.name: block.averages for block in self._estimate.blocks}
        return {name: (own["A"], own["G"]) for name, own in averages.items() if "A" in own}

    def remove_hooks(self) -> None:
        """Take the hooks off the model, for good: no further step is possible."""
        self._estimate.hooks()

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        self._estimate.capture.forget()

    def state_dict(self) -> dict[str, Any]:
        """Torch's, and under ``"curvature"`` the steps taken and every layer's block."""
        return {**super().state_dict(), "curvature": self._estimate.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint of this optimizer.

        Raises:
            ValueError: it has no curvature, or that of other layers; nothing has been changed then.
        """
        if "curvature" not in state_dict:
            raise ValueError("the state dict has no curvature: it is not of a KFAC")
        self._estimate.check(state_dict["curvature"])
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "curvature"})
        self._estimate.load(state_dict["curvature"])

    def evaluate(self, closure: Callable[[], Any] | None) -> Any:
        if self.adaptive and closure is None:
            raise ValueError("adaptive damping needs step(closure)")
        loss = super().evaluate(closure)
        group_of = self._group_of()
        if self.adaptive and self._estimate.steps % ADAPT_EVERY == 0:
            self._before = [p.detach().clone() for p in group_of]
        self._estimate.update(
            damping=lambda layer: float(group_of[layer.params[0]]["damping"]),
            decay=lambda layer: float(group_of[layer.params[0]]["factor_decay"]),
        )
        return loss

    def precondition(self, gradients: Gradients | None = None) -> Gradients:
        """The direction of a step without momentum, and without taking it.

        Args:
            gradients: a list for each parameter group; by default the parameters' own.

        Raises:
            RuntimeError: a layer has a gradient but was never captured.
        """
        if gradients is None:
            gradients = [[p.grad for p in group["params"]] for group in self.param_groups]
        found: dict[Tensor, Tensor | None] = {}
        for group, grads in zip(self.param_groups, gradients, strict=True):
            found.update(zip(group["params"], grads, strict=True))
        direction, group_of = dict(found), self._group_of()
        solved: list[tuple[Block, float, Tensor]] = []
        bound = 0.0
        for block in self._estimate.blocks:
            layer, group = block.layer, group_of[block.layer.params[0]]
            own = [g.to(working(g.dtype)) for p in layer.params if (g := found[p]) is not None]
            if len(own) < len(layer.params):
                continue
            if not block.averages:
                raise RuntimeError(f"{layer.name} has a gradient, but was not seen to be called")
            V = layer.join(own)
            D = block.solve(V, float(group["damping"]))
            direction.update(zip(layer.params, layer.split(D), strict=True))
            if self.kl_clip is not None:
                rate = float(group["lr"])
                solved.append((block, rate, D))
                bound += rate**2 * float((V * D).sum()) / 2
        if self.kl_clip is not None and bound > self.kl_clip:
            # The bound has the damping in it: the quadratic itself is smaller, but dear.
            kl = sum(rate**2 * float(block.quadratic(D)) / 2 for block, rate, D in solved)
            if kl > self.kl_clip:
                shrink = math.sqrt(self.kl_clip / kl)
                direction = {p: None if d is None else shrink * d for p, d in direction.items()}
        return [[direction[p] for p in group["params"]] for group in self.param_groups]

    def review(self, loss: Any, closure: Callable[[], Any] | None) -> None:
        if not self._before or closure is None:
            return
        group_of = self._group_of()
        moved = {p: p.detach() - old for p, old in zip(group_of, self._before, strict=True)}
        self._before = []
        with torch.no_grad():
            slopes = [(d * p.grad).sum() for p, d in moved.items() if p.grad is not None]
            foretold = float(sum(slopes))
            for block in self._estimate.blocks:
                D = block.layer.join([moved[p] for p in block.layer.params])
                damping = float(group_of[block.layer.params[0]]["damping"])
                foretold += float(block.quadratic(D) + damping * (D * D).sum()) / 2
        self._estimate.capture.due = False
        with torch.enable_grad():
            after = float(torch.as_tensor(closure()).detach())
        self._estimate.expect()
        ratio = (after - float(torch.as_tensor(loss).detach())) / foretold if foretold else 1.0
        for group in self.param_groups:
            if ratio > 3 / 4:
                group["damping"] *= OMEGA**ADAPT_EVERY
            elif not ratio >= 1 / 4:
                group["damping"] /= OMEGA**ADAPT_EVERY

    def _group_of(self) -> dict[Tensor, dict[str, Any]]:
        return {p: group for group in self.param_groups for p in group["params"]}
