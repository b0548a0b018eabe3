"""Blocks: parameters of one group that are updated in one go, as one flat tensor.

A network has many small tensors, and calling an operation costs more than it computes there.  So
small parameters with the same past are moved into one stretch of memory, one after the other, and
so is their state; each remains a tensor of its own, with its own storage, shape and strides.  A
large parameter is a block by itself and stays where it is.
"""

import itertools
from collections.abc import Callable, Hashable, Mapping, MutableMapping, Sequence
from operator import is_
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from optlab import kernels
from optlab.tape import Recording

#: Parameters of at most so many elements are packed, in blocks of at most so many.
SMALL, FULL = 2**15, 2**18
PLAIN = (Tensor, torch.nn.Parameter)
#: The references to a storage that only its tensor holds: the tensor's, and that of who asks.
SOLE = 2


def dense(tensor: Tensor) -> bool:
    """Whether a tensor of torch's own kind fills a stretch of memory, in whatever order."""
    kind = type(tensor) in PLAIN and tensor.numel() > 0
    return kind and torch.empty_like(tensor, device="meta").stride() == tensor.stride()


def sole(tensor: Tensor) -> bool:
    """Whether nobody else sees this tensor's memory."""
    storage = tensor.untyped_storage()
    whole = storage.nbytes() == tensor.numel() * tensor.element_size()
    return whole and torch._C._storage_Use_Count(storage._cdata) == SOLE


def packable(p: Tensor) -> bool:
    """Whether a parameter is small and may move without anybody noticing."""
    return p.numel() <= SMALL and dense(p) and p.untyped_storage().resizable() and sole(p)


def pack(tensors: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    """Copy dense tensors, one after the other, into new memory.

    Returns:
        All of them as one flat tensor, and each with its shape and strides.  On a CPU each has a
        storage of its own, so that saving one does not save them all.
    """
    device, sizes = tensors[0].device, [tensor.numel() for tensor in tensors]
    flat = torch.empty(sum(sizes), dtype=dtype, device=device)
    if device.type == "cpu":
        memory = flat.view(torch.uint8).numpy()
        starts = [size * flat.element_size() for size in itertools.accumulate(sizes, initial=0)]
        pieces = [
            torch.frombuffer(memory, dtype=dtype, count=size, offset=start)
            for size, start in zip(sizes, starts, strict=False)
        ]
    else:
        pieces = list(flat.split(sizes))
    pieces = [
        piece.as_strided(tensor.shape, tensor.stride())
        for piece, tensor in zip(pieces, tensors, strict=True)
    ]
    torch._foreach_copy_(pieces, list(tensors))
    return flat, pieces


def real(tensor: Tensor) -> Tensor:
    """The entries as real numbers: rules treat real and imaginary parts apart."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def line(tensor: Tensor) -> Tensor:
    """The entries of a dense tensor in the order of memory, as real numbers."""
    return real(tensor.as_strided((tensor.numel(),), (1,))).view(-1)


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
        state: Mapping[Tensor, dict[str, Any]],
        memory: Mapping[str, float],
        numbers: Mapping[str, float],
        pool: MutableMapping[Any, Tensor],
    ) -> None:
        self.indices, self.params = tuple(indices), tuple(params)
        keeps = bool(memory or numbers)
        self.entries = [state[p] if keeps else state.get(p) for p in params]
        self.fresh = keeps and not any(name in entry for entry in self.entries for name in memory)
        self.packed, self.flat = len(params) > 1, dense(params[0])
        self.dtype = kernels.working(params[0].dtype)
        self.theta = params[0].detach()
        if self.packed:
            self.theta, pieces = pack(params, params[0].dtype)
            for p, piece in zip(params, pieces, strict=True):
                p.data = piece
            self._gather_in(pool)
        self.theta = self._seen(self.theta)
        self.pieces: dict[str, list[Tensor]] = {}
        self.memory: dict[str, Tensor] = {}
        self.numbers: dict[str, Tensor] = {}
        for name, start in memory.items():
            pieces = [self._past(p, state[p].get(name), start) for p in params]
            whole = pieces[0]
            if self.packed:
                whole, pieces = pack(pieces, self.dtype)
            self.memory[name] = self._seen(whole)
            self._keep(name, pieces)
        for name, start in numbers.items():
            # In float32, as torch has it, a product would be rounded at every step.
            dtype = torch.float32 if name == "step" else torch.float64
            past = [torch.tensor(float(entry.get(name, start))) for entry in self.entries]
            self.numbers[name], pieces = pack(past, dtype)
            self._keep(name, pieces)
        self.places = [p.data_ptr() for p in params]
        self._chunks: dict[Any, list[tuple[Tensor, ...]]] = {}

    def _gather_in(self, pool: MutableMapping[Any, Tensor]) -> None:
        key, size = (self.theta.device, self.theta.dtype), self.theta.numel()
        if key not in pool or pool[key].numel() < size:
            pool[key] = torch.empty_like(self.theta)
        gathered = pool[key][:size]
        parts = gathered.split([p.numel() for p in self.params])
        shapes = [(p.shape, p.stride()) for p in self.params]
        self.slots = [part.as_strided(*shape) for part, shape in zip(parts, shapes, strict=True)]
        self.gathered = line(gathered)

    def _seen(self, tensor: Tensor) -> Tensor:
        return line(tensor) if self.flat else real(tensor)

    def _past(self, p: Tensor, value: Tensor | None, start: float) -> Tensor:
        """The state of a parameter, in its layout and device, and float32 for half precision."""
        if value is None:
            return torch.full_like(p, start, dtype=self.dtype, requires_grad=False)
        if (value.dtype, value.device, value.stride()) == (self.dtype, p.device, p.stride()):
            return value
        return torch.empty_like(p, dtype=self.dtype, requires_grad=False).copy_(value)

    def _keep(self, name: str, pieces: list[Tensor]) -> None:
        self.pieces[name] = pieces
        for entry, piece in zip(self.entries, pieces, strict=True):
            entry[name] = piece

    def fits(self, state: Mapping[Tensor, Any], names: Sequence[str]) -> bool:
        """Whether all of this is still where it was, has that state, and agrees in its numbers."""
        return (
            all(name in self.pieces for name in names)
            and [p.data_ptr() for p in self.params] == self.places
            and all(map(is_, map(state.get, self.params), self.entries))
            and all(
                all(map(is_, [entry.get(name) for entry in self.entries], pieces))
                for name, pieces in self.pieces.items()
            )
            and all(len(set(each.tolist())) == 1 for each in self.numbers.values())
        )

    def release(self) -> None:
        """Give the parameters memory of their own again, but where somebody has a view of it."""
        if self.packed:
            for p, place in zip(self.params, self.places, strict=True):
                if p.data_ptr() == place and sole(p):
                    p.data = p.data.clone()

    def number(self, name: str) -> float:
        """One of the numbers, the same for all parameters."""
        return float(self.numbers[name][0])

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
        program, numbers, _ = recording
        g, state = self._gradient(grads), [self.memory[name] for name in names]
        if type(self.theta) is not Tensor:  # of another library, without operations in place
            tensors = [self.theta, g, *state]
            for old, new in zip(
                [self.theta, *state], kernels.apply(program, numbers, tensors), strict=True
            ):
                old.copy_(new)
        elif compile and self.flat:
            kernels.compiled(program, self.theta.dtype, self.theta.device)(
                torch.tensor(numbers, dtype=self.dtype.to_real(), device=g.device),
                *(self.theta, g, *state),
            )
        else:
            kernels.run(program, numbers, self._chunked(g, tuple(names)))
        increment_version(self.params)
        for name, value in counted.items():
            self.numbers[name].fill_(value)
        self.fresh = False

    def _gradient(self, grads: Sequence[Tensor]) -> Tensor:
        if self.packed:
            torch._foreach_copy_(self.slots, list(grads))
            return self.gathered
        (p,), (g,) = self.params, grads
        if not self.flat:
            return real(g)
        if g.stride() != p.stride() or type(g) is not Tensor:
            g = torch.empty_like(p).copy_(g)
        return line(g)

    def _chunked(self, g: Tensor, names: tuple[str, ...]) -> list[tuple[Tensor, ...]]:
        lasting = [self.theta, *(self.memory[name] for name in names)]
        if not self.flat or g.device.type != "cpu" or g.numel() <= kernels.CHUNK:
            return [(lasting[0], g, *lasting[1:])]
        if names not in self._chunks:
            splits = [tensor.split(kernels.CHUNK) for tensor in lasting]
            self._chunks[names] = list(zip(*splits, strict=True))
        parts = zip(self._chunks[names], g.split(kernels.CHUNK), strict=True)
        return [(theta, part, *state) for (theta, *state), part in parts]


def partition(
    params: Sequence[Tensor], indices: Sequence[int], past: Callable[[Tensor], Hashable]
) -> list[list[int]]:
    """Which of the parameters form a block: small ones whose past is the same, and each other one.

    Args:
        params: a group's parameters.
        indices: those to place.
        past: of a parameter, what must agree in a block.
    """
    blocks: list[list[int]] = []
    begun: dict[Hashable, list[int]] = {}
    for i in indices:
        p = params[i]
        key = (p.device, p.dtype, past(p)) if packable(p) else i
        size = sum(params[j].numel() for j in begun.get(key, ()))
        if key not in begun or size + p.numel() > FULL:
            begun[key] = []
            blocks.append(begun[key])
        begun[key].append(i)
    return blocks
