"""Spectra: eigenvalues of a matrix from its products with vectors."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

#: A new direction shorter than so many rounding errors is none.
LOST = 100


class Tridiagonal(NamedTuple):
    """What Lanczos has found: ``matrix @ basis`` is ``basis`` times a tridiagonal matrix.

    Args:
        alphas: its diagonal, of shape ``(steps,)``.
        betas: what stands beside it, of shape ``(steps - 1,)``.
        basis: orthonormal columns, of shape ``(n, steps)``.
    """

    alphas: Tensor
    betas: Tensor
    basis: Tensor

    def eigen(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues, ascending, and eigenvectors as columns of the tridiagonal matrix."""
        T = torch.diag(self.alphas) + torch.diag(self.betas, 1) + torch.diag(self.betas, -1)
        values, vectors = torch.linalg.eigh(T)
        return values, vectors


class Eigenpairs(NamedTuple):
    """Eigenvalues, descending, and eigenvectors as columns."""

    values: Tensor
    vectors: Tensor


class Estimate(NamedTuple):
    """A mean over random vectors with its standard error."""

    value: float
    error: float


def lanczos(matrix: Any, start: Tensor, steps: int) -> Tridiagonal:
    """Lanczos's iteration (1950), each vector made orthogonal to all before.

    It ends early where the vectors so far span a subspace that the matrix does not leave.

    Args:
        matrix: symmetric, with ``matrix @ v``.
        start: of shape ``(n,)``, not zero.
        steps: at most so many products.

    Raises:
        ValueError: a start that is zero or not finite, or fewer than one step.
        FloatingPointError: a product is not finite.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps!r}")
    norm = float(start.norm())
    if not 0 < norm < math.inf:
        raise ValueError(f"start must have a finite norm above 0, got {norm!r}")
    q = start / norm
    basis: list[Tensor] = [q]
    alphas: list[Tensor] = []
    betas: list[Tensor] = []
    while True:
        w = matrix @ q
        size = float(w.norm())
        if not math.isfinite(size):
            raise FloatingPointError("Lanczos met a product that is not finite")
        alphas.append(w @ q)
        if len(alphas) == min(steps, len(start)):
            break
        Q = torch.stack(basis, 1)
        for _ in range(2):  # once leaves rounding errors in
            w = w - Q @ (Q.T @ w)
        beta = w.norm()
        if float(beta) <= LOST * torch.finfo(w.dtype).eps * max(size, _largest(alphas, betas)):
            break
        q = w / beta
        betas.append(beta)
        basis.append(q)
    beside = torch.stack(betas) if betas else alphas[0].new_zeros(0)
    return Tridiagonal(torch.stack(alphas), beside, torch.stack(basis, 1))


def top_eigenvalues(
    matrix: Any, count: int, *, steps: int | None = None, generator: torch.Generator | None = None
) -> Eigenpairs:
    """The largest eigenvalues with their vectors, by Lanczos from a random start.

    An eigenvalue that occurs several times is found once.

    Args:
        matrix: symmetric, with ``matrix @ v``, ``shape``, ``dtype`` and ``device``.
        count: how many; fewer come back where no more were found.
        steps: of Lanczos; ``10 count + 20`` by default.
        generator: of the start.

    Raises:
        ValueError: ``count`` is not in 1..n.
    """
    n = matrix.shape[0]
    if not 1 <= count <= n:
        raise ValueError(f"count must be in 1..{n}, got {count!r}")
    found = lanczos(matrix, _random(matrix, generator), 10 * count + 20 if steps is None else steps)
    values, vectors = found.eigen()
    return Eigenpairs(values.flip(0)[:count], (found.basis @ vectors).flip(1)[:, :count])


def sharpness(
    matrix: Any, *, steps: int | None = None, generator: torch.Generator | None = None
) -> float:
    """The largest eigenvalue, of a loss's Hessian (as Cohen et al. 2021 use the word)."""
    return float(top_eigenvalues(matrix, 1, steps=steps, generator=generator).values[0])


def spectral_density(
    matrix: Any,
    grid: Tensor,
    *,
    width: float,
    steps: int = 80,
    samples: int = 10,
    generator: torch.Generator | None = None,
) -> Tensor:
    """How the eigenvalues are distributed, by stochastic Lanczos quadrature.

    Each eigenvalue is a normal distribution of standard deviation ``width``, all together with
    an area of one (Ghorbani et al. 2019, algorithm 1; Ubaru et al. 2017).

    Args:
        matrix: as for :func:`top_eigenvalues`.
        grid: where the density is wanted, of shape ``(points,)``.
        width: of the normal distributions, above 0.
        steps: of Lanczos for each sample.
        samples: random starts.
        generator: of the starts.

    Returns:
        The density, of the grid's shape.
    """
    if not width > 0 or samples < 1:
        raise ValueError(f"width and samples must be above 0, got {width!r} and {samples!r}")
    density = torch.zeros_like(grid)
    for _ in range(samples):
        found = lanczos(matrix, _random(matrix, generator), steps)
        values, vectors = found.eigen()
        weights = vectors[0] ** 2
        distance = (grid.unsqueeze(1) - values.to(grid)) / width
        normal = torch.exp(-(distance**2) / 2) / (width * math.sqrt(2 * math.pi))
        density += normal @ weights.to(grid) / samples
    return density


def trace(matrix: Any, samples: int, generator: torch.Generator | None = None) -> Estimate:
    """The trace, as the mean of ``v^T matrix v`` over random signs (Hutchinson 1990).

    The standard error is NaN for one sample.

    Raises:
        ValueError: no samples.
    """
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples!r}")
    found = []
    for _ in range(samples):
        v = _random(matrix, generator).sign()
        found.append(v @ (matrix @ v))
    products = torch.stack(found)
    spread = float(products.std()) if samples > 1 else math.nan
    return Estimate(float(products.mean()), spread / math.sqrt(samples))


def _largest(alphas: list[Tensor], betas: list[Tensor]) -> float:
    return max(float(torch.stack(numbers).abs().max()) for numbers in (alphas, betas) if numbers)


def _random(matrix: Any, generator: torch.Generator | None) -> Tensor:
    """A vector of normal numbers for a matrix."""
    device = matrix.device if generator is None else generator.device
    drawn = torch.randn(matrix.shape[0], generator=generator, device=device, dtype=torch.float64)
    return drawn.to(matrix.device, matrix.dtype)
