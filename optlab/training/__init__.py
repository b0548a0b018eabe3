"""Training: one loop that knows no method, and goes on where it was when it is killed.

:mod:`~optlab.training.trainer` is the loop and :mod:`~optlab.training.update` one turn of it;
:mod:`~optlab.training.batches` feeds it, :mod:`~optlab.training.losses` and
:mod:`~optlab.training.history` keep what it finds, :mod:`~optlab.training.callbacks` watch it, and
:mod:`~optlab.training.checkpoints` are its files.  :mod:`~optlab.training.offender` finds the layer
in which numbers ceased to be finite.
"""

from optlab.training.batches import Batches, Evaluation
from optlab.training.callbacks import Averaging, Callback, Stopping
from optlab.training.checkpoints import Checkpoints
from optlab.training.history import History
from optlab.training.trainer import Trainer

__all__ = [
    "Averaging",
    "Batches",
    "Callback",
    "Checkpoints",
    "Evaluation",
    "History",
    "Stopping",
    "Trainer",
]
