"""Where K-FAC's block is the exact block of the Fisher information, and what follows from that."""

import copy

import pytest
import torch
from torch import nn

from optlab import KFAC
from optlab.curvature import Categorical, Gaussian
from optlab.curvature.likelihoods import likelihood
from tests.optlab.kfac.blocks import as_columns, double, fisher_blocks, observed, x_of

EXACT = {"rtol": 1e-10, "atol": 1e-11}


def assert_exact(model, x, kind, names=None, **settings):
    expected = fisher_blocks(model, x, kind)
    factors = observed(model, x, kind, **settings).factors()
    for name in names or factors:
        bias = dict(model.named_modules())[name].bias is not None
        torch.testing.assert_close(as_columns(*factors[name], bias), expected[name], **EXACT)
    return factors


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["gaussian", Gaussian(0.5, "mean")], ids=["sum", "mean"])
def test_one_layer_with_squared_error(kind, bias):
    assert_exact(double(nn.Linear(4, 3, bias=bias)), x_of(9, 4), kind)


def test_a_deep_linear_network():
    model = double(nn.Linear(4, 5), nn.Linear(5, 3, bias=False), nn.Linear(3, 2))
    assert len(assert_exact(model, x_of(9, 4), "gaussian")) == 3


@pytest.mark.parametrize("kind", ["categorical", "bernoulli"])
def test_equal_chances(kind):
    """With the last layer zero, the curvature in the outputs is the same for all samples."""
    model = double(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    with torch.no_grad():
        model[2].weight.zero_()
        model[2].bias.zero_()
    assert_exact(model, x_of(9, 4), kind, names=["2"])


@pytest.mark.parametrize("kind", ["categorical", "bernoulli", "gaussian"])
def test_one_sample(kind):
    model = double(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    assert_exact(model, x_of(1, 4), kind)


def test_it_is_an_approximation_elsewhere():
    model = double(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    expected = fisher_blocks(model, x_of(9, 4), "categorical")
    for name, factors in observed(model, x_of(9, 4), "categorical").factors().items():
        error = (as_columns(*factors) - expected[name]).norm() / expected[name].norm()
        assert 1e-3 < error < 1


def test_a_kernel_that_covers_its_input():
    model = double(nn.Conv2d(2, 3, (3, 4)), nn.Flatten())
    assert_exact(model, x_of(6, 2, 3, 4), "gaussian")
    model = double(nn.Conv1d(2, 3, 4, bias=False), nn.Flatten())
    assert_exact(model, x_of(6, 2, 4), "gaussian")


def test_linear_sequences_expanded():
    """A loss at each position: every position is a sample of its own."""
    model = double(nn.Linear(4, 5), nn.Linear(5, 2))
    assert_exact(model, x_of(6, 3, 4), "gaussian", sharing="expand")


class Mean(nn.Module):
    """The mean over positions."""

    def forward(self, x):
        return x.mean(1)


def test_linear_sequences_reduced():
    """One loss of the positions' mean."""
    model = double(nn.Linear(4, 5), nn.Linear(5, 3), Mean(), nn.Linear(3, 2))
    assert_exact(model, x_of(6, 3, 4), "gaussian", sharing="reduce")
    expanded = observed(copy.deepcopy(model), x_of(6, 3, 4), "gaussian", sharing="expand")
    exact = fisher_blocks(model, x_of(6, 3, 4), "gaussian")["0"]
    assert (as_columns(*expanded.factors()["0"]) - exact).norm() > 0.1 * exact.norm()


def test_embedding_counts_tokens():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 3, padding_idx=0), Mean(), nn.Linear(3, 2)).double()
    tokens = torch.tensor([[1, 2, 1], [0, 4, 1]])
    A, G = observed(model, tokens, "gaussian").factors()["0"]
    torch.testing.assert_close(A, torch.tensor([0, 3, 1, 0, 1], dtype=torch.float64) / 6)
    assert G.shape == (3, 3)
    single = double(nn.Embedding(5, 3))
    tokens = torch.tensor([1, 2, 1, 4])
    hot = nn.functional.one_hot(tokens, 5).double()
    expected = fisher_blocks(nn.Sequential(_linear(single[0])), hot, "gaussian")["0"]
    A, G = observed(single, tokens[:, None], "gaussian").factors()["0"]
    torch.testing.assert_close(as_columns(A, G, bias=False), expected, **EXACT)


def _linear(embedding):
    layer = nn.Linear(*embedding.weight.shape, bias=False).double()
    layer.weight.data = embedding.weight.detach().T.clone()
    return layer


@pytest.mark.parametrize("bias", [True, False])
def test_scale_and_shift_are_exact_unit_by_unit(bias):
    model = double(nn.Linear(4, 5), nn.LayerNorm(5, bias=bias), nn.Tanh(), nn.Linear(5, 3))
    optimizer = observed(model, x_of(9, 4), "categorical")
    (units,) = [b.averages["units"] for b in optimizer._estimate.blocks if b.layer.name == "1"]
    full = fisher_blocks(model, x_of(9, 4), "categorical")["1"]
    for unit in range(5):
        own = [unit, unit + 5] if bias else [unit]
        torch.testing.assert_close(units[unit], full[own][:, own], **EXACT)


def test_undamped_it_is_least_squares():
    model, x, y = double(nn.Linear(4, 3)), x_of(20, 4), x_of(20, 3, seed=2)
    exact = dict(fisher="exact", kl_clip=None, damping=0.0)
    optimizer = KFAC(model, "gaussian", lr=1.0, momentum=0, **exact)
    likelihood("gaussian").loss(model(x), y).backward()
    optimizer.step()
    rows = torch.cat([x, torch.ones(20, 1, dtype=torch.float64)], 1)
    expected = torch.linalg.lstsq(rows, y).solution
    torch.testing.assert_close(model[0].weight.detach(), expected[:-1].T, **EXACT)
    torch.testing.assert_close(model[0].bias.detach(), expected[-1], **EXACT)


@pytest.mark.parametrize("form", [{}, {"damping_form": "eigenbasis"}, {"ekfac": True}], ids=str)
def test_much_damping_leaves_the_gradient(form):
    model = double(nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 3))
    optimizer = observed(model, x_of(9, 4), "categorical", damping=1e12, **form)
    (direction,) = optimizer.precondition()
    for p, d in zip(model.parameters(), direction, strict=True):
        torch.testing.assert_close(1e12 * d, p.grad, rtol=1e-5, atol=1e-10)


def test_an_affine_map_of_the_inputs_changes_nothing():
    x, y = x_of(20, 4), x_of(20, 3, seed=2)
    M, shift = x_of(4, 4, seed=3) + 3 * torch.eye(4, dtype=torch.float64), x_of(4, seed=4)
    plain = double(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    mapped = copy.deepcopy(plain)
    z = (x - shift) @ torch.linalg.inv(M).T
    with torch.no_grad():
        mapped[0].weight.copy_(plain[0].weight @ M)
        mapped[0].bias.copy_(plain[0].bias + plain[0].weight @ shift)
    for model, given in ((plain, x), (mapped, z)):
        exact = dict(fisher="exact", kl_clip=None, damping=0.0)
        optimizer = KFAC(model, "gaussian", lr=0.5, momentum=0, **exact)
        torch.testing.assert_close(plain(x), mapped(z), **EXACT) if model is plain else None
        likelihood("gaussian").loss(model(given), y).backward()
        optimizer.step()
    torch.testing.assert_close(plain(x), mapped(z), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", ["categorical", "bernoulli", "gaussian"])
def test_sampled_factors_are_unbiased(kind):
    model, x = double(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), x_of(6, 4)
    expected = observed(copy.deepcopy(model), x, kind).factors()
    drawn = {name: [] for name in expected}
    for seed in range(200):
        optimizer = observed(model, x, kind, fisher="sampled", samples=2, seed=seed)
        for name, (A, G) in optimizer.factors().items():
            torch.testing.assert_close(A, expected[name][0], **EXACT)
            drawn[name].append(G)
        optimizer.remove_hooks()
    for name, found in drawn.items():
        G = torch.stack(found)
        error = G.std(0) / len(G) ** 0.5
        assert ((G.mean(0) - expected[name][1]).abs() < 5 * error).all()
        assert error.norm() < 0.3 * expected[name][1].norm()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["categorical", "gaussian"])
def test_corrected_eigenvalues_are_never_worse(kind, seed):
    model = double(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), seed=seed)
    x = x_of(8, 4, seed=seed)
    expected = fisher_blocks(model, x, kind)
    plain = observed(copy.deepcopy(model), x, kind)
    corrected = observed(model, x, kind, passes=2, ekfac=True)
    better = 0
    for block in corrected._estimate.blocks:
        basis = block.basis
        V = torch.kron(basis.G, basis.A)
        F = V @ torch.diag(basis.values.flatten()) @ V.T
        A, G = plain.factors()[block.layer.name]
        order = as_columns(A, G)
        size = len(F)
        places = torch.arange(size).view(len(G), len(A))
        own = torch.cat([places[:, :-1].flatten(), places[:, -1]])
        exact = expected[block.layer.name]
        ours, theirs = (F[own][:, own] - exact).norm(), (order - exact).norm()
        assert ours <= theirs + 1e-10
        better += bool(ours < 0.99 * theirs)
    assert better


@pytest.mark.parametrize("fisher", ["exact", "empirical"])
def test_shards_add_up_to_the_batch(fisher):
    model = double(nn.Conv2d(1, 2, 2), nn.Tanh(), nn.Flatten(), nn.LayerNorm(8), nn.Linear(8, 3))
    x, y = x_of(6, 1, 3, 3), torch.tensor([0, 1, 2, 0, 1, 1])
    found = []
    for parts in (1, 2, 3):
        own = copy.deepcopy(model)
        scale = {"loss_scale": 1 / parts} if fisher == "empirical" else {}
        optimizer = KFAC(own, "categorical", lr=0.1, fisher=fisher, **scale)
        for few, targets in zip(x.chunk(parts), y.chunk(parts), strict=True):
            (Categorical().loss(own(few), targets) / parts).backward()
        optimizer.step()
        found.append((optimizer.factors(), [p.detach() for p in own.parameters()]))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], **EXACT)


@pytest.mark.parametrize("fisher", ["exact", "empirical"])
def test_damping_does_not_change_its_meaning_with_the_batch(fisher):
    model = double(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    x, y = x_of(6, 4), torch.tensor([0, 1, 2, 0, 1, 1])
    found = []
    for repeats, scale in ((1, 1.0), (3, 1.0), (1, 1024.0)):
        own = copy.deepcopy(model)
        settings = {"loss_scale": scale} if fisher == "empirical" else {}
        optimizer = KFAC(own, "categorical", lr=0.1, fisher=fisher, **settings)
        many, targets = x.repeat(repeats, 1), y.repeat(repeats)
        (scale * Categorical().loss(own(many), targets)).backward()
        for p in own.parameters():
            p.grad /= scale
        optimizer.step()
        found.append((optimizer.factors(), [p.detach() for p in own.parameters()]))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], **EXACT)


def test_empirical_factors_are_of_the_batchs_targets():
    model, x, y = double(nn.Linear(4, 3)), x_of(6, 4), torch.tensor([0, 1, 2, 0, 1, 1])
    optimizer = KFAC(model, "categorical", fisher="empirical")
    Categorical().loss(model(x), y).backward()
    optimizer.step()
    p = (x @ model[0].weight.T + model[0].bias).detach()
    A, G = optimizer.factors()["0"]
    assert A.shape == (5, 5) and p.shape == (6, 3)
    fresh = double(nn.Linear(4, 3))
    g = fresh(x).detach().softmax(1) - nn.functional.one_hot(y, 3)
    torch.testing.assert_close(G, g.T @ g / 6, **EXACT)
