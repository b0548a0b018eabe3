"""Data: small sets in memory by name, and which of their examples make up each batch.

:mod:`~optlab.data.dataset` is the shape of all, :mod:`~optlab.data.images`,
:mod:`~optlab.data.signals` and :mod:`~optlab.data.text` load them, :mod:`~optlab.data.registry`
knows them by name, and :mod:`~optlab.data.sampler` draws batches.
"""

from optlab.data.dataset import Dataset
from optlab.data.images import digits, fashion_mnist
from optlab.data.registry import load
from optlab.data.sampler import Sampler
from optlab.data.signals import mnist1d
from optlab.data.text import python_source

__all__ = [
    "Dataset",
    "Sampler",
    "digits",
    "fashion_mnist",
    "load",
    "mnist1d",
    "python_source",
]
