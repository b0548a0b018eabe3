"""Blocks: a layer's curvature as it is averaged, inverted and applied from step to step."""

import abc
from typing import Any

import torch
from torch import Tensor

from optlab.curvature import kronecker
from optlab.curvature.kronecker import Basis, LinAlgError, Moment
from optlab.curvature.layers import Layer

#: How ``damping`` is added to ``A (x) G``.
DAMPINGS = ("factored", "eigenbasis")


class Block(abc.ABC):
    """What is known of one layer.

    Attributes:
        layer: whose gradient it preconditions.
        averages: moments averaged over steps, by name.
        inverses: what was made of them, by name.
        seen: how many terms an average has, by name.
    """

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.averages: dict[str, Tensor] = {}
        self.inverses: dict[str, Tensor] = {}
        self.seen: dict[str, int] = {}

    @property
    @abc.abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The moments that a step brings, with their shapes."""

    @abc.abstractmethod
    def inverse_shapes(self) -> dict[str, tuple[int, ...]]:
        """What :meth:`invert` makes, with its shapes."""

    @property
    def cost(self) -> int:
        """Of :meth:`invert`, in proportion."""
        return sum(shape[0] ** 3 for shape in self.shapes.values() if len(shape) == 2)

    def average(self, moments: dict[str, Moment], decay: float) -> None:
        """Take a step's moments into the averages."""
        for name, moment in moments.items():
            seen = self.seen.get(name, 0)
            old = self.averages.get(name)
            self.averages[name] = kronecker.running_average(old, moment, decay, seen)
            self.seen[name] = seen + 1

    @abc.abstractmethod
    def invert(self, damping: float) -> None:
        """Make the inverses anew.

        Raises:
            torch.linalg.LinAlgError: they are singular.
        """

    @abc.abstractmethod
    def solve(self, V: Tensor, damping: float) -> Tensor:
        """``(block + damping I)^-1`` times a gradient that the layer has joined to a matrix."""

    @abc.abstractmethod
    def quadratic(self, D: Tensor) -> Tensor:
        """``D^T block D`` for a step, without damping: one number."""

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "averages": dict(self.averages),
            "inverses": dict(self.inverses),
            "seen": dict(self.seen),
        }

    def check(self, state: dict[str, Any] | None) -> None:
        """Raise a ValueError where a checkpoint does not fit this block."""
        name = self.layer.name
        if state is None:
            raise ValueError(f"the checkpoint has no curvature of {name}")
        for kind, value in {**state["averages"], **state["inverses"]}.items():
            expected = {**self.shapes, **self.inverse_shapes(), "values": self.layer.size}.get(kind)
            if tuple(value.shape) != expected:
                raise ValueError(
                    f"{kind} of {name} must have shape {expected}, got {tuple(value.shape)}"
                )

    def load(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        p = self.layer.params[0]

        def own(values: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: value.to(p.device, copy=True) for name, value in values.items()}

        self.averages, self.inverses = own(state["averages"]), own(state["inverses"])
        self.seen = dict(state["seen"])


class Kronecker(Block):
    """``A (x) G``, its damping factored."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        out, into = self.layer.size
        return {"A": (into,) if self.layer.diagonal else (into, into), "G": (out, out)}

    def inverse_shapes(self) -> dict[str, tuple[int, ...]]:
        return {f"{name}_inverse": shape for name, shape in self.shapes.items()}

    def invert(self, damping: float) -> None:
        A, G = kronecker.damped_inverses(self.averages["A"], self.averages["G"], damping)
        self.inverses = {"A_inverse": A, "G_inverse": G}

    def solve(self, V: Tensor, damping: float) -> Tensor:
        return kronecker.precondition(V, self.inverses["A_inverse"], self.inverses["G_inverse"])

    def quadratic(self, D: Tensor) -> Tensor:
        return kronecker.quadratic(D, self.averages["A"], self.averages["G"])


class Eigenbasis(Kronecker):
    """``A (x) G`` in its eigenbasis, where damping is exact and eigenvalues may be corrected."""

    def __init__(self, layer: Layer, corrected: bool) -> None:
        super().__init__(layer)
        self.corrected = corrected

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = super().shapes
        if self.corrected and self.inverses:
            shapes["values"] = self.layer.size
        return shapes

    def inverse_shapes(self) -> dict[str, tuple[int, ...]]:
        factors = {"Q_A": super().shapes["A"], "Q_G": super().shapes["G"]}
        if self.layer.diagonal:
            del factors["Q_A"]
        return {**factors, "products": self.layer.size}

    def invert(self, damping: float) -> None:
        basis = kronecker.eigenbasis(self.averages["A"], self.averages["G"])
        self.inverses = {"Q_G": basis.G, "products": basis.values}
        if basis.A is not None:
            self.inverses["Q_A"] = basis.A
        # Second moments in one basis say nothing of another.
        self.averages.pop("values", None)
        self.seen.pop("values", None)

    @property
    def basis(self) -> Basis:
        """With the corrected eigenvalues, as soon as there are any."""
        values = self.averages.get("values", self.inverses["products"])
        return Basis(self.inverses.get("Q_A"), self.inverses["Q_G"], values)

    def solve(self, V: Tensor, damping: float) -> Tensor:
        return kronecker.precondition_in_basis(V, self.basis, damping)

    def quadratic(self, D: Tensor) -> Tensor:
        return kronecker.quadratic_in_basis(D, self.basis)


class Units(Block):
    """A block for the scale and shift of each unit."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        units, parameters = self.layer.size
        return {"units": (units, parameters, parameters)}

    def inverse_shapes(self) -> dict[str, tuple[int, ...]]:
        return {}

    def invert(self, damping: float) -> None:
        """Nothing: the blocks are small."""

    def solve(self, V: Tensor, damping: float) -> Tensor:
        try:
            return kronecker.solve_units(V, self.averages["units"], damping)
        except LinAlgError as error:
            name = self.layer.name
            raise ValueError(
                f"the curvature of {name} cannot be inverted with damping={damping!r}: {error}"
            ) from error

    def quadratic(self, D: Tensor) -> Tensor:
        return torch.einsum("ui,uij,uj->", D, self.averages["units"], D)


def block(layer: Layer, damping_form: str, corrected: bool) -> Block:
    """A layer's block, of the kind that the layer and the form of damping ask for."""
    if layer.kind == "units":
        return Units(layer)
    if corrected or damping_form == "eigenbasis":
        return Eigenbasis(layer, corrected)
    return Kronecker(layer)
