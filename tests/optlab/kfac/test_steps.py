"""What a step of K-FAC is: momentum, clipping, periods, checkpoints."""

import copy
import io
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from optlab import KFAC, rules
from tests.optlab.kfac.blocks import double
from tests.optlab.kfac.driving import X, Y, network, step, values

FORMS = [{}, {"damping_form": "eigenbasis"}, {"ekfac": True}, {"sharing": "reduce"}]


@pytest.mark.parametrize("fisher", ["exact", "sampled", "empirical"])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_it_learns(fisher, form):
    for seed in range(3):
        model = double(nn.Linear(4, 20), nn.LayerNorm(20), nn.Tanh(), nn.Linear(20, 3), seed=seed)
        optimizer = KFAC(model, "categorical", lr=0.3, damping=1e-2, fisher=fisher, **form)
        losses = [step(model, optimizer) for _ in range(40)]
        assert losses[-1] < 0.2 * losses[0]
        optimizer.remove_hooks()


@pytest.mark.parametrize("fisher", ["exact", "sampled", "empirical"])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_run_goes_on_bit_for_bit(fisher, form):
    settings = dict(fisher=fisher, factor_every=2, inverse_every=3, momentum=0.8, **form)
    model = network()
    optimizer = KFAC(model, "categorical", **settings)
    for _ in range(5):
        step(model, optimizer)
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = network(seed=1)
    other.load_state_dict(saved[0])
    resumed = KFAC(other, "categorical", **settings)
    resumed.load_state_dict(saved[1])
    for _ in range(5):
        assert step(model, optimizer) == step(other, resumed)
    for p, q in zip(values(model), values(other), strict=True):
        assert torch.equal(p, q)


def test_a_checkpoint_that_does_not_fit_changes_nothing():
    model, other = network(), double(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    optimizer, foreign = KFAC(model, "categorical"), KFAC(other, "categorical")
    step(model, optimizer)
    step(other, foreign)
    before = copy.deepcopy(optimizer.state_dict())
    momentum = torch.optim.SGD(model.parameters(), 0.1).state_dict()
    with pytest.raises(ValueError, match="has no curvature"):
        optimizer.load_state_dict(momentum)
    with pytest.raises(ValueError, match=r"G of 0 must have shape \(5, 5\), got \(6, 6\)"):
        optimizer.load_state_dict(foreign.state_dict())
    partial = copy.deepcopy(before)
    del partial["curvature"]["layers"]["3"]
    with pytest.raises(ValueError, match="no curvature of 3"):
        optimizer.load_state_dict(partial)
    broken = copy.deepcopy(before)
    broken["curvature"]["layers"]["0"]["averages"]["A"] = torch.zeros(2, 2)
    with pytest.raises(ValueError, match=r"A of 0 must have shape \(5, 5\), got \(2, 2\)"):
        optimizer.load_state_dict(broken)
    torch.testing.assert_close(optimizer.state_dict(), before, rtol=0, atol=0)


def test_momentum_and_decay_follow_the_rule():
    model = network()
    settings = dict(lr=0.2, momentum=0.7, weight_decay=0.03)
    optimizer = KFAC(model, "categorical", kl_clip=None, **settings)
    state = [(p.detach().clone(), torch.zeros_like(p)) for p in model.parameters()]
    for count in range(1, 4):
        optimizer.zero_grad()
        functional.cross_entropy(model(X), Y).backward()
        grads = [[p.grad.clone() for p in model.parameters()]]
        optimizer.step()
        (direction,) = optimizer.precondition(grads)
        for index, (theta, v) in enumerate(state):
            g = direction[index] + 0.03 * theta
            state[index] = rules.momentum(theta, g, v, lr=0.2, beta=0.7, step=count)
        for p, (theta, _) in zip(model.parameters(), state, strict=True):
            torch.testing.assert_close(p.detach(), theta, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_steps_are_clipped_by_the_divergence(form):
    model = network()
    free = KFAC(model, "categorical", lr=0.5, kl_clip=None, **form)
    step(model, free)
    (direction,) = free.precondition()
    found = dict(zip(model.parameters(), direction, strict=True))
    kl = sum(
        0.25 / 2 * block.quadratic(block.layer.join([found[p] for p in block.layer.params]))
        for block in free._estimate.blocks
    )
    for bound, expected in ((kl / 9, 1 / 3), (kl * 1.001, 1.0)):
        free.kl_clip = float(bound)
        (clipped,) = free.precondition()
        for d, c in zip(direction, clipped, strict=True):
            torch.testing.assert_close(c, expected * d)


def test_precondition_takes_no_step_and_leaves_gradients():
    model = network()
    optimizer = KFAC(model, "categorical")
    step(model, optimizer)
    before, grads = values(model), [p.grad.clone() for p in model.parameters()]
    factors = copy.deepcopy(optimizer.factors())
    assert optimizer.precondition()[0][0].shape == (5, 4)
    torch.testing.assert_close(optimizer.factors(), factors, rtol=0, atol=0)
    for p, old, g in zip(model.parameters(), before, grads, strict=True):
        assert torch.equal(p, old) and torch.equal(p.grad, g)


def test_periods():
    model = network()
    optimizer = KFAC(model, "categorical", factor_every=2, inverse_every=4)
    factors, inverses = [], []
    for _ in range(8):
        step(model, optimizer)
        block = optimizer._estimate.blocks[0]
        factors.append(block.averages["G"].clone())
        inverses.append(block.inverses["A_inverse"].clone())
    changes = [not torch.equal(*pair) for pair in itertools.pairwise(factors)]
    assert changes == [False, True] * 3 + [False]
    changes = [not torch.equal(*pair) for pair in itertools.pairwise(inverses)]
    assert changes == [False, False, False, True, False, False, False]


def test_groups_schedulers_and_rates():
    model = network()
    groups = [
        {"params": model[0].parameters(), "lr": 0.0},
        {"params": [*model[1].parameters(), *model[3].parameters()], "damping": 0.1},
    ]
    optimizer = KFAC(model, "categorical", torch.tensor(0.5), groups)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    before = values(model)
    for _ in range(3):
        step(model, optimizer)
        schedule.step()
    after = values(model)
    assert torch.equal(before[0], after[0]) and not torch.equal(before[4], after[4])
    assert float(optimizer.param_groups[1]["lr"]) == pytest.approx(0.5**4)
    with pytest.raises(RuntimeError, match="takes its parameters when it is made"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})


def test_maximize_goes_up():
    model = network()
    optimizer = KFAC(model, "categorical", maximize=True)
    losses = [step(model, optimizer) for _ in range(5)]
    assert losses[-1] > losses[0]


def test_damping_adapts():
    def closure_of(model, optimizer, sharper):
        def closure():
            optimizer.zero_grad()
            loss = sharper(
                functional.mse_loss(model(X), torch.ones(8, 1, dtype=torch.float64)) * 0.5
            )
            loss.backward()
            return loss

        return closure

    for sharper, up in ((lambda loss: loss, False), (lambda loss: 50 * loss, True)):
        model = double(nn.Linear(4, 1))
        settings = dict(fisher="exact", kl_clip=None, momentum=0, adaptive=True)
        optimizer = KFAC(model, "gaussian", lr=1.0, damping=0.1, **settings)
        optimizer.step(closure_of(model, optimizer, sharper))
        damping = optimizer.param_groups[0]["damping"]
        assert (damping > 0.1) if up else (damping < 0.1)
    with pytest.raises(ValueError, match=r"adaptive damping needs step\(closure\)"):
        optimizer.step()
