"""Models: plain modules, small enough to read, that optimizers are tried on.

:mod:`~optlab.models.dense` are of linear layers, :mod:`~optlab.models.convolutional` for images,
:mod:`~optlab.models.recurrent` for sequences, :mod:`~optlab.models.transformer` for text, and
:mod:`~optlab.models.registry` knows them by name.
"""

from optlab.models.convolutional import convnet, resnet
from optlab.models.dense import autoencoder, mlp, plain
from optlab.models.recurrent import RNN
from optlab.models.registry import make
from optlab.models.transformer import GPT, TEN_MILLION

__all__ = [
    "GPT",
    "RNN",
    "TEN_MILLION",
    "autoencoder",
    "convnet",
    "make",
    "mlp",
    "plain",
    "resnet",
]
