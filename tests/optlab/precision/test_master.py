"""Master weights: small updates survive, and all but the model's own numbers is in float32."""

import copy

import pytest
import torch
from torch import nn

import optlab
from optlab.precision import LossScaler, MasterWeights, Policy


def network(dtype, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)


def test_updates_below_the_spacing_add_up():
    """1 - 100 * 2^-12: bfloat16 alone never leaves 1."""
    found = []
    for with_master in (True, False):
        model = nn.Linear(1, 1, bias=False, dtype=torch.bfloat16)
        nn.init.ones_(model.weight)
        master = MasterWeights(model) if with_master else None
        optimizer = optlab.SGD((master or model).parameters(), lr=2.0**-12)
        if master:
            master.attach(optimizer)
        for _ in range(100):
            optimizer.zero_grad()
            model(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()
            optimizer.step()
        found.append(model.weight.item())
    expected = torch.tensor(1 - 100 * 2.0**-12).bfloat16().item()
    assert found == [expected, 1.0] and expected < 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_model_is_the_copies_rounded_and_gradients_are_theirs(dtype):
    model = network(dtype)
    master = MasterWeights(model)
    optimizer = master.attach(optlab.AdamW(master.parameters(), 0.1))
    for _ in range(3):
        optimizer.zero_grad()
        for _ in range(2):  # they accumulate in float32
            model(torch.ones(5, 3, dtype=dtype)).square().mean().backward()
        assert all(p.grad is None for p in model.parameters())
        assert all(p.grad.dtype is torch.float32 for p in master.parameters())
        optimizer.step()
        for p, own in zip(model.parameters(), master.parameters(), strict=True):
            assert torch.equal(p, own.to(dtype)) and not torch.equal(p.float(), own)


def test_half_precision_trains_as_single_does():
    torch.manual_seed(1)
    x = torch.randn(64, 3)
    y = (x @ torch.randn(3, 2)).tanh()
    losses = []
    for dtype in (torch.float32, torch.float16):
        model, scaler = network(dtype), LossScaler()
        master = MasterWeights(model) if dtype is torch.float16 else model
        optimizer = optlab.Adam(master.parameters(), 0.01)
        if dtype is torch.float16:
            master.attach(optimizer)
        for _ in range(200):
            optimizer.zero_grad()
            loss = (model(x.to(dtype)).float() - y).square().mean()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        losses.append(float(loss.detach()))
    assert losses[0] < 0.05 and losses[1] == pytest.approx(losses[0], rel=0.05)


def test_stochastic_rounding_has_the_copies_mean():
    model = nn.Linear(40_000, 1, bias=False, dtype=torch.bfloat16)
    master = MasterWeights(model, stochastic=True)
    value = 1 + 2.0**-9
    with torch.no_grad():
        next(master.parameters()).fill_(value)
    master.write()
    weights = model.weight.double()
    assert weights.unique().tolist() == [1.0, 1 + 2.0**-7]
    assert abs(weights.mean() - value) < 5 * weights.std() / 200
    first = model.weight.detach().clone()
    master.write()
    assert not torch.equal(first, model.weight)


@pytest.mark.parametrize("stochastic", [False, True])
def test_a_run_goes_on_from_a_checkpoint_bitwise(stochastic):
    def parts():
        model = network(torch.bfloat16)
        master = MasterWeights(model, stochastic=stochastic)
        return model, master, master.attach(optlab.Adam(master.parameters(), 0.01))

    def train(model, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.ones(5, 3, dtype=torch.bfloat16)).square().mean().backward()
            optimizer.step()

    whole, halves = parts(), parts()
    train(whole[0], whole[2], 6)
    train(halves[0], halves[2], 3)
    saved = [copy.deepcopy(part.state_dict()) for part in halves]
    resumed = parts()
    for part, state in zip(resumed, saved, strict=True):
        part.load_state_dict(state)
    train(resumed[0], resumed[2], 3)
    for p, q in zip(whole[0].parameters(), resumed[0].parameters(), strict=True):
        assert torch.equal(p, q)
    for p, q in zip(whole[1].parameters(), resumed[1].parameters(), strict=True):
        assert torch.equal(p, q)


def test_what_does_not_fit_is_refused_and_changes_nothing():
    with pytest.raises(ValueError, match="float16 or bfloat16"):
        MasterWeights(network(torch.float32))
    model = network(torch.bfloat16)
    master = MasterWeights(model)
    with pytest.raises(ValueError, match=r"master\.parameters"):
        master.attach(optlab.SGD(model.parameters(), 0.1))
    before = copy.deepcopy(master.state_dict())
    for broken, message in (
        ({}, "rounded, weights"),
        ({"weights": {}, "rounded": 0}, "0.weight"),
        ({**before, "weights": {**before["weights"], "0.bias": torch.ones(7)}}, "0.bias"),
    ):
        with pytest.raises(ValueError, match=message):
            master.load_state_dict(broken)
    for name, value in master.state_dict()["weights"].items():
        assert torch.equal(value, before["weights"][name])


def test_parameters_of_other_types_are_used_themselves():
    model = nn.Sequential(nn.Linear(2, 2, dtype=torch.bfloat16), nn.LayerNorm(2))
    master = MasterWeights(model)
    named = dict(master.named_parameters())
    assert named["1.weight"] is model[1].weight
    assert named["0.weight"].dtype is torch.float32
    master.remove_hooks()
    model[0](torch.ones(1, 2, dtype=torch.bfloat16)).sum().backward()
    assert model[0].weight.grad is not None


def test_policies():
    for name, dtype, scale in (
        ("fp32", torch.float32, 1.0),
        ("bf16", torch.bfloat16, 1.0),
        ("fp16", torch.float16, 2.0**16),
    ):
        policy = Policy(name)
        with policy.autocast():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is dtype
        assert policy.scaler().get_scale() == scale
        assert repr(policy) == f"Policy('{name}', 'cpu')"
    assert Policy("fp16", "cuda:1").device == "cuda"
    assert Policy("fp16").scaler(init_scale=8.0).get_scale() == 8.0
    with pytest.raises(ValueError, match="fp32, bf16, fp16"):
        Policy("fp8")


@pytest.mark.parametrize("optimizer", [optlab.Adam, optlab.RMSprop, optlab.NAdam])
def test_half_precision_stays_finite_with_a_tiny_eps(optimizer):
    weight = nn.Parameter(torch.ones(3, dtype=torch.float16))
    own = optimizer([weight], lr=1e-2, eps=1e-8)
    for gradient in (0.0, 1e-7, 1.0):
        weight.grad = torch.full((3,), gradient, dtype=torch.float16)
        own.step()
        assert weight.isfinite().all()
