"""The formulas of Kronecker factors against dense linear algebra."""

import math

import pytest
import torch
from torch import nn

from optlab.curvature import kronecker, layers, ranks
from optlab.curvature.kronecker import Moment
from tests.optlab.kfac.blocks import as_columns, double, observed, x_of

EXACT = {"rtol": 1e-10, "atol": 1e-11}


def factor(n, seed=0):
    rows = x_of(3 * n, n, seed=seed)
    return rows.T @ rows / len(rows)


A, G, V = factor(4), factor(3, seed=1), x_of(3, 4, seed=2)


def eye(n):
    return torch.eye(n, dtype=torch.float64)


def test_factored_damping_is_its_formula():
    pi = math.sqrt((A.trace() / 4) / (G.trace() / 3))
    assert kronecker.trace_ratio(A, G) == pytest.approx(pi)
    A_inverse, G_inverse = kronecker.damped_inverses(A, G, 0.09)
    damped = A + pi * 0.3 * eye(4), G + 0.3 / pi * eye(3)
    torch.testing.assert_close(A_inverse, torch.linalg.inv(damped[0]), **EXACT)
    torch.testing.assert_close(G_inverse, torch.linalg.inv(damped[1]), **EXACT)
    direct = torch.linalg.solve(torch.kron(damped[1], damped[0]), V.flatten()).view(3, 4)
    torch.testing.assert_close(kronecker.precondition(V, A_inverse, G_inverse), direct, **EXACT)
    assert kronecker.trace_ratio(0 * A, G) == kronecker.trace_ratio(A, 0 * G) == 1


@pytest.mark.parametrize("width", [1, kronecker.WIDE - 1, kronecker.WIDE, kronecker.WIDE + 3])
def test_gram_is_the_product_with_the_transpose(width):
    rows = x_of(7, width)
    found = kronecker.gram(rows)
    torch.testing.assert_close(found, rows.T @ rows, **EXACT)
    torch.testing.assert_close(found, found.T, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("left", [A, A.diagonal()], ids=["full", "diagonal"])
@pytest.mark.parametrize("damping", [1e-3, 1.0])
def test_damping_in_the_eigenbasis_is_exact(left, damping):
    full = torch.diag(left) if left.dim() == 1 else left
    F = torch.kron(G, full)
    basis = kronecker.eigenbasis(left, G)
    direct = torch.linalg.solve(F + damping * eye(12), V.flatten()).view(3, 4)
    torch.testing.assert_close(kronecker.precondition_in_basis(V, basis, damping), direct, **EXACT)
    expected = V.flatten() @ F @ V.flatten()
    torch.testing.assert_close(kronecker.quadratic(V, left, G), expected, **EXACT)
    torch.testing.assert_close(kronecker.quadratic_in_basis(V, basis), expected, **EXACT)
    torch.testing.assert_close(basis.out_of(basis.into(V)), V, **EXACT)


def test_undamped_and_singular():
    with pytest.raises(torch.linalg.LinAlgError):
        kronecker.inverse(torch.zeros(3, 3, dtype=torch.float64), 0.0)
    for bad in (torch.zeros(3), torch.tensor([1.0, math.nan])):
        with pytest.raises(torch.linalg.LinAlgError, match="has a zero, or is not finite"):
            kronecker.inverse(bad, 0.0)
    flat = kronecker.eigenbasis(torch.zeros(4, 4), torch.eye(3))
    assert not kronecker.precondition_in_basis(torch.ones(3, 4), flat, 0.0).any()


def test_single_precision_is_not_taken_for_singular():
    rows = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    poor = (rows.T @ rows) * 1e4  # of rank three
    found = kronecker.inverse(poor, 1e-3)
    assert found.isfinite().all()


def test_averages_are_plain_means_at_first():
    terms, average = x_of(10, 2), None
    for seen, term in enumerate(terms[:5]):
        average = kronecker.running_average(average, Moment(2 * term, 2), 0.9, seen)
        torch.testing.assert_close(average, terms[: seen + 1].mean(0), **EXACT)
    average = kronecker.running_average(average, Moment(3 * terms[5], 3), 0.5, 5)
    torch.testing.assert_close(average, (terms[:5].mean(0) + terms[5]) / 2, **EXACT)


def test_corrected_moments_are_squares_of_samples_gradients():
    basis = kronecker.eigenbasis(A, G)
    a, g = x_of(20, 5, 4, seed=3), x_of(20, 5, 3, seed=4)
    for positions in (1, 5):
        own_a, own_g = a[:, :positions], g[:, :positions]
        each = torch.einsum("nto,nti->noi", own_g, own_a)
        expected = torch.stack([basis.into(one) for one in each]).square().mean(0)
        found = kronecker.corrected_moment(own_a, own_g, basis, 20).mean()
        torch.testing.assert_close(found, expected, **EXACT)


def test_corrected_moments_of_an_embedding():
    tokens = torch.tensor([[0, 1, 1], [2, 2, 2], [3, 0, 3]])
    basis, g = kronecker.eigenbasis(A.diagonal(), G), x_of(3, 3, 3)
    hot = nn.functional.one_hot(tokens, 4).double()
    dense = kronecker.corrected_moment(hot, g, basis, 3)
    found = kronecker.corrected_lookup_moment(tokens, g, basis, 3)
    torch.testing.assert_close(found.mean(), dense.mean(), **EXACT)


def test_units():
    x, g = x_of(7, 2, 3), x_of(7, 2, 3, seed=5)
    for bias in (True, False):
        blocks = kronecker.unit_moment(x, g, 7, bias=bias).mean()
        own = torch.stack([(g * x).sum(1), g.sum(1)][: 1 + bias], 2)
        expected = torch.stack([own[:, u].T @ own[:, u] / 7 for u in range(3)])
        torch.testing.assert_close(blocks, expected, **EXACT)
        V = x_of(3, 1 + bias, seed=6)
        found = kronecker.solve_units(V, blocks, 0.1)
        for u in range(3):
            damped = expected[u] + 0.1 * eye(1 + bias)
            torch.testing.assert_close(found[u], torch.linalg.solve(damped, V[u]), **EXACT)


def test_units_whose_blocks_have_lost_an_eigenvalue_to_rounding():
    """Of rank one and far above the damping: the other direction has the damping alone."""
    row = torch.tensor([3e8, 4e8])
    block, V = torch.outer(row, row)[None], torch.tensor([[4.0, -3.0]])
    torch.testing.assert_close(kronecker.solve_units(V, block, 1e-3), 1e3 * V)
    for broken in (block, 0 * block):
        with pytest.raises(kronecker.LinAlgError, match="singular"):
            kronecker.solve_units(V, broken, 0.0)
    with pytest.raises(kronecker.LinAlgError, match="not finite"):
        kronecker.solve_units(V, block * torch.inf, 1.0)


CONVOLUTIONS = [
    (nn.Conv2d(2, 3, 3), (4, 2, 5, 6)),
    (nn.Conv2d(2, 3, (2, 3), stride=(2, 1), padding=(1, 2), dilation=(1, 2)), (4, 2, 5, 6)),
    (nn.Conv2d(2, 3, 3, padding="same", bias=False), (4, 2, 5, 6)),
    (nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (4, 2, 5, 6)),
    (nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="reflect"), (4, 2, 5, 6)),
    (nn.Conv2d(2, 3, 3), (2, 5, 6)),
    (nn.Conv1d(2, 3, 3, stride=2, padding=1), (4, 2, 7)),
    (nn.Conv1d(2, 3, 2, dilation=3, padding=2, padding_mode="replicate"), (4, 2, 7)),
]


@pytest.mark.parametrize(("module", "shape"), CONVOLUTIONS, ids=str)
def test_rows_of_a_convolution_are_its_linear_layer(module, shape):
    module, x = module.double(), x_of(*shape)
    layer = layers.Convolution("", module)
    matrix = layer.join([p.detach() for p in layer.params])
    outputs = module(x)
    torch.testing.assert_close(layer.inputs(x) @ matrix.T, layer.gradients(outputs), **EXACT)
    for piece, p in zip(layer.split(matrix), layer.params, strict=True):
        assert torch.equal(piece, p)
    # The sum of samples' gradients is the gradient.
    g = x_of(*outputs.shape, seed=7)
    grads = torch.autograd.grad(outputs, layer.params, g)
    total = torch.einsum("nto,nti->oi", layer.gradients(g), layer.inputs(x))
    torch.testing.assert_close(layer.join(grads), total, **EXACT)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Linear(4, 3), (5, 4)),
        (nn.Linear(4, 3, bias=False), (5, 2, 6, 4)),
        (nn.Linear(4, 3), (4,)),
        (nn.LayerNorm(4), (5, 2, 4)),
        (nn.LayerNorm((2, 4)), (5, 2, 4)),
        (nn.RMSNorm(4), (5, 4)),
        (nn.GroupNorm(2, 4), (5, 4, 3, 2)),
        (nn.BatchNorm1d(4), (5, 4)),
        (nn.BatchNorm2d(4), (5, 4, 3, 2)),
    ],
    ids=str,
)
def test_rows_of_other_layers(module, shape):
    module, x = module.double(), x_of(*shape)
    kind = layers.Linear if isinstance(module, nn.Linear) else layers.Normalization
    layer = kind("", module)
    outputs = module(x)
    g = x_of(*outputs.shape, seed=7)
    grads = torch.autograd.grad(outputs, layer.params, g)
    rows, back = layer.inputs(x), layer.gradients(g)
    if kind is layers.Linear:
        total = torch.einsum("nto,nti->oi", back, rows)
    else:
        own = [(back * rows).sum((0, 1)), back.sum((0, 1))]
        total = torch.stack(own[: len(layer.params)], 1)
    torch.testing.assert_close(layer.join(grads), total, **EXACT)
    assert layer.join(grads).shape == layer.size
    for piece, g in zip(layer.split(layer.join(grads)), grads, strict=True):
        assert torch.equal(piece, g)


@pytest.mark.parametrize("form", [{}, {"damping_form": "eigenbasis"}], ids=str)
def test_direction_is_the_inverse_of_the_dense_block(form):
    model = double(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3, bias=False))
    optimizer = observed(model, x_of(9, 4), "categorical", damping=0.04, **form)
    (direction,) = optimizer.precondition()
    at = 0
    for name, (left, right) in optimizer.factors().items():
        module = dict(model.named_modules())[name]
        own = [*module.parameters()]
        eye_left, eye_right = eye(len(left)), eye(len(right))
        if form:
            F = torch.kron(right, left) + 0.04 * eye(len(left) * len(right))
        else:
            pi = kronecker.trace_ratio(left, right)
            F = torch.kron(right + 0.2 / pi * eye_right, left + 0.2 * pi * eye_left)
        V = torch.cat([own[0].grad, *[p.grad[:, None] for p in own[1:]]], 1)
        expected = torch.linalg.solve(F, V.flatten()).view_as(V)
        torch.testing.assert_close(direction[at], expected[:, : own[0].shape[1]], **EXACT)
        if len(own) > 1:
            torch.testing.assert_close(direction[at + 1], expected[:, -1], **EXACT)
        at += len(own)
    assert at == len(direction)


def test_work_is_shared_out():
    costs = [7, 1, 5, 3, 3, 1]
    owners = ranks.assign(costs, 3)
    loads = [sum(c for c, o in zip(costs, owners, strict=True) if o == rank) for rank in range(3)]
    assert max(loads) == 7 and sum(loads) == 20
    assert ranks.assign([], 2) == [] and ranks.assign([4], 3) == [0]


def test_moments_add_up():
    total = Moment(torch.ones(2), 2) + Moment(torch.ones(2), 3)
    assert torch.equal(total.mean(), torch.full((2,), 0.4))
    assert as_columns(A, G).shape == (12, 12)
