"""Likelihoods: the loss, its gradient and its curvature in a network's outputs alone.

A loss is the mean over the batch of ``l_n = -log p(y_n | f_n)``, up to a constant, where ``f_n``
are the outputs for sample ``n``.  These likelihoods are of the exponential family in its natural
parameters, so the Hessian of ``l_n`` in ``f_n`` does not depend on the targets, and is the Fisher
information of the outputs (Martens 2020).  It is given as vectors ``u`` that add up to
it, ``sum_r u_r u_r^T``: these are what a network passes back.
"""

import abc
import math
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from optlab.errors import check_range, nearest

#: Which Fisher information: the expectation over the model's own targets, a sample of it, or the
#: batch's targets in their place.
FISHERS = ("exact", "sampled", "empirical")


class Likelihood(abc.ABC):
    """What the outputs say of the targets.  Sample ``n`` is entry ``n`` of the first dimension."""

    name: ClassVar[str]

    @abc.abstractmethod
    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """``-log p`` of every single target, unreduced."""

    @abc.abstractmethod
    def draw(self, outputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Targets as the model itself has them, of the shape that :meth:`loss` takes."""

    @abc.abstractmethod
    def residual(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The gradient of the sum of :meth:`losses` in the outputs."""

    @abc.abstractmethod
    def columns(self, outputs: Tensor) -> Iterator[Tensor]:
        """Vectors whose products with themselves add up to the Hessian of that sum.

        Each is of the outputs' shape and holds a vector for every sample.
        """

    @abc.abstractmethod
    def weight(self, outputs: Tensor) -> float:
        """What a sample's losses are added with: one over their number where it is a mean."""

    def check(self, outputs: Tensor) -> None:
        """Raise a ValueError where the outputs do not fit this likelihood."""
        if outputs.dim() == 0 or not outputs.is_floating_point():
            raise ValueError(
                f"a {self.name} likelihood takes real outputs with a dimension for the batch, "
                f"got shape {tuple(outputs.shape)}, {outputs.dtype}"
            )
        if outputs.numel() == 0:
            raise ValueError(f"outputs must hold samples, got shape {tuple(outputs.shape)}")

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over the batch, a tensor without dimensions.

        Raises:
            ValueError: outputs or targets that do not fit.
        """
        self.check(outputs)
        return self.losses(outputs, targets).sum() * (self.weight(outputs) / len(outputs))

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The gradient of each ``l_n`` in the outputs of its own sample; shape of the outputs."""
        return self.residual(outputs, targets) * self.weight(outputs)

    def vectors(
        self,
        outputs: Tensor,
        fisher: str,
        targets: Tensor | None = None,
        samples: int = 1,
        generator: torch.Generator | None = None,
    ) -> Iterator[Tensor]:
        """Vectors in the outputs whose products with themselves add up to a Fisher information.

        Args:
            outputs: of the network; nothing is differentiated through them.
            fisher: ``"exact"`` has as many vectors as a sample has outputs, and needs samples
                that do not depend on one another; ``"sampled"`` is unbiased; ``"empirical"`` has
                one, the score, and is no estimate of the Fisher information.
            targets: of the batch, for ``"empirical"``.
            samples: how many times targets are drawn, for ``"sampled"``.
            generator: what they are drawn with.

        Raises:
            ValueError: another name, or no targets where they are needed.
        """
        check_fisher(fisher)
        self.check(outputs)
        outputs = outputs.detach()
        root = math.sqrt(self.weight(outputs))
        if fisher == "exact":
            for column in self.columns(outputs):
                yield root * column
        elif fisher == "sampled":
            for _ in range(samples):
                drawn = self.draw(outputs, generator)
                yield (root / math.sqrt(samples)) * self.residual(outputs, drawn)
        else:
            if targets is None:
                raise ValueError("the empirical Fisher needs targets")
            yield self.score(outputs, targets)


class Categorical(Likelihood):
    """One of several classes: cross-entropy of logits, as ``torch.nn.CrossEntropyLoss`` has it.

    Args:
        dim: the outputs' dimension that runs over the classes.  Targets are the classes' numbers,
            of the outputs' shape without it.  A sample with several targets has their mean.

    >>> round(Categorical().loss(torch.zeros(3, 4), torch.tensor([0, 1, 2])).item(), 4)
    1.3863
    """

    name = "categorical"

    def __init__(self, dim: int = 1) -> None:
        self.dim = dim

    def check(self, outputs: Tensor) -> None:
        super().check(outputs)
        if not -outputs.dim() <= self.dim < outputs.dim() or self.dim % outputs.dim() == 0:
            raise ValueError(
                f"a categorical likelihood has its classes in dimension {self.dim}, behind the "
                f"batch; got outputs of shape {tuple(outputs.shape)}"
            )

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        shape = outputs.movedim(self.dim, -1).shape[:-1]
        if targets.shape != shape or targets.is_floating_point():
            raise ValueError(
                f"targets must be classes' numbers of shape {tuple(shape)}, "
                f"got {tuple(targets.shape)}, {targets.dtype}"
            )
        classes = outputs.shape[self.dim]
        if targets.min() < 0 or targets.max() >= classes:
            raise ValueError(f"targets must be in 0..{classes - 1}")
        return functional.cross_entropy(outputs.movedim(self.dim, 1), targets, reduction="none")

    def draw(self, outputs: Tensor, generator: torch.Generator | None) -> Tensor:
        # Where a uniform number falls among the classes' cumulated probabilities.
        reached = outputs.movedim(self.dim, -1).float().softmax(-1).cumsum(-1)
        shape, place = (*reached.shape[:-1], 1), _place(generator, reached)
        drawn = torch.rand(shape, generator=generator, device=place).to(reached.device)
        classes = torch.searchsorted(reached, drawn * reached[..., -1:], right=True)
        return classes.squeeze(-1).clamp_(max=reached.shape[-1] - 1)

    def residual(self, outputs: Tensor, targets: Tensor) -> Tensor:
        p = outputs.movedim(self.dim, -1).softmax(-1)
        index = targets.unsqueeze(-1)
        return p.scatter_add(-1, index, p.new_full((), -1).expand(index.shape)).movedim(
            -1, self.dim
        )

    def columns(self, outputs: Tensor) -> Iterator[Tensor]:
        p = outputs.movedim(self.dim, -1).softmax(-1)
        places = p[0].numel() // p.shape[-1]
        flat = p.reshape(len(p), places, -1)
        for place in range(places):
            for index in range(p.shape[-1]):
                u = torch.zeros_like(flat)
                u[:, place] = -flat[:, place]
                u[:, place, index] += 1
                u[:, place] *= flat[:, place, index, None].sqrt()
                yield u.view_as(p).movedim(-1, self.dim)

    def weight(self, outputs: Tensor) -> float:
        return outputs.shape[self.dim] / outputs[0].numel()


class _Elementwise(Likelihood):
    """A target for every output.

    Args:
        reduction: whether a sample's loss is the ``"sum"`` or the ``"mean"`` over its outputs.
    """

    def __init__(self, reduction: str) -> None:
        if reduction not in ("sum", "mean"):
            raise ValueError(f"reduction must be 'sum' or 'mean', got {reduction!r}")
        self.reduction = reduction

    @abc.abstractmethod
    def curvature(self, outputs: Tensor) -> Tensor:
        """The second derivative of every output's loss."""

    def columns(self, outputs: Tensor) -> Iterator[Tensor]:
        root = self.curvature(outputs).sqrt().reshape(len(outputs), -1)
        for index in range(root.shape[1]):
            u = torch.zeros_like(root)
            u[:, index] = root[:, index]
            yield u.view_as(outputs)

    def weight(self, outputs: Tensor) -> float:
        return 1.0 if self.reduction == "sum" else 1 / outputs[0].numel()

    def _fit(self, outputs: Tensor, targets: Tensor) -> None:
        if targets.shape != outputs.shape:
            raise ValueError(
                f"targets must have the outputs' shape {tuple(outputs.shape)}, "
                f"got {tuple(targets.shape)}"
            )


class Bernoulli(_Elementwise):
    """Yes or no for every output, a logit; targets are in [0, 1].

    ``reduction="mean"`` is ``torch.nn.BCEWithLogitsLoss``; the default adds up a sample's outputs,
    as Martens and Grosse (2015, section 13) do for their autoencoders.
    """

    name = "bernoulli"

    def __init__(self, reduction: str = "sum") -> None:
        super().__init__(reduction)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self._fit(outputs, targets)
        targets = targets.to(outputs.dtype)
        return functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")

    def draw(self, outputs: Tensor, generator: torch.Generator | None) -> Tensor:
        uniform = torch.rand(outputs.shape, generator=generator, device=_place(generator, outputs))
        return (uniform.to(outputs.device) < outputs.sigmoid()).to(outputs.dtype)

    def residual(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.sigmoid() - targets.to(outputs.dtype)

    def curvature(self, outputs: Tensor) -> Tensor:
        return outputs.sigmoid() * (-outputs).sigmoid()


class Gaussian(_Elementwise):
    """Each output with normal noise: ``l_n`` is half the squared distance over ``variance``.

    ``Gaussian(variance=0.5, reduction="mean")`` is ``torch.nn.MSELoss``.
    """

    name = "gaussian"

    def __init__(self, variance: float = 1.0, reduction: str = "sum") -> None:
        super().__init__(reduction)
        check_range("variance", variance, "(0, inf)")
        self.variance = variance

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self._fit(outputs, targets)
        return (outputs - targets) ** 2 / (2 * self.variance)

    def draw(self, outputs: Tensor, generator: torch.Generator | None) -> Tensor:
        place = _place(generator, outputs)
        noise = torch.randn(outputs.shape, generator=generator, device=place)
        return outputs + math.sqrt(self.variance) * noise.to(outputs)

    def residual(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets) / self.variance

    def curvature(self, outputs: Tensor) -> Tensor:
        return torch.full_like(outputs, 1 / self.variance)


LIKELIHOODS = {kind.name: kind for kind in (Categorical, Bernoulli, Gaussian)}


def likelihood(given: str | Likelihood) -> Likelihood:
    """A likelihood by its name, or as it is.

    Raises:
        ValueError: there is none of that name.
    """
    if isinstance(given, Likelihood):
        return given
    if given not in LIKELIHOODS:
        raise ValueError(f"no likelihood {given!r}: {nearest(given, LIKELIHOODS)}")
    return LIKELIHOODS[given]()


def check_fisher(name: str) -> None:
    """Raise a ValueError unless it is one of :data:`FISHERS`."""
    if name not in FISHERS:
        raise ValueError(f"fisher must be one of {', '.join(FISHERS)}, got {name!r}")


def _place(generator: torch.Generator | None, like: Tensor) -> torch.device:
    """Where random numbers are drawn: with the generator, to be moved."""
    return like.device if generator is None else generator.device
