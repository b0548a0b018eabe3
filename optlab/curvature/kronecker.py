"""Kronecker factors: one layer's block of the Fisher information as ``A (x) G``.

A layer with weight ``W`` takes ``a`` and gives ``W a``; the gradient of a sample's loss in ``W a``
is ``g``.  So its gradient in ``W`` is ``g a^T``, and the block of the Fisher information is the
expectation of ``(a a^T) (x) (g g^T)``.  K-FAC takes the expectation of each factor by itself
(Martens and Grosse 2015, section 3):

    F = A (x) G        A = E[a a^T]        G = E[g g^T]

and with ``V`` the gradient as a matrix of the shape of ``W``, ``F^-1`` times it is
``G^-1 V A^-1``.  A bias is the last column of ``W``, of which ``a`` ends in a one.

Where ``W`` is used at several positions ``t`` of a sample, their vectors are rows one by one
(*expand*: the loss has a term for each) or are joined first, ``a`` by their mean and ``g`` by their
sum (*reduce*: the positions are averaged on the way to one loss; Eschenhagen et al. 2023).

A factor that is diagonal, as ``A`` of an embedding, is its diagonal, a tensor of one dimension.
"""

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

LinAlgError = torch.linalg.LinAlgError  # type: ignore[attr-defined]
#: How the positions at which a layer's weight is used are brought together.
SHARINGS = ("expand", "reduce")
#: From this width on, four strips of a product take less time than the whole.
WIDE = 400


class Moment(NamedTuple):
    """A sum of outer products and what it is divided by, so that batches and machines add up."""

    total: Tensor
    divisor: float

    def __add__(self, other: "Moment") -> "Moment":  # type: ignore[override]
        return Moment(self.total + other.total, self.divisor + other.divisor)

    def mean(self) -> Tensor:
        """The second moment."""
        return self.total / self.divisor


def input_moment(a: Tensor, sharing: str) -> Moment:
    """Of a layer's inputs, of shape ``(samples, positions, in)``, for the factor ``A``."""
    rows = a.mean(1) if sharing == "reduce" else a.flatten(0, 1)
    return Moment(gram(rows), len(rows))


def gradient_moment(g: Tensor, sharing: str, samples: float) -> Moment:
    """Of a layer's gradients, of shape ``(samples, positions, out)``, for the factor ``G``.

    Args:
        g: gradients of samples' losses, not of their mean.
        sharing: one of :data:`SHARINGS`.
        samples: how many losses there are; it is not the number of rows where a sample has several
            positions.
    """
    rows = g.sum(1) if sharing == "reduce" else g.flatten(0, 1)
    return Moment(gram(rows), samples)


def gram(rows: Tensor) -> Tensor:
    """``rows^T rows``; of a wide one the half below the diagonal is copied, not computed."""
    width = rows.shape[1]
    if width < WIDE:
        return rows.T @ rows
    product, edges = rows.new_empty(width, width), [width * k // 4 for k in range(5)]
    for begin, end in itertools.pairwise(edges):
        strip = rows[:, begin:end].T @ rows[:, begin:]
        product[begin:end, begin:] = strip
        product[end:, begin:end] = strip[:, end - begin :].T
    return product


def running_average(old: Tensor | None, new: Moment, decay: float, seen: int) -> Tensor:
    """An average that is unbiased from the start (Martens and Grosse 2015, section 5).

    Args:
        old: the average so far, of ``seen`` terms; it is overwritten.
        new: the next term.
        decay: the share of the old one, which is less at the start: ``1 - 1/k`` at the k-th.
        seen: how many terms are in it.
    """
    if old is None or seen == 0:
        return new.mean()
    keep = min(decay, 1 - 1 / (seen + 1))
    return old.mul_(keep).add_(new.total, alpha=(1 - keep) / new.divisor)


def trace_ratio(A: Tensor, G: Tensor) -> float:
    """The ``pi`` that shares damping out: square root of the mean eigenvalue of A over that of G.

    Martens and Grosse (2015, section 6.3), with traces for norms; 1 where either is zero.
    """
    a, g = (_diagonal(factor).mean().item() for factor in (A, G))
    return math.sqrt(a / g) if a > 0 and g > 0 else 1.0


def damped_inverses(A: Tensor, G: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """``(A + pi sqrt(damping) I)^-1`` and ``(G + sqrt(damping)/pi I)^-1``: factored damping.

    Their product is not the inverse of ``A (x) G + damping I``, but takes the inverses of the
    factors alone (Martens and Grosse 2015, section 6.3).

    Raises:
        torch.linalg.LinAlgError: a factor is singular, or not finite.
    """
    pi, root = trace_ratio(A, G), math.sqrt(damping)
    return inverse(A, pi * root), inverse(G, root / pi)


def inverse(factor: Tensor, damping: float) -> Tensor:
    """``(factor + damping I)^-1`` of a factor without negative eigenvalues."""
    if factor.dim() == 1:
        damped = factor + damping
        if not bool(damped.isfinite().all() and (damped > 0).all()):
            raise LinAlgError("the diagonal has a zero, or is not finite")
        return 1 / damped
    damped = factor.clone()
    damped.diagonal().add_(damping)
    root, failed = torch.linalg.cholesky_ex(damped)
    pivots = root.diagonal() ** 2
    lost = len(factor) * torch.finfo(factor.dtype).eps * damped.diagonal().max()
    if not failed and bool(pivots.min() > lost):
        return torch.cholesky_inverse(root)
    # Rounding has made eigenvalues that are zero slightly negative.
    values, vectors = _eigen(factor)
    if damping == 0 and bool(values.min() <= lost):
        raise LinAlgError("the factor is singular")
    return vectors @ torch.diag(1 / (values + damping)) @ vectors.T


class Basis(NamedTuple):
    """Eigenvectors of both factors, and the eigenvalues of ``A (x) G`` as a matrix like ``W``."""

    A: Tensor | None  # None: the identity
    G: Tensor
    values: Tensor

    def into(self, V: Tensor) -> Tensor:
        """A matrix like ``W`` in the eigenbasis: ``Q_G^T V Q_A``."""
        V = self.G.T @ V
        return V if self.A is None else V @ self.A

    def out_of(self, V: Tensor) -> Tensor:
        """Back again: ``Q_G V Q_A^T``."""
        V = self.G @ V
        return V if self.A is None else V @ self.A.T


def eigenbasis(A: Tensor, G: Tensor) -> Basis:
    """The eigenbasis of ``A (x) G``, in which Tikhonov's damping is exact.

    Raises:
        torch.linalg.LinAlgError: a factor is not finite.
    """
    g, Q_G = _eigen(G)
    if A.dim() == 1:
        return Basis(None, Q_G, torch.outer(g, A))
    a, Q_A = _eigen(A)
    return Basis(Q_A, Q_G, torch.outer(g, a))


def precondition(V: Tensor, A_inverse: Tensor, G_inverse: Tensor) -> Tensor:
    """``G^-1 V A^-1``: the inverse of ``A (x) G`` times a gradient."""
    V = G_inverse @ V
    return V @ A_inverse if A_inverse.dim() == 2 else V * A_inverse


def precondition_in_basis(V: Tensor, basis: Basis, damping: float) -> Tensor:
    """``(Q diag(values) Q^T + damping I)^-1`` times a gradient; zero where that is singular."""
    damped = basis.values + damping
    inverted = torch.where(damped > 0, 1 / damped, torch.zeros_like(damped))
    return basis.out_of(basis.into(V) * inverted)


def quadratic(D: Tensor, A: Tensor, G: Tensor) -> Tensor:
    """``D^T (A (x) G) D``, the step ``D`` being a matrix like ``W``: one number."""
    moved = G @ D
    moved = moved @ A if A.dim() == 2 else moved * A
    return (D * moved).sum()


def quadratic_in_basis(D: Tensor, basis: Basis) -> Tensor:
    """The same by the eigenvalues that are kept, corrected ones too."""
    return (basis.into(D) ** 2 * basis.values).sum()


def corrected_moment(a: Tensor, g: Tensor, basis: Basis, samples: float) -> Moment:
    """Second moments of samples' gradients in the eigenbasis: EKFAC (George et al. 2018).

    The diagonal of ``Q^T F Q``, which is the best for this basis; K-FAC's eigenvalues are another.

    Args:
        a, g: as for :func:`input_moment` and :func:`gradient_moment`.
        basis: where to.
        samples: how many losses there are.
    """
    a = a if basis.A is None else a @ basis.A
    g = g @ basis.G
    if a.shape[1] == 1:
        return Moment(g[:, 0].T ** 2 @ a[:, 0] ** 2, samples)
    total = torch.zeros_like(basis.values)
    # A few samples at a time: each has a gradient of the size of the weight.
    for few_a, few_g in zip(a.split(16), g.split(16), strict=True):
        total += (torch.einsum("nto,nti->noi", few_g, few_a) ** 2).sum(0)
    return Moment(total, samples)


def corrected_lookup_moment(tokens: Tensor, g: Tensor, basis: Basis, samples: float) -> Moment:
    """The same for an embedding: ``tokens`` of shape ``(samples, positions)`` stand for ``a``."""
    g = (g @ basis.G).flatten(0, 1)
    count = basis.values.shape[1]
    own = tokens + count * torch.arange(len(tokens), device=tokens.device).unsqueeze(1)
    entries, places = own.flatten().unique(return_inverse=True)
    sums = g.new_zeros(len(entries), g.shape[1]).index_add_(0, places, g)
    total = torch.zeros_like(basis.values).index_add_(1, entries % count, (sums**2).T)
    return Moment(total, samples)


def unit_moment(x: Tensor, g: Tensor, samples: float, *, bias: bool) -> Moment:
    """For a scale and a shift of each unit: the exact blocks of two by two.

    Args:
        x: what is scaled, of shape ``(samples, positions, units)``.
        g: gradients of the outputs, likewise.
        samples: how many losses there are.
        bias: whether there is a shift.

    Returns:
        A sum of shape ``(units, 2, 2)``, or ``(units, 1, 1)`` without a shift.
    """
    own = [(g * x).sum(1), g.sum(1)] if bias else [(g * x).sum(1)]
    rows = torch.stack(own, -1)
    return Moment(torch.einsum("nui,nuj->uij", rows, rows), samples)


def solve_units(V: Tensor, blocks: Tensor, damping: float) -> Tensor:
    """``(block + damping I)^-1`` times each unit's gradient; ``V`` has shape ``(units, 2 or 1)``.

    Raises:
        torch.linalg.LinAlgError: a block is singular, or not finite.
    """
    values, vectors = _eigen(blocks)
    lost = 2 * torch.finfo(values.dtype).eps * values.amax(-1, keepdim=True)
    if damping == 0 and bool((values <= lost).any()):
        raise LinAlgError("a unit's block is singular")
    damped = values + damping
    solved: Tensor = vectors @ ((vectors.mT @ V.unsqueeze(-1)) / damped.unsqueeze(-1))
    return solved.squeeze(-1)


def _diagonal(factor: Tensor) -> Tensor:
    return factor if factor.dim() == 1 else factor.diagonal()


def _eigen(factor: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, none of them negative, and eigenvectors."""
    if not bool(factor.isfinite().all()):
        raise LinAlgError("the factor is not finite")
    values, vectors = torch.linalg.eigh(factor)
    return values.clamp(min=0), vectors
