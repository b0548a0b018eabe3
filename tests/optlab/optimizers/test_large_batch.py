"""LARS and LAMB beyond the registry: what they leave out, zero norms, and how far a layer moves."""

import pytest
import torch

import optlab
from optlab.engine import kernels
from tests.optlab.driving import alike, assert_equal, assert_same, copies, drive, parameters
from tests.optlab.registry import REGISTRY

PLAIN = [entry for entry in REGISTRY if entry.name in ("lars-plain", "lamb-decay")]
BOTH = pytest.mark.parametrize("entry", PLAIN, ids=lambda entry: entry.ours.__name__)


@BOTH
def test_trust_is_a_groups_own_and_may_change_in_mid_run(entry):
    def scenario(make, params):
        flat = [p for p in params if p.dim() <= 1]
        others = [p for p in params if p.dim() > 1]
        groups = [{"params": others}, {"params": flat, "trust": False, "weight_decay": 0}]
        optimizer = make(groups)
        for seed, trust in enumerate([False, True, False]):
            optimizer.param_groups[1]["trust"] = trust
            drive(optimizer, params, 3, seed)

    alike(entry, scenario)


@BOTH
def test_zero_norms_leave_the_ratio_at_one(entry):
    """A parameter of zeros, and a gradient of zeros at the first step."""

    def scenario(make, params):
        with torch.no_grad():
            for p in params[:3]:
                p.zero_()
        optimizer = make(params, weight_decay=0.1)
        for p in params:
            p.grad = torch.zeros_like(p) if p is params[4] else torch.ones_like(p)
        optimizer.step()
        assert params[0].all()
        drive(optimizer, params, 3)

    alike(entry, scenario)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_step_is_in_proportion_to_the_layer_whatever_its_gradients_size(entry, dtype):
    """A norm of half precision would overflow: the sum of these squares is above 65504."""
    for size in (1e-2, 1.0, 300.0):
        p = torch.full((40, 5), 100.0, dtype=dtype, requires_grad=True)
        before = p.detach().clone()
        p.grad = torch.full((40, 5), size, dtype=dtype)
        optimizer = entry.make([p], lr=0.5, weight_decay=0, eps=0)
        optimizer.step()
        share = 0.5 * optimizer.defaults.get("trust_coefficient", 1.0)
        moved = (p.detach().float() - before.float()).norm() / before.float().norm()
        assert moved.item() == pytest.approx(share, rel=1e-3)


def test_lamb_without_trust_is_adamw():
    results = []
    for make, extra in ((optlab.LAMB, {"trust": False}), (torch.optim.AdamW, {})):
        params = parameters()
        drive(make(params, lr=0.02, eps=1e-6, weight_decay=0.1, **extra), params, 20)
        results.append(params)
    assert_equal(*results)


def test_lars_without_trust_is_sgd_while_the_rate_stays():
    results = []
    settings = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}
    for make, extra in ((optlab.LARS, {"trust": False}), (torch.optim.SGD, {})):
        params = parameters()
        drive(make(params, **settings, **extra), params, 20)
        results.append(params)
    assert_equal(*results)


def test_lars_velocity_keeps_the_rate_that_it_was_made_with():
    p = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimizer = optlab.LARS([p], lr=1.0, momentum=0.5, trust=False)
    for lr, there in ((1.0, 0.0), (0.0, -0.5), (0.0, -0.75)):
        optimizer.param_groups[0]["lr"] = lr
        p.grad = torch.ones_like(p)
        optimizer.step()
        assert p.item() == there


@BOTH
@pytest.mark.parametrize("compile", [False, True])
def test_a_large_parameter_has_one_norm_though_others_are_run_in_pieces(
    entry, compile, monkeypatch
):
    monkeypatch.setattr(kernels, "CHUNK", 5)
    results = []
    for make in (lambda ps: entry.make(ps, compile=compile), entry.oracle):
        params = [torch.linspace(-1, 2, 50_000, dtype=torch.float64).requires_grad_()]
        drive(make(params), params, 3)
        results.append(params)
    assert_equal(*results, rtol=1e-10, atol=1e-12)


@BOTH
def test_a_layers_numbers_do_not_depend_on_its_neighbours(entry):
    params = parameters()
    alone = copies(params[:1])
    for own in (params, alone):
        optimizer = entry.make(own)
        for _ in range(5):
            for p in own:
                p.grad = torch.ones_like(p)
            optimizer.step()
    assert_same(params[:1], alone)
