"""A line that says how far a run is; drawn a few times in a second, whatever steps take."""

from time import perf_counter

from tqdm.auto import tqdm

#: Seconds from one drawing to the next.
INTERVAL = 0.2


class Progress:
    """A progress bar with the loss, the learning rate, samples per second and the time left.

    Args:
        done: steps at the beginning.
        last: the step at which the run ends.
        shown: whether to show it; None: where there is a terminal.

    >>> Progress(0, 10, False).on
    False
    """

    def __init__(self, done: int, last: int, shown: bool | None) -> None:
        hidden = None if shown is None else not shown
        self._bar = tqdm(total=last, initial=done, unit="step", disable=hidden, mininterval=0)
        self.on = not self._bar.disable
        self._began = perf_counter()
        self._due = self._began + INTERVAL

    def due(self) -> bool:
        """Whether it is time to draw."""
        return self.on and perf_counter() >= self._due

    def draw(self, step: int, samples: int, loss: float, lr: float) -> None:
        """Draw the state after a step; ``samples`` since the beginning."""
        now = perf_counter()
        self._due = now + INTERVAL
        rate = samples / max(now - self._began, 1e-9)
        figures = {"loss": f"{loss:.4g}", "lr": f"{lr:.3g}", "samples/s": f"{rate:.0f}"}
        self._bar.set_postfix(figures, refresh=False)
        self._bar.update(step - self._bar.n)

    def close(self) -> None:
        """Leave the line as it is."""
        self._bar.close()
