"""Convolutional networks for images of 28x28 pixels; smaller and larger ones fit too."""

from torch import Tensor, nn
from torch.nn import functional

from optlab.errors import check_count, check_flag, strict_keywords


@strict_keywords
def convnet(width: int = 16, classes: int = 10, norm: bool = True) -> nn.Sequential:
    """Three convolutions, each halving the image, and a linear layer on the means of the maps.

    24,058 parameters by default.

    Args:
        width: maps of the first convolution; the others have twice and four times as many.
        classes: of the outputs.
        norm: normalize the maps over the batch.

    Returns:
        A model of inputs of shape ``(samples, 1, height, width)``.
    """
    check_count("width", width)
    check_count("classes", classes)
    check_flag("norm", norm)
    layers: list[nn.Module] = []
    for inputs, outputs in [(1, width), (width, 2 * width), (2 * width, 4 * width)]:
        layers.append(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=not norm))
        if norm:
            layers.append(nn.BatchNorm2d(outputs))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, *_head(4 * width, classes))


class Residual(nn.Module):
    """Two convolutions around which the input is carried (He et al. 2016, figure 2).

    Where the maps are more and smaller, the shortcut takes every second pixel and maps of zeros
    besides, without parameters (option A of section 3.3).

    Args:
        inputs: maps that go in.
        outputs: maps that come out, as many or more.
        stride: of the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, self.more = stride, outputs - inputs
        self.body = nn.Sequential(
            *(_convolution(inputs, outputs, stride), nn.BatchNorm2d(outputs), nn.ReLU()),
            *(_convolution(outputs, outputs), nn.BatchNorm2d(outputs)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(samples, outputs, height / stride, width / stride)``."""
        shortcut = x[:, :, :: self.stride, :: self.stride]
        shortcut = functional.pad(shortcut, (0, 0, 0, 0, 0, self.more))
        return functional.relu(self.body(x) + shortcut)


@strict_keywords
def resnet(depth: int = 20, width: int = 16, classes: int = 10) -> nn.Sequential:
    """The residual network of He et al. (2016, section 4.2): 269,434 parameters by default.

    Theirs is for CIFAR-10; this one has inputs of one map.

    Args:
        depth: layers with weights, ``6 n + 2`` for ``n`` residual blocks at each of three sizes.
        width: maps at the first size; the others have twice and four times as many.
        classes: of the outputs.

    Returns:
        A model of inputs of shape ``(samples, 1, height, width)``.
    """
    check_count("depth", depth, 8)
    if depth % 6 != 2:
        raise ValueError(f"depth must be 8, 14, 20 or another 6 n + 2, got {depth}")
    check_count("width", width)
    check_count("classes", classes)
    layers: list[nn.Module] = [_convolution(1, width), nn.BatchNorm2d(width), nn.ReLU()]
    maps = width
    for size in range(3):
        for block in range(depth // 6):
            outputs = width * 2**size
            layers.append(Residual(maps, outputs, 2 if size > 0 and block == 0 else 1))
            maps = outputs
    return nn.Sequential(*layers, *_head(maps, classes))


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Of 3x3 pixels, initialized for rectifiers (He et al. 2015, equation 10)."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return convolution


def _head(maps: int, classes: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(maps, classes)
