"""Conjugate gradients against direct solution, and each way to end."""

import math

import pytest
import torch

from optlab.curvature import conjugate_gradients


def system(n=12, condition=100.0, seed=0, lowest=1.0):
    generator = torch.Generator().manual_seed(seed)
    Q, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    values = torch.logspace(0, math.log10(condition), n, dtype=torch.float64)
    values[0] = lowest
    return Q @ torch.diag(values) @ Q.T, torch.randn(n, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(3))
def test_it_solves(seed):
    A, b = system(seed=seed)
    found = conjugate_gradients(A, b)
    torch.testing.assert_close(found.x, torch.linalg.solve(A, b), rtol=1e-8, atol=1e-9)
    assert found.reason == "converged" and found.direction is None
    assert found.residual <= 1e-10 * b.norm()
    assert found.residual == pytest.approx((b - A @ found.x).norm().item(), abs=1e-9)


def test_as_many_steps_as_eigenvalues():
    Q, _ = torch.linalg.qr(torch.randn(30, 30, dtype=torch.float64))
    values = torch.tensor([1.0, 5.0, 9.0], dtype=torch.float64).repeat(10)
    found = conjugate_gradients(Q @ torch.diag(values) @ Q.T, Q.sum(1))
    assert found.iterations == 3


def test_a_preconditioner_helps():
    A, b = system(n=40)
    D = torch.logspace(0, 6, 40, dtype=torch.float64)
    A = A + torch.diag(D)
    plain = conjugate_gradients(A, b, iterations=1000)
    helped = conjugate_gradients(A, b, preconditioner=lambda r: r / A.diagonal(), iterations=1000)
    torch.testing.assert_close(helped.x, torch.linalg.solve(A, b), rtol=1e-6, atol=1e-9)
    assert helped.iterations < plain.iterations / 2


def test_a_start_saves_steps():
    A, b = system()
    x = torch.linalg.solve(A, b)
    assert conjugate_gradients(A, b, start=x).iterations == 0
    near = conjugate_gradients(A, b, start=x + 1e-6, tolerance=1e-8)
    assert near.iterations < conjugate_gradients(A, b, tolerance=1e-8).iterations
    torch.testing.assert_close(near.x, x, rtol=1e-6, atol=1e-7)


def test_iterations_end_it():
    A, b = system(condition=1e6)
    found = conjugate_gradients(A, b, iterations=3)
    assert (found.iterations, found.reason) == (3, "iterations")
    assert conjugate_gradients(A, b, iterations=0).x.abs().max() == 0


def test_nothing_to_solve():
    A, b = system()
    found = conjugate_gradients(A, torch.zeros_like(b))
    assert (found.iterations, found.reason, found.x.any().item()) == (0, "converged", False)


def test_negative_curvature_is_shown():
    A, b = system(lowest=-2.0)
    found = conjugate_gradients(A, b)
    assert found.reason == "negative curvature"
    p = found.direction
    assert p @ A @ p < 0
    assert p @ b > 0  # downhill
    flat = conjugate_gradients(torch.zeros(3, 3), torch.ones(3))
    assert flat.reason == "negative curvature" and not flat.x.any()


@pytest.mark.parametrize("lowest", [1.0, -2.0])
@pytest.mark.parametrize("radius", [0.01, 0.3])
def test_the_radius_is_kept(lowest, radius):
    A, b = system(lowest=lowest)
    found = conjugate_gradients(A, b, radius=radius)
    assert found.reason in ("radius", "negative curvature")
    assert found.x.norm().item() == pytest.approx(radius)
    assert found.residual == pytest.approx((b - A @ found.x).norm().item())
    # It is lower there than where the gradient alone would lead.
    share = min(radius / b.norm(), (b @ b) / (b @ A @ b)) if b @ A @ b > 0 else radius / b.norm()
    cauchy = share * b

    def quadratic(x):
        return x @ A @ x / 2 - b @ x

    assert quadratic(found.x) <= quadratic(cauchy) + 1e-12


def test_a_radius_that_is_large_changes_nothing():
    A, b = system()
    assert torch.equal(conjugate_gradients(A, b, radius=1e6).x, conjugate_gradients(A, b).x)


def test_progress_ends_it():
    A, b = system(n=200, condition=1e4)
    found = conjugate_gradients(A, b, progress=5e-4, tolerance=0.0, iterations=1000)
    assert found.reason == "progress"
    exact = torch.linalg.solve(A, b)

    def quadratic(x):
        return (x @ A @ x / 2 - b @ x).item()

    assert 10 < found.iterations < 500
    assert quadratic(found.x) < 0.9 * quadratic(exact)


def test_what_is_not_finite_is_said():
    A, b = system()
    with pytest.raises(FloatingPointError, match="not finite"):
        conjugate_gradients(A * math.nan, b)
    with pytest.raises(FloatingPointError, match="not finite"):
        conjugate_gradients(A, b * math.inf)


def test_arguments_that_do_not_fit():
    A, b = system()
    for arguments, message in (
        (dict(b=A), "b must be a vector"),
        (dict(b=b, start=b[:2]), "start of its shape"),
        (dict(b=b, radius=0.0), "radius must be above 0"),
        (dict(b=b, radius=1.0, start=b), "comes without a start"),
    ):
        with pytest.raises(ValueError, match=message):
            conjugate_gradients(A, **arguments)
