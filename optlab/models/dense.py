"""Networks of linear layers: perceptrons, very deep ones, and autoencoders."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from optlab.errors import check_choice, check_count, check_flag, strict_keywords

#: None of them overwrites what it gets, which hooks on modules do not allow.
ACTIVATIONS = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


@strict_keywords
def mlp(
    widths: Sequence[int] = (64, 100, 10), activation: str = "relu", norm: bool = False
) -> nn.Sequential:
    """A perceptron with hidden layers: 7,510 parameters by default, which fit 8x8 digits.

    Args:
        widths: of the inputs, of each hidden layer and of the outputs.
        activation: ``"relu"``, ``"gelu"``, ``"tanh"`` or ``"sigmoid"``.
        norm: normalize each hidden layer over the batch, before its activation.

    Returns:
        A model of inputs of shape ``(samples, ...)``, which are flattened.

    >>> mlp((2, 3, 1))
    Sequential(
      (0): Flatten(start_dim=1, end_dim=-1)
      (1): Linear(in_features=2, out_features=3, bias=True)
      (2): ReLU()
      (3): Linear(in_features=3, out_features=1, bias=True)
    )
    """
    _check_widths(widths)
    check_choice("activation", activation, ACTIVATIONS)
    check_flag("norm", norm)
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths[:-1]):
        # The normalization has a shift of its own.
        layers.append(nn.Linear(inputs, outputs, bias=not norm))
        if norm:
            layers.append(nn.BatchNorm1d(outputs))
        layers.append(ACTIVATIONS[activation]())
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


@strict_keywords
def plain(
    depth: int = 50,
    width: int = 64,
    inputs: int = 64,
    classes: int = 10,
    activation: str = "relu",
    norm: bool = False,
) -> nn.Sequential:
    """A perceptron of many equal layers without shortcuts, whose first ones learn hardly anything.

    By default 50 layers with 204,490 parameters: as torch initializes them, gradients vanish on
    their way back.  With normalization there are 207,626, and gradients explode: in each layer by
    about ``sqrt(pi / (pi - 1))``, or 1.2 (Yang et al. 2019).

    Args:
        depth: how many linear layers there are, at least 2.
        width: of each hidden layer.
        inputs: numbers in an example.
        classes: of the outputs.
        activation: as in :func:`mlp`.
        norm: as in :func:`mlp`.

    Returns:
        A model of inputs of shape ``(samples, ...)``, which are flattened.
    """
    check_count("depth", depth, 2)
    check_count("width", width)
    check_count("inputs", inputs)
    check_count("classes", classes)
    return mlp([inputs, *[width] * (depth - 1), classes], activation, norm)


@strict_keywords
def autoencoder(
    widths: Sequence[int] = (256, 100, 50, 12), activation: str = "tanh"
) -> nn.Sequential:
    """An encoder and its mirror image: 62,968 parameters by default.

    After Hinton and Salakhutdinov (2006): the code and the outputs are linear.  The outputs are
    logits where pixels in [0, 1] are their targets.

    Args:
        widths: from the inputs to the code.
        activation: as in :func:`mlp`.

    Returns:
        A model of inputs of shape ``(samples, ...)`` with outputs ``(samples, widths[0])``; its
        halves are ``.encoder`` and ``.decoder``.

    >>> autoencoder((4, 2)).encoder
    Sequential(
      (0): Flatten(start_dim=1, end_dim=-1)
      (1): Linear(in_features=4, out_features=2, bias=True)
    )
    """
    encoder, decoder = mlp(widths, activation), mlp(widths[::-1], activation)
    model = nn.Sequential()
    model.add_module("encoder", encoder)
    model.add_module("decoder", decoder)
    return model


def _check_widths(widths: Sequence[int]) -> None:
    if not isinstance(widths, (tuple, list)) or len(widths) < 2:
        raise TypeError(f"widths must be two numbers or more, got {widths!r}")
    for index, width in enumerate(widths):
        check_count(f"widths[{index}]", width)
