"""Schedules as objects: pure, compared, copied, saved with a run, and made of good input only."""

import copy
import io
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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
from optlab.stepwise import schedule
from tests.optlab.schedule_registry import ANY, CASES, LR, rates, training

each = pytest.mark.parametrize("factor", [case[0] for case in CASES], ids=repr)


@settings(deadline=None, max_examples=300, derandomize=True, database=None)
@given(factor=ANY, steps=st.lists(st.integers(0, 200), min_size=1))
def test_a_factor_is_a_share_and_depends_on_the_step_alone(factor, steps):
    values = {step: factor(step) for step in steps}
    assert all(type(value) is float and 0 <= value <= 1 for value in values.values())
    assert all(factor(step) == values[step] for step in reversed(steps))
    for other in (pickle.loads(pickle.dumps(factor)), copy.deepcopy(factor), copy.copy(factor)):
        assert other == factor and hash(other) == hash(factor)
        assert all(other(step) == values[step] for step in steps)
    assert eval(repr(factor), vars(schedules)) == factor


@each
def test_a_run_that_stops_goes_on_with_the_same_rates(factor):
    whole = rates(*training(factor), 70)
    assert whole == pytest.approx([LR * factor(step) for step in range(70)], rel=1e-15)
    optimizer, scheduler = training(factor)
    before = rates(optimizer, scheduler, 33)
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    optimizer, scheduler = training(copy.deepcopy(factor))
    optimizer.load_state_dict(saved["optimizer"])
    scheduler.load_state_dict(saved["scheduler"])
    assert before + rates(optimizer, scheduler, 37) == whole


def test_a_run_goes_on_with_the_schedule_it_is_given():
    optimizer, scheduler = training(wsd(warmup=5))
    rates(optimizer, scheduler, 30)
    saved = scheduler.state_dict()
    late = wsd(warmup=5, decay_from=40, decay=10)
    before = repr(late)
    again, other = training(late)
    again.load_state_dict(optimizer.state_dict())
    other.load_state_dict(saved)
    assert rates(again, other, 25) == pytest.approx([LR * late(step) for step in range(30, 55)])
    assert repr(late) == before and vars(late) == {}


def test_groups_have_schedules_of_their_own():
    parameters = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = torch.optim.AdamW([{"params": [p]} for p in parameters], lr=LR)
    scheduler = lr_scheduler.LambdaLR(optimizer, [cosine(10), constant(0.5)])
    optimizer.step()
    scheduler.step()
    assert scheduler.get_last_lr() == [LR * cosine(10)(1), LR * 0.5]


def test_steps_and_lengths_of_arrays_are_taken():
    factor = cosine(total=np.int64(10), end=np.float64(0.5))
    assert factor == cosine(10, 0.5)
    assert [type(value) for _, value in factor.settings] == [int, float]
    for each_kind in (factor, exponential(0.5)):
        assert type(each_kind(np.int32(3))) is type(each_kind(torch.tensor(3))) is float
    assert factor(np.int32(3)) == pytest.approx(factor(torch.tensor(3.0)), rel=1e-6)


def test_a_schedule_cannot_be_changed():
    factor = cosine(10)
    with pytest.raises(AttributeError):
        factor.settings = ()
    with pytest.raises(AttributeError):
        factor.total = 20


def test_schedules_differ_by_name_and_settings():
    assert cosine(10) == cosine(total=10, end=0.0) != cosine(11)
    assert cosine(10) != polynomial(10)
    assert len({constant(0.5), constant(0.5), constant(0.6)}) == 2


BAD = [
    (lambda: cosine(), TypeError, r"cosine\(\): missing a required argument: 'total'"),
    (lambda: cosine(10, 0.5, 3), TypeError, r"cosine\(\): too many positional arguments"),
    (lambda: cosine(totl=10), TypeError, "no argument 'totl': did you mean 'total'"),
    (lambda: cosine(total=0), ValueError, r"total must be in \[1, inf\), got 0"),
    (
        lambda: cosine(total=10.0),
        TypeError,
        r"total must be a whole number in \[1, inf\), got 10.0",
    ),
    (lambda: cosine(total=True), TypeError, "total must be a number"),
    (lambda: cosine(total=None), TypeError, "total must be a number"),
    (lambda: cosine(total=10**400), ValueError, "total must be in"),
    (lambda: cosine(10, end=1.5), ValueError, r"end must be in \[0, 1\], got 1.5"),
    (lambda: cosine(10, end=math.nan), ValueError, "end must be in"),
    (lambda: constant(-0.1), ValueError, "factor must be in"),
    (lambda: step_decay(0), ValueError, "period must be in"),
    (lambda: step_decay(2, gamma=0), ValueError, r"gamma must be in \(0, 1\], got 0"),
    (lambda: multistep(5), TypeError, "milestones must be a list of whole numbers"),
    (lambda: multistep([3, 0]), ValueError, r"milestones\[1\] must be in \[1, inf\), got 0"),
    (lambda: multistep("35"), TypeError, "milestones must be a list"),
    (lambda: exponential(1.1), ValueError, r"gamma must be in \(0, 1\], got 1.1"),
    (lambda: polynomial(10, power=0), ValueError, r"power must be in \(0, inf\), got 0"),
    (lambda: cosine_restarts(10, t_mult=0), ValueError, "t_mult must be in"),
    (lambda: cosine_restarts(10, t_mult=1.5), TypeError, "t_mult must be a whole number"),
    (lambda: inverse_sqrt(0), ValueError, r"warmup must be in \[1, inf\), got 0"),
    (lambda: warmup(-1, constant()), ValueError, "steps must be in"),
    (lambda: warmup(10), TypeError, "missing a required argument: 'then'"),
    (lambda: warmup(10, 0.5), TypeError, "then must be a function of the step.*got 0.5"),
    (lambda: warmup(10, cosine), TypeError, "then must be a function of the step"),
    (lambda: warmup(10, constant(), start=2), ValueError, "start must be in"),
    (
        lambda: wsd(10, decay_from=5, decay=5),
        ValueError,
        r"decay_from must be in \[10, inf\), got 5",
    ),
    (lambda: wsd(10, decay_from=50), TypeError, r"wsd\(\) needs decay"),
    (lambda: wsd(10, 50, 0), ValueError, "decay must be in"),
    (lambda: wsd(10, 50, 5, "sqr"), ValueError, "shape .* not 'sqr': did you mean 'sqrt'"),
    (lambda: one_cycle(10, shape="sqrt"), ValueError, "shape .* Known: linear, cosine"),
    (lambda: one_cycle(10, shape=[]), ValueError, r"shape .* not \[\]"),
    (lambda: one_cycle(10, rise=1), ValueError, r"rise must be in \(0, 1\), got 1"),
    (
        lambda: one_cycle(10, rise=0.6, three_phase=True),
        ValueError,
        r"rise .* in \(0, 0.5\], got 0.6",
    ),
    (lambda: one_cycle(10, three_phase=1), TypeError, "three_phase must be True or False, got 1"),
    (lambda: one_cycle_momentum(10, low=0.99), ValueError, r"low must be in \[0, 0.95\], got 0.99"),
    (lambda: one_cycle_momentum(10, high=1.0), ValueError, r"high must be in \[0, 1\), got 1.0"),
    (lambda: schedule(tota=1)(lambda step, total: 1), TypeError, "did you mean 'total'"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input_is_named_with_what_is_allowed(call, error, message):
    with pytest.raises(error, match=message):
        call()


@each
@pytest.mark.parametrize(
    ("step", "error"),
    [(-1, ValueError), (-1e-9, ValueError), (math.nan, ValueError), (math.inf, ValueError),
     ("3", TypeError), (None, TypeError), (True, TypeError), ([1, 2], TypeError)],
)  # fmt: skip
def test_a_step_is_a_number_from_0(factor, step, error):
    with pytest.raises(error, match="step must be"):
        factor(step)
