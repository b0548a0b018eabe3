"""Gauss-Newton: the Hessian of the network taken as linear, damped as much as that is wrong."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from optlab.curvature.likelihoods import Likelihood
from optlab.curvature.likelihoods import likelihood as likelihood_of
from optlab.curvature.operators import Operator, gauss_newton
from optlab.curvature.solvers import conjugate_gradients
from optlab.errors import check_count, check_flag, check_range, strict_keywords
from optlab.optimizers.second_order import OfOutputs, Report

#: What the damping is multiplied by where the model is wrong; where it is right, divided.
GROWTH = 3 / 2


@strict_keywords
class GaussNewton(OfOutputs):
    """``theta <- theta - lr (G + damping I)^-1 g`` with the Gauss-Newton matrix, by products alone.

    With ``adaptive`` it is the method of Levenberg and Marquardt, as Martens (2010, section 4.1)
    has it: the damping grows by half where the loss falls by less than a quarter of what was
    foretold, and shrinks by a third where it falls by more than three quarters; a step that would
    raise the loss is not taken.  The batch should be large.

    Args:
        params: tensors to optimise, or groups; each has a ``lr`` of its own.
        likelihood: of the outputs: ``"categorical"``, ``"bernoulli"``, ``"gaussian"`` or a
            :class:`~optlab.curvature.likelihoods.Likelihood`; it gives the loss.
        lr: the learning rate (eta), in [0, inf).
        damping: at first, in [0, inf).
        adaptive: whether it changes.
        iterations: of conjugate gradients, at most.
        tolerance: of the residual, relative.
        progress: end when the quadratic falls by less for each iteration; None: never.
        process_group: over whose ranks the batch is spread, with as many samples on each.

    Attributes:
        report: a :class:`~optlab.optimizers.second_order.Report` on the last step.

    >>> line = torch.nn.Linear(1, 1)
    >>> x = torch.tensor([[0.0], [1.0], [2.0]])
    >>> optimizer = GaussNewton(line.parameters(), "gaussian", damping=0, adaptive=False)
    >>> loss = optimizer.step(lambda: (line(x), 3 * x - 1))
    >>> [round(p.item(), 3) for p in line.parameters()]
    [3.0, -1.0]
    """

    ranges: ClassVar = {"lr": "[0, inf)", "damping": "[0, inf)"}
    kept: ClassVar = (*OfOutputs.kept, "adaptive", "iterations", "tolerance", "progress")

    def __init__(
        self,
        params: Any,
        likelihood: str | Likelihood,
        lr: float | Tensor = 1.0,
        *,
        damping: float = 1.0,
        adaptive: bool = True,
        iterations: int = 250,
        tolerance: float = 1e-10,
        progress: float | None = 5e-4,
        process_group: Any = None,
    ) -> None:
        check_flag("adaptive", adaptive)
        check_count("iterations", iterations)
        check_range("tolerance", tolerance, "[0, 1)")
        if progress is not None:
            check_range("progress", progress, "(0, 1)")
        self.likelihood, self.adaptive = likelihood_of(likelihood), adaptive
        self.iterations, self.tolerance, self.progress = iterations, tolerance, progress
        super().__init__(params, {"lr": lr, "damping": damping}, process_group)

    def solve(self, loss: Tensor, g: Tensor, closure: Callable[[], Any]) -> tuple[Tensor, Report]:
        before = float(self._mean(loss))
        damping = float(self.param_groups[0]["damping"])
        G = self._joined(gauss_newton(loss, self._outputs, self._params()))
        found = conjugate_gradients(
            Operator(G.size, lambda v: G @ v + damping * v, g),
            g,
            tolerance=self.tolerance,
            iterations=self.iterations,
            progress=self.progress,
        )
        if found.reason == "negative curvature" and damping == 0:
            raise ValueError("the Gauss-Newton matrix is singular: it needs damping above 0")
        d, action = found.x, "Gauss-Newton step"
        step = -self._rates() * d
        bent = float(step @ (G @ step))
        foretold, decrease = float(-(g @ step)) - bent / 2, math.nan
        if self.adaptive:
            decrease = before - self._loss_at(step, closure)
            ratio = decrease / foretold if foretold > 0 else 1.0
            for group in self.param_groups:
                if ratio > 3 / 4:
                    group["damping"] = damping / GROWTH
                elif not ratio >= 1 / 4:
                    group["damping"] = damping * GROWTH
            if not decrease >= 0:
                d, action = torch.zeros_like(d), "step refused"
        lowest = bent / float(step @ step) if bool(step.any()) else math.nan
        return d, Report(before, foretold, decrease, damping, lowest, found.iterations, action)
