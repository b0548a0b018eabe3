"""Buckets: gradients of several parameters that travel in one message."""

import functools
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from optlab.distributed.timeline import Recorder

#: The largest entry of a bucket in float16 is in (2^14, 2^15], so that no sum of shares of it, not
#: even rounded upwards, is above 65504.
LARGEST = 2.0**15
#: Bytes of which a bucket's memory is a multiple, so that entries of any type can follow.
ALIGNED = 64


class Bucket:
    """Gradients of parameters of one dtype and device, and their all-reduce.

    Where ranks have memory in common, each writes its share there, and :meth:`receive` adds them
    up.  Else there is a message: that of a single parameter from where it is, others from a copy,
    side by side.

    Args:
        name: for the time line.
        params: whose ``.grad`` is sent and replaced.
        group: the ranks.
        compressed: whether to send float16.
        recorder: gets a span for each message.
        memory: in common, of :func:`room` bytes for as many ranks.

    Attributes:
        arrived: parameters whose gradient is there, of the backward pass under way.
    """

    def __init__(
        self,
        name: str,
        params: Sequence[Tensor],
        group: Any,
        compressed: bool,
        recorder: Recorder | None,
        memory: Tensor | None = None,
    ) -> None:
        self.name, self.params, self.arrived = name, params, set[Tensor]()
        self._group, self._compressed, self._recorder = group, compressed, recorder
        self._rank, self._turn = distributed.get_rank(group), 0
        self._shares: Tensor | None = None
        if memory is not None:
            ranks, entries = distributed.get_world_size(group), sum(p.numel() for p in params)
            used = memory[: 2 * ranks * entries * params[0].itemsize]
            self._shares = used.view(params[0].dtype).view(2, ranks, entries)

    @property
    def full(self) -> bool:
        """Whether all gradients are there."""
        return len(self.arrived) == len(self.params)

    def send(self, share: float | Tensor, silent: bool) -> None:
        """Write the share, or begin the all-reduce; on all ranks in the same order.

        Args:
            share: of this rank in the mean.
            silent: send zeros, whatever the gradients are.
        """
        lines = [
            torch.zeros_like(p).reshape(-1) if silent or p.grad is None else p.grad.reshape(-1)
            for p in self.params
        ]
        if self._shares is not None:
            torch.cat(lines, out=self._shares[self._turn, self._rank]).mul_(share)
            return
        self._message = lines[0] if len(lines) == 1 else torch.cat(lines)
        self._message.mul_(share)
        self._scale: Tensor | None = None
        if self._compressed:
            self._scale = self._common_scale(self._message)
            self._message = (self._message * self._scale).half()
        begin = Recorder.now() if self._recorder else 0.0
        work = distributed.all_reduce(self._message, group=self._group, async_op=True)
        if self._recorder:
            done = functools.partial(self._recorder.add, self.name, "communication", begin)
            self._arrival = work.get_future().then(lambda _: done())
        else:
            self._arrival = work

    def receive(self, used: Container[Tensor]) -> None:
        """Wait for the means, and put them in the place of the gradients of those in ``used``.

        With memory in common, all ranks must have met.
        """
        message = self._arrived() if self._shares is None else self._added(self._shares)
        means = message.split([p.numel() for p in self.params])
        for p, mean in zip(self.params, means, strict=True):
            if p in used:
                mean = mean.view(p.shape)
                p.grad = mean if p.is_contiguous() else torch.empty_like(p).copy_(mean)

    def _added(self, shares: Tensor) -> Tensor:
        """The sum over ranks of what they have written this turn."""
        begin = Recorder.now() if self._recorder else 0.0
        total = shares[self._turn].sum(0)
        self._turn = 1 - self._turn
        if self._recorder:
            self._recorder.add(self.name, "communication", begin)
        return total

    def _arrived(self) -> Tensor:
        """The message, when it is there."""
        self._arrival.wait()
        message = self._message
        del self._message  # the memory is the gradients' alone
        if self._scale is None:
            return message
        return message.to(self.params[0].dtype).div_(self._scale)

    def _common_scale(self, values: Tensor) -> Tensor:
        """The power of two that makes the largest entry of all ranks fit; 1 where it is not finite.

        The shares of all ranks add up to one at most: the sum is no larger than the largest
        gradient, and that is at most the ranks' number times the largest share of one.
        """
        largest = values.abs().amax().float()
        largest = torch.where(largest.isfinite(), largest, torch.inf)
        distributed.all_reduce(largest, distributed.ReduceOp.MAX, self._group)
        largest = largest * distributed.get_world_size(self._group)
        usable = largest.isfinite() & (largest > 0)
        scale = torch.exp2(torch.floor(torch.log2(LARGEST / largest)))
        return torch.where(usable, scale, 1.0).to(values.dtype)


def room(params: Iterable[Tensor], ranks: int) -> int:
    """Bytes of a bucket's memory in common: of all ranks' shares in two turns.

    One turn is read while the next is written.  A rank begins to write over this one when all have
    written the next, for which they must have read it.
    """
    size = 2 * ranks * sum(p.nbytes for p in params)
    return -(-size // ALIGNED) * ALIGNED


def fill(params: Iterable[Tensor], most: int) -> list[list[Tensor]]:
    """Share parameters out to buckets, the last ones first: their gradients are there first.

    Args:
        params: in the order of the model.
        most: bytes in a bucket; a parameter that has as many is alone.

    Returns:
        Buckets in the order in which they are complete.

    >>> sizes = [[2], [1], [8], [1], [2]]
    >>> [[len(p) for p in bucket] for bucket in fill([torch.zeros(n) for n in sizes], 16)]
    [[8], [2, 1, 1], [2]]
    """
    buckets: list[list[Tensor]] = []
    begun: list[Tensor] = []
    for p in reversed([*params]):
        if p.nbytes >= most:
            buckets.append([p])
            continue
        alike = all((p.dtype, p.device) == (q.dtype, q.device) for q in begun)
        if begun and not (alike and sum(q.nbytes for q in begun) + p.nbytes <= most):
            buckets.append(begun)
            begun = []
        begun.append(p)
    return [*buckets, begun] if begun else buckets


@torch.no_grad()
def broadcast(
    tensors: Iterable[Tensor], group: Any, send: Callable[[Tensor], object] | None = None
) -> None:
    """Give the first rank's tensors to all ranks, side by side for each dtype and device.

    Args:
        tensors: are overwritten, on other ranks than the first.
        group: the ranks.
        send: overwrites a tensor with the first rank's; by a message, by default.
    """
    kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for alike in kinds.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in alike])
        if send is None:
            distributed.broadcast(flat, group=group, group_src=0)
        else:
            send(flat)
        if distributed.get_rank(group) != 0:
            pieces = flat.split([tensor.numel() for tensor in alike])
            for tensor, piece in zip(alike, pieces, strict=True):
                tensor.copy_(piece.view(tensor.shape))
