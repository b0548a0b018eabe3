"""Checkpoints pass between torch and ours, and a bad one changes nothing."""

import copy
import itertools

import pytest
import torch

import optlab
from tests.optlab.driving import (
    assert_equal,
    assert_same,
    copies,
    drive,
    drive_gaps,
    parameters,
    saved_and_loaded,
    wide_gradient,
)
from tests.optlab.registry import EACH_CLASS, EVERY


def halfway(make, steps, driver=drive):
    """An optimizer after some steps, and its parameters."""
    params = parameters()
    optimizer = make(params)
    driver(optimizer, params, steps)
    return optimizer, params


@EVERY
@pytest.mark.parametrize("driver", [drive, drive_gaps])
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_checkpoints_pass_between_torch_and_ours(entry, steps, driver):
    saved, params = halfway(entry.oracle, steps, driver)
    straight = copies(params)
    whole = entry.oracle(straight)
    whole.load_state_dict(copy.deepcopy(saved.state_dict()))
    drive(whole, straight, 4, seed=3)
    for first, second in (
        (entry.oracle, entry.make),  # torch's continued by ours
        (entry.make, entry.oracle),  # and the other way round
        (entry.make, entry.make),
    ):
        optimizer, old = halfway(first, steps, driver)
        params = copies(old)
        loaded = second(params)
        loaded.load_state_dict(saved_and_loaded(optimizer.state_dict()))
        drive(loaded, params, 4, seed=3)
        assert_equal(params, straight)


@EVERY
def test_a_checkpoint_goes_there_and_back_in_mid_run(entry):
    optimizer, params = halfway(entry.oracle, 8)
    expected = copies(params)
    params = parameters()
    leader = entry.make(params)
    generator = torch.Generator().manual_seed(0)
    for turn in range(8):
        follower = entry.makers[turn % 2](params)
        follower.load_state_dict(leader.state_dict())
        for p in params:
            p.grad = wide_gradient(p, generator)
        follower.step()
        leader = follower
    assert_equal(params, expected)
    assert optimizer.state_dict()["state"].keys() == leader.state_dict()["state"].keys()


@EVERY
@pytest.mark.parametrize("steps", [0, 2])
def test_a_state_dict_has_torchs_keys_shapes_and_kinds(entry, steps):
    (first, params), (second, _) = (halfway(make, steps) for make in entry.makers)
    ours, theirs = first.state_dict(), second.state_dict()
    assert ours.keys() == theirs.keys()
    assert ours["state"].keys() == theirs["state"].keys()
    for index, state in theirs["state"].items():
        mine = ours["state"][index]
        assert mine.keys() == state.keys()
        for name, value in state.items():
            assert (type(mine[name]), mine[name].shape) == (type(value), value.shape), name
            if name not in ("step", "mu_product"):
                assert mine[name].dtype == value.dtype
                assert mine[name].stride() == torch.empty_like(params[index]).stride()
            torch.testing.assert_close(mine[name], value, rtol=1e-12, atol=1e-12, check_dtype=False)
    ungiven = {"foreach", "fused", "capturable", "differentiable"}
    assert ours["param_groups"][0].keys() == theirs["param_groups"][0].keys() - ungiven


@EVERY
def test_no_two_parameters_share_a_number_or_memory_in_a_checkpoint(entry):
    optimizer, params = halfway(entry.make, 2)
    theirs = entry.oracle(params)
    theirs.load_state_dict(optimizer.state_dict())
    for state in (optimizer.state_dict()["state"], theirs.state_dict()["state"]):
        values = [value for each in state.values() for value in each.values() if value.numel()]
        assert len({id(value) for value in values}) == len(values)
        assert len({value.data_ptr() for value in values}) == len(values)
        assert len({value.untyped_storage().data_ptr() for value in values}) == len(values)
        spans = sorted((v.data_ptr(), v.untyped_storage().nbytes()) for v in values)
        for (place, size), (following, _) in itertools.pairwise(spans):
            assert place + size <= following


def test_adamw_stays_decoupled_whatever_it_loads():
    """As in torch, where a checkpoint of Adam makes it no Adam."""
    results = []
    for adam, adamw in ((optlab.Adam, optlab.AdamW), (torch.optim.Adam, torch.optim.AdamW)):
        optimizer, params = halfway(adam, 2)
        other = adamw(params, weight_decay=0.3)
        other.load_state_dict(optimizer.state_dict())
        other.param_groups[0]["weight_decay"] = 0.3
        drive(other, params, 2)
        assert other.param_groups[0]["decoupled_weight_decay"] is True
        results.append(params)
    assert_equal(*results)


@EACH_CLASS
def test_keys_that_a_checkpoint_lacks_take_the_defaults(entry):
    optimizer, params = halfway(entry.make, 1)
    saved = optimizer.state_dict()
    group = saved["param_groups"][0]
    for name in set(group) - {"params", "lr"}:
        del group[name]
    fresh = entry.make(params)
    fresh.load_state_dict(saved)
    expected = entry.make(params).param_groups[0]
    assert {name: fresh.param_groups[0][name] for name in expected} == expected
    drive(fresh, params, 1)


@EVERY
def test_loading_shares_no_memory_that_another_copy_writes(entry):
    """Of a checkpoint taken by deepcopy: it may be loaded twice."""
    optimizer, params = halfway(entry.make, 2)
    saved = copy.deepcopy(optimizer.state_dict())
    results = []
    for _ in range(2):
        again = copies(params)
        loaded = entry.make(again)
        loaded.load_state_dict(copy.deepcopy(saved))
        drive(loaded, again, 3, seed=1)
        results.append(again)
    assert_same(*results)


BUFFERS = [
    (optlab.SGD, "momentum_buffer", {"momentum": 0.9}),
    (optlab.Adagrad, "sum", {}),
    (optlab.Adadelta, "acc_delta", {}),
    (optlab.RMSprop, "grad_avg", {"centered": True}),
    (optlab.Adam, "exp_avg", {}),
    (optlab.AdamW, "max_exp_avg_sq", {"amsgrad": True}),
    (optlab.NAdam, "exp_avg_sq", {}),
    (optlab.RAdam, "exp_avg", {}),
    (optlab.Adamax, "exp_inf", {}),
    (optlab.LARS, "momentum_buffer", {}),
    (optlab.LAMB, "exp_avg_sq", {}),
]


@pytest.mark.parametrize(("kind", "buffer", "settings"), BUFFERS)
def test_a_bad_checkpoint_is_named_and_changes_nothing(kind, buffer, settings):
    def set_state(value):
        return lambda saved: saved["state"][1].update({buffer: value})

    def set_group(**values):
        return lambda saved: saved["param_groups"][1].update(values)

    params = parameters()
    optimizer = kind([{"params": params[:1]}, {"params": params[1:]}], **settings)
    drive(optimizer, params, 2)
    before = copy.deepcopy(optimizer.state_dict())
    for spoil, error, message in (
        (set_group(lr=-1.0), ValueError, r"lr must be in \[0, inf\), got -1.0 .*group 1"),
        (set_group(maximize="no"), TypeError, "maximize must be True or False.*group 1"),
        (set_group(weight_decay=None), TypeError, "weight_decay must be a number.*group 1"),
        (
            lambda saved: saved["param_groups"][1]["params"].pop(),
            ValueError,
            "group's size|size of",
        ),
        (lambda saved: saved["param_groups"].pop(), ValueError, "number of parameter groups"),
        (lambda s: s["state"].update({1: []}), ValueError, "state of parameter 1 must be a dict"),
        (
            set_state(torch.zeros(5)),
            ValueError,
            rf"{buffer} of parameter 1 must have shape \(7,\), got \(5,\)",
        ),
        (set_state(0.5), ValueError, rf"{buffer} of parameter 1 must have shape \(7,\), got 0.5"),
    ):
        bad = copy.deepcopy(before)
        spoil(bad)
        with pytest.raises(error, match=message):
            optimizer.load_state_dict(bad)
        torch.testing.assert_close(optimizer.state_dict(), before, rtol=0, atol=0)
    theirs = copies(params)
    straight = kind([{"params": theirs[:1]}, {"params": theirs[1:]}], **settings)
    straight.load_state_dict(before)
    for each, own in ((optimizer, params), (straight, theirs)):
        drive(each, own, 2, seed=1)
    assert_same(params, theirs)


def test_hooks_of_the_user_run_before_a_checkpoint_is_checked_and_after_it_is_loaded():
    params = parameters()
    optimizer = optlab.SGD(params, lr=0.1, momentum=0.9)
    drive(optimizer, params, 2)
    broken = copy.deepcopy(optimizer.state_dict())
    broken["param_groups"][0]["lr"] = -1.0
    seen = []

    def repair(_, saved):
        groups = [{**group, "lr": 0.2} for group in saved["param_groups"]]
        return {**saved, "param_groups": groups}

    optimizer.register_load_state_dict_pre_hook(repair)
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append(o.param_groups[0]["lr"]))
    for _ in range(2):
        optimizer.load_state_dict(broken)
    assert seen == [0.2, 0.2]


@EACH_CLASS
def test_hooks_around_saving_see_and_change_the_state_dict(entry):
    optimizer, _ = halfway(entry.make, 1)
    seen = []
    optimizer.register_state_dict_pre_hook(lambda o: seen.append(o))
    optimizer.register_state_dict_post_hook(lambda o, saved: {**saved, "note": len(seen)})
    assert optimizer.state_dict()["note"] == 1
    assert seen == [optimizer]


def test_a_state_of_half_precision_is_loaded_whole_after_a_users_hook():
    """What the hook made of the checkpoint is what is restored."""
    p = torch.ones(4, dtype=torch.bfloat16, requires_grad=True)
    optimizer = optlab.Adam([p])
    p.grad = torch.full((4,), 0.3, dtype=torch.bfloat16)
    optimizer.step()

    def doubled(_, saved):
        state = {i: {**each, "exp_avg": each["exp_avg"] * 2} for i, each in saved["state"].items()}
        return {**saved, "state": state}

    before = optimizer.state[p]["exp_avg"].clone()
    optimizer.register_load_state_dict_pre_hook(doubled)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert torch.equal(optimizer.state[p]["exp_avg"], before * 2)
