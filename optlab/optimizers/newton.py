"""Newton's method: the Hessian for P."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from optlab.curvature.operators import Operator, hessian
from optlab.curvature.solvers import Solution, conjugate_gradients
from optlab.errors import check_choice, check_flag, check_range, strict_keywords
from optlab.optimizers.second_order import Report, SecondOrder

SOLVERS = ("dense", "cg")
GLOBALIZATIONS = (None, "line_search", "trust_region")
#: Of the decrease that the slope foretells, what a line search asks for; halvings that it tries.
ARMIJO, HALVINGS = 1e-4, 30
#: Of the foretold decrease, what a trust region needs to take a step.
ACCEPTED = 0.1


@strict_keywords
class Newton(SecondOrder):
    """``theta <- theta - lr (H + damping I)^-1 g`` with the Hessian of the loss.

    ``step(closure)`` takes a closure that returns the loss and calls no ``backward()``.  Far from a
    minimum a Newton step may lead to a saddle, or up; ``globalization`` keeps it from that, and
    ``report`` tells what was done at negative curvature.

    Args:
        params: tensors to optimise, or groups; each has a ``lr`` of its own.
        lr: the learning rate (eta), in [0, inf).
        damping: added to the eigenvalues of the Hessian, in [0, inf).
        solver: ``"dense"`` forms the matrix, for up to some thousand parameters; ``"cg"`` takes
            products alone.
        globalization: ``"line_search"``, halving the step until the loss falls enough (Armijo), or
            ``"trust_region"``, a radius that follows how well the quadratic foretells the loss
            (Nocedal and Wright 2006, algorithm 4.1).
        radius: of the trust region at first, in (0, inf).
        saddle_free: take the eigenvalues' sizes (Dauphin et al. 2014); needs ``solver="dense"``.
        tolerance: of the residual, relative, for ``"cg"``.
        iterations: for ``"cg"``, at most; twice the number of parameters by default.
        process_group: over whose ranks the batch is spread, with as many samples on each.

    Attributes:
        report: a :class:`~optlab.optimizers.second_order.Report` on the last step.

    >>> theta = torch.nn.Parameter(torch.tensor([10.0, 1.0]))
    >>> Newton([theta]).step(lambda: theta**2 @ torch.tensor([0.5, 50.0]))
    tensor(100.)
    >>> theta.tolist()
    [0.0, 0.0]
    """

    ranges: ClassVar = {"lr": "[0, inf)", "damping": "[0, inf)", "radius": "(0, inf)"}
    common: ClassVar = ("damping", "radius")
    kept: ClassVar = ("solver", "globalization", "saddle_free", "tolerance", "iterations")

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1.0,
        *,
        damping: float = 0.0,
        solver: str = "dense",
        globalization: str | None = None,
        radius: float = 1.0,
        saddle_free: bool = False,
        tolerance: float = 1e-10,
        iterations: int | None = None,
        process_group: Any = None,
    ) -> None:
        check_choice("solver", solver, SOLVERS)
        if globalization not in GLOBALIZATIONS:
            raise ValueError(
                "globalization must be None, 'line_search' or 'trust_region', "
                f"got {globalization!r}"
            )
        check_flag("saddle_free", saddle_free)
        check_range("tolerance", tolerance, "[0, 1)")
        if saddle_free and (solver != "dense" or globalization == "trust_region"):
            raise ValueError("saddle_free needs solver='dense' and no trust region")
        self.solver, self.globalization, self.saddle_free = solver, globalization, saddle_free
        self.tolerance, self.iterations = tolerance, iterations
        super().__init__(params, {"lr": lr, "damping": damping, "radius": radius}, process_group)

    def compute(self, given: Any) -> Tensor:
        if not isinstance(given, Tensor):
            raise TypeError(f"the closure of Newton must return the loss, got {given!r}")
        return given

    def solve(self, loss: Tensor, g: Tensor, closure: Callable[[], Any]) -> tuple[Tensor, Report]:
        before = float(self._mean(loss))
        damping = float(self.param_groups[0]["damping"])
        H = self._joined(hessian(loss, self._params()))
        d, lowest, iterations, action = (
            self._dense(H, g, damping) if self.solver == "dense" else self._cg(H, g, damping)
        )
        rates = self._rates()
        step = -rates * d
        # Before any other point is tried: a graph holds where its parameters are.
        slope, bent = float(g @ step), float(step @ (H @ step))
        foretold, decrease = -slope - bent / 2, math.nan
        if self.globalization == "line_search":
            share, decrease, found = self._search(before, slope, step, closure)
            d, foretold = share * d, -share * slope - share**2 * bent / 2
            action = f"{action}, {found}" if found else action
        elif self.globalization == "trust_region":
            decrease = before - self._loss_at(step, closure)
            ratio = decrease / foretold if foretold > 0 else -math.inf
            self._resize(ratio, float(d.norm()))
            if not ratio > ACCEPTED:
                d, action = torch.zeros_like(d), f"{action}, step refused"
        report = Report(before, foretold, decrease, damping, lowest, iterations, action)
        return d, report

    def _dense(self, H: Operator, g: Tensor, damping: float) -> tuple[Tensor, float, int, str]:
        values, Q = torch.linalg.eigh(H.dense())
        lowest, along = float(values[0]), Q.T @ g
        damped = (values.abs() if self.saddle_free else values) + damping
        action = "Newton step"
        if self.globalization == "trust_region":
            radius = float(self.param_groups[0]["radius"])
            damped, action = _in_ball(damped, along, radius)
        elif lowest + damping < 0:
            action = "negative curvature: the step goes up along it"
            descends = float((along**2 / damped).sum()) > 0
            if self.saddle_free:
                action = "negative curvature: its sign was turned"
            elif self.globalization == "line_search" and not descends:
                damped, action = damped.abs(), "negative curvature: its sign was turned"
        nothing = len(values) * torch.finfo(values.dtype).eps * float(values.abs().max())
        if float(damped.abs().min()) <= nothing:
            raise ValueError(
                f"the Hessian is singular with damping={damping!r}, "
                f"its lowest eigenvalue being {lowest:.3g}: more damping is needed"
            )
        return Q @ (along / damped), lowest, 0, action

    def _cg(self, H: Operator, g: Tensor, damping: float) -> tuple[Tensor, float, int, str]:
        radius = self.param_groups[0]["radius"] if self.globalization == "trust_region" else None
        damped = Operator(H.size, lambda v: H @ v + damping * v, g)
        found: Solution = conjugate_gradients(
            damped, g, tolerance=self.tolerance, iterations=self.iterations, radius=radius
        )
        d, action = found.x, {"radius": "step to the radius"}.get(found.reason, "Newton step")
        lowest = math.nan
        if found.direction is not None:
            p = found.direction
            lowest = float(p @ (H @ p) / (p @ p))
            action = "negative curvature: the step ends before it"
            if radius is not None:
                action = "negative curvature: along it to the radius"
            elif not bool(d.any()):
                d, action = g, "negative curvature: the gradient was taken"
        return d, lowest, found.iterations, action

    def _search(
        self, loss: float, slope: float, step: Tensor, closure: Callable[[], Any]
    ) -> tuple[float, float, str]:
        for halving in range(HALVINGS):
            share = 0.5**halving
            decrease = loss - self._loss_at(share * step, closure)
            if decrease >= -ARMIJO * share * slope and slope < 0:
                return share, decrease, f"halved {halving} times" if halving else ""
        return 0.0, 0.0, "no decrease was found"

    def _resize(self, ratio: float, length: float) -> None:
        for group in self.param_groups:
            if not ratio >= 1 / 4:
                group["radius"] = length / 4 if length > 0 else group["radius"] / 4
            elif ratio > 3 / 4 and length > 0.99 * group["radius"]:
                group["radius"] = 2 * group["radius"]


def _in_ball(values: Tensor, along: Tensor, radius: float) -> tuple[Tensor, str]:
    """Eigenvalues with what must be added so that the step is in the ball, and what was done.

    The step is the lowest point of the quadratic in the ball (Nocedal and Wright 2006, section
    4.3), but for gradients without a part along the lowest eigenvalue.
    """
    lowest = float(values[0])

    def length(extra: float) -> float:
        return float((along / (values + extra)).norm())

    if lowest > 0 and length(0.0) <= radius:
        return values, "Newton step"
    action = "step to the radius"
    if lowest <= 0:
        action = "negative curvature: along it to the radius"
    low = max(0.0, -lowest)
    high = low + max(float(along.norm()) / radius, abs(lowest), torch.finfo(values.dtype).tiny)
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if length(middle) > radius else (low, middle)
    return values + high, action
