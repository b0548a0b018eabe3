"""Every schedule against torch's or one worked by hand, and where it may jump and must stay."""

import inspect
from itertools import pairwise

import pytest
import torch
from torch.optim import lr_scheduler

from optlab import schedules
from optlab.schedules import (
    constant,
    cosine,
    cosine_restarts,
    exponential,
    inverse_sqrt,
    multistep,
    one_cycle,
    one_cycle_momentum,
    polynomial,
    step_decay,
    warmup,
    wsd,
)
from optlab.stepwise import Schedule
from tests.optlab.schedule_registry import CASES, LR, rates


def torchs(make, steps):
    """The factors that one of torch's own schedulers gives."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=LR)
    return [rate / LR for rate in rates(optimizer, make(optimizer), steps)]


def linear_then(optimizer, steps, make):
    """Torch's LinearLR, then its ``make``."""
    rise = lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=steps)
    return lr_scheduler.SequentialLR(optimizer, [rise, make(optimizer)], milestones=[steps])


def cycle(optimizer, total, **options):
    return lr_scheduler.OneCycleLR(optimizer, LR, total, cycle_momentum=False, **options)


TORCH = {
    "constant": (constant(0.4), lambda o: lr_scheduler.ConstantLR(o, 0.4, 9999), 300),
    "step": (step_decay(30, 0.7), lambda o: lr_scheduler.StepLR(o, 30, 0.7), 300),
    "step-1": (step_decay(1, 0.99), lambda o: lr_scheduler.StepLR(o, 1, 0.99), 300),
    "milestones": (
        multistep([1, 30, 31, 200, 200], 0.3),
        lambda o: lr_scheduler.MultiStepLR(o, [1, 30, 31, 200, 200], 0.3),
        300,
    ),
    "exponential": (exponential(0.99), lambda o: lr_scheduler.ExponentialLR(o, 0.99), 1000),
    "line": (polynomial(200), lambda o: lr_scheduler.PolynomialLR(o, 200), 300),
    "poly": (polynomial(200, 0.9), lambda o: lr_scheduler.PolynomialLR(o, 200, 0.9), 300),
    "cosine": (cosine(200), lambda o: lr_scheduler.CosineAnnealingLR(o, 200), 201),
    "cosine-to": (
        cosine(200, end=0.1),
        lambda o: lr_scheduler.CosineAnnealingLR(o, 200, 0.1 * LR),
        201,
    ),
    "linear": (
        warmup(50, constant(), start=0.1),
        lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=50),
        100,
    ),
    "linear-cosine": (
        warmup(50, cosine(150, end=0.1), start=0.1),
        lambda o: linear_then(
            o, 50, lambda o: lr_scheduler.CosineAnnealingLR(o, 150, eta_min=0.1 * LR)
        ),
        201,
    ),
    "linear-step": (
        warmup(50, step_decay(20, 0.5), start=0.1),
        lambda o: linear_then(o, 50, lambda o: lr_scheduler.StepLR(o, 20, 0.5)),
        300,
    ),
    "one-cycle": (one_cycle(200), lambda o: cycle(o, 200), 200),
    "one-cycle-line": (
        one_cycle(201, rise=0.37, start=0.1, end=0.001, shape="linear"),
        lambda o: cycle(
            o, 201, pct_start=0.37, div_factor=10, final_div_factor=100, anneal_strategy="linear"
        ),
        201,
    ),
    "one-cycle-3": (
        one_cycle(200, three_phase=True),
        lambda o: cycle(o, 200, three_phase=True),
        200,
    ),
    "one-cycle-3-line": (
        one_cycle(203, rise=0.45, shape="linear", three_phase=True),
        lambda o: cycle(o, 203, pct_start=0.45, anneal_strategy="linear", three_phase=True),
        203,
    ),
    "one-cycle-short": (one_cycle(2), lambda o: cycle(o, 2), 2),
}
for times in (1, 2, 3):
    TORCH[f"restarts-{times}"] = (
        cosine_restarts(period=4, t_mult=times, end=0.05),
        lambda o, times=times: lr_scheduler.CosineAnnealingWarmRestarts(o, 4, times, 0.05 * LR),
        600,
    )


@pytest.mark.parametrize("name", TORCH)
def test_torch_has_the_same(name):
    factor, make, steps = TORCH[name]
    ours = [factor(step) for step in range(steps)]
    assert ours == pytest.approx(torchs(make, steps), rel=0, abs=1e-12)


@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize(("shape", "theirs"), [("cosine", "cos"), ("linear", "linear")])
def test_torch_cycles_momentum_the_same(shape, theirs, three_phase):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=LR, momentum=0.9)
    scheduler = lr_scheduler.OneCycleLR(
        optimizer, LR, 200, anneal_strategy=theirs, three_phase=three_phase
    )
    momentum = one_cycle_momentum(total=200, shape=shape, three_phase=three_phase)
    for step in range(200):
        assert optimizer.param_groups[0]["momentum"] == pytest.approx(momentum(step), abs=1e-12)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("mult", [2, 3, 10])
def test_restarts_fall_on_their_steps_even_after_many(mult):
    factor = cosine_restarts(period=7, t_mult=mult)
    start, length = 0, 7
    for _ in range(12):
        assert factor(start) == 1.0
        assert factor(start + length / 2) == pytest.approx(0.5, abs=1e-12)
        assert factor(start + length - 1) < 0.06
        start, length = start + length, length * mult


def test_inverse_sqrt_is_vaswanis_equation_3():
    d_model, w = 512, 4000
    base = (d_model * w) ** -0.5
    for t in [1, 2, 100, 3999, 4000, 4001, 16000, 10**6]:
        expected = d_model**-0.5 * min(t**-0.5, t * w**-1.5)
        assert base * inverse_sqrt(warmup=w)(t - 1) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("shape", "quarter", "half"),
    [("linear", 0.75, 0.5), ("sqrt", 0.5, 1 - 0.5**0.5), ("cosine", (2 + 2**0.5) / 4, 0.5)],
)
def test_wsd_by_hand(shape, quarter, half):
    factor = wsd(warmup=10, decay_from=100, decay=20, shape=shape, end=0.2)
    assert [factor(step) for step in (0, 1, 5, 10, 50, 99, 100)] == [0, 0.1, 0.5, 1, 1, 1, 1]
    assert factor(105) == pytest.approx(0.2 + 0.8 * quarter, abs=1e-15)
    assert factor(110) == pytest.approx(0.2 + 0.8 * half, abs=1e-15)
    assert factor(120) == factor(10**6) == pytest.approx(0.2, abs=1e-15)


def test_a_cycle_may_begin_at_its_top():
    factor = one_cycle(total=10, rise=0.1)  # torch divides by zero here
    assert factor(0) == 1.0 and factor(9) == 4e-6


def test_wsd_needs_no_total_and_a_later_decay_changes_nothing_before():
    stay = wsd(warmup=10)
    assert wsd(10, 40, 20) == wsd(10, 40, 20, shape="sqrt", end=0.0)
    for decay_from in (10, 40, 200):
        chosen = wsd(warmup=10, decay_from=decay_from, decay=20)
        assert all(chosen(step) == stay(step) for step in range(decay_from + 1))
    assert stay(10**9) == 1.0


def test_warmup_hands_over_at_the_step_0_of_any_function():
    seen = []

    def then(step):
        seen.append(step)
        return 0.5 / (1 + step)

    factor = warmup(4, then, start=0.2)
    assert [factor(step) for step in (0, 2, 4, 5)] == pytest.approx([0.1, 0.3, 0.5, 0.25])
    assert seen == [0, 0, 0, 1]
    assert all(warmup(0, cosine(9))(step) == cosine(9)(step) for step in range(12))
    twice = warmup(2, warmup(2, constant(), start=0.5))
    assert [twice(step) for step in range(5)] == [0, 0.25, 0.5, 0.75, 1]


def test_every_schedule_is_tried_here():
    tried = {factor.factory.__name__ for factor, _ in CASES}
    assert tried == schedules.SCHEDULES.keys()
    assert all(schedules.SCHEDULES[name] is getattr(schedules, name) for name in tried)


@pytest.mark.parametrize(("factor", "most"), CASES, ids=repr)
def test_no_step_is_a_jump_where_none_should_be(factor, most):
    values = [factor(step) for step in range(100)]
    assert max(abs(b - a) for a, b in pairwise(values)) <= most + 1e-12


@pytest.mark.parametrize(
    ("factor", "end"),
    [
        (polynomial(10, 2.0, end=0.25), 0.25),
        (cosine(10, end=0.25), 0.25),
        (one_cycle(11, end=0.25), 0.25),
        (one_cycle(11, end=0.25, three_phase=True), 0.25),
        (wsd(2, 5, 5, end=0.25), 0.25),
        (warmup(5, polynomial(5, end=0.25)), 0.25),
    ],
    ids=repr,
)
def test_past_its_end_a_schedule_stays(factor, end):
    assert factor(9) != end
    assert [factor(step) for step in (10, 11, 25, 10**6)] == [end] * 4


@pytest.mark.parametrize("factory", schedules.SCHEDULES.values(), ids=schedules.SCHEDULES)
def test_an_equation_is_short_and_says_where_it_is_from(factory):
    lines = inspect.getsource(factory).split('"""')[2].strip().splitlines()
    assert len(lines) <= 5
    assert "(20" in factory.__doc__ or factory is constant
    assert "step" not in inspect.signature(factory).parameters
    assert inspect.signature(factory).return_annotation is Schedule
