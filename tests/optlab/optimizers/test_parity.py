"""The numbers are torch's, on every kind of parameter and gradient."""

import pytest
import torch

import optlab
from optlab import rules
from optlab.engine import packing
from tests.optlab.driving import assert_equal, copies, drive, parameters
from tests.optlab.registry import EACH_CLASS, EVERY, REGISTRY


def assert_torchs_numbers(entry, dtype=torch.float64, **tolerance):
    results = []
    for make in entry.makers:
        params = parameters(dtype)
        drive(make(params), params, 50)
        results.append(params)
    assert_equal(*results, **tolerance)


@EVERY
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "apart"])
def test_numbers_are_torchs(entry, packed, monkeypatch):
    if not packed:
        monkeypatch.setattr(packing, "SMALL", 0)
    assert_torchs_numbers(entry)


def inside_the_root(rule):
    """A rule of the same signature whose eps stands inside the root."""

    def adam(theta, g, m, v, *, lr, beta1, beta2, eps, step):
        m, v = rules.average(m, g, beta1), rules.average(v, g * g, beta2)
        m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
        return theta - lr * m_hat / (v_hat + eps * eps) ** 0.5, m, v

    def rmsprop(theta, g, v, *, lr, alpha, eps):
        v = rules.average(v, g * g, alpha)
        return theta - lr * g / (v + eps * eps) ** 0.5, v

    def adagrad(theta, g, s, *, lr, eps, lr_decay=0.0, step=1):
        s = s + g * g
        return theta - lr / (1 + (step - 1) * lr_decay) * g / (s + eps * eps) ** 0.5, s

    return {"adam": adam, "rmsprop": rmsprop, "adagrad": adagrad}[rule]


@pytest.mark.parametrize("rule", ["adam", "rmsprop", "adagrad"])
def test_these_gradients_tell_eps_inside_the_root_from_eps_outside(rule, monkeypatch):
    entry = next(entry for entry in REGISTRY if entry.name == f"{rule}-plain")
    monkeypatch.setattr(rules, rule, inside_the_root(rule))
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        assert_torchs_numbers(entry)


@EVERY
def test_numbers_in_float32_are_torchs_but_for_rounding(entry):
    assert_torchs_numbers(entry, torch.float32, rtol=2e-4, atol=2e-5)


def test_nadam_keeps_its_product_in_float64_whatever_the_default_dtype():
    p = torch.ones(3, dtype=torch.float64, requires_grad=True)
    optimizer = optlab.NAdam([p])
    drive(optimizer, [p], 4)
    expected = 1.0
    for step in range(1, 5):
        expected *= 0.9 * (1 - 0.5 * 0.96 ** (step * 4e-3))
    product = optimizer.state[p]["mu_product"]
    assert product.dtype == torch.float64
    assert product.item() == pytest.approx(expected, rel=1e-15)
    assert product.float().item() != product.item()  # there is something to lose


def test_centered_rmsprop_stays_finite_where_torchs_has_a_negative_variance():
    results = []
    for make in (optlab.RMSprop, torch.optim.RMSprop):
        p = torch.zeros(2000, requires_grad=True)
        optimizer = make([p], centered=True, alpha=0.5, eps=0.0)
        for _ in range(60):  # the same each time: the mean square less the squared mean is nothing
            p.grad = torch.linspace(0.1, 7, 2000)
            optimizer.step()
        results.append(p)
    assert results[1].isnan().any()
    assert not results[0].isnan().any()


@EVERY
def test_complex_parameters_are_torchs(entry):
    assert_torchs_numbers(entry, torch.complex128)


LAZY = {"conjugated": (torch.complex128, torch.conj), "negated": (torch.float64, torch._neg_view)}


@pytest.mark.parametrize("way", LAZY)
def test_gradients_may_be_conjugated_or_negated_lazily(way):
    dtype, lazily = LAZY[way]
    results = []
    for resolve in (lambda g: g, lambda g: g.resolve_conj().resolve_neg()):

        def gradient(p, generator, resolve=resolve):
            return resolve(lazily(torch.randn(p.shape, dtype=p.dtype, generator=generator)))

        params = parameters(dtype)
        drive(optlab.Adam(params), params, 3, gradient=gradient)
        results.append(params)
    assert_equal(*results)


def test_a_parameter_conjugated_lazily_is_refused():
    p = torch.full((3,), 1 + 2j, dtype=torch.complex128).conj().requires_grad_()
    first = torch.ones(2, requires_grad=True)
    optimizer = optlab.SGD([first], lr=0.1)
    with pytest.raises(ValueError, match="params must not be conjugated or negated lazily"):
        optimizer.add_param_group({"params": [p]})
    assert len(optimizer.param_groups) == 1


LAYOUTS = {
    "transposed": lambda g: g.mT.contiguous().mT if g.dim() > 1 else g,
    "expanded": lambda g: g.sum().expand(g.shape),
    "with gaps": lambda g: torch.stack([g, g], dim=-1)[..., 0],
    "channels_last": lambda g: (
        g.contiguous(memory_format=torch.channels_last) if g.dim() == 4 else g
    ),
    "contiguous": lambda g: g.contiguous(),
    "row of a matrix": lambda g: torch.stack([g, g])[1],
}


@EACH_CLASS
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "apart"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_may_lie_otherwise_than_their_parameters(entry, layout, packed, monkeypatch):
    if not packed:
        monkeypatch.setattr(packing, "SMALL", 0)

    def gradient(p, generator):
        return LAYOUTS[layout](torch.randn(p.shape, generator=generator, dtype=p.dtype))

    results = []
    for make in entry.makers:
        params = parameters()
        drive(make(params), params, 3, gradient=gradient)
        results.append(params)
    assert_equal(*results)


@EACH_CLASS
def test_a_group_may_mix_dtypes(entry):
    kinds = [torch.float64, torch.complex128, torch.float32, torch.complex64]
    results = []
    for make in entry.makers:
        params = [p for kind in kinds for p in parameters(kind)]
        drive(make(params), params, 5)
        results.append(params)
    exact = 2 * len(parameters())
    assert_equal(*[params[:exact] for params in results])
    assert_equal(*[params[exact:] for params in results], rtol=1e-4, atol=1e-5)
    assert [p.dtype for p in results[0]] == [p.dtype for p in results[1]]


@EVERY
def test_gradients_are_not_modified(entry):
    params = parameters()
    optimizer = entry.make(params, weight_decay=0.1)
    for p in params:
        p.grad = torch.randn_like(p)
    before = [p.grad for p in params]
    entries = copies(before)
    for _ in range(3):
        optimizer.step()
    assert all(p.grad is g for p, g in zip(params, before, strict=True))
    assert all(torch.equal(g, e) for g, e in zip(before, entries, strict=True))


@EVERY
@pytest.mark.parametrize("shape", [(), (1,)], ids=["0-dim", "one element"])
def test_a_rate_may_be_a_tensor(entry, shape):
    results = []
    for make in entry.makers:
        params = parameters()
        lr = torch.full(shape, 0.05, dtype=torch.float64)
        optimizer = make(params, lr=lr)
        drive(optimizer, params, 3)
        lr.fill_(0.2)  # as schedulers change it: the tensor stays the same
        drive(optimizer, params, 3, seed=1)
        assert optimizer.param_groups[0]["lr"] is lr
        results.append(params)
    assert_equal(*results)


@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
def test_betas_may_be_tensors(kind):
    results = []
    for make in (getattr(optlab, kind), getattr(torch.optim, kind)):
        params = parameters()
        betas = (torch.tensor(0.8, dtype=torch.float64), torch.tensor(0.9, dtype=torch.float64))
        optimizer = make(params, betas=betas)
        drive(optimizer, params, 3)
        betas[0].fill_(0.5)
        drive(optimizer, params, 3, seed=1)
        results.append(params)
    assert_equal(*results)


def test_a_decay_may_be_a_tensor_as_in_torchs_sgd():
    results = []
    for make in (optlab.SGD, torch.optim.SGD):
        params = parameters()
        decay = torch.tensor(0.1, dtype=torch.float64)
        optimizer = make(params, lr=0.1, weight_decay=decay)
        drive(optimizer, params, 2)
        decay.fill_(0.0)
        drive(optimizer, params, 2)
        decay.fill_(0.5)
        drive(optimizer, params, 2)
        results.append(params)
    assert_equal(*results)


@EVERY
def test_a_small_network_learns(entry):
    torch.manual_seed(0)
    X = torch.randn(64, 5)
    y = (X.sum(dim=1) > 0).long()
    model = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
    sign = -1 if entry.settings.get("maximize") else 1
    optimizer = entry.make(model.parameters(), weight_decay=0)
    for _ in range(200):
        optimizer.zero_grad()
        (sign * torch.nn.functional.cross_entropy(model(X), y)).backward()
        optimizer.step()
    assert torch.nn.functional.cross_entropy(model(X), y).item() < 0.3
