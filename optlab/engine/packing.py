"""Packing: small tensors moved into one stretch of memory, each still a tensor of its own."""

import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

#: Parameters of at most so many elements are packed, in blocks of at most so many.
SMALL, FULL = 2**15, 2**19
#: From so many tensors with equal rows on, joining them is quicker than copying each.
RUN = 4
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


def row(tensor: Tensor) -> tuple[int, ...] | None:
    """The shape of a tensor's rows, where these lie one after the other."""
    return tuple(tensor.shape[1:]) if tensor.dim() and tensor.is_contiguous() else None


def partition(
    params: Sequence[Tensor], indices: Sequence[int], past: Callable[[Tensor], Hashable]
) -> list[list[int]]:
    """Which of the parameters form a block: small ones whose past is the same, and each other one.

    Args:
        params: a group's parameters.
        indices: those to place.
        past: of a parameter, what must agree in a block.

    Returns:
        Indices, block by block; those with equal rows side by side, the most frequent first.
    """
    blocks: list[list[int]] = []
    begun: dict[Hashable, list[int]] = {}
    sizes: dict[Hashable, int] = {}
    for i in indices:
        p = params[i]
        key = (p.device, p.dtype, past(p)) if packable(p) else i
        if key not in begun or sizes[key] + p.numel() > FULL:
            begun[key], sizes[key] = [], 0
            blocks.append(begun[key])
        begun[key].append(i)
        sizes[key] += p.numel()
    for block in blocks:
        rows = {i: row(params[i]) for i in block}
        often = [shape for shape, _ in Counter(rows.values()).most_common()]
        block.sort(key=lambda i: often.index(rows[i]))
    return blocks


class Gatherer:
    """Copies tensors, such as gradients, one after the other into a flat one.

    Args:
        flat: where to.
        like: tensors of their shapes and strides, in the order of :func:`partition`.
    """

    def __init__(self, flat: Tensor, like: Sequence[Tensor]) -> None:
        self.runs: list[tuple[slice, Tensor]] = []
        start = place = 0
        for shape, members in itertools.groupby(like, row):
            run = list(members)
            if shape is None or len(run) < RUN:
                break
            size = sum(tensor.numel() for tensor in run)
            self.runs.append((slice(start, start + len(run)), flat[place:][:size].view(-1, *shape)))
            start, place = start + len(run), place + size
        self.rest = slice(start, None)
        parts = flat[place:].split([tensor.numel() for tensor in like[start:]])
        self.slots = [
            part.as_strided(tensor.shape, tensor.stride())
            for part, tensor in zip(parts, like[start:], strict=True)
        ]

    def __call__(self, tensors: tuple[Tensor, ...]) -> None:
        """Copy; the tensors' own strides do not matter."""
        for run, out in self.runs:
            torch.cat(tensors[run], out=out)
        if self.slots:
            torch._foreach_copy_(self.slots, tensors[self.rest])
