"""The all-reduce in a ring, from messages between two neighbours."""

from typing import Any

import torch
from torch import Tensor, distributed


@torch.no_grad()
def ring_all_reduce(tensor: Tensor, group: Any = None) -> int:
    """Add up a tensor over all ranks, in place, in messages to the next rank of a ring.

    The tensor is cut into as many chunks as there are ranks.  In ``N - 1`` rounds each rank passes
    on one chunk and adds the one that it gets to its own (reduce-scatter), so that in the end it
    has the sum of one chunk.  In ``N - 1`` more rounds the sums go around (all-gather).  A rank
    sends ``2 (N - 1) / N`` of the tensor, which hardly depends on ``N`` (Patarasuk and Yuan 2009).

    For teaching: it waits for each message.  Every rank adds up a chunk in the same order once, so
    that all have the same sum, bit for bit.

    Args:
        tensor: of the same shape and dtype on all ranks.
        group: the ranks; all of them by default.

    Returns:
        How many bytes this rank has sent.

    >>> distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    >>> ring_all_reduce(torch.ones(3))  # one rank has nobody to send to
    0
    >>> distributed.destroy_process_group()
    """
    rank, ranks = distributed.get_rank(group), distributed.get_world_size(group)
    flat = tensor.reshape(-1)  # a copy where the tensor's memory is not in this order
    chunks = flat.tensor_split(ranks)
    sent = 0
    for step in range(ranks - 1):  # the chunk that a rank has just added to is the next to go
        outgoing, incoming = chunks[(rank - step) % ranks], chunks[(rank - step - 1) % ranks]
        arrived = torch.empty_like(incoming)
        sent += _pass_on(outgoing, arrived, rank, ranks, group)
        incoming += arrived
    for step in range(ranks - 1):  # the same, from the chunk whose sum is complete
        outgoing, incoming = chunks[(rank + 1 - step) % ranks], chunks[(rank - step) % ranks]
        sent += _pass_on(outgoing, incoming, rank, ranks, group)
    tensor.copy_(flat.view(tensor.shape))
    return sent


def _pass_on(outgoing: Tensor, incoming: Tensor, rank: int, ranks: int, group: Any) -> int:
    """Send to the next rank while the previous one sends; the bytes sent."""
    following, previous = (rank + 1) % ranks, (rank - 1) % ranks
    works = []
    if outgoing.numel():  # of a tensor with fewer entries than ranks, some chunks are empty
        works.append(distributed.isend(outgoing, group=group, group_dst=following))
    if incoming.numel():
        works.append(distributed.irecv(incoming, group=group, group_src=previous))
    for work in works:
        if work is not None:  # as for ranks outside the group
            work.wait()
    return outgoing.numel() * outgoing.element_size()
