"""The one shape of all data: examples and their targets in memory, for training and for tests."""

from typing import NamedTuple

import torch
from torch import Tensor


class Dataset(NamedTuple):
    """Examples with their targets; entry ``n`` of the first dimension is example ``n``.

    Args:
        x: examples for training: images ``(samples, channels, height, width)`` and signals
            ``(samples, length)`` of real numbers, or text ``(samples, context)`` of tokens.
        y: their targets, whole numbers below ``classes``: ``(samples,)``, or each position's next
            token ``(samples, context)``.
        x_test: examples for tests.
        y_test: their targets.
        classes: how many there are.

    >>> numbers, labels = torch.tensor([1.0, 3.0]), torch.tensor([0, 1])
    >>> Dataset(numbers, labels, numbers + 1, labels, 2).standardized().x_test
    tensor([0., 2.])
    """

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: int

    def standardized(self) -> "Dataset":
        """Shift and scale all examples alike, so that those for training have mean 0, deviation 1.

        Raises:
            TypeError: the examples are tokens.
        """
        if not self.x.is_floating_point():
            raise TypeError(f"only real numbers can be standardized, got {self.x.dtype}")
        deviation, mean = torch.std_mean(self.x, correction=0)
        scaled = [(x - mean) / deviation for x in (self.x, self.x_test)]
        return self._replace(x=scaled[0], x_test=scaled[1])

    def to(self, device: torch.device | str) -> "Dataset":
        """The same on another device."""
        x, y, x_test, y_test = (tensor.to(device) for tensor in self[:4])
        return Dataset(x, y, x_test, y_test, self.classes)
