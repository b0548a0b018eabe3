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
    lent = p.device.type == "cpu" and p.is_shared()  # to other processes
    own = p.untyped_storage().resizable() and sole(p) and not lent
    return p.numel() <= SMALL and dense(p) and own


def pack(
    like: Sequence[Tensor], dtype: torch.dtype, value: complex | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Make new memory for dense tensors, one after the other.

    Args:
        like: tensors of their shapes and strides; their entries are copied.
        dtype: of the new ones.
        value: fill them with this instead.

    Returns:
        All of them as one flat tensor, and each by itself.  On a CPU each has a storage of its
        own, so that saving one does not save them all.
    """
    device, sizes = like[0].device, [tensor.numel() for tensor in like]
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
    pairs = zip(pieces, like, strict=True)
    pieces = [piece.as_strided(tensor.shape, tensor.stride()) for piece, tensor in pairs]
    if value is None:
        torch._foreach_copy_(pieces, list(like))
    else:
        flat.fill_(value)
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
    params: Sequence[Tensor],
    indices: Sequence[int],
    past: Callable[[Tensor], Hashable],
    apart: bool = False,
) -> list[list[list[int]]]:
    """Which of the parameters form a block, and in a block those that are packed together.

    Args:
        params: a group's parameters.
        indices: those to place.
        past: of a parameter, what must agree in a block.
        apart: pack none.

    Returns:
        Indices, block by block and part by part; in a part those with equal rows side by side, the
        most frequent first.
    """
    blocks: dict[Hashable, list[list[int]]] = {}
    begun: dict[Hashable, tuple[list[int], int]] = {}
    for i in indices:
        p = params[i]
        size, key = p.numel(), (p.device, p.dtype, past(p))
        parts = blocks.setdefault(key, [])
        if apart or not packable(p):
            parts.append([i])
            continue
        part, filled = begun.get(key, ([], FULL))
        if filled + size > FULL:
            part, filled = [], 0
            parts.append(part)
        part.append(i)
        begun[key] = part, filled + size
    for part in itertools.chain.from_iterable(blocks.values()):
        rows = {i: row(params[i]) for i in part}
        often = [shape for shape, _ in Counter(rows.values()).most_common()]
        order = {i: often.index(shape) for i, shape in rows.items()}
        part.sort(key=order.__getitem__)
    return list(blocks.values())


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
