"""Blocks: parameters of one group that are updated in one go, as one flat tensor.

A network has many small tensors, and calling an operation costs more than it computes there.  So
small parameters with the same past are packed (:mod:`optlab.engine.packing`), and so is their
state.  A large parameter is a block by itself and stays where it is.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from itertools import chain
from operator import is_, itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from optlab.engine import kernels
from optlab.engine.packing import Gatherer, dense, line, pack, partition, real, sole
from optlab.engine.tape import Recording

State = MutableMapping[Tensor, dict[str, Any]]


class Block:
    """Parameters, their state and their numbers, each as one tensor.

    Args:
        indices: where the parameters stand in their group.
        params: the parameters: one, or packable ones of one dtype and device.
        state: the optimizer's state; what the parameters lack is filled in.
        memory: state of a parameter's shape: name, and entries at the start.
        numbers: state that is one number for each parameter, likewise.
        pool: where packed parameters' gradients are gathered; blocks share it.
    """

    def __init__(
        self,
        indices: Sequence[int],
        params: Sequence[Tensor],
        state: State,
        memory: Mapping[str, float],
        numbers: Mapping[str, float],
        pool: MutableMapping[Any, Tensor],
    ) -> None:
        self.indices, self.params = tuple(indices), tuple(params)
        self.packed, self.flat = len(params) > 1, dense(params[0])
        self.dtype = kernels.working(params[0].dtype)
        self.names = (*memory, *numbers)
        self.entries = [state[p] for p in params] if self.names else []
        values = [entry.get(name) for entry in self.entries for name in memory]
        self.fresh = all(value is None for value in values)
        self.theta = params[0].detach()
        if self.packed:
            self.theta, pieces = pack(params, params[0].dtype)
            for p, piece in zip(params, pieces, strict=True):
                p.data = piece
            self._gather_in(pool)
        self.theta = self._seen(self.theta)
        self.places = list(map(Tensor.data_ptr, params))
        self.memory: dict[str, Tensor] = {}
        self.numbers: dict[str, Tensor] = {}
        columns = []
        for name, start in memory.items():
            pieces = [self._past(p, state[p].get(name), start) for p in params]
            whole = pieces[0]
            if self.packed:
                whole, pieces = pack(pieces, self.dtype)
            self.memory[name] = self._seen(whole)
            columns.append(pieces)
        for name, start in numbers.items():
            # In float32, as torch has it, a product would be rounded at every step.
            dtype = torch.float32 if name == "step" else torch.float64
            past = [torch.tensor(float(entry.get(name, start))) for entry in self.entries]
            self.numbers[name], pieces = pack(past, dtype)
            columns.append(pieces)
        for entry, *pieces in zip(self.entries, *columns, strict=True):
            entry.update(zip(self.names, pieces, strict=True))
        self.pieces = list(chain.from_iterable(zip(*columns, strict=True)))
        self._entry = itemgetter(*self.names) if self.names else None
        self._own = itemgetter(*indices)

    def _gather_in(self, pool: MutableMapping[Any, Tensor]) -> None:
        key, size = (self.theta.device, self.theta.dtype), self.theta.numel()
        if key not in pool or pool[key].numel() < size:
            pool[key] = torch.empty_like(self.theta)
        self.gather = Gatherer(pool[key][:size], self.params)
        self.gathered = line(pool[key][:size])

    def _seen(self, tensor: Tensor) -> Tensor:
        return line(tensor) if self.flat else real(tensor)

    def _past(self, p: Tensor, value: Tensor | None, start: float) -> Tensor:
        """The state of a parameter, in its layout and device, and float32 for half precision."""
        if value is None:
            return torch.full_like(p, start, dtype=self.dtype, requires_grad=False)
        if (value.dtype, value.device, value.stride()) == (self.dtype, p.device, p.stride()):
            return value
        return torch.empty_like(p, dtype=self.dtype, requires_grad=False).copy_(value)

    def fits(self, state: State, memory: Mapping[str, float]) -> bool:
        """Whether all of this is still where it was, has that state, and agrees in its numbers."""
        if list(map(Tensor.data_ptr, self.params)) != self.places:
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
        return self.memory.keys() >= memory.keys()

    def release(self) -> None:
        """Give the parameters memory of their own again, but where somebody has a view of it."""
        if self.packed:
            for p, place in zip(self.params, self.places, strict=True):
                if p.data_ptr() == place and sole(p):
                    p.data = p.data.clone()

    def pick(self, grads: Sequence[Tensor | None]) -> Sequence[Any]:
        """The gradients of these parameters among the group's: all, or only None."""
        own = self._own(grads)
        return own if self.packed else (own,)

    def number(self, name: str) -> float:
        """One of the numbers, the same for all parameters."""
        return self.numbers[name][0].item()

    def update(
        self,
        recording: Recording,
        names: Sequence[str],
        counted: Mapping[str, float],
        grads: Sequence[Tensor],
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
        program, numbers = recording.program, recording.numbers
        tensors = [self.theta, self._gradient(grads), *[self.memory[name] for name in names]]
        if type(self.theta) is not Tensor:  # of another library, without operations in place
            results = kernels.apply(program, numbers, tensors)
            for old, new in zip((self.theta, *tensors[2:]), results, strict=True):
                old.copy_(new)
        elif compile and self.flat:
            kernels.run_compiled(program, numbers, tensors)
        else:
            kernels.run(program, numbers, tensors)
        increment_version(self.params)
        for name, value in counted.items():
            self.numbers[name].fill_(value)
        self.fresh = False

    def _gradient(self, grads: Sequence[Tensor]) -> Tensor:
        if self.packed:
            self.gather(tuple(grads))
            return self.gathered
        (p,), (g,) = self.params, grads
        if not self.flat:
            return real(g)
        if g.stride() != p.stride() or type(g) is not Tensor:
            g = torch.empty_like(p).copy_(g)
        return line(g)


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
    ) -> None:
        """Make blocks for the gradients that have none.

        Args:
            grads: the group's gradients.
            state, memory, numbers, pool: as for :class:`Block`.
        """
        # Parameters that were apart stay so: else those that come and go would move every time.
        origin = {p: number for number, block in enumerate(self.dropped) for p in block.params}
        for block in self.dropped:
            block.release()

        def past(p: Tensor) -> tuple[Any, ...]:
            entry = state.get(p, {})
            counted = [float(entry.get(name, start)) for name, start in numbers.items()]
            return origin.get(p), *counted, *[entry.get(name) is None for name in memory]

        placed = {i for block in self.blocks for i in block.indices}
        rest = [i for i, g in enumerate(grads) if g is not None and i not in placed]
        for indices in partition(self.params, rest, past):
            chosen = [self.params[i] for i in indices]
            self.blocks.append(Block(indices, chosen, state, memory, numbers, pool))
        self.dropped = []
