"""Regularisation: what keeps a network from fitting the noise of its training data.

:mod:`~optlab.regularizers.penalties` add to the loss, :mod:`~optlab.regularizers.decay` shrinks
weights beside any optimizer, :mod:`~optlab.regularizers.dropout` thins the network,
:mod:`~optlab.regularizers.normalization` ties its activations to a mean and a variance,
:mod:`~optlab.regularizers.averaging` takes the mean of weights, and
:mod:`~optlab.regularizers.stopping` says when to stop.
"""

from optlab.regularizers.averaging import WeightAverage, refresh_batch_norm
from optlab.regularizers.decay import decay_independently
from optlab.regularizers.dropout import Dropout
from optlab.regularizers.normalization import (
    BatchNorm1d,
    BatchNorm2d,
    GroupNorm,
    LayerNorm,
    RMSNorm,
    synchronize_batch_norm,
)
from optlab.regularizers.penalties import l1_penalty, l2_penalty, smoothed_cross_entropy
from optlab.regularizers.standardize import standardize
from optlab.regularizers.stopping import EarlyStopping

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "Dropout",
    "EarlyStopping",
    "GroupNorm",
    "LayerNorm",
    "RMSNorm",
    "WeightAverage",
    "decay_independently",
    "l1_penalty",
    "l2_penalty",
    "refresh_batch_norm",
    "smoothed_cross_entropy",
    "standardize",
    "synchronize_batch_norm",
]
