"""Regularizers against torch's, closed forms, and bad input."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim import swa_utils

import optlab
from optlab.precision import LossScaler
from optlab.regularizers import (
    Dropout,
    EarlyStopping,
    WeightAverage,
    decay_independently,
    l1_penalty,
    l2_penalty,
    refresh_batch_norm,
    smoothed_cross_entropy,
)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))


def test_a_penalty_is_a_decay_inside_the_gradient():
    found = []
    for decay, penalty in ((0.3, 0.0), (0.0, 0.3)):
        model, x = network().double(), torch.ones(5, 3, dtype=torch.float64).cumsum(0)
        optimizer = optlab.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=decay)
        for _ in range(5):
            optimizer.zero_grad()
            (model(x).square().mean() + l2_penalty(model.parameters(), penalty)).backward()
            optimizer.step()
        found.append([p.detach() for p in model.parameters()])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_gradients_of_penalties():
    theta = torch.tensor([2.0, -3.0, 0.0], requires_grad=True)
    (l2,) = torch.autograd.grad(l2_penalty([theta], 0.5), theta)
    (l1,) = torch.autograd.grad(l1_penalty([theta], 0.5), theta)
    assert l2.tolist() == [1.0, -1.5, 0.0] and l1.tolist() == [0.5, -0.5, 0.0]


@pytest.mark.parametrize("penalty", [l1_penalty, l2_penalty])
def test_penalties_refuse(penalty):
    with pytest.raises(ValueError, match="weight_decay must be in"):
        penalty(torch.ones(2), -0.1)
    with pytest.raises(ValueError, match="no parameters"):
        penalty([], 0.1)


@pytest.mark.parametrize("kind", [optlab.AdamW, torch.optim.AdamW])
def test_an_independent_decay_is_a_decoupled_one_without_rate_and_schedule(kind):
    """What AdamW does when its decay is divided by the rate of each step."""
    found = []
    for independent in (True, False):
        theta = nn.Parameter(torch.linspace(-1, 1, 5, dtype=torch.float64))
        idle = nn.Parameter(torch.ones(2))
        optimizer = kind([theta, idle], lr=0.1, weight_decay=0.0)
        if independent:
            decay_independently(optimizer, 0.02)
        for step in range(6):
            group = optimizer.param_groups[0]
            group["lr"] = 0.1 * 0.5**step
            theta.grad = torch.full_like(theta, math.cos(step))
            if not independent:
                group["weight_decay"] = 0.02 / group["lr"]
            optimizer.step()
        assert torch.equal(idle, torch.ones(2))
        found.append(theta.detach())
    torch.testing.assert_close(*found, rtol=1e-13, atol=1e-15)


def test_an_independent_decay_of_some_with_a_scaler_and_its_end():
    decayed, kept = (nn.Parameter(torch.ones(1)) for _ in range(2))
    optimizer = optlab.SGD([decayed, kept], lr=0.0)
    handle = decay_independently(optimizer, 0.5, iter([decayed]))
    scaler = LossScaler()
    for value, expected in ((math.inf, 1.0), (1.0, 0.5)):
        decayed.grad, kept.grad = torch.full((1,), value), torch.ones(1)
        scaler.step(optimizer)
        scaler.update()
        assert decayed.item() == expected and kept.item() == 1
    handle.remove()
    optimizer.step()
    assert decayed.item() == 0.5


def test_an_independent_decay_refuses():
    theta = nn.Parameter(torch.ones(1))
    optimizer = optlab.SGD([theta], lr=0.1)
    for decay in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"weight_decay must be in \[0, 1\]"):
            decay_independently(optimizer, decay)
    with pytest.raises(ValueError, match="among those of the optimizer"):
        decay_independently(optimizer, 0.1, [nn.Parameter(torch.ones(1))])
    with pytest.raises(ValueError, match=r"group 0 has weight_decay=0\.01"):
        decay_independently(torch.optim.AdamW([theta], weight_decay=0.01), 0.1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_label_smoothing_is_torchs(smoothing):
    torch.manual_seed(0)
    logits, targets = torch.randn(6, 4, dtype=torch.float64), torch.randint(4, (6,))
    logits.requires_grad_()
    ours = smoothed_cross_entropy(logits, targets, smoothing)
    theirs = functional.cross_entropy(logits, targets, label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_label_smoothing_refuses():
    logits = torch.zeros(3, 4)
    with pytest.raises(ValueError, match=r"smoothing must be in \[0, 1\], got 1.5"):
        smoothed_cross_entropy(logits, torch.zeros(3, dtype=torch.long), 1.5)
    with pytest.raises(ValueError, match=r"\(3, 4\) and \(2,\)"):
        smoothed_cross_entropy(logits, torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="no sample"):
        smoothed_cross_entropy(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_inverted_dropout_is_torchs(p):
    x = torch.randn(50, 4, dtype=torch.float64, requires_grad=True)
    results = []
    for module in (Dropout(p), nn.Dropout(p)):
        torch.manual_seed(0)
        y = module(x)
        results.append((y, torch.autograd.grad(y.square().sum(), x)[0]))
        assert torch.equal(module.eval()(x), x)
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("scaling", ["training", "test"])
def test_training_and_test_agree_in_expectation(scaling):
    """Within five standard deviations of the mean."""
    module = Dropout(0.3, scaling, torch.Generator().manual_seed(0))
    thinned = module(torch.full((100_000,), 2.0))
    at_test = module.eval()(torch.full((1,), 2.0)).item()
    assert abs(thinned.mean() - at_test) < 5 * thinned.std() / math.sqrt(100_000)
    assert at_test == pytest.approx(2.0 if scaling == "training" else 1.4)


def test_dropout_under_compile_and_autocast():
    torch.manual_seed(0)
    thin = torch.compile(Dropout(0.4), backend="aot_eager")
    shares = (thin(torch.ones(20_000)) == 0).float().mean()
    assert abs(shares - 0.4) < 5 * math.sqrt(0.24 / 20_000)
    with torch.autocast("cpu", torch.bfloat16):
        assert Dropout(0.5)(torch.ones(3, dtype=torch.bfloat16)).dtype is torch.bfloat16


def test_dropout_refuses():
    for p in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"p must be in \[0, 1\]"):
            Dropout(p)
    with pytest.raises(ValueError, match="training, test"):
        Dropout(0.5, "both")


@pytest.mark.parametrize("decay", [None, 0.9])
def test_averages_are_torchs(decay):
    model = network()
    average = WeightAverage(model, decay)
    rule = None if decay is None else swa_utils.get_ema_avg_fn(decay)
    theirs = swa_utils.AveragedModel(model, avg_fn=rule)
    for step in range(6):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(step)))
        average.update()
        theirs.update_parameters(model)
    own = copy.deepcopy(model.state_dict())
    with average.applied():
        for p, q in zip(model.parameters(), theirs.module.parameters(), strict=True):
            torch.testing.assert_close(p, q)
    for name, value in model.state_dict().items():
        assert torch.equal(value, own[name])


def test_an_average_of_half_precision_is_in_single():
    """100 steps of 2^-9 from 1, each of which bfloat16 holds only in part."""
    model = nn.Linear(1, 1, bias=False, dtype=torch.bfloat16)
    average = WeightAverage(model, 0.99)
    expected = None
    for value in (1.0, 2.0, 1.5):
        nn.init.constant_(model.weight, value)
        average.update()
        expected = value if expected is None else 0.99 * expected + 0.01 * value
    assert average.state_dict()["means"]["weight"].item() == pytest.approx(expected, abs=1e-6)


def test_averages_are_put_back_on_errors_and_go_through_checkpoints():
    model = network()
    average = WeightAverage(model)
    with pytest.raises(RuntimeError, match="first update"), average.applied():
        pass
    average.update()
    with torch.no_grad():
        model[0].weight.zero_()
    average.update()
    with pytest.raises(KeyError), average.applied():
        raise KeyError
    assert not model[0].weight.any()
    resumed = WeightAverage(model)
    resumed.load_state_dict(average.state_dict())
    for one in (average, resumed):
        with torch.no_grad():
            model[0].weight.fill_(1.0)
        one.update()
    means = average.state_dict()["means"], resumed.state_dict()["means"]
    assert all(torch.equal(means[0][name], means[1][name]) for name in means[0])
    for broken, message in (({}, "updates"), ({"updates": 1, "means": {}}, "0.bias")):
        with pytest.raises(ValueError, match=message):
            resumed.load_state_dict(broken)
    assert resumed.updates == 3
    with pytest.raises(ValueError, match="decay"):
        WeightAverage(model, 1.0)


def test_batch_norms_refreshed_are_torchs():
    batches = [torch.randn(8, 3, generator=torch.Generator().manual_seed(k)) for k in range(4)]
    ours, theirs = network(), network()
    ours.eval()
    theirs.eval()
    ours[3].train()
    refresh_batch_norm(ours, batches)
    swa_utils.update_bn(batches, theirs)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    assert ours[1].momentum == 0.1 and not ours[1].training and ours[3].training
    before = copy.deepcopy(ours.state_dict())
    with pytest.raises(ValueError, match="at least one batch"):
        refresh_batch_norm(ours, [])
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())
    refresh_batch_norm(nn.Linear(2, 2), [])  # nothing to refresh


def test_stopping():
    stopping = EarlyStopping(patience=2, min_delta=0.5)
    seen = [(stopping.step(v), stopping.improved) for v in (3.0, 2.6, 2.4, math.nan, 2.0)]
    assert seen == [
        *[(False, True), (False, False), (False, True), (False, False)],
        (True, False),
    ]
    assert stopping.best == 2.4 and stopping.best_step == 2
    resumed = EarlyStopping(patience=2, min_delta=0.5)
    resumed.load_state_dict(stopping.state_dict())
    assert resumed.step(2.3) and resumed.step(1.0) is False and resumed.improved
    rising = EarlyStopping(patience=1, mode="max")
    assert [rising.step(v) for v in (0.1, 0.2, 0.2)] == [False, False, True]
    assert EarlyStopping(patience=2).step(math.nan) is False
    with pytest.raises(ValueError, match="best_step"):
        rising.load_state_dict({"best": 1.0, "steps": 2})
    for settings in ({"patience": 0}, {"min_delta": -1.0}, {"mode": "lowest"}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            EarlyStopping(**settings)
