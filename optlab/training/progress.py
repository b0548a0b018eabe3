"""A line that says how far a run is; drawn a few times in a second, whatever steps take."""

import sys
from time import perf_counter

from tqdm import tqdm

#: Seconds from one drawing to the next.
INTERVAL = 0.2


class Progress:
    """A progress bar with the loss, the learning rate, samples per second and the time left.

    Args:
        done: steps at the beginning.
        last: the step at which the run ends.
        shown: whether to show it; None: where there is a terminal.

    >>> Progress(0, 10, False).due()
    False
    """

    def __init__(self, done: int, last: int, shown: bool | None) -> None:
        on = sys.stderr.isatty() if shown is None else shown
        self._bar = tqdm(total=last, initial=done, unit="step", mininterval=0) if on else None
        self._began = perf_counter()
        self._due = self._began

    def due(self) -> bool:
        """Whether it is time to draw."""
        return self._bar is not None and perf_counter() >= self._due

    def draw(self, step: int, samples: int, loss: float, lr: float) -> None:
        """Draw the state after a step; ``samples`` since the beginning."""
        if self._bar is None:
            return
        now = perf_counter()
        self._due = now + INTERVAL
        rate = samples / max(now - self._began, 1e-9)
        figures = {"loss": f"{loss:.4g}", "lr": f"{lr:.3g}", "samples/s": f"{rate:.0f}"}
        self._bar.set_postfix(figures, refresh=False)
        self._bar.update(step - self._bar.n)

    def close(self) -> None:
        """Leave the line as it is."""
        if self._bar is not None:
            self._bar.close()
