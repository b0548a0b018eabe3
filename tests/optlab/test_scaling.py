"""Scaling of the learning rate with the batch: closed forms, warm-up, bad input by name."""

import itertools
import math
import statistics

import pytest
import torch

from optlab.scaling import linear_scaling, square_root_scaling
from optlab.schedules import constant, warmup

BOTH = pytest.mark.parametrize("rule", [linear_scaling, square_root_scaling])


@pytest.mark.parametrize(
    ("rule", "batch", "expected"),
    [
        (linear_scaling, 8192, 3.2),  # Goyal et al. (2017): 0.1 at 256, 3.2 at 8192
        (linear_scaling, 256, 0.1),
        (linear_scaling, 64, 0.025),
        (square_root_scaling, 4096, 0.4),
        (square_root_scaling, 256, 0.1),
        (square_root_scaling, 64, 0.05),
    ],
)
def test_in_closed_form(rule, batch, expected):
    assert rule(0.1, batch, 256) == pytest.approx(expected, rel=1e-15)
    assert rule(0.1, batch=batch, reference=256) == rule(0.1, batch, 256)


@BOTH
def test_two_steps_of_scaling_are_one_and_back_is_where_it_began(rule):
    assert rule(rule(0.3, 96, 32), 480, 96) == pytest.approx(rule(0.3, 480, 32), rel=1e-14)
    assert rule(rule(0.3, 96, 32), 32, 96) == pytest.approx(0.3, rel=1e-14)


def test_linear_scaling_keeps_how_far_an_epoch_goes_and_the_root_the_steps_variance():
    generator = torch.Generator().manual_seed(0)
    noise = 1 + torch.randn(2**18, generator=generator, dtype=torch.float64)
    far, spread = [], []
    for batch in (4, 64):
        gradients = noise.view(-1, batch).mean(dim=1)
        far.append(float((linear_scaling(0.1, batch, 4) * gradients).sum()))
        steps = square_root_scaling(0.1, batch, 4) * gradients
        spread.append(statistics.stdev(steps.tolist()))
    assert far[1] == pytest.approx(far[0], rel=1e-12)
    assert spread[1] == pytest.approx(spread[0], rel=0.05)


def test_with_warm_up_the_rate_rises_from_the_references_own_to_the_scaled_one():
    batch, reference, epoch = 512, 64, 20
    lr = linear_scaling(0.1, batch, reference)
    p = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([p], lr=lr)
    rise = warmup(5 * epoch, then=constant(), start=reference / batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rise)
    rates = []
    for _ in range(6 * epoch):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.1)
    rises = [after - before for before, after in itertools.pairwise(rates)]
    assert rises == pytest.approx([0.7 / (5 * epoch)] * (5 * epoch) + [0.0] * (epoch - 1))
    assert rates[-1] == lr == pytest.approx(0.8)


@BOTH
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"lr": -0.1}, ValueError, r"lr must be in \[0, inf\), got -0.1"),
        ({"lr": math.nan}, ValueError, r"lr must be in \[0, inf\), got nan"),
        ({"lr": "0.1"}, TypeError, r"lr must be a number in \[0, inf\), got '0.1'"),
        ({"batch": 0}, ValueError, "batch must be at least 1, got 0"),
        ({"batch": 2.5}, TypeError, "batch must be a whole number, got 2.5"),
        ({"reference": -1}, ValueError, "reference must be at least 1, got -1"),
        ({"reference": True}, TypeError, "reference must be a whole number, got True"),
    ],
)
def test_bad_input_is_named(rule, given, error, message):
    with pytest.raises(error, match=message):
        rule(**{"lr": 0.1, "batch": 64, "reference": 32, **given})
