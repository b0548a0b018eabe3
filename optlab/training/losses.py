"""Losses of a run: kept as tensors until somebody reads them, since to read is to wait."""

import math
from typing import Any

import torch
from torch import Tensor


class Losses:
    """Losses of batches, their mean over samples, and a watch for what is not finite.

    Args:
        read_every: how many are read together.  Reading waits for the device to have computed
            them; on a CPU they are there.

    Attributes:
        last: that was read.

    >>> losses = Losses(1)
    >>> losses.add(1, torch.tensor(2.0), 3)
    >>> losses.add(2, torch.tensor(6.0), 1)
    >>> losses.take()
    (12.0, 4)
    >>> losses.add(3, torch.tensor(math.nan), 1)
    Traceback (most recent call last):
    FloatingPointError: the loss of step 3 is nan
    """

    def __init__(self, read_every: int) -> None:
        self._read_every = read_every
        self._unread: list[tuple[int, Tensor, int]] = []
        self._total, self._count, self.last = 0.0, 0, math.nan

    def add(self, step: int, loss: Tensor, count: int) -> None:
        """Take in the mean over ``count`` samples.

        Raises:
            FloatingPointError: one of those read now is not finite.
        """
        if self._read_every == 1:
            self._take_in(step, loss.item(), count)
            return
        self._unread.append((step, loss.detach(), count))
        if len(self._unread) >= self._read_every:
            self.read()

    def read(self) -> None:
        """Read those that were not; see :meth:`add`."""
        unread, self._unread = self._unread, []
        if unread:
            values = torch.stack([loss for _, loss, _ in unread]).tolist()
            for (step, _, count), value in zip(unread, values, strict=True):
                self._take_in(step, value, count)

    def _take_in(self, step: int, value: float, count: int) -> None:
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss of step {step} is {value}")
        self._total += value * count
        self._count += count
        self.last = value

    def take(self) -> tuple[float, int]:
        """The sum over samples, and how many there were, since this was last asked for."""
        self.read()
        found = self._total, self._count
        self._total, self._count = 0.0, 0
        return found

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        self.read()
        return {"total": self._total, "count": self._count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint."""
        self._unread = []
        self._total, self._count = state_dict["total"], state_dict["count"]
