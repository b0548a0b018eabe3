"""Buckets: gradients of several parameters that travel in one message."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from optlab.distributed.timeline import Recorder

#: The largest entry of a bucket in float16 is in (2^14, 2^15], so that no sum of shares of it, not
#: even rounded upwards, is above 65504.
LARGEST = 2.0**15


class Bucket:
    """Gradients of parameters of one dtype and device, and their all-reduce.

    A message has the gradients, one after the other and multiplied by the rank's share, and then
    for each parameter a one where this rank has a gradient.

    Args:
        name: for the time line.
        params: whose ``.grad`` is sent and replaced.
        group: the ranks.
        compressed: whether to send float16.
        recorder: gets a span for each message.

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
    ) -> None:
        self.name, self.params, self.arrived = name, params, set[Tensor]()
        self._group, self._compressed, self._recorder = group, compressed, recorder
        self._sizes = [p.numel() for p in params]

    @property
    def full(self) -> bool:
        """Whether all gradients are there."""
        return len(self.arrived) == len(self.params)

    def send(self, share: float | Tensor, silent: bool) -> None:
        """Begin the all-reduce; on all ranks in the same order.

        Args:
            share: of this rank in the mean.
            silent: this rank has no gradients, whatever the parameters hold.
        """
        grads = [None if silent else p.grad for p in self.params]
        self._absent = [grad is None for grad in grads]
        kind = self.params[0]
        pieces = [
            kind.new_zeros(size) if grad is None else grad.reshape(-1)
            for grad, size in zip(grads, self._sizes, strict=True)
        ]
        present = kind.new_ones(len(grads))
        if any(self._absent):
            present[self._absent] = 0
        self._message = torch.cat([*pieces, present])
        self._scale: Tensor | None = None
        values = self._message[: -len(self.params)].mul_(share)
        if self._compressed:
            self._scale = self._common_scale(values)
            values.mul_(self._scale)
            self._message = self._message.half()
        begin = Recorder.now() if self._recorder else 0.0
        work = distributed.all_reduce(self._message, group=self._group, async_op=True)
        if self._recorder:
            done = functools.partial(self._recorder.add, self.name, "communication", begin)
            self._arrival = work.get_future().then(lambda _: done())
        else:
            self._arrival = work

    def receive(self) -> None:
        """Wait for the means, and put them in the place of the gradients.

        Where no rank has a gradient of a parameter, its ``.grad`` stays as it is.
        """
        self._arrival.wait()
        message = self._message.to(self.params[0].dtype)
        del self._message  # the memory is the gradients' alone
        count = len(self.params)
        if self._scale is not None:
            message[:-count].div_(self._scale)
        *means, used = message.split([*self._sizes, count])
        # Elsewhere a gradient may be where there is none here; asking waits for the device.
        flags = used.tolist() if any(self._absent) else [1.0] * count
        for p, mean, flag in zip(self.params, means, flags, strict=True):
            if flag:
                mean = mean.view(p.shape)
                p.grad = mean if p.is_contiguous() else torch.empty_like(p).copy_(mean)

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


def fill(params: Iterable[Tensor], most: int) -> list[list[Tensor]]:
    """Share parameters out to buckets, the last ones first: their gradients are there first.

    Args:
        params: in the order of the model.
        most: bytes in a bucket; a parameter that is larger has one of its own.

    >>> sizes = [[2], [3], [1]]
    >>> [[len(p) for p in bucket] for bucket in fill([torch.zeros(n) for n in sizes], 16)]
    [[1, 3], [2]]
    """
    buckets: list[list[Tensor]] = []
    for p in reversed([*params]):
        if buckets:
            last = buckets[-1]
            alike = (p.dtype, p.device) == (last[0].dtype, last[0].device)
            if alike and sum(q.nbytes for q in last) + p.nbytes <= most:
                last.append(p)
                continue
        buckets.append([p])
    return buckets


@torch.no_grad()
def broadcast(tensors: Iterable[Tensor], group: Any) -> None:
    """Give the first rank's tensors to all ranks, in a message for each dtype and device."""
    kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for alike in kinds.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in alike])
        distributed.broadcast(flat, group=group, group_src=0)
        if distributed.get_rank(group) != 0:
            pieces = flat.split([tensor.numel() for tensor in alike])
            for tensor, piece in zip(alike, pieces, strict=True):
                tensor.copy_(piece.view(tensor.shape))
