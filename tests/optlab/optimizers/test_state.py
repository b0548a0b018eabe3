"""State: resumed runs, half precision, and what a user edits."""

import copy
import pickle

import pytest
import torch

import optlab
from tests.optlab.driving import (
    alike,
    assert_equal,
    assert_same,
    drive,
    drive_gaps,
    parameters,
    saved_and_loaded,
    steps_of,
)
from tests.optlab.registry import CLASSES, EACH_CLASS, EVERY

WAYS = ["state_dict", "same optimizer", "torch.save", "pickle", "deepcopy"]
HALF = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


def resumed(entry, optimizer, params, way, **settings):
    """The optimizer and its parameters after a break."""
    if way == "deepcopy":
        return copy.deepcopy((optimizer, params))
    if way == "pickle":
        return pickle.loads(pickle.dumps((optimizer, params)))
    if way == "same optimizer":
        optimizer.load_state_dict(optimizer.state_dict())
        return optimizer, params
    if way == "torch.save":
        state, params = saved_and_loaded((optimizer.state_dict(), params))
    else:
        state = copy.deepcopy(optimizer.state_dict())
    second = entry.make(params, **settings)
    second.load_state_dict(state)
    return second, params


def assert_resumes(entry, way, dtype, driver=drive, **settings):
    straight = parameters(dtype)
    whole = entry.make(straight, **settings)
    driver(whole, straight, 2)
    driver(whole, straight, 4, seed=9)
    params = parameters(dtype)
    first = entry.make(params, **settings)
    driver(first, params, 2)
    second, params = resumed(entry, first, params, way, **settings)
    assert second.compile is settings.get("compile", False)
    driver(second, params, 4, seed=9)
    assert_same(params, straight)
    states = second.state_dict()["state"], whole.state_dict()["state"]
    torch.testing.assert_close(*states, rtol=0, atol=0)


@EVERY
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_resumed_run_is_bitwise_the_same(entry, way, dtype):
    assert_resumes(entry, way, dtype)


@EVERY
@pytest.mark.parametrize("way", WAYS)
def test_a_resumed_run_with_absent_gradients_is_bitwise_the_same(entry, way):
    assert_resumes(entry, way, torch.float32, driver=drive_gaps)


@EACH_CLASS
@HALF
@pytest.mark.parametrize("way", WAYS)
def test_a_resumed_run_in_half_precision_is_bitwise_the_same(entry, dtype, way):
    def small(p, generator):
        return torch.randn(p.shape, generator=generator).to(p.dtype)

    def driver(optimizer, params, steps, seed=0):
        drive(optimizer, params, steps, seed, gradient=small)

    assert_resumes(entry, way, dtype, driver=driver)


@EACH_CLASS
def test_an_optimizer_resumed_from_a_copy_leaves_the_first_alone(entry):
    params = parameters()
    first = entry.make(params)
    drive(first, params, 3)
    second, others = copy.deepcopy((first, params))
    before = copy.deepcopy(first.state_dict())
    entries = [p.detach().clone() for p in params]
    drive(second, others, 3, seed=1)
    assert_same(params, entries)
    torch.testing.assert_close(first.state_dict(), before, rtol=0, atol=0)


@EVERY
@HALF
def test_half_precision_keeps_its_state_in_float32(entry, dtype):
    params = [p for p in parameters(dtype) if p.numel()]
    optimizer = entry.make(params)

    def plain(p, generator):
        return torch.randn(p.shape, generator=generator).to(dtype)

    drive(optimizer, params, 3, gradient=plain)
    loaded = entry.make(params)
    loaded.load_state_dict(saved_and_loaded(optimizer.state_dict()))
    for p in params:
        assert p.dtype == dtype
        assert p.isfinite().all()
        state = optimizer.state.get(p, {})
        assert state.keys() == loaded.state.get(p, {}).keys()
        for name, value in state.items():
            other = loaded.state[p][name]
            if value.shape == p.shape and name not in ("step", "mu_product"):
                assert value.dtype == other.dtype == torch.float32
                assert name == "sum" or not torch.equal(value.to(dtype).float(), value)
            assert torch.equal(value.double(), other.double())


@EACH_CLASS
@HALF
def test_half_precision_moves_as_float32_does_but_for_rounding(entry, dtype):
    """One step: the parameters are rounded once, the steps are not."""
    half = [p for p in parameters(dtype) if p.numel()]
    single = [p.detach().float().requires_grad_() for p in half]

    def plain(p, generator):
        return torch.randn(p.shape, generator=generator).to(dtype).to(p.dtype)

    for params in (half, single):
        drive(entry.make(params), params, 1, gradient=plain)
    for a, b in zip(half, single, strict=True):
        assert torch.equal(a, b.to(dtype))


def test_torchs_adam_gives_nan_in_float16_where_ours_does_not():
    def tiny(p, generator):
        return torch.full(p.shape, 1e-5, dtype=p.dtype)  # its square is below all of float16

    results = []
    for make in (optlab.Adam, torch.optim.Adam):
        params = [torch.zeros(4, dtype=torch.float16, requires_grad=True)]
        drive(make(params, eps=1e-8), params, 2, gradient=tiny)
        results.append(params[0])
    assert not results[1].isfinite().any()
    assert results[0].tolist() == pytest.approx([-2e-3] * 4, rel=1e-2)


@pytest.mark.parametrize("saved", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("loaded", [torch.float32, torch.float64])
@EACH_CLASS
def test_state_takes_the_dtype_of_its_parameter_as_in_torch(entry, saved, loaded):
    results = []
    for make in entry.makers:
        old = [torch.ones(3, dtype=saved, requires_grad=True)]
        first = make(old)
        old[0].grad = torch.full((3,), 0.3, dtype=saved)
        first.step()
        new = [torch.ones(3, dtype=loaded, requires_grad=True)]
        second = make(new)
        second.load_state_dict(first.state_dict())
        new[0].grad = torch.full((3,), 0.3, dtype=loaded)
        second.step()
        results.append(new[0].detach())
        shaped = {n: v for n, v in second.state[new[0]].items() if v.shape == (3,)}
        assert all(value.dtype == loaded for value in shaped.values())
    exact = saved != torch.bfloat16  # ours has no rounding to lose
    torch.testing.assert_close(*results, rtol=1e-6 if exact else 1e-2, atol=0)


@pytest.mark.parametrize(
    ("kind", "name", "value", "buffer"),
    [
        (optlab.RMSprop, "momentum", 0.9, "momentum_buffer"),
        (optlab.RMSprop, "centered", True, "grad_avg"),
        (optlab.Adam, "amsgrad", True, "max_exp_avg_sq"),
        (optlab.AdamW, "amsgrad", True, "max_exp_avg_sq"),
    ],
)
def test_state_that_torch_lacks_in_mid_run_starts_at_zero(kind, name, value, buffer):
    """Torch raises a KeyError there; it goes on once it is given zeros."""
    ours, theirs = parameters(), parameters()
    first, second = kind(ours), getattr(torch.optim, kind.__name__)(theirs)
    for optimizer, params in ((first, ours), (second, theirs)):
        drive(optimizer, params, 3)
        optimizer.param_groups[0][name] = value
    with pytest.raises(KeyError):
        second.step()
    assert_equal(ours, theirs)
    for p in theirs:
        second.state[p]["step"] -= float(second.state[p]["step"]) - 3
        second.state[p][buffer] = torch.zeros_like(p)
    for optimizer, params in ((first, ours), (second, theirs)):
        drive(optimizer, params, 3, seed=1)
        optimizer.param_groups[0][name] = type(value)(0)
        drive(optimizer, params, 3, seed=2)
        optimizer.param_groups[0][name] = value
        drive(optimizer, params, 3, seed=3)
    assert_equal(ours, theirs)


@EVERY
def test_state_cleared_or_edited_in_mid_run(entry):
    def scenario(make, params):
        optimizer = make(params)
        drive(optimizer, params, 3)
        state = optimizer.state
        if entry.ours is not optlab.Adagrad:  # torch's makes no new state
            state[params[0]] = {}
            drive(optimizer, params, 2, seed=1)
            state.pop(params[1], None)
            state.get(params[4], {}).clear()
            drive(optimizer, params, 2, seed=2)
            state.clear()
            drive(optimizer, params, 2, seed=3)
        for number, p in enumerate(params[:6]):
            for name, value in state.get(p, {}).items():
                if name == "step" and number == 1:
                    value += 5
                elif name == "step" and number == 4:
                    state[p][name] = torch.tensor(2.0)
                elif name != "step" and number in (0, 2):
                    value.mul_(0.5)
                elif name != "step" and number == 5:
                    state[p][name] = torch.full_like(value, 0.25)
        drive(optimizer, params, 3, seed=4)
        return steps_of(optimizer)

    alike(entry, scenario)


@EACH_CLASS
def test_all_steps_edited_alike(entry):
    def scenario(make, params):
        optimizer = make(params)
        drive(optimizer, params, 3)
        for state in optimizer.state.values():
            if "step" in state:
                state["step"].zero_()
        drive(optimizer, params, 3, seed=1)

    alike(entry, scenario)


def test_a_buffer_of_none_is_a_first_step_as_in_torch():
    """So torch's older checkpoints have it."""

    def scenario(make, params):
        optimizer = make(params, momentum=0.9, dampening=0.5)
        saved = optimizer.state_dict()
        saved["state"] = {i: {"momentum_buffer": None} for i in range(len(params))}
        optimizer.load_state_dict(saved)
        drive(optimizer, params, 3)

    alike(CLASSES[0], scenario)
