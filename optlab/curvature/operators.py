"""Curvature matrices, known by their products with vectors.

A network's ``n`` parameters, one after the other, are one vector, as
``torch.nn.utils.parameters_to_vector`` has it.  The matrices are ``n x n``, symmetric and never
formed (Pearlmutter 1994; Schraudolph 2002): a product costs a few passes through the network.

============================ ====================================== ======================
:func:`hessian`              second derivatives of the loss         may have negative ones
:func:`gauss_newton`         ``J^T H_f J / N``                      never where ``H_f`` has none
:func:`fisher`               ``J^T E[u u^T] J / N``, targets drawn  never
:func:`fisher_sampled`       the same, from a sample of targets     never
:func:`fisher_empirical`     the same, from the batch's targets     never
============================ ====================================== ======================

``J`` is the Jacobian of the outputs, ``H_f`` the Hessian of the samples' losses in them, ``u`` a
sample's score.  The first three cost no randomness; the third is the second for the likelihoods
here (Martens 2020), and the last is no estimate of any (Kunstner et al. 2019).
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from optlab.curvature.likelihoods import Likelihood

Product = Callable[[Tensor], Tensor]


class Operator:
    """A symmetric matrix with its products: ``matrix @ v``.

    Args:
        size: the number of rows.
        product: what it makes of a vector of shape ``(size,)``.
        like: what has its dtype and device.
    """

    def __init__(self, size: int, product: Product, like: "Tensor | Operator") -> None:
        self.size = size
        self.dtype: torch.dtype = like.dtype
        self.device: torch.device = like.device
        self._product = product

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.size, self.size

    def __matmul__(self, v: Tensor) -> Tensor:
        """The product with a vector, or with each column of a matrix.

        Raises:
            ValueError: another number of rows.
        """
        if v.dim() not in (1, 2) or len(v) != self.size:
            raise ValueError(f"v must have {self.size} rows, got shape {tuple(v.shape)}")
        if v.dim() == 1:
            return self._product(v)
        return torch.stack([self._product(column) for column in v.unbind(1)], 1)

    def dense(self) -> Tensor:
        """The matrix itself, column by column: for small problems."""
        return self @ torch.eye(self.size, dtype=self.dtype, device=self.device)


def gradient(loss: Tensor, params: Sequence[Tensor], *, differentiable: bool = False) -> Tensor:
    """The gradient as one vector; parameters that the loss does not depend on have zeros.

    Args:
        loss: one number.
        params: the parameters.
        differentiable: whether it is to be differentiated again.
    """
    grads = torch.autograd.grad(
        loss, params, create_graph=differentiable, retain_graph=True, materialize_grads=True
    )
    return parameters_to_vector(grads)


def split(v: Tensor, params: Sequence[Tensor]) -> list[Tensor]:
    """A vector as tensors of the parameters' shapes."""
    pieces = v.split([p.numel() for p in params])
    return [piece.view(p.shape) for piece, p in zip(pieces, params, strict=True)]


def hessian(loss: Tensor, params: Iterable[Tensor]) -> Operator:
    """Second derivatives of a loss: the gradient's derivative along ``v`` (Pearlmutter 1994).

    Args:
        loss: one number, with the graph that it was computed by.
        params: the parameters.
    """
    params = _checked(params)
    g = gradient(_scalar(loss), params, differentiable=True)

    def product(v: Tensor) -> Tensor:
        if not g.requires_grad:  # a loss that is linear
            return torch.zeros_like(v)
        return gradient(g @ v, params)

    return Operator(len(g), product, g)


def gauss_newton(loss: Tensor, outputs: Tensor, params: Iterable[Tensor]) -> Operator:
    """The Hessian with the network taken as linear: ``J^T H_f J / N`` (Schraudolph 2002).

    Args:
        loss: one number, the mean over the batch, computed from ``outputs``.
        outputs: the network's, with the graph that they were computed by.
        params: the parameters.
    """
    params = _checked(params)
    forward, backward = _jacobian(outputs, params)
    slope = torch.autograd.grad(_scalar(loss), outputs, create_graph=True)[0]

    def product(v: Tensor) -> Tensor:
        change = forward(v)
        if not slope.requires_grad:
            return torch.zeros_like(v)
        bent = torch.autograd.grad(
            slope, outputs, change, retain_graph=True, materialize_grads=True
        )[0]
        return backward(bent)

    return Operator(sum(p.numel() for p in params), product, params[0])


def fisher(outputs: Tensor, params: Iterable[Tensor], likelihood: Likelihood) -> Operator:
    """The Fisher information, its expectation over the model's targets taken exactly.

    Args:
        outputs: the network's for a batch, with the graph that they were computed by.
        params: the parameters.
        likelihood: what the outputs mean.

    Raises:
        ValueError: outputs that do not fit the likelihood.
    """
    return _fisher(outputs, params, [*likelihood.vectors(outputs, "exact")])


def fisher_sampled(
    outputs: Tensor,
    params: Iterable[Tensor],
    likelihood: Likelihood,
    samples: int = 1,
    generator: torch.Generator | None = None,
) -> Operator:
    """An unbiased estimate of :func:`fisher`, with targets drawn from the model.

    The targets are drawn once: the operator stays the same matrix.
    """
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples!r}")
    vectors = likelihood.vectors(outputs, "sampled", samples=samples, generator=generator)
    return _fisher(outputs, params, [*vectors])


def fisher_empirical(
    outputs: Tensor, targets: Tensor, params: Iterable[Tensor], likelihood: Likelihood
) -> Operator:
    """The second moment of the samples' gradients: not the Fisher information, whatever its name.

    The targets are the batch's own, where the Fisher information has the model's.
    """
    return _fisher(outputs, params, [*likelihood.vectors(outputs, "empirical", targets)])


def _fisher(outputs: Tensor, params: Iterable[Tensor], vectors: Sequence[Tensor]) -> Operator:
    params = _checked(params)
    forward, backward = _jacobian(outputs, params)
    samples = len(outputs)

    def product(v: Tensor) -> Tensor:
        change = forward(v)
        along = torch.zeros_like(change)
        for u in vectors:
            share = (u * change).flatten(1).sum(1) if u.dim() > 1 else u * change
            along += share.view(-1, *[1] * (u.dim() - 1)) * u
        return backward(along / samples)

    return Operator(sum(p.numel() for p in params), product, params[0])


def _jacobian(outputs: Tensor, params: Sequence[Tensor]) -> tuple[Product, Product]:
    """Products with the outputs' Jacobian, and with its transpose."""
    dummy = torch.zeros_like(outputs, requires_grad=True)
    # Linear in the dummy: its derivative is the Jacobian.
    transposed = torch.autograd.grad(
        outputs, params, dummy, create_graph=True, materialize_grads=True
    )

    def forward(v: Tensor) -> Tensor:
        moved = torch.autograd.grad(
            transposed, dummy, split(v, params), retain_graph=True, materialize_grads=True
        )
        return moved[0]

    def backward(u: Tensor) -> Tensor:
        grads = torch.autograd.grad(outputs, params, u, retain_graph=True, materialize_grads=True)
        return parameters_to_vector(grads)

    return forward, backward


def _scalar(loss: Tensor) -> Tensor:
    if loss.numel() != 1:
        raise ValueError(f"the loss must be one number, got shape {tuple(loss.shape)}")
    if not loss.requires_grad:
        raise ValueError("the loss has no graph: compute it with gradients enabled")
    return loss.squeeze()


def _checked(params: Iterable[Tensor]) -> list[Tensor]:
    params = list(params)
    if not params:
        raise ValueError("params must hold at least one parameter, got none")
    for index, p in enumerate(params):
        if not p.requires_grad:
            raise ValueError(f"parameter {index} does not require a gradient")
    return params
