"""Models by name."""

from collections.abc import Callable
from typing import Any

from torch import nn

from optlab.errors import nearest
from optlab.models.convolutional import convnet, resnet
from optlab.models.dense import autoencoder, mlp, plain
from optlab.models.recurrent import RNN
from optlab.models.transformer import GPT

#: What makes a model, by the model's name.
MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "plain": plain,
    "autoencoder": autoencoder,
    "convnet": convnet,
    "resnet": resnet,
    "rnn": RNN,
    "gpt": GPT,
}


def make(name: str, **settings: Any) -> nn.Module:
    """A model with new weights, which ``torch.manual_seed`` draws.

    Args:
        name: of one of the ``MODELS``.
        settings: those of what makes it.

    Raises:
        ValueError: there is no such model, or a setting is out of range.
        TypeError: the model has no such setting.

    >>> make("mlp", widths=(2, 1))
    Sequential(
      (0): Flatten(start_dim=1, end_dim=-1)
      (1): Linear(in_features=2, out_features=1, bias=True)
    )
    """
    if name not in MODELS:
        raise ValueError(f"no model {name!r}: {nearest(name, MODELS)}")
    return MODELS[name](**settings)
