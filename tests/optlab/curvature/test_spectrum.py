"""Spectra from products, against eigenvalues of the matrices themselves."""

import math

import pytest
import torch

from optlab.curvature import lanczos, sharpness, spectral_density, top_eigenvalues, trace


def matrix(values, seed=0):
    n = len(values)
    generator = torch.Generator().manual_seed(seed)
    Q, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    return Q @ torch.diag(torch.as_tensor(values, dtype=torch.float64)) @ Q.T


SPREAD = torch.linspace(-3, 5, 20, dtype=torch.float64)


def test_lanczos_in_full_has_all_eigenvalues():
    A = matrix(SPREAD)
    found = lanczos(A, torch.ones(20, dtype=torch.float64), 20)
    torch.testing.assert_close(found.eigen()[0], SPREAD, rtol=1e-10, atol=1e-10)
    Q = found.basis
    torch.testing.assert_close(Q.T @ Q, torch.eye(20, dtype=torch.float64), rtol=0, atol=1e-12)
    T = torch.diag(found.alphas) + torch.diag(found.betas, 1) + torch.diag(found.betas, -1)
    torch.testing.assert_close(A @ Q, Q @ T, rtol=0, atol=1e-10)


def test_few_steps_have_the_ends_of_the_spectrum():
    values = torch.cat([torch.rand(197, dtype=torch.float64), torch.tensor([-4.0, 9.0, 10.0])])
    found = lanczos(matrix(values), torch.ones(200, dtype=torch.float64), 25)
    ends = found.eigen()[0]
    assert found.basis.shape == (200, 25)
    assert ends[0].item() == pytest.approx(-4, abs=1e-8)
    assert ends[-2:].tolist() == pytest.approx([9, 10], abs=1e-6)


@pytest.mark.parametrize("values", [[2.0] * 6, [1.0, 1.0, 1.0, 3.0, 3.0, 7.0], [0.0] * 4])
def test_it_ends_where_nothing_is_new(values):
    found = lanczos(matrix(values), torch.ones(len(values), dtype=torch.float64), 50)
    distinct = sorted(set(values))
    assert len(found.alphas) == len(distinct)
    assert found.eigen()[0].tolist() == pytest.approx(distinct, abs=1e-10)


def test_top_eigenvalues_and_their_vectors():
    A = matrix(SPREAD)
    found = top_eigenvalues(A, 4, generator=torch.Generator().manual_seed(0))
    expected, vectors = torch.linalg.eigh(A)
    torch.testing.assert_close(found.values, expected.flip(0)[:4], rtol=1e-10, atol=0)
    overlaps = (found.vectors * vectors.flip(1)[:, :4]).sum(0).abs()
    torch.testing.assert_close(overlaps, torch.ones(4, dtype=torch.float64), rtol=1e-8, atol=0)
    # Of the two ends it is the upper one, and so is sharpness.
    assert sharpness(matrix([-9.0, 1.0, 2.0])) == pytest.approx(2.0)


def test_density_is_the_smoothed_spectrum():
    A, width = matrix(SPREAD), 0.7
    grid = torch.linspace(-8, 10, 400, dtype=torch.float64)
    distance = (grid.unsqueeze(1) - SPREAD) / width
    expected = (torch.exp(-(distance**2) / 2) / (width * math.sqrt(2 * math.pi))).mean(1)
    generator = torch.Generator().manual_seed(0)
    found = spectral_density(A, grid, width=width, steps=20, samples=400, generator=generator)
    assert torch.trapezoid(found, grid).item() == pytest.approx(1, abs=1e-4)
    assert (found - expected).abs().max() < 0.06 * expected.max()
    one = spectral_density(A, grid, width=width, steps=5, samples=1, generator=generator)
    assert torch.trapezoid(one, grid).item() == pytest.approx(1, abs=1e-4)


def test_trace_is_exact_for_diagonals_and_near_for_others():
    diagonal = torch.diag(torch.arange(5.0, dtype=torch.float64))
    found = trace(diagonal, 3)
    assert found.value == pytest.approx(10) and found.error == pytest.approx(0)
    for seed in range(5):
        found = trace(matrix(SPREAD, seed), 300, torch.Generator().manual_seed(seed))
        assert abs(found.value - SPREAD.sum()) < 5 * found.error
        assert 0 < found.error < 1.5
    assert math.isnan(trace(diagonal, 1).error)


def test_arguments_that_do_not_fit():
    A, start = matrix(SPREAD), torch.ones(20, dtype=torch.float64)
    grid = torch.zeros(2)
    for call, message in (
        (lambda: lanczos(A, start, 0), "steps must be at least 1"),
        (lambda: lanczos(A, 0 * start, 3), "finite norm above 0"),
        (lambda: lanczos(A, math.nan * start, 3), "finite norm above 0"),
        (lambda: top_eigenvalues(A, 0), r"count must be in 1\.\.20, got 0"),
        (lambda: top_eigenvalues(A, 21), r"count must be in 1\.\.20, got 21"),
        (lambda: spectral_density(A, grid, width=0), "width and samples must be above 0"),
        (lambda: trace(A, 0), "samples must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(FloatingPointError, match="not finite"):
        lanczos(A * math.inf, start, 3)
