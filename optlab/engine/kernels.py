"""Kernels: a recorded program run on tensors, in place as it stands or compiled."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor

from optlab.engine.tape import Operation, Program

Kernel = Callable[[list[Tensor]], Any]

#: Elements at a time: scratch stays small beside the parameters, and calls stay few.
CHUNK = 2**22
#: More elements than these are worth several threads, as in torch's own operations.
GRAIN = 2**15

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
    "sum": torch.sum,
}
#: The same into a tensor that is there, each in one pass over memory.
IN_PLACE: dict[str, Callable[..., Tensor]] = {
    **FORMULAS,
    "scale": torch.mul,
    "shift": torch.add,
    "add": lambda x, y, s, out: torch.add(x, y, alpha=s, out=out),
    "addcmul": lambda x, a, b, s, out: torch.addcmul(x, a, b, value=s, out=out),
    "addcdiv": lambda x, a, b, s, out: torch.addcdiv(x, a, b, value=s, out=out),
    "sum": lambda x, out: out.copy_(x.sum()),
    "copy": lambda x, out: out.copy_(x),
}


HALF = (torch.float16, torch.bfloat16)


def working(dtype: torch.dtype) -> torch.dtype:
    """What a parameter is computed and its state kept in: half precision in float32."""
    return torch.float32 if dtype in HALF else dtype


class Step(NamedTuple):
    """An operation with its operands, its number and its result at their places."""

    operation: Callable[..., Tensor]
    operands: tuple[int, ...]
    number: int
    out: int


def schedule(program: Program, disposable: bool) -> tuple[tuple[Step, ...], tuple[bool, ...]]:
    """The steps of a program in place, and of each scratch tensor whether it has their shape.

    The gradient is not written to, unless it is ``disposable``.  New state goes where the old one
    lies as soon as nothing reads that any more, and so does what is on the way to it; other
    results go to scratch tensors, which are used again.  A sum, and what is computed from sums
    alone, is one number with a scratch tensor of its own.
    """
    inputs, operations, outputs = program.inputs, program.operations, program.outputs
    homes = (0, *range(2, inputs))  # the parameter and the state; place 1 is the gradient
    last = {place: at for at, (_, operands, _) in enumerate(operations) for place in operands}
    last.update(dict.fromkeys(outputs, len(operations)))
    home = {result: home for result, home in zip(outputs, homes, strict=True) if result >= inputs}
    written = {home: result - inputs for result, home in home.items()}
    place, free = {i: i for i in range(inputs)}, []
    scratch: list[bool] = []
    single: set[int] = set()
    steps = []
    for at, (name, operands, number) in enumerate(operations):
        result, read = inputs + at, tuple(place[operand] for operand in operands)
        over = {place[operand] for operand in operands if last[operand] == at}
        shaped = {spot for spot in over if spot < inputs or scratch[spot - inputs]}
        free += [spot for spot in shaped if spot >= inputs or (disposable and spot == 1)]
        passed = [spot for spot in over if last[result] <= written.get(spot, -1)]
        if name == "sum" or single.issuperset(operands):
            single.add(result)
            spot = inputs + len(scratch)
            scratch.append(False)
        elif result in home and last.get(home[result], -1) <= at:
            spot = home[result]
        elif passed:
            spot = passed[0]
        elif free:
            spot = free.pop()
        else:
            spot = inputs + len(scratch)
            scratch.append(True)
        place[result] = spot
        steps.append(Step(IN_PLACE[name], read, number, spot))
    for result, target in zip(outputs, homes, strict=True):
        if place[result] != target:
            steps.append(Step(IN_PLACE["copy"], (place[result],), -1, target))
    return tuple(steps), tuple(scratch)


def run(
    program: Program,
    numbers: Sequence[float],
    tensors: Sequence[Tensor],
    disposable: bool = False,
) -> None:
    """Run a program in place.

    Args:
        program: what to do.
        numbers: its numbers.
        tensors: parameter, gradient and state, of one shape; all but the gradient are changed.
            A parameter of half precision is computed in float32.
        disposable: the gradient may be changed too.
    """
    if disposable not in program.kept:
        program.kept[disposable] = schedule(program, disposable)
    steps, shaped = program.kept[disposable]
    theta = tensors[0]
    chunks: Iterable[Sequence[Tensor]] = [tensors]
    splits = theta.numel() > CHUNK and theta.dim() == 1 and not program.layerwise
    if splits and (shaped or theta.dtype in HALF):
        chunks = zip(*(tensor.split(CHUNK) for tensor in tensors), strict=True)
    scratch: list[Tensor] = []
    for theta, g, *state in chunks:
        work = theta.float() if theta.dtype in HALF else theta
        if not scratch or scratch[0].shape != theta.shape:
            scratch = [torch.empty_like(work) if full else work.new_empty(()) for full in shaped]
        places = [work, g if work is theta else g.float(), *state, *scratch]
        for operation, operands, number, out in steps:
            if number < 0:
                operation(*[places[i] for i in operands], out=places[out])
            else:
                operation(*[places[i] for i in operands], numbers[number], out=places[out])
        if work is not theta:
            theta.copy_(work)


def apply(program: Program, numbers: Sequence[Any], tensors: Sequence[Tensor]) -> list[Tensor]:
    """What a program makes of its tensors: the new parameter and state, in new tensors."""
    places = list(tensors)
    for name, operands, number in program.operations:
        read = [places[i] for i in operands]
        places.append(FORMULAS[name](*read, *([numbers[number]] if number >= 0 else [])))
    return [places[i] for i in program.outputs]


def build(program: Program, theta: Tensor) -> None:
    """Compile a program for such a parameter, unless that has been done.

    Raises:
        RuntimeError: no compiler is found, or it fails.
    """
    key = theta.dtype, theta.device, theta.numel() > GRAIN
    if key not in program.kept:
        count = max((number for _, _, number in program.operations), default=-1) + 1
        kernel = _compile(program.inputs, program.operations, program.outputs, count, *key)
        room = numpy.zeros(max(count, 1), str(working(theta.dtype)).removeprefix("torch."))
        program.kept[key] = kernel, room, torch.from_numpy(room)


def run_compiled(program: Program, numbers: Sequence[float], tensors: Sequence[Tensor]) -> None:
    """Run a program as one kernel, which serves flat tensors of any length and any numbers.

    Args:
        program: what to do; it must be built.
        numbers: its numbers.
        tensors: as for :func:`run`, each of one dimension.
    """
    theta = tensors[0]
    kernel, room, slots = program.kept[theta.dtype, theta.device, theta.numel() > GRAIN]
    room[: len(numbers)] = numbers
    kernel([slots.to(theta.device), *tensors])


@functools.lru_cache(maxsize=256)
def _compile(
    inputs: int,
    operations: tuple[Operation, ...],
    outputs: tuple[int, ...],
    count: int,
    dtype: torch.dtype,
    device: torch.device,
    large: bool,
) -> Kernel:
    # Imported here: the compiler takes a second that only those who use it should spend.
    from torch._guards import TracingContext, tracing
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.decomposition import select_decomp_table
    from torch.fx.experimental.proxy_tensor import make_fx

    program, work = Program(inputs, operations, outputs), working(dtype)

    def kernel(numbers: Tensor, theta: Tensor, g: Tensor, *state: Tensor) -> tuple[()]:
        results = apply(program, numbers.unbind(), [theta.to(work), g.to(work), *state])
        for old, new in zip((theta, *state), results, strict=True):
            old.copy_(new)
        return ()

    # The kernel serves every length; the compiler takes this one for the usual, and decides by it
    # whether several threads are worth their start.
    usual = 2 * GRAIN if large else 64
    shapes = [(count or 1, work), *[(usual, dtype)] * 2, *[(usual, work)] * (inputs - 2)]
    examples = [torch.ones(size, dtype=kind, device=device) for size, kind in shapes]
    graph = make_fx(kernel, select_decomp_table(), tracing_mode="symbolic")(*examples)
    shapes_of = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
    # Not torch.compile(), whose guards cost more at each call than a small network's update.
    with tracing(TracingContext(shapes_of[0].fake_mode)):
        made: Any = compile_fx_inner(graph, shapes_of)
    return made.current_callable  # type: ignore[no-any-return]
