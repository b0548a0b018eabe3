"""Callbacks: what watches a run, and may end it."""

from typing import TYPE_CHECKING, Any

from optlab.errors import check_count, nearest
from optlab.regularizers import EarlyStopping, WeightAverage

if TYPE_CHECKING:
    from optlab.training.trainer import Trainer


class Callback:
    """Base of what is called during a run; with several ranks, on all of them alike.

    What a callback knows must be in its ``state_dict`` for a run to go on as if undisturbed.
    """

    def on_step(self, trainer: "Trainer") -> None:
        """After each step, before anything is recorded."""

    def on_evaluation(self, trainer: "Trainer", row: dict[str, float]) -> None:
        """After each evaluation, with the row of the history that has its figures."""

    def on_end(self, trainer: "Trainer") -> None:
        """At the end of a run that no error has ended, after its last checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint."""


class Stopping(Callback):
    """Ends a run when a figure of its evaluations has ceased to improve.

    Args:
        stopping: with its patience.
        figure: its name.

    Raises:
        ValueError: an evaluation has no such figure.
    """

    def __init__(self, stopping: EarlyStopping, figure: str = "test_loss") -> None:
        self.stopping, self.figure = stopping, figure

    def on_evaluation(self, trainer: "Trainer", row: dict[str, float]) -> None:
        if self.figure not in row:
            raise ValueError(f"no figure {self.figure!r}: {nearest(self.figure, row)}")
        if self.stopping.step(row[self.figure]):
            ago = self.stopping.improved_ago
            trainer.stop(f"{self.figure} has not improved in {ago} evaluations")

    def state_dict(self) -> dict[str, Any]:
        return self.stopping.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.stopping.load_state_dict(state_dict)


class Averaging(Callback):
    """Keeps an average of the weights, and evaluates it beside them, as ``average_...``.

    Statistics of batch normalization are those of the weights themselves; see
    :func:`~optlab.regularizers.averaging.refresh_batch_norm`.

    Args:
        average: of the model's parameters.
        every: steps from one update of the average to the next.
    """

    def __init__(self, average: WeightAverage, every: int = 1) -> None:
        check_count("every", every)
        self.average, self.every = average, every

    def on_step(self, trainer: "Trainer") -> None:
        if trainer.step % self.every == 0:
            self.average.update()

    def on_evaluation(self, trainer: "Trainer", row: dict[str, float]) -> None:
        if self.average.updates:
            with self.average.applied():
                found = trainer.measure()
            row.update({f"average_{name}": value for name, value in found.items()})

    def state_dict(self) -> dict[str, Any]:
        return self.average.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.average.load_state_dict(state_dict)
