"""What methods of the whole network's curvature share: closures without a backward pass."""

import abc
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, distributed

from optlab import rules
from optlab.curvature.likelihoods import Likelihood
from optlab.curvature.operators import Operator, gradient, split
from optlab.engine import Engine
from optlab.engine.binding import Bound
from optlab.errors import check_range


class Report(NamedTuple):
    """What a step did.

    Args:
        loss: before it.
        foretold: the decrease that the quadratic model of the loss has.
        decrease: the loss's own, where it was computed; else NaN.
        damping: with which the direction was found.
        lowest: the lowest curvature that was met along a direction.
        iterations: products with the matrix, or none for one that was formed.
        action: in words.
    """

    loss: float
    foretold: float
    decrease: float
    damping: float
    lowest: float
    iterations: int
    action: str


class SecondOrder(Engine):
    """Base of the methods that solve one linear system for all parameters.

    ``step(closure)`` computes what the closure gives, with its graph; the closure must not call
    ``backward()``.  It may be called again, at other parameters, and has to compute the same
    function then.  Learning rates belong to their groups, all else to the whole.  ``.grad`` is
    neither read nor changed.  A decay of weights belongs in the loss.

    With a ``process_group``, each rank's closure computes its part of the batch, of as many samples
    on all ranks; losses, gradients and products with the matrix are averaged over them.
    """

    #: What a closure returns.
    closure: ClassVar[str] = "loss"
    #: Hyperparameters that all groups have in common.
    common: ClassVar[tuple[str, ...]] = ("damping",)
    report: Report | None

    def __init__(self, params: Any, defaults: dict[str, Any], process_group: Any = None) -> None:
        self.report, self.process_group = None, process_group
        self._direction: list[Tensor] = []
        self._outputs: Any = None
        self._targets: Any = None
        super().__init__(params, {**defaults, "weight_decay": 0, "maximize": False})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.report, self._direction, self.process_group = None, [], None
        self._outputs = self._targets = None

    def __getstate__(self) -> dict[str, Any]:
        own = {name: value for name, value in vars(self).items() if name in self.kept}
        return {**super().__getstate__(), **own}

    #: Attributes that are pickled beside torch's.
    kept: ClassVar[tuple[str, ...]] = ()

    def bind(self, group: dict[str, Any]) -> Bound:
        return rules.sgd, {"lr": group["lr"]}

    def check_group(self, group: dict[str, Any]) -> None:
        super().check_group(group)
        if group["maximize"]:
            raise ValueError(f"{type(self).__name__} minimizes: negate the loss")
        check_range("weight_decay", group["weight_decay"], "[0, 0]")

    def evaluate(self, closure: Callable[[], Any] | None) -> Any:
        name = type(self).__name__
        if closure is None:
            raise ValueError(f"{name}.step() needs a closure that computes the loss")
        first, *others = self.param_groups
        for key in self.common:
            if any(group[key] != first[key] for group in others):
                raise ValueError(f"{name} has one {key} for all groups")
        before = [(p.grad, _version(p.grad)) for p in self._params()]
        with torch.enable_grad():
            loss = self._checked(self.compute(closure()))
        for p, (grad, version) in zip(self._params(), before, strict=True):
            if p.grad is not None and (p.grad is not grad or _version(grad) != version):
                raise RuntimeError(
                    f"the closure of {name} must not call backward(): the step does what it needs"
                )
        with torch.enable_grad():
            g = self._mean(gradient(loss, self._params()))
            direction, self.report = self.solve(loss, g, closure)
        self._outputs = self._targets = None
        self._direction = split(direction, self._params())
        return self._mean(loss)

    def precondition(self, gradients: Any) -> Any:
        found = dict(zip(self._params(), self._direction, strict=True))
        self._direction = []
        return [[found.get(p) for p in group["params"]] for group in self.param_groups]

    @abc.abstractmethod
    def compute(self, given: Any) -> Tensor:
        """The loss, from what the closure returned; with its graph."""

    @abc.abstractmethod
    def solve(self, loss: Tensor, g: Tensor, closure: Callable[[], Any]) -> tuple[Tensor, Report]:
        """The direction ``P^-1 g`` as one vector, and what was done."""

    def _params(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"] if p.requires_grad]

    def _rates(self) -> Tensor:
        """The learning rate of every entry."""
        pairs = [(p, float(group["lr"])) for group in self.param_groups for p in group["params"]]
        return torch.cat([torch.full_like(p, lr).view(-1) for p, lr in pairs if p.requires_grad])

    def _loss_at(self, step: Tensor, closure: Callable[[], Any]) -> float:
        """The loss where a step would lead; the parameters are as before then."""
        with self._moved(step), torch.no_grad():
            return float(self._mean(self.compute(closure())))

    def _mean(self, values: Tensor) -> Tensor:
        """The mean over ranks, without its graph."""
        if self.process_group is None:
            return values.detach()
        total = values.detach().clone()
        distributed.all_reduce(total, group=self.process_group)
        return total / distributed.get_world_size(self.process_group)

    def _joined(self, matrix: Operator) -> Operator:
        """The mean over ranks of a matrix that each has."""
        if self.process_group is None:
            return matrix
        return Operator(matrix.size, lambda v: self._mean(matrix @ v), matrix)

    @contextmanager
    def _moved(self, step: Tensor) -> Iterator[None]:
        params = self._params()
        old = [p.detach().clone() for p in params]
        try:
            with torch.no_grad():
                for p, change in zip(params, split(step, params), strict=True):
                    p.add_(change)
            yield
        finally:
            with torch.no_grad():
                for p, value in zip(params, old, strict=True):
                    p.copy_(value)

    def _checked(self, loss: Tensor) -> Tensor:
        name = type(self).__name__
        if loss.numel() != 1:
            raise ValueError(f"{name} needs one loss, got shape {tuple(loss.shape)}")
        if not loss.requires_grad:
            raise ValueError(f"the loss of {name} has no graph: the closure must not detach it")
        mean = float(self._mean(loss))
        if not math.isfinite(mean):
            raise FloatingPointError(f"the loss is {mean}")
        return loss.squeeze()


class OfOutputs(SecondOrder):
    """Those whose closure returns ``(outputs, targets)``: the likelihood tells the loss."""

    closure: ClassVar = "outputs"
    likelihood: Likelihood
    kept: ClassVar[tuple[str, ...]] = ("likelihood",)

    def compute(self, given: Any) -> Tensor:
        if not isinstance(given, tuple) or len(given) != 2:
            raise TypeError(
                f"the closure of {type(self).__name__} must return (outputs, targets), "
                f"got {type(given).__name__}"
            )
        self._outputs, self._targets = given
        return self.likelihood.loss(self._outputs, self._targets)


def _version(grad: Tensor | None) -> int:
    return -1 if grad is None else grad._version
