"""Tuning alike for all: so many trials, of settings that fill a method's space evenly."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from scipy.stats import qmc


class Method(NamedTuple):
    """An optimizer and what is tuned: each setting between two ends, on a logarithmic scale."""

    name: str
    make: Callable[..., Any]
    space: dict[str, tuple[float, float]]

    def settings(self, trials: int) -> Iterator[dict[str, float]]:
        """Settings that fill the space evenly; a power of two of them."""
        points = qmc.Sobol(len(self.space), seed=0).random(trials)
        for point in points:
            ends = zip(point, self.space.items(), strict=True)
            yield {name: low * (high / low) ** share for share, (name, (low, high)) in ends}
