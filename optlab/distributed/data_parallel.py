"""Data parallelism: a model on each rank, each with its part of the batch, and equal gradients."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, distributed, nn

from optlab.distributed.buckets import Bucket, broadcast, fill, room
from optlab.distributed.shared import Common, common_memory
from optlab.distributed.timeline import Recorder
from optlab.errors import check_choice, check_count, check_flag, check_range


class DataParallel(nn.Module):
    """A model whose gradients are averaged over the ranks of a group during the backward pass.

    Ranks begin with the first one's parameters and buffers.  Gradients are sent in buckets, the
    last layers' first, each as soon as it is complete, while the pass goes on (Li et al. 2020,
    section 3.2).  Ranks on the processors of one machine write them to memory in common instead,
    and add them up when all are there.  In the end, the ``.grad`` of every parameter is the mean
    over ranks: where each has as many samples, and a loss that is their mean, that is the gradient
    of the joined batch.

    A gradient that is None counts as zero, and stays None where it is so on all ranks.  What is
    averaged is what ``.grad`` holds, with what was accumulated under :meth:`no_sync`.  Where ranks
    have different numbers of samples, or one may have none, see :meth:`batch`.

    Hooks come on the parameters that require a gradient now.  No gradient of a gradient is
    possible, and a rank that raises leaves the others waiting until their group's timeout.

    Args:
        model: with the same parameters and buffers, by name, shape and dtype, on all ranks.
        process_group: the ranks; all of them by default.
        bucket_bytes: of a message at most, but for a parameter that has more; at least 1.
        compress: ``"fp16"`` halves float32's messages.  Gradients are scaled by a power of two, for
            which each bucket waits for the largest entry of all ranks.  With ``N`` ranks, the error
            of an entry is at most ``N 2^-11`` times the mean of its absolute values on the ranks,
            plus ``N^2 2^-39`` times the largest of its bucket.
        broadcast_buffers: give the first rank's buffers to all, before the first forward pass in
            training mode after an average.
        shared_memory: use memory in common where that can be: not between machines or GPUs, and not
            with ``compress``.  It has room for all ranks' gradients twice.
        recorder: gets the spans ``forward``, ``backward`` and one for each bucket.

    Attributes:
        module: the model.
        process_group: the ranks.

    Raises:
        RuntimeError: there is no process group; or the models differ, and then on all ranks, with
            the name of the first difference.
        ValueError: no parameter requires a gradient.

    >>> distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    >>> model = DataParallel(nn.Linear(2, 1))
    >>> model(torch.tensor([[3.0, 4.0]])).sum().backward()
    >>> model.module.weight.grad
    tensor([[3., 4.]])
    >>> distributed.destroy_process_group()
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        process_group: Any = None,
        bucket_bytes: int = 2**22,
        compress: str | None = None,
        broadcast_buffers: bool = True,
        shared_memory: bool = True,
        recorder: Recorder | None = None,
    ) -> None:
        super().__init__()
        check_count("bucket_bytes", bucket_bytes)
        check_flag("broadcast_buffers", broadcast_buffers)
        check_flag("shared_memory", shared_memory)
        if compress is not None:
            check_choice("compress", compress, ["fp16"])
        if not distributed.is_initialized():
            raise RuntimeError("call torch.distributed.init_process_group() before DataParallel()")
        self.module, self.recorder = model, recorder
        self.process_group = process_group or distributed.group.WORLD
        self._broadcast_buffers = broadcast_buffers
        settings = dict(bucket_bytes=bucket_bytes, compress=compress, buffers=broadcast_buffers)
        settings["shared_memory"] = shared_memory
        refuse_differing([*described(model), *settings.items()], self.process_group)
        self._names: dict[Tensor, str] = {
            p: name for name, p in model.named_parameters() if p.requires_grad
        }
        if not self._names:
            raise ValueError("the model has no parameter that requires a gradient")
        broadcast([*model.parameters(), *model.buffers()], self.process_group)
        self._common: Common | None = None
        self._turn = 0
        shares = fill(self._names, bucket_bytes)
        in_memory = shared_memory and compress is None
        memories = self._share_memory(shares) if in_memory else None
        self._buckets = [
            Bucket(f"bucket {i}", params, self.process_group, compress == "fp16", recorder, memory)
            for i, (params, memory) in enumerate(zip_longest(shares, memories or []))
        ]
        self._bucket_of = {p: bucket for bucket in self._buckets for p in bucket.params}
        self._hooks = [p.register_post_accumulate_grad_hook(self._arrived) for p in self._names]
        self._even = 1 / distributed.get_world_size(self.process_group)
        self._share: float | Tensor = self._even
        self._synchronizing, self._buffers_due, self._in_batch = True, True, False
        self._silent = False  # this rank has no samples
        self._averaged = False  # since the batch began
        self._passing, self._sent = False, 0  # whether a backward pass is under way; its buckets

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        if self._passing:  # a backward pass has raised
            self._forget()
        if self._synchronizing and torch.is_grad_enabled():
            self._distribute_buffers()
        if self.recorder is None:
            return self.module(*inputs, **keywords)
        with self.recorder.span("forward"):
            output = self.module(*inputs, **keywords)
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(self._time_backward)
        return output

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Backward passes inside only accumulate; the first one outside averages the sums."""
        before, self._synchronizing = self._synchronizing, False
        try:
            yield
        finally:
            self._synchronizing = before

    @contextmanager
    def batch(self, count: float) -> Iterator[None]:
        """One forward and backward pass inside, in which this rank counts by its samples.

        For ranks with different numbers of samples, on all of them::

            with model.batch(len(x)):
                if len(x):
                    loss(model(x), y).backward()  # the mean over x

        Then gradients are those of the mean over all samples.  A rank that has none takes part at
        the end of the block.  What was accumulated before counts with the same weight.

        Args:
            count: in [0, inf); of whatever the loss is the mean over, such as tokens.

        Raises:
            RuntimeError: a second backward pass inside: all but the last must be in
                :meth:`no_sync`.
        """
        check_range("count", count, "[0, inf)")
        own = torch.tensor(float(count), dtype=torch.float64, device=next(iter(self._names)).device)
        total = own.clone()
        distributed.all_reduce(total, group=self.process_group)
        self._share, self._silent = torch.where(own > 0, own / total, own), count == 0
        self._in_batch, self._averaged = True, False
        try:
            yield
            if self._synchronizing and not self._averaged:
                self._distribute_buffers()
                self._finish()
        finally:
            self._share, self._silent, self._in_batch = self._even, False, False

    def remove_hooks(self) -> None:
        """Let gradients be each rank's own again."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _share_memory(self, shares: list[list[Tensor]]) -> list[Tensor] | None:
        """Memory in common for each bucket and for the flags, where it can be had."""
        if any(p.device.type != "cpu" for p in self._names):
            return None
        ranks = distributed.get_world_size(self.process_group)
        sizes = [room(params, ranks) for params in shares]
        buffers = sum(b.nbytes for b in self.module.buffers())
        total = sum(sizes) + 2 * ranks * len(self._names)
        self._common = common_memory(total, self.process_group, buffers)
        if self._common is None:
            return None
        *parts, flags = self._common.memory.split([*sizes, 2 * ranks * len(self._names)])
        self._flags = flags.view(2, ranks, -1)
        return [*parts]

    def _arrived(self, p: Tensor) -> None:
        """A gradient is there: send the buckets that are full."""
        if not self._synchronizing:
            return
        if not self._passing:
            if self._in_batch and self._averaged:
                raise RuntimeError("a second backward pass in batch(): put the first in no_sync()")
            self._passing = True
            at_the_end(self._finish)
        bucket = self._bucket_of[p]
        if p in bucket.arrived:
            raise RuntimeError(f"{self._names[p]} got a gradient twice in one backward pass")
        bucket.arrived.add(p)
        while self._sent < len(self._buckets) and self._buckets[self._sent].full:
            self._send()

    @torch.no_grad()
    def _send(self) -> None:
        self._buckets[self._sent].send(self._share, self._silent)
        self._sent += 1

    @torch.no_grad()
    def _finish(self) -> None:
        """The backward pass is over: send what is not complete, and take what all have sent."""
        while self._sent < len(self._buckets):
            self._send()
        for p, name in self._names.items():
            if p.grad is None and p in self._bucket_of[p].arrived:
                raise RuntimeError(f"another hook has taken the gradient of {name}")
        used = self._used()
        for bucket in self._buckets:
            bucket.receive(used)
        self._averaged = self._buffers_due = True
        self._forget()

    def _used(self) -> set[Tensor]:
        """Parameters of which any rank has a gradient."""
        absent = [self._silent or p.grad is None for p in self._names]
        flags = torch.ones(len(absent), dtype=torch.uint8, device=next(iter(self._names)).device)
        if any(absent):
            flags[absent] = 0
        if self._common is None:
            distributed.all_reduce(flags, distributed.ReduceOp.MAX, self.process_group)
        else:
            self._flags[self._turn, distributed.get_rank(self.process_group)] = flags
            self._common.meet()
            flags, self._turn = self._flags[self._turn].amax(0), 1 - self._turn
        # Reading them waits for the device.
        known = flags.tolist() if any(absent) else [1] * len(absent)
        return {p for p, flag in zip(self._names, known, strict=True) if flag}

    def _forget(self) -> None:
        """No backward pass is under way."""
        self._passing, self._sent = False, 0
        for bucket in self._buckets:
            bucket.arrived.clear()

    def _time_backward(self, _: Tensor) -> None:
        """The output's gradient is there: the model's part of a backward pass begins."""
        if self.recorder is not None:
            at_the_end(partial(self.recorder.add, "backward", "compute", Recorder.now()))

    def _distribute_buffers(self) -> None:
        if self._broadcast_buffers and self._buffers_due and self.training:
            send = None if self._common is None else self._common.broadcast
            broadcast(self.module.buffers(), self.process_group, send)
            self._buffers_due = False


def at_the_end(call: Callable[[], None]) -> None:
    """Have something called when the backward pass under way is over.

    The method has no underscore and no documentation; torch's own wrappers use it.
    """
    torch.autograd.Variable._execution_engine.queue_callback(call)


def described(model: nn.Module) -> list[tuple[str, Any]]:
    """What must be the same on all ranks, with names."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return [(name, (tuple(t.shape), t.dtype, t.requires_grad)) for name, t in named]


def refuse_differing(own: list[tuple[str, Any]], group: Any) -> None:
    """Raise on all ranks alike, where one differs from the first."""
    all_: list[Any] = [None] * distributed.get_world_size(group)
    distributed.all_gather_object(all_, own, group=group)
    for rank, other in enumerate(all_):
        for first, second in zip_longest(all_[0], other):
            if first != second:
                raise RuntimeError(
                    f"the model of rank {rank} differs from that of rank 0: it has {second}, "
                    f"and rank 0 has {first}"
                )
