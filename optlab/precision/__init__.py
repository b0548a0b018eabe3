"""Precision: what number formats hold, and training in half of single precision.

:mod:`~optlab.precision.formats` rounds into a format and says what is lost there,
:mod:`~optlab.precision.scaler` keeps small gradients from underflow,
:mod:`~optlab.precision.master` keeps small updates from being rounded away, and
:mod:`~optlab.precision.policy` puts them together by the name of a format.
"""

from optlab.precision.formats import BF16, E4M3, E5M2, FORMATS, FP16, FP32, Format
from optlab.precision.master import MasterWeights
from optlab.precision.policy import Policy
from optlab.precision.scaler import LossScaler

__all__ = [
    "BF16",
    "E4M3",
    "E5M2",
    "FORMATS",
    "FP16",
    "FP32",
    "Format",
    "LossScaler",
    "MasterWeights",
    "Policy",
]
