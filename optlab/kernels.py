"""Kernels: a recorded program run on tensors, in place as it stands or compiled."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optlab.tape import Program

#: Elements that a CPU's cache holds with their state and scratch.
CHUNK = 2**16

#: Each operation of a tape, as a compiler reads it.
FORMULAS: dict[str, Callable[..., Tensor]] = {
    "scale": lambda x, s: s * x,
    "shift": lambda x, s: x + s,
    "add": lambda x, y, s: x + s * y,
    "addcmul": lambda x, a, b, s: x + s * (a * b),
    "addcdiv": lambda x, a, b, s: x + s * (a / b),
    "mul": torch.mul,
    "div": torch.div,
    "sqrt": torch.sqrt,
    "abs": torch.abs,
    "reciprocal": torch.reciprocal,
    "maximum": torch.maximum,
    "clip": torch.clip,
    "pow": torch.pow,
}
#: The same into a tensor that is there, each in one pass over memory.
IN_PLACE: dict[str, Callable[..., Tensor]] = {
    **FORMULAS,
    "scale": torch.mul,
    "shift": torch.add,
    "add": lambda x, y, s, out: torch.add(x, y, alpha=s, out=out),
    "addcmul": lambda x, a, b, s, out: torch.addcmul(x, a, b, value=s, out=out),
    "addcdiv": lambda x, a, b, s, out: torch.addcdiv(x, a, b, value=s, out=out),
    "copy": lambda x, out: out.copy_(x),
}


def working(dtype: torch.dtype) -> torch.dtype:
    """What a parameter is computed and its state kept in: half precision in float32."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


class Step(NamedTuple):
    """An operation with its operands, its number and its result at their places."""

    operation: Callable[..., Tensor]
    operands: tuple[int, ...]
    number: int
    out: int


@functools.lru_cache(maxsize=256)
def schedule(program: Program) -> tuple[tuple[Step, ...], int]:
    """The steps of a program in place, and how many scratch tensors they need.

    A result that is new state goes where the old one lies as soon as nothing reads that any more;
    other results go to scratch tensors, which are used again.
    """
    inputs, operations, outputs = program
    homes = (0, *range(2, inputs))  # the parameter and the state; place 1 is the gradient
    last = {place: at for at, (_, operands, _) in enumerate(operations) for place in operands}
    last.update(dict.fromkeys(outputs, len(operations)))
    home = {result: home for result, home in zip(outputs, homes, strict=True) if result >= inputs}
    place, free, count = {i: i for i in range(inputs)}, [], inputs
    steps = []
    for at, (name, operands, number) in enumerate(operations):
        read = tuple(place[operand] for operand in operands)
        free += [place[o] for o in {*operands} if last[o] == at and place[o] >= inputs]
        result = inputs + at
        if result in home and last.get(home[result], -1) <= at:
            place[result] = home[result]
        elif free:
            place[result] = free.pop()
        else:
            place[result], count = count, count + 1
        steps.append(Step(IN_PLACE[name], read, number, place[result]))
    for result, target in zip(outputs, homes, strict=True):
        if place[result] != target:
            steps.append(Step(IN_PLACE["copy"], (place[result],), -1, target))
    return tuple(steps), count - inputs


def run(program: Program, numbers: Sequence[float], tensors: Sequence[Sequence[Tensor]]) -> None:
    """Run a program in place.

    Args:
        program: what to do.
        numbers: its numbers.
        tensors: of each chunk, parameter, gradient and state, of one shape; all but the gradient
            are changed.  A parameter of half precision is computed in float32.
    """
    steps, count = schedule(program)
    first = tensors[0][0]
    dtype = working(first.dtype)
    scratch = [torch.empty_like(first, dtype=dtype) for _ in range(count)]
    for theta, g, *state in tensors:
        if theta.shape != first.shape:
            scratch = [tensor[: len(theta)] for tensor in scratch]
        work = theta.to(dtype)
        places = [work, g.to(dtype), *state, *scratch]
        for operation, operands, number, out in steps:
            read = [places[i] for i in operands]
            if number >= 0:
                read.append(numbers[number])  # type: ignore[arg-type]
            operation(*read, out=places[out])
        if work is not theta:
            theta.copy_(work)


def apply(program: Program, numbers: Sequence[Any], tensors: Sequence[Tensor]) -> list[Tensor]:
    """What a program makes of its tensors: the new parameter and state, in new tensors."""
    places = list(tensors)
    for name, operands, number in program.operations:
        read = [places[i] for i in operands]
        places.append(FORMULAS[name](*read, *([numbers[number]] if number >= 0 else [])))
    return [places[i] for i in program.outputs]


@functools.lru_cache(maxsize=256)
def compiled(
    program: Program, dtype: torch.dtype, device: torch.device
) -> Callable[..., tuple[()]]:
    """One kernel for a program, for flat tensors of any length.

    Args:
        program: what to do.
        dtype: that of parameter and gradient; half precision is computed in float32.
        device: where they lie.

    Returns:
        A function of the numbers (one tensor), parameter, gradient and state, which changes
        parameter and state.  The numbers are an input, so a new learning rate needs no new kernel.
    """
    # Imported here: the compiler takes a second that only those who use it should spend.
    from torch._inductor import standalone_compile
    from torch.fx.experimental.proxy_tensor import make_fx

    work = working(dtype)

    def kernel(numbers: Tensor, theta: Tensor, g: Tensor, *state: Tensor) -> tuple[()]:
        results = apply(program, numbers.unbind(), [theta.to(work), g.to(work), *state])
        for old, new in zip((theta, *state), results, strict=True):
            old.copy_(new)
        return ()

    count = max((number for _, _, number in program.operations), default=-1) + 1
    # A length at which the kernel is worth several threads; it serves every other length too.
    examples = [torch.ones(max(count, 1), dtype=work, device=device)]
    examples += [torch.ones(CHUNK, dtype=dtype, device=device) for _ in range(2)]
    examples += [torch.ones(CHUNK, dtype=work, device=device) for _ in range(program.inputs - 2)]
    graph = make_fx(kernel, tracing_mode="symbolic")(*examples)
    return standalone_compile(graph, examples, dynamic_shapes="from_graph")
