"""A rule that was recorded does what the rule does, in place and in new tensors."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optlab.engine import kernels
from optlab.engine.recorder import Recorder
from optlab.engine.tape import record
from optlab.rules import RULES, maximum
from optlab.signatures import hyperparameters, states
from tests.optlab.engine.nasty import NASTY, REFUSED
from tests.optlab.test_rules import counted

SIZE = 17
RATES = [0.03, 0.2, 0.7]


def operands(rule, seed=0):
    """Parameter, gradient and state, none of it near a place where rules are not smooth."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(2 + len(states(rule)), SIZE, generator=generator, dtype=torch.float64)
    theta, g, *state = draw + 0.1 * draw.sign()
    return [theta, g, *[value.abs() for value in state]]


def assert_runs_as(expected, recording, tensors, **tolerance):
    """In new tensors, in place, in place with the gradient's memory, and piece by piece."""
    program, numbers = recording.program, recording.numbers
    before = [tensor.clone() for tensor in tensors]
    torch.testing.assert_close(
        kernels.apply(program, numbers, tensors), expected, equal_nan=True, **tolerance
    )
    torch.testing.assert_close(tensors, before, rtol=0, atol=0)
    whole = kernels.CHUNK
    for disposable in (False, True):
        for chunk in (whole, 5):
            own = [tensor.clone() for tensor in tensors]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(kernels, "CHUNK", chunk)
                kernels.run(program, numbers, own, disposable)
            theta, g, *state = own
            results = [theta, *state]
            torch.testing.assert_close(results, expected, equal_nan=True, **tolerance)
            assert disposable or torch.equal(g, tensors[1])


EXACT = {"rtol": 1e-12, "atol": 1e-12}


@pytest.mark.parametrize("name", RULES)
def test_every_rule_of_the_book(name):
    rule = RULES[name]
    shaped = [state != "mu_product" for state in states(rule)]
    recorder = Recorder(rule, shaped)
    for step in (1, 2, 7, 40):
        tensors = operands(rule, step)
        product = [0.4 / step] * (not all(shaped))
        tensors = tensors[: 2 + sum(shaped)]
        options = {key: float(value) for key, value in counted(rule, step).items()}
        results = list(rule(*tensors, *product, **options))
        floats = [results.pop()] if product else []
        recording = recorder(product, options)
        assert recording.floats == pytest.approx(floats, rel=1e-15)
        assert_runs_as(results, recording, tensors, **EXACT)


@pytest.mark.parametrize("rule", NASTY, ids=lambda rule: rule.__name__)
def test_nasty_rules(rule):
    recorder = Recorder(rule, [True] * len(states(rule)))
    for lr in (*RATES, *RATES):
        tensors = operands(rule)
        expected = list(rule(*tensors, lr=lr))
        once = record(functools.partial(rule, lr=lr), *[None] * len(tensors))
        assert_runs_as(expected, once, tensors, **EXACT)
        assert_runs_as(expected, recorder([], {"lr": lr}), tensors, **EXACT)


@pytest.mark.parametrize("rule", REFUSED, ids=lambda rule: rule.__name__)
def test_what_no_operation_stands_for_is_refused(rule):
    with pytest.raises(TypeError):
        record(functools.partial(rule, lr=0.1), None, None, None)
    recorder = Recorder(rule, [True])
    for _ in range(2):
        with pytest.raises(TypeError):
            recorder([], {"lr": 0.1})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("asks_whether_true", r"must not branch on the entries of a tensor: use maximum\(\)"),
        ("gives_a_number", "must return a tensor for each tensor, got 0.0"),
        ("gives_a_number_for_the_parameter", "must return a tensor for each tensor, got 0.1"),
        ("gives_nothing", "must return a tensor for each tensor, got None"),
    ],
)
def test_it_is_said_what_was_wrong(name, message):
    rule = next(rule for rule in REFUSED if rule.__name__ == name)
    with pytest.raises(TypeError, match=message):
        Recorder(rule, [True])([], {"lr": 0.1})


def test_the_program_stays_while_numbers_change():
    for name, rule in RULES.items():
        shaped = [state != "mu_product" for state in states(rule)]
        recorder = Recorder(rule, shaped)
        product = [0.4] * (not all(shaped))
        programs = []
        for step in (50, 51, 60):
            options = {k: float(v) for k, v in counted(rule, step).items()}
            programs.append(recorder(product, options).program)
            programs.append(recorder(product, {**options, "lr": 0.5 / step}).program)
        assert len({id(program) for program in programs}) == 1, name
        assert "lr" in hyperparameters(rule)


# Random rules: a recipe is a list of steps, each of which adds a tensor or a number.

OPERATIONS = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / (abs(y) + 0.5),
    "divide in full": lambda x, y: (x / 3.0) / (2.0 * (abs(y) + 0.5)),
    "larger": lambda x, y: maximum(x, y),
}
ONE = {
    "negate": lambda x: -x,
    "size": lambda x: abs(x),
    "square": lambda x: x**2,
    "cube": lambda x: x**3 / (1.0 + x * x),
    "root": lambda x: (abs(x) + 0.25) ** 0.5,
    "scaled root": lambda x: (3.0 * (abs(x) + 0.25)) ** 0.5,
    "inverse": lambda x: 2.0 / (abs(x) + 0.5),
    "power": lambda x: (abs(x) + 0.5) ** -0.75,
    "floor": lambda x: maximum(x, -0.3),
}
WITH_NUMBER = {
    "add a number": lambda x, c: x + c,
    "add to a number": lambda x, c: c + x,
    "less a number": lambda x, c: x - c,
    "number less": lambda x, c: c - x,
    "times": lambda x, c: x * c,
    "number times": lambda x, c: c * x,
    "by a number": lambda x, c: x / (c * c + 0.5),
    "at least a number": lambda x, c: maximum(x, c),
    "number over": lambda x, c: c / (abs(x) + 0.5),
}
OF_NUMBERS = {
    "sum": lambda c, d: c + d,
    "difference": lambda c, d: c - d,
    "product": lambda c, d: c * d,
    "quotient": lambda c, d: c / (d * d + 0.5),
    "power of numbers": lambda c, d: (c * c + 0.5) ** d,
    "chosen": lambda c, d: 2.0 * c if c > d else d,
}
place = st.integers(0, 1000)
TABLES = {**OPERATIONS, **ONE, **WITH_NUMBER, **OF_NUMBERS}
steps = st.tuples(st.sampled_from(sorted(TABLES)), place, place)
amounts = st.floats(-2, 2).map(lambda value: round(value, 3))


def built(recipe, outputs):
    """A rule of two state tensors and one that is a number, from a recipe."""

    def rule(theta, g, a, b, n, *, c, d):
        tensors, numbers = [theta, g, a, b], [n, c, d]
        for name, first, second in recipe:
            x, y = tensors[first % len(tensors)], tensors[second % len(tensors)]
            s, t = numbers[first % len(numbers)], numbers[second % len(numbers)]
            if name in OF_NUMBERS:
                numbers.append(OF_NUMBERS[name](s, t))
            elif name in ONE:
                tensors.append(ONE[name](x))
            else:
                tensors.append(TABLES[name](x, y if name in OPERATIONS else t))
        new = [tensors[-1 - spot % len(tensors)] for spot in outputs]
        return *new, numbers[-1]

    return rule


@settings(max_examples=400, deadline=None)
@given(
    st.lists(steps, max_size=14),
    st.tuples(place, place, place),
    st.lists(st.tuples(amounts, amounts, amounts), min_size=1, max_size=3),
)
def test_any_rule(recipe, outputs, rows):
    rule = built(recipe, outputs)
    recorder = Recorder(rule, [True, True, False])
    for n, c, d in rows:
        tensors = operands(lambda theta, g, a, b, *, c, d: None)
        *expected, number = rule(*tensors, n, c=c, d=d)
        *rough, _ = rule(*[tensor.float() for tensor in tensors], n, c=c, d=d)
        if not all(value.isfinite().all() and value.abs().max() < 1e30 for value in rough):
            continue
        # What float32 loses tells what float64 may lose, where differences cancel.
        lost = max((x - y).abs().max().item() for x, y in zip(expected, rough, strict=True))
        tolerance = {"rtol": 1e-12, "atol": 1e-12 + 1e-6 * lost}
        for recording in (
            record(functools.partial(rule, c=c, d=d), None, None, None, None, n),
            recorder([n], {"c": c, "d": d}),
        ):
            assert list(recording.floats) == [pytest.approx(number, rel=1e-12, abs=1e-12)]
            assert_runs_as(expected, recording, tensors, **tolerance)
