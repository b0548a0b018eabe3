"""Natural gradient: the Fisher information for P, a step measured by what it changes."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from optlab.curvature.likelihoods import FISHERS, Likelihood
from optlab.curvature.likelihoods import likelihood as likelihood_of
from optlab.curvature.operators import Operator, fisher, fisher_empirical, fisher_sampled
from optlab.curvature.solvers import conjugate_gradients
from optlab.errors import check_choice, check_count, check_range, strict_keywords
from optlab.optimizers.second_order import OfOutputs, Report


@strict_keywords
class NaturalGradient(OfOutputs):
    """``theta <- theta - lr (F + damping I)^-1 g``, by products with ``F`` alone (Amari 1998).

    Args:
        params: tensors to optimise, or groups; each has a ``lr`` of its own.
        likelihood: as for :class:`~optlab.optimizers.gauss_newton.GaussNewton`.
        lr: the learning rate (eta), in [0, inf).
        damping: added to the eigenvalues of ``F``, in [0, inf).
        fisher: ``"exact"``, ``"sampled"`` or ``"empirical"``, which is no Fisher information.
        samples: how many targets are drawn for each sample, for ``"sampled"``.
        kl_bound: shorten steps whose ``step^T F step / 2``, which is near to the divergence of the
            model after the step from that before, is larger (as Schulman et al. 2015 do); the
            learning rate counts.  None: never.
        iterations: of conjugate gradients, at most.
        tolerance: of the residual, relative.
        generator: that targets are drawn with; torch's own by default.
        process_group: over whose ranks the batch is spread, with as many samples on each.

    Attributes:
        report: a :class:`~optlab.optimizers.second_order.Report` on the last step.

    >>> logit = torch.nn.Parameter(torch.zeros(1))
    >>> optimizer = NaturalGradient([logit], "bernoulli", lr=0.1, damping=0)
    >>> optimizer.step(lambda: (logit.expand(4, 1), torch.tensor([[1.0], [1.0], [1.0], [0.0]])))
    tensor(0.6931)
    >>> logit.tolist()
    [0.10000000149011612]
    """

    ranges: ClassVar = {"lr": "[0, inf)", "damping": "[0, inf)"}
    kept: ClassVar = (
        *(*OfOutputs.kept, "fisher", "samples", "kl_bound", "iterations", "tolerance"),
        "generator",
    )

    def __init__(
        self,
        params: Any,
        likelihood: str | Likelihood,
        lr: float | Tensor = 0.1,
        *,
        damping: float = 1e-3,
        fisher: str = "exact",
        samples: int = 1,
        kl_bound: float | None = None,
        iterations: int = 250,
        tolerance: float = 1e-10,
        generator: torch.Generator | None = None,
        process_group: Any = None,
    ) -> None:
        check_choice("fisher", fisher, FISHERS)
        check_count("samples", samples)
        check_count("iterations", iterations)
        check_range("tolerance", tolerance, "[0, 1)")
        if kl_bound is not None:
            check_range("kl_bound", kl_bound, "(0, inf)")
        self.likelihood, self.fisher, self.samples = likelihood_of(likelihood), fisher, samples
        self.kl_bound, self.generator = kl_bound, generator
        self.iterations, self.tolerance = iterations, tolerance
        super().__init__(params, {"lr": lr, "damping": damping}, process_group)

    def solve(self, loss: Tensor, g: Tensor, closure: Callable[[], Any]) -> tuple[Tensor, Report]:
        before = float(self._mean(loss))
        damping = float(self.param_groups[0]["damping"])
        F = self._joined(self._information())
        found = conjugate_gradients(
            Operator(F.size, lambda v: F @ v + damping * v, g),
            g,
            tolerance=self.tolerance,
            iterations=self.iterations,
        )
        if found.reason == "negative curvature" and damping == 0:
            raise ValueError("the Fisher information is singular: it needs damping above 0")
        d, action = found.x, "natural gradient"
        step = -self._rates() * d
        bent = float(step @ (F @ step))
        if self.kl_bound is not None and bent / 2 > self.kl_bound:
            share = math.sqrt(self.kl_bound / (bent / 2))
            d, step, bent = share * d, share * step, share**2 * bent
            action = "natural gradient, shortened to the bound"
        lowest = bent / float(step @ step) if bool(step.any()) else math.nan
        foretold = float(-(g @ step)) - bent / 2
        return d, Report(before, foretold, math.nan, damping, lowest, found.iterations, action)

    def _information(self) -> Operator:
        outputs, params = self._outputs, self._params()
        if self.fisher == "exact":
            return fisher(outputs, params, self.likelihood)
        if self.fisher == "sampled":
            return fisher_sampled(outputs, params, self.likelihood, self.samples, self.generator)
        return fisher_empirical(outputs, self._targets, params, self.likelihood)
