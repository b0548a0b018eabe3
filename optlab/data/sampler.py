"""Batches: which examples are in each, shared out between processes, from any point of a run."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optlab.errors import check_count, check_flag, strict_keywords

#: What a position refers to, since to change one of these is to change the batches.
FIXED = ("count", "batch", "seed", "drop_last")


@strict_keywords
class Sampler:
    """Indices of examples, batch by batch, in an order that depends on seed and epoch alone.

    To iterate is to go through what is left of the current epoch.  Every process takes each
    ``ranks``-th index of every batch, beginning with its own rank: together they have the batch
    that one process would, and their shares differ by one at most, the first ranks having more.
    Where a last batch has fewer examples than there are ranks, the last ranks' share is empty.
    Means over unequal shares must be weighted by their sizes to become the mean over the batch.

    Args:
        count: how many examples there are.
        batch: how many make up a batch, of all ranks together.
        seed: of the order, a whole number from 0.
        rank: of this process, from 0.
        ranks: how many processes there are, at most ``batch``.
        drop_last: leave out the last batch of an epoch where it is not full.

    Attributes:
        epoch: of the next batch, from 0.
        step: its number in the epoch, from 0.

    >>> [indices.tolist() for indices in Sampler(5, 2, seed=0)]
    [[2, 4], [3, 0], [1]]
    >>> [indices.tolist() for indices in Sampler(5, 2, seed=0, rank=1, ranks=2)]
    [[4], [0], []]
    """

    def __init__(
        self,
        count: int,
        batch: int,
        *,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        drop_last: bool = False,
    ) -> None:
        check_count("count", count)
        check_count("batch", batch)
        check_count("seed", seed, 0)
        check_count("ranks", ranks)
        check_count("rank", rank, 0)
        check_flag("drop_last", drop_last)
        if rank >= ranks:
            raise ValueError(f"rank must be below ranks={ranks}, got {rank}")
        if ranks > batch:
            raise ValueError(f"ranks must be at most batch={batch}, got {ranks}")
        if drop_last and batch > count:
            raise ValueError(
                f"batch must be at most count={count} where the last is dropped, got {batch}"
            )
        self.count, self.batch, self.seed = count, batch, seed
        self.rank, self.ranks, self.drop_last = rank, ranks, drop_last
        self.epoch = self.step = 0

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.count // self.batch if self.drop_last else -(-self.count // self.batch)

    def __iter__(self) -> Iterator[Tensor]:
        """This rank's shares, from the current position to the end of the epoch."""
        epoch = self.epoch
        order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
        while self.epoch == epoch:
            begin = self.step * self.batch
            # Moved on first: a checkpoint inside the loop is of the batch that comes next.
            self.step += 1
            if self.step == len(self):
                self.epoch, self.step = epoch + 1, 0
            yield torch.tensor(order[begin : begin + self.batch][self.rank :: self.ranks])

    def state_dict(self) -> dict[str, Any]:
        """The position, for a checkpoint; it is the same on all ranks."""
        return {name: getattr(self, name) for name in (*FIXED, "epoch", "step")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint, with any number of ranks.

        Raises:
            ValueError: it is of other batches, or no position; nothing has been changed then.
        """
        missing = [name for name in (*FIXED, "epoch", "step") if name not in state_dict]
        if missing:
            raise ValueError(f"the state dict has no {', '.join(missing)}")
        for name in FIXED:
            own, found = getattr(self, name), state_dict[name]
            if found != own:
                raise ValueError(f"{name} must be {own!r}, as in this sampler, got {found!r}")
        epoch, step = state_dict["epoch"], state_dict["step"]
        check_count("epoch", epoch, 0)
        check_count("step", step, 0)
        if step >= len(self):
            raise ValueError(f"step must be below {len(self)}, the epoch's batches, got {step}")
        self.epoch, self.step = epoch, step
