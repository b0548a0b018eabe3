"""Kernels: steps in place, pieces of large tensors, compiled programs."""

import functools

import pytest
import torch

from optlab.engine import kernels
from optlab.engine.tape import Program, record
from optlab.rules import LAYERWISE, RULES
from optlab.signatures import states
from tests.optlab.engine import nasty
from tests.optlab.engine.test_tape import operands
from tests.optlab.test_rules import counted


def of_the_book(name, step=7):
    """A rule's recording and tensors for it; a state that is a number is given."""
    rule = RULES[name]
    numbers = [0.4 if state == "mu_product" else None for state in states(rule)]
    options = {key: float(value) for key, value in counted(rule, step).items()}
    recording = record(functools.partial(rule, **options), None, None, *numbers)
    return recording, operands(rule)[: recording.program.inputs]


@pytest.mark.parametrize("name", RULES)
def test_steps_write_only_where_they_may(name):
    """Every result of the program has a home; the gradient is no home, unless it is disposable."""
    program = of_the_book(name)[0].program
    for disposable in (False, True):
        steps, scratch = kernels.schedule(program, disposable)
        count = len(scratch)
        homes = {0, *range(2, program.inputs + count)} | ({1} if disposable else set())
        assert {step.out for step in steps} <= homes
        assert count <= len(program.operations)
        used = {step.out for step in steps if step.out >= program.inputs}
        assert used == set(range(program.inputs, program.inputs + count))
        places = {0, 1, *range(2, program.inputs)}
        for step in steps:  # nothing is read before it was written
            assert set(step.operands) <= places
            places.add(step.out)


@pytest.mark.parametrize("name", RULES)
def test_disposable_gradients_save_memory_and_never_cost_any(name):
    program = of_the_book(name)[0].program
    assert sum(kernels.schedule(program, True)[1]) <= sum(kernels.schedule(program, False)[1])


def test_scratch_that_each_rule_needs():
    """Torch's foreach needs one or two tensors of the parameters' size, and so may ours."""
    programs = {name: of_the_book(name)[0].program for name in RULES}
    needed = {name: sum(kernels.schedule(program, False)[1]) for name, program in programs.items()}
    assert needed["sgd"] == needed["momentum"] == 0
    assert max(needed.values()) <= 2


def test_what_is_computed_from_sums_alone_is_one_number():
    for name, program in {name: of_the_book(name)[0].program for name in RULES}.items():
        steps, scratch = kernels.schedule(program, False)
        assert program.layerwise == (RULES[name] in LAYERWISE) == (False in scratch)
        single = {place for place, full in enumerate(scratch, program.inputs) if not full}
        for step in steps:
            if step.operation is not kernels.IN_PLACE["sum"]:
                assert single.issuperset(step.operands) == (step.out in single)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("chunk", [kernels.CHUNK, 5])
def test_half_precision_is_computed_in_float32(dtype, chunk, monkeypatch):
    monkeypatch.setattr(kernels, "CHUNK", chunk)
    recording, (theta, g, *state) = of_the_book("adam")
    theta, g, state = theta.to(dtype), g.to(dtype), [value.float() for value in state]
    program, numbers, _ = recording
    expected = kernels.apply(program, numbers, [theta.float(), g.float(), *state])
    before = g.clone()
    kernels.run(program, numbers, [theta, g, *state])
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(theta, expected[0].to(dtype), rtol=eps, atol=0)
    torch.testing.assert_close(state, expected[1:], rtol=1e-6, atol=0)
    assert torch.equal(g, before)


@pytest.mark.parametrize("length", [1, 4, 5, 6, 10, 11])
@pytest.mark.parametrize("name", ["sgd", "adam", "amsgrad"])
def test_pieces_meet_without_gap_or_overlap(name, length, monkeypatch):
    monkeypatch.setattr(kernels, "CHUNK", 5)
    (program, numbers, _), tensors = of_the_book(name)
    tensors = [tensor[:length].clone() for tensor in tensors]
    theta, *memory = kernels.apply(program, numbers, tensors)
    kernels.run(program, numbers, tensors)
    torch.testing.assert_close([tensors[0], *tensors[2:]], [theta, *memory], rtol=1e-14, atol=0)


def test_tensors_of_several_dimensions_are_run_whole(monkeypatch):
    monkeypatch.setattr(kernels, "CHUNK", 5)
    (program, numbers, _), tensors = of_the_book("adam")
    tensors = [torch.stack([tensor, -tensor.abs()]).t()[::2] for tensor in tensors[:2]] + [
        torch.stack([tensor, tensor]).t()[::2] for tensor in tensors[2:]
    ]
    expected = kernels.apply(program, numbers, tensors)
    kernels.run(program, numbers, tensors)
    torch.testing.assert_close([tensors[0], *tensors[2:]], expected, rtol=1e-14, atol=0)


COMPILED = [
    *(nasty.swapped, nasty.only_swapped, nasty.rotated, nasty.parameter_kept),
    *(nasty.output_twice, nasty.gradient_kept, nasty.whole_numbers),
    *(nasty.number_divided, nasty.floor, nasty.larger, nasty.cubed, nasty.powers),
    *(nasty.negative_under_root, nasty.used_before_and_after, nasty.gradient_for_parameter),
]


@pytest.mark.parametrize("rule", COMPILED, ids=lambda rule: rule.__name__)
def test_compiled_rules_of_users(rule):
    for lr in (0.03, 0.7):
        tensors = operands(rule)
        expected = [result.clone() for result in rule(*tensors, lr=lr)]
        before = tensors[1].clone()
        recording = record(functools.partial(rule, lr=lr), *[None] * len(tensors))
        program, numbers, _ = recording
        kernels.build(program, tensors[0])
        kernels.run_compiled(program, numbers, tensors)
        theta, g, *state = tensors
        torch.testing.assert_close([theta, *state], expected, rtol=1e-12, atol=1e-12)
        assert torch.equal(g, before)


def test_programs_are_the_same_when_they_do_the_same():
    first = Program(2, [("add", (0, 1), 0)], [2])
    assert first.same(Program(2, [("add", (0, 1), 0)], [2]))
    assert not first.same(Program(2, [("add", (0, 1), 0)], [0]))
    assert not first.same(Program(2, [("add", (1, 0), 0)], [2]))
    assert not first.same(Program(2, [("scale", (0,), 0)], [2]))


def test_nan_and_infinity_pass_through():
    """As through torch's own optimizers: nothing is hidden."""
    odd = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0], dtype=torch.float64)
    for name in RULES:
        (program, numbers, _), tensors = of_the_book(name)
        for place in (0, 1):
            own = [tensor[:4].clone() for tensor in tensors]
            own[place] = odd.clone()
            expected = kernels.apply(program, numbers, own)
            kernels.run(program, numbers, own)
            torch.testing.assert_close([own[0], *own[2:]], expected, equal_nan=True)
            assert own[0][0].isnan()
