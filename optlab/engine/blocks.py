"""Blocks: the parameters of a group that have the same past, and so take the same step.

A network has many small tensors, and calling an operation costs more than it computes there.  So a
block packs its small parameters (:mod:`optlab.engine.packing`), and so their state; large ones stay
where they are.  What does not touch entries is done once for the whole block.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from itertools import chain
from operator import is_, itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from optlab.engine import kernels
from optlab.engine.packing import pack, partition
from optlab.engine.parts import Part, State
from optlab.engine.tape import Program, Recording


class Block:
    """Parameters, their state and their numbers.

    Args:
        parts: indices of parameters in their group, part by part.
        params: the group's parameters.
        state: the optimizer's state; what the parameters lack is filled in.
        memory: state of a parameter's shape: name, and entries at the start.
        numbers: state that is one number for each parameter, likewise.
        pool: where packed parameters' gradients are gathered; blocks share it.
    """

    def __init__(
        self,
        parts: Sequence[Sequence[int]],
        params: Sequence[Tensor],
        state: State,
        memory: Mapping[str, float],
        numbers: Mapping[str, float],
        pool: MutableMapping[Any, Tensor],
    ) -> None:
        self.indices = [*chain.from_iterable(parts)]
        self.params = [params[i] for i in self.indices]
        self.names = (*memory, *numbers)
        self.entries = [state[p] for p in self.params] if self.names else []
        values = [entry.get(name) for entry in self.entries for name in memory]
        self.fresh = all(value is None for value in values)
        self.numbers: dict[str, Tensor] = {}
        counted = []
        for name, first in numbers.items():
            # In float32, as torch has it, a product would be rounded at every step.
            dtype = torch.float32 if name == "step" else torch.float64
            values = [float(entry.get(name, first)) for entry in self.entries]
            past = torch.tensor(values, dtype=dtype).unbind()
            self.numbers[name], pieces = pack(past, dtype)
            counted.append(pieces)
            del past  # before the parts take most of the memory
        self.parts: list[Part] = []
        start = 0
        for indices in parts:
            place = slice(start, start + len(indices))
            self.parts.append(Part(place, self.params[place], state, memory, pool))
            start = place.stop
        self.packed = any(part.packed for part in self.parts)
        columns = [[piece for part in self.parts for piece in part.pieces[n]] for n in memory]
        columns += counted
        rows = list(zip(*columns, strict=True))
        for entry, row in zip(self.entries, rows, strict=True):
            entry.update(zip(self.names, row, strict=True))
        self.pieces = [*chain.from_iterable(rows)]
        self.places = list(map(Tensor.data_ptr, self.params))
        # Transposed where they are, these would keep place and shape.
        self._squares = [p for p in self.params if len({*p.shape}) < p.dim()]
        self._strides = list(map(Tensor.stride, self._squares))
        self._built: Program | None = None
        self._entry = itemgetter(*self.names) if self.names else None
        self._own = itemgetter(*self.indices)

    def fits(self, state: State, memory: Mapping[str, float]) -> bool:
        """Whether all of this is still where it was, has that state, and agrees in its numbers."""
        if list(map(Tensor.data_ptr, self.params)) != self.places:
            return False
        if list(map(Tensor.stride, self._squares)) != self._strides:
            return False
        if self._entry is None:
            return not memory
        if not all(map(is_, map(state.get, self.params), self.entries)):
            return False
        try:
            found = map(self._entry, self.entries)
            pieces = chain.from_iterable(found) if len(self.names) > 1 else found
            if not all(map(is_, pieces, self.pieces)):
                return False
        except KeyError:
            return False
        for each in self.numbers.values():
            if len({*each.tolist()}) > 1:
                return False
        return self.parts[0].memory.keys() >= memory.keys()

    def pick(self, grads: Sequence[Tensor | None]) -> tuple[Any, ...]:
        """The gradients of these parameters among the group's: all, or only None."""
        own = self._own(grads)
        return own if len(self.indices) > 1 else (own,)

    def number(self, name: str) -> float:
        """One of the numbers, the same for all parameters."""
        return self.numbers[name][0].item()

    def build(self, program: Program) -> None:
        """Compile what the block is to run; nothing moves."""
        if self._built is not program:
            for part in self.parts:
                if part.flat:
                    kernels.build(program, part.theta)
            self._built = program

    def update(
        self,
        recording: Recording,
        names: Sequence[str],
        counted: Mapping[str, float],
        grads: tuple[Tensor, ...],
        *,
        compile: bool,
    ) -> None:
        """Run a recorded rule.

        Args:
            recording: the rule.
            names: its state, in the rule's order.
            counted: what the numbers are from now on.
            grads: of the parameters, in their order.
            compile: run it as one kernel.
        """
        program, numbers, _ = recording
        for part in self.parts:
            tensors = [part.theta, part.gradient(grads), *[part.memory[name] for name in names]]
            if compile and part.flat:
                kernels.run_compiled(program, numbers, tensors)
            elif part.plain:
                kernels.run(program, numbers, tensors, part.packed)
            else:  # of another library, perhaps without operations in place
                results = kernels.apply(program, numbers, tensors)
                for old, new in zip((part.theta, *tensors[2:]), results, strict=True):
                    old.copy_(new)
        increment_version(self.params)
        for name, value in counted.items():
            self.numbers[name].fill_(value)
        self.fresh = False


class Arrangement:
    """The blocks of a parameter group, made anew where parameters or state are no more the same."""

    def __init__(self) -> None:
        self.params: list[Tensor] = []
        self.blocks: list[Block] = []
        self.dropped: list[Block] = []

    def fits(
        self,
        params: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        complete: bool,
        state: State,
        memory: Mapping[str, float],
    ) -> bool:
        """Whether each gradient has its block, and each block all of its gradients, or none.

        Args:
            params: the group's parameters.
            grads: their gradients.
            complete: whether all of them are there.
            state, memory: as for :class:`Block`.
        """
        same = len(self.params) == len(params) and all(map(is_, self.params, params))
        kept: list[Block] = []
        for block in self.blocks:
            absent = 0
            if same and not complete:
                absent = sum([grads[i] is None for i in block.indices])
            whole = absent == len(block.params) or (absent == 0 and block.fits(state, memory))
            (kept if same and whole else self.dropped).append(block)
        self.params, self.blocks = list(params), kept
        if not self.dropped and sum([len(block.params) for block in kept]) == len(params):
            return True
        placed = {i for block in kept for i in block.indices}
        return all(g is None or i in placed for i, g in enumerate(grads))

    def renew(
        self,
        grads: Sequence[Tensor | None],
        state: State,
        memory: Mapping[str, float],
        numbers: Mapping[str, float],
        pool: MutableMapping[Any, Tensor],
        apart: bool,
    ) -> None:
        """Make blocks for the gradients that have none.

        Args:
            grads: the group's gradients.
            state, memory, numbers, pool: as for :class:`Block`.
            apart: pack no parameters.
        """
        # Parameters that were apart stay so: else those that come and go would move every time.
        origin = {p: number for number, block in enumerate(self.dropped) for p in block.params}
        for block in self.dropped:
            for part in block.parts:
                part.release()

        def past(p: Tensor) -> tuple[Any, ...]:
            entry = state.get(p, {})
            counted = [float(entry.get(name, start)) for name, start in numbers.items()]
            return origin.get(p), *counted, *[entry.get(name) is None for name in memory]

        placed = {i for block in self.blocks for i in block.indices}
        rest = [i for i, g in enumerate(grads) if g is not None and i not in placed]
        for parts in partition(self.params, rest, past, apart):
            self.blocks.append(Block(parts, self.params, state, memory, numbers, pool))
        self.dropped = []
