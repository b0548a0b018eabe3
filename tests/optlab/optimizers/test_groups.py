"""Groups, absent gradients, and all that a user may change in mid-run."""

import pytest
import torch

import optlab
from tests.optlab.driving import (
    alike,
    copies,
    drive,
    drive_gaps,
    parameters,
    steps_of,
    wide_gradient,
)
from tests.optlab.registry import CLASSES, EACH_CLASS, EVERY


@EVERY
def test_groups_have_hyperparameters_of_their_own(entry):
    def scenario(make, params):
        optimizer = make([{"params": params[:3]}, {"params": params[3:5], "lr": 0.2}])
        drive(optimizer, params[:5], 3)
        optimizer.add_param_group({"params": params[5:], "lr": 0.01})
        drive(optimizer, params, 3)
        optimizer.param_groups[0]["lr"] = 0.001  # as schedulers do
        drive(optimizer, params, 3)

    alike(entry, scenario)


@EVERY
@pytest.mark.parametrize("seed", [0, 1])
def test_absent_gradients_are_skipped_with_steps_of_their_own(entry, seed):
    def scenario(make, params):
        optimizer = make([{"params": params[:6]}, {"params": params[6:], "weight_decay": 0.2}])
        drive(optimizer, params, 2, seed)
        drive_gaps(optimizer, params, 25, seed)
        drive(optimizer, params, 2, seed)
        return steps_of(optimizer)

    alike(entry, scenario)


@EVERY
def test_gradients_absent_from_the_first_step_on(entry):
    def scenario(make, params):
        optimizer = make(params)
        optimizer.step()  # none at all
        drive_gaps(optimizer, params, 15, share=0.8)

    alike(entry, scenario)


@EACH_CLASS
def test_a_parameter_without_a_gradient_has_no_state_as_in_torch(entry):
    results = []
    for make in entry.makers:
        params = parameters()[:4]
        optimizer = make(params)
        drive(optimizer, params[:2], 2)
        results.append([sorted(optimizer.state.get(p, {})) for p in params])
    assert results[0] == results[1]


def choices(name):
    """A setting of each class that has a hyperparameter of that name."""
    chosen = [entry for entry in CLASSES if entry.takes(name)]
    return pytest.mark.parametrize("entry", chosen, ids=lambda entry: entry.ours.__name__)


@EACH_CLASS
def test_every_hyperparameter_may_change_in_mid_run(entry):
    alike(entry, change_every_hyperparameter)


@choices("momentum")
def test_every_hyperparameter_may_change_under_momentum(entry):
    alike(entry, change_every_hyperparameter, momentum=0.6)


def change_every_hyperparameter(make, params, **settings):
    optimizer = make([{"params": params[:4]}, {"params": params[4:]}], **settings)
    drive(optimizer, params, 2)
    other = {"weight_decay": (0.3, 0.0), "momentum": (0.5, 0.9), "dampening": (0.2, 0.4)}
    for name, default in sorted(optimizer.defaults.items()):
        if type(default) not in (int, float):
            continue
        if name == "momentum" and not settings:
            continue  # torch's RMSprop has no buffer then: see test_state.py
        for group, value in zip(optimizer.param_groups, other.get(name, (0.5, 0.001)), strict=True):
            group[name] = value
        drive(optimizer, params, 2)
    if "betas" in optimizer.defaults:
        optimizer.param_groups[1]["betas"] = (0.5, 0.7)
        drive(optimizer, params, 2)
    for group in optimizer.param_groups:
        group["maximize"] = not group["maximize"]
    drive(optimizer, params, 2)


@EACH_CLASS
def test_a_decay_switched_on_and_off(entry):
    def scenario(make, params):
        optimizer = make(params)
        for seed, decay in enumerate([0.0, 0.3, 0.0, 0.1]):
            optimizer.param_groups[0]["weight_decay"] = decay
            drive(optimizer, params, 2, seed)

    alike(entry, scenario)


@choices("decoupled_weight_decay")
def test_a_decay_decoupled_in_mid_run(entry):
    def scenario(make, params):
        optimizer = make(params, weight_decay=0.2)
        for seed, decoupled in enumerate([False, True, False]):
            optimizer.param_groups[0]["decoupled_weight_decay"] = decoupled
            drive(optimizer, params, 2, seed)

    alike(entry, scenario)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgds_momentum_switched_on_and_off(nesterov):
    def scenario(make, params):
        optimizer = make(params, momentum=0.3, nesterov=nesterov)
        for seed, momentum in enumerate([0.0, 0.9, 0.0, 0.5]):
            optimizer.param_groups[0]["momentum"] = momentum
            drive(optimizer, params, 2, seed)

    alike(CLASSES[0], scenario)


@EVERY
def test_parameters_come_to_a_group_and_leave_it(entry):
    def scenario(make, params):
        optimizer = make([{"params": params[:4]}, {"params": params[4:7]}])
        first, second = (group["params"] for group in optimizer.param_groups)
        drive(optimizer, params, 2)
        gone = first.pop(1)
        before = gone.detach().clone()
        drive(optimizer, params, 2, seed=1)
        assert torch.equal(gone, before)
        second.append(first.pop(0))  # to the other group
        drive(optimizer, params, 2, seed=2)
        new = copies(params[:1])
        first += [gone, *new]
        drive(optimizer, [*params, *new], 2, seed=3)
        first.reverse()
        drive(optimizer, [*params, *new], 2, seed=4)
        return [*new]

    def drive_adagrad(make, params):
        """Torch's Adagrad has state from the start, for what came by add_param_group alone."""
        optimizer = make([{"params": params[:4]}, {"params": params[4:7]}])
        first, second = (group["params"] for group in optimizer.param_groups)
        drive(optimizer, params, 2)
        gone = first.pop(1)
        drive(optimizer, params, 2, seed=1)
        second.append(first.pop(0))
        first.append(gone)
        drive(optimizer, params, 2, seed=2)

    alike(entry, drive_adagrad if entry.ours is optlab.Adagrad else scenario)


@EVERY
def test_groups_come_and_go(entry):
    def scenario(make, params):
        optimizer = make(
            [
                {"params": params[:2], "lr": 0.1},
                {"params": params[2:5]},
                {"params": params[5:7], "weight_decay": 0.2},
            ]
        )
        drive(optimizer, params, 2)
        gone = optimizer.param_groups.pop(0)
        drive(optimizer, params, 2, seed=1)
        optimizer.param_groups.append(gone)
        drive(optimizer, params, 2, seed=2)
        optimizer.param_groups.insert(0, optimizer.param_groups.pop())
        optimizer.param_groups[1]["params"] = list(params[2:4])
        drive(optimizer, params, 2, seed=3)

    alike(entry, scenario)


def test_sparse_gradients_are_refused_by_name_and_nothing_moves():
    table, dense = torch.nn.Embedding(5, 2, sparse=True), torch.nn.Linear(2, 1)
    named = [("dense.weight", dense.weight), ("table.weight", table.weight)]
    for entry in CLASSES:
        in_one = entry.make(named)
        in_two = entry.make([{"params": [dense.weight]}, {"params": [dense.bias, table.weight]}])
        for optimizer, place in (
            (in_one, r"parameter table\.weight of group 0"),
            (in_two, "parameter 1 of group 1"),
        ):
            before = [p.detach().clone() for _, p in named]
            states = {p: dict(state) for p, state in optimizer.state.items()}
            dense(table(torch.tensor([1, 3]))).sum().backward()
            with pytest.raises(ValueError, match=f"{entry.ours.__name__} takes dense .* {place}"):
                optimizer.step()
            assert all(torch.equal(p, b) for (_, p), b in zip(named, before, strict=True))
            assert optimizer.state == states
            table.weight.grad = wide_gradient(table.weight, torch.Generator())
            optimizer.step()
            dense.zero_grad()
            table.zero_grad()
