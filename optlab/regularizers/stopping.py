"""Early stopping: end the training when the validation loss has ceased to fall."""

import math
from typing import Any

from optlab.errors import check_choice, check_count, check_range

KEYS = ("best", "best_step", "steps")


class EarlyStopping:
    """Counts evaluations since the best (Prechelt 1998, whose third criterion is near).

    Args:
        patience: how many evaluations without improvement end the training.
        min_delta: what an improvement must exceed, in [0, inf).
        mode: ``"min"`` for a loss, ``"max"`` for an accuracy.

    Attributes:
        best: value so far.
        best_step: its number, from 0; -1 before the first.

    >>> stopping = EarlyStopping(patience=2)
    >>> [stopping.step(loss) for loss in (3.0, 1.0, 2.0, 1.5)], stopping.best_step
    ([False, False, False, True], 1)
    """

    def __init__(self, patience: int = 5, min_delta: float = 0.0, mode: str = "min") -> None:
        check_count("patience", patience)
        check_range("min_delta", min_delta, "[0, inf)")
        check_choice("mode", mode, ("min", "max"))
        self.patience, self.min_delta, self.mode = patience, min_delta, mode
        self.best = math.inf if mode == "min" else -math.inf
        self.best_step, self._steps = -1, 0

    def step(self, value: float) -> bool:
        """Take in an evaluation, and say whether to stop; NaN is no improvement."""
        value = float(value)
        gain = self.best - value if self.mode == "min" else value - self.best
        if gain > self.min_delta:
            self.best, self.best_step = value, self._steps
        self._steps += 1
        return self.improved_ago >= self.patience

    @property
    def improved(self) -> bool:
        """Whether the last evaluation is the best: the time to keep the weights."""
        return self._steps > 0 and self.improved_ago == 0

    @property
    def improved_ago(self) -> int:
        """Evaluations since the best, or since the start."""
        return self._steps - 1 - self.best_step

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"best": self.best, "best_step": self.best_step, "steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint.

        Raises:
            ValueError: an entry is missing; nothing has been changed then.
        """
        missing = [key for key in KEYS if key not in state_dict]
        if missing:
            raise ValueError(f"the state dict has no {', '.join(missing)}")
        self.best, self.best_step, self._steps = (state_dict[key] for key in KEYS)
