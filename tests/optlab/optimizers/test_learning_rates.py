"""Torch's schedulers, and the schedules of the book through LambdaLR."""

import copy

import pytest
import torch
from torch.optim import lr_scheduler as schedulers
from torch.optim.swa_utils import SWALR, AveragedModel

import optlab
from optlab import schedules
from tests.optlab.driving import assert_equal, assert_same, drive, parameters
from tests.optlab.registry import CLASSES, EACH_CLASS, EVERY

STEPS = 9


def sequential(o):
    parts = [
        schedulers.LinearLR(o, start_factor=0.1, total_iters=3),
        schedulers.CosineAnnealingLR(o, T_max=4),
    ]
    return schedulers.SequentialLR(o, parts, milestones=[3])


def chained(o):
    parts = [schedulers.ConstantLR(o, factor=0.5, total_iters=3), schedulers.ExponentialLR(o, 0.8)]
    return schedulers.ChainedScheduler(parts)


SCHEDULERS = {
    "LambdaLR": lambda o: schedulers.LambdaLR(o, lambda step: 0.9**step),
    "MultiplicativeLR": lambda o: schedulers.MultiplicativeLR(o, lambda step: 0.8),
    "StepLR": lambda o: schedulers.StepLR(o, 3, gamma=0.3),
    "MultiStepLR": lambda o: schedulers.MultiStepLR(o, [2, 5]),
    "ConstantLR": lambda o: schedulers.ConstantLR(o, 0.5, total_iters=4),
    "LinearLR": lambda o: schedulers.LinearLR(o, 0.1, total_iters=5),
    "ExponentialLR": lambda o: schedulers.ExponentialLR(o, 0.7),
    "PolynomialLR": lambda o: schedulers.PolynomialLR(o, total_iters=6, power=2.0),
    "CosineAnnealingLR": lambda o: schedulers.CosineAnnealingLR(o, T_max=6),
    "CosineAnnealingWarmRestarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, T_0=3),
    "CyclicLR": lambda o: schedulers.CyclicLR(
        o, base_lr=0.01, max_lr=0.1, step_size_up=3, cycle_momentum=False
    ),
    "CyclicLR with momentum": lambda o: schedulers.CyclicLR(
        o, base_lr=0.01, max_lr=0.1, step_size_up=3, base_momentum=0.5, max_momentum=0.8
    ),
    "OneCycleLR": lambda o: schedulers.OneCycleLR(
        o, max_lr=0.1, total_steps=STEPS + 1, cycle_momentum=False
    ),
    "OneCycleLR with momentum": lambda o: schedulers.OneCycleLR(
        o, max_lr=0.1, total_steps=STEPS + 1
    ),
    "SequentialLR": sequential,
    "ChainedScheduler": chained,
    "SWALR": lambda o: SWALR(o, swa_lr=0.002, anneal_epochs=4),
}


def scheduled(make, build, **settings):
    """Parameters after a run under a scheduler, with all that it did on the way."""
    params = parameters()
    optimizer = make(
        [{"params": params[:4]}, {"params": params[4:], "lr": 0.03, "name": "head"}], **settings
    )
    schedule = build(optimizer)
    rates = []
    for seed in range(STEPS):
        drive(optimizer, params, 1, seed)
        schedule.step()
        rates.append([(group["lr"], group.get("betas")) for group in optimizer.param_groups])
    return params, rates


def test_all_of_torchs_schedulers_are_here():
    other = {"LRScheduler", "ReduceLROnPlateau"}  # the base; the second has a test of its own
    known = {name for name in schedulers.__all__ if name not in other}
    assert known == {name.split()[0] for name in SCHEDULERS} - {"SWALR"}


@pytest.mark.parametrize("name", SCHEDULERS)
@EACH_CLASS
def test_torchs_schedulers_give_torchs_numbers(entry, name):
    settings = {"momentum": 0.9} if entry.ours is optlab.SGD else {}
    if entry.ours is optlab.RMSprop and "with momentum" in name:
        settings = {"momentum": 0.9}
    outcomes = []
    for make in entry.makers:
        try:
            outcomes.append(scheduled(make, SCHEDULERS[name], **settings))
        except ValueError as error:  # of one without a momentum to cycle
            assert "momentum" in str(error)
            outcomes.append(None)
    ours, theirs = outcomes
    assert (ours is None) == (theirs is None)
    if ours is not None:
        assert ours[1] == theirs[1]
        assert_equal(ours[0], theirs[0])
    else:
        assert "with momentum" in name
        assert not (entry.takes("momentum") or entry.takes("betas"))


@EVERY
def test_one_cycle_moves_rate_and_momentum_of_every_setting(entry):
    cycles = any(entry.settings.get(name) for name in ("momentum",)) or entry.takes("betas")
    build = SCHEDULERS["OneCycleLR with momentum" if cycles else "OneCycleLR"]
    ours, theirs = (scheduled(make, build) for make in entry.makers)
    assert ours[1] == theirs[1]
    assert_equal(ours[0], theirs[0])


@EACH_CLASS
def test_a_plateau_lowers_the_rate(entry):
    results = []
    for make in entry.makers:
        params = parameters()
        optimizer = make(params)
        schedule = schedulers.ReduceLROnPlateau(optimizer, factor=0.1, patience=1)
        for seed, loss in enumerate([3.0, 2.0, 2.0, 2.0, 2.0, 1.0]):
            drive(optimizer, params, 1, seed)
            schedule.step(loss)
        results.append([*params, torch.tensor(optimizer.param_groups[0]["lr"])])
    assert_equal(*results)
    assert results[0][-1] < entry.settings["lr"]


@EACH_CLASS
def test_a_rate_that_is_a_tensor_is_scheduled_in_place(entry):
    results = []
    for make in entry.makers:
        params = parameters()
        lr = torch.tensor(0.05, dtype=torch.float64)
        optimizer = make(params, lr=lr)
        schedule = schedulers.CosineAnnealingLR(optimizer, T_max=6)
        for seed in range(6):
            drive(optimizer, params, 1, seed)
            schedule.step()
        results.append([*params, lr, optimizer.param_groups[0]["lr"]])
    assert_equal(*results)


BOOK = {
    "step_decay": schedules.step_decay(period=3),
    "one_cycle": schedules.one_cycle(total=STEPS),
    "wsd": schedules.wsd(warmup=2, decay_from=5, decay=4),
    "inverse_sqrt": schedules.inverse_sqrt(warmup=3),
    "warmup": schedules.warmup(2, then=schedules.cosine(total=7)),
}


@pytest.mark.parametrize("name", BOOK)
@pytest.mark.parametrize("entry", [CLASSES[0], CLASSES[4]], ids=str)
def test_schedules_of_the_book_run_through_lambda_lr(entry, name):
    params, straight = parameters(), parameters()
    optimizer, by_hand = entry.make(params), entry.make(straight)
    schedule = schedulers.LambdaLR(optimizer, BOOK[name])
    for step in range(STEPS):
        drive(optimizer, params, 1, step)
        schedule.step()
        by_hand.param_groups[0]["lr"] = entry.settings["lr"] * BOOK[name](step)
        drive(by_hand, straight, 1, step)
    assert_same(params, straight)


@EACH_CLASS
def test_a_scheduler_is_resumed_with_its_optimizer(entry):
    def build(make, params):
        optimizer = make(params)
        return optimizer, schedulers.CosineAnnealingWarmRestarts(optimizer, T_0=4)

    def run(optimizer, schedule, params, seeds):
        for seed in seeds:
            drive(optimizer, params, 1, seed)
            schedule.step()

    straight = parameters()
    run(*build(entry.make, straight), straight, range(8))
    params = parameters()
    optimizer, schedule = build(entry.make, params)
    run(optimizer, schedule, params, range(5))
    saved = copy.deepcopy((optimizer.state_dict(), schedule.state_dict()))
    optimizer, schedule = build(entry.make, params)
    optimizer.load_state_dict(saved[0])
    schedule.load_state_dict(saved[1])
    run(optimizer, schedule, params, range(5, 8))
    assert_same(params, straight)


@EACH_CLASS
def test_weights_are_averaged_beside_a_moving_model(entry):
    """The average sees the parameters after each step, wherever they have moved to."""
    results = []
    for make in entry.makers:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2).double()
        average = AveragedModel(model)
        optimizer = make(model.parameters())
        for seed in range(4):
            drive(optimizer, list(model.parameters()), 1, seed)
            average.update_parameters(model)
        results.append([*average.parameters()])
    assert_equal(*results)
