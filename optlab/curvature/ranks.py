"""Ranks: blocks' moments added up over a batch that is spread, and their inverses shared out."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import distributed

from optlab.curvature.blocks import Block
from optlab.curvature.kronecker import Moment


def reduce(
    moments: dict[str, dict[str, Moment]], blocks: Sequence[Block], group: Any
) -> dict[str, dict[str, Moment]]:
    """Every rank's moments added up, in one message.

    Args:
        moments: this rank's, by layer; a layer that it has not seen adds nothing.
        blocks: the same on every rank.
        group: the ranks.
    """
    pieces, counts, places = [], [], []
    for block in blocks:
        p = block.layer.params[0]
        dtype = torch.promote_types(p.dtype, torch.float32)
        for name, shape in block.shapes.items():
            own = moments.get(block.layer.name, {}).get(name)
            total = torch.zeros(shape, dtype=dtype, device=p.device) if own is None else own.total
            pieces.append(total)
            counts.append(0.0 if own is None else own.divisor)
            places.append((block.layer.name, name))
    if not pieces:
        return {}
    flat = torch.cat([*(piece.flatten() for piece in pieces), pieces[0].new_tensor(counts)])
    distributed.all_reduce(flat, group=group)
    *totals, summed = flat.split([*(piece.numel() for piece in pieces), len(counts)])
    added: dict[str, dict[str, Moment]] = {}
    for (layer, name), piece, total, count in zip(
        places, pieces, totals, summed.tolist(), strict=True
    ):
        if count > 0:
            added.setdefault(layer, {})[name] = Moment(total.view(piece.shape), count)
    return added


def assign(costs: Sequence[int], ranks: int) -> list[int]:
    """Which rank takes which piece of work: the longest first, to whom has the least.

    >>> assign([5, 1, 3, 3], 2)
    [0, 0, 1, 1]
    """
    loads, owners = [0] * ranks, [0] * len(costs)
    for index in sorted(range(len(costs)), key=lambda i: -costs[i]):
        owners[index] = loads.index(min(loads))
        loads[owners[index]] += costs[index]
    return owners


def hand_out(blocks: Sequence[Block], owners: Sequence[int], failed: str, group: Any) -> str:
    """Give each block's inverses from its owner to all.

    Args:
        blocks: the same on every rank; only the owner has inverted its own.
        owners: their ranks in the group.
        failed: what went wrong on this rank, or nothing.
        group: the ranks.

    Returns:
        What went wrong on any rank, so that all can raise it.
    """
    said: list[Any] = [None] * distributed.get_world_size(group)
    distributed.all_gather_object(said, failed, group=group)
    if any(said):
        return str(next(word for word in said if word))
    for block, owner in zip(blocks, owners, strict=True):
        p = block.layer.params[0]
        dtype = torch.promote_types(p.dtype, torch.float32)
        source = distributed.get_global_rank(group, owner) if group else owner
        for name, shape in block.inverse_shapes().items():
            value = block.inverses.get(name)
            if distributed.get_rank(group) != owner or value is None:
                value = torch.empty(shape, dtype=dtype, device=p.device)
            value = value.contiguous()
            distributed.broadcast(value, source, group=group)
            block.inverses[name] = value
    return ""
