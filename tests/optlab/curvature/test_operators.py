"""Products with curvature matrices against the matrices themselves, made by torch.func."""

import pytest
import torch
from torch import nn

from optlab.curvature import (
    Bernoulli,
    Categorical,
    Gaussian,
    fisher,
    fisher_empirical,
    fisher_sampled,
    gauss_newton,
    gradient,
    hessian,
    split,
)
from tests.optlab.curvature.dense import jacobian, loss_hessian, network, output_hessian

LIKELIHOODS = {
    "categorical": Categorical(),
    "bernoulli": Bernoulli("mean"),
    "gaussian": Gaussian(2),
}
EACH = pytest.mark.parametrize("name", LIKELIHOODS)
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def problem(name, seed=0):
    model, likelihood = network(seed), LIKELIHOODS[name]
    x = torch.randn(6, 3, dtype=torch.float64)
    outputs = model(x)
    targets = likelihood.draw(outputs.detach(), torch.Generator().manual_seed(seed))
    return model, likelihood, x, outputs, targets


def sandwich(model, x, middle):
    """``J^T middle J`` over the samples, divided by their number."""
    J = jacobian(model, x)
    return torch.einsum("nip,nij,njq->pq", J, middle, J) / len(x)


@EACH
@pytest.mark.parametrize("seed", range(3))
def test_products_are_those_of_the_dense_matrices(name, seed):
    model, likelihood, x, outputs, targets = problem(name, seed)
    params = list(model.parameters())
    loss = likelihood.loss(outputs, targets)
    bent = output_hessian(likelihood, outputs.detach(), targets)
    scores = likelihood.score(outputs.detach(), targets)
    matrices = {
        hessian(loss, params): loss_hessian(model, lambda f: likelihood.loss(f, targets), x),
        gauss_newton(loss, outputs, params): sandwich(model, x, bent),
        fisher(outputs, params, likelihood): sandwich(model, x, bent),
        fisher_empirical(outputs, targets, params, likelihood): sandwich(
            model, x, scores.unsqueeze(2) * scores.unsqueeze(1)
        ),
    }
    for operator, expected in matrices.items():
        torch.testing.assert_close(operator.dense(), expected, **EXACT)
        v = torch.randn(len(expected), dtype=torch.float64)
        torch.testing.assert_close(operator @ v, expected @ v, **EXACT)
        assert operator.shape == tuple(expected.shape)


@EACH
def test_gauss_newton_is_the_fisher_and_the_empirical_is_not(name):
    model, likelihood, _, outputs, targets = problem(name)
    params = list(model.parameters())
    G = gauss_newton(likelihood.loss(outputs, targets), outputs, params).dense()
    F = fisher(outputs, params, likelihood).dense()
    torch.testing.assert_close(G, F, **EXACT)
    E = fisher_empirical(outputs, targets, params, likelihood).dense()
    assert (E - F).norm() > 0.1 * F.norm()
    for matrix in (G, F, E):
        torch.testing.assert_close(matrix, matrix.T, **EXACT)
        assert torch.linalg.eigvalsh(matrix)[0] > -1e-12


@EACH
def test_sampled_fisher_is_unbiased_and_one_matrix(name):
    model, likelihood, _, outputs, _ = problem(name)
    params, generator = list(model.parameters()), torch.Generator().manual_seed(0)
    v = torch.randn(sum(p.numel() for p in params), dtype=torch.float64)
    expected = fisher(outputs, params, likelihood) @ v
    drawn = [fisher_sampled(outputs, params, likelihood, 2, generator) for _ in range(500)]
    assert torch.equal(drawn[0] @ v, drawn[0] @ v)
    found = torch.stack([operator @ v for operator in drawn])
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - expected).abs() <= 5 * error + 1e-12).all()
    assert error.norm() < 0.2 * expected.norm()
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        fisher_sampled(outputs, params, likelihood, 0)


def test_convolutions_normalization_and_kinks():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)
    ).double()
    x, y = torch.randn(4, 1, 4, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 1])
    likelihood, params = Categorical(), list(model.parameters())
    found = hessian(likelihood.loss(model(x), y), params).dense()
    # By differences: torch.func's Hessian of a batch normalization is another.
    flat, width = torch.nn.utils.parameters_to_vector(params).detach(), 1e-6
    for index in range(24):  # the convolution and the normalization
        slopes = []
        for sign in (1, -1):
            moved = flat.clone()
            moved[index] += sign * width
            torch.nn.utils.vector_to_parameters(moved, params)
            slopes.append(gradient(likelihood.loss(model(x), y), params))
        difference = (slopes[0] - slopes[1]) / (2 * width)
        torch.testing.assert_close(found[index], difference, rtol=1e-6, atol=1e-8)


def test_parameters_without_influence_and_shared_ones():
    model = network()
    aside = nn.Parameter(torch.ones(2, dtype=torch.float64))
    x, likelihood = torch.randn(5, 3, dtype=torch.float64), Gaussian()
    outputs = model(x)
    targets = torch.zeros_like(outputs)
    loss = likelihood.loss(outputs, targets)
    params = [aside, *model.parameters()]
    for operator in (
        hessian(loss, params),
        gauss_newton(loss, outputs, params),
        fisher(outputs, params, likelihood),
    ):
        matrix = operator.dense()
        assert not matrix[:2].any() and not matrix[:, :2].any() and matrix[2:, 2:].any()
    assert not gradient(loss, params)[:2].any()

    w = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    outputs = (w * w * x[:, :1]).view(-1, 1)  # used twice
    G = gauss_newton(Gaussian().loss(outputs, torch.zeros_like(outputs)), outputs, [w]).dense()
    torch.testing.assert_close(G, ((2 * w * x[:, :1]) ** 2).mean().detach().view(1, 1), **EXACT)


def test_losses_that_are_linear_and_that_are_none():
    w = nn.Parameter(torch.ones(3, dtype=torch.float64))
    assert not hessian(w.sum(), [w]).dense().any()
    outputs = 2 * w
    assert not gauss_newton(outputs.sum(), outputs, [w]).dense().any()
    with pytest.raises(ValueError, match=r"must be one number, got shape \(3,\)"):
        hessian(w * w, [w])
    with pytest.raises(ValueError, match="has no graph"):
        hessian(torch.ones(()), [w])


def test_arguments_that_do_not_fit():
    model, likelihood, _, outputs, targets = problem("gaussian")
    params = list(model.parameters())
    operator = hessian(likelihood.loss(outputs, targets), params)
    for shape in ((3,), (operator.size, 2, 2), ()):
        with pytest.raises(ValueError, match=f"v must have {operator.size} rows"):
            operator @ torch.zeros(shape, dtype=torch.float64)
    with pytest.raises(ValueError, match="at least one parameter"):
        hessian(likelihood.loss(outputs, targets), [])
    params[2].requires_grad_(False)
    with pytest.raises(ValueError, match="parameter 2 does not require a gradient"):
        fisher(outputs, params, likelihood)


def test_vectors_and_shapes():
    params = [torch.zeros(2, 3), torch.zeros(()), torch.zeros(0, 2)]
    v = torch.arange(7.0)
    pieces = split(v, params)
    assert [piece.shape for piece in pieces] == [p.shape for p in params]
    assert torch.equal(torch.cat([piece.flatten() for piece in pieces]), v)
    matrix = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    w = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    operator = hessian(w @ matrix @ w / 2, [w])
    columns = torch.randn(2, 5, dtype=torch.float64)
    torch.testing.assert_close(operator @ columns, matrix @ columns, **EXACT)
