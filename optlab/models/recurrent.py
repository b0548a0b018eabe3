"""A recurrent network, whose gradient is a product with one factor for every step in time."""

import torch
from torch import Tensor, nn

from optlab.errors import check_count, check_range, strict_keywords


@strict_keywords
class RNN(nn.Module):
    """A sequence's class: ``h_t = tanh(W x_t + b + U h_(t-1))``, then a linear layer on the last.

    Elman (1990).  4,874 parameters by default.  ``U`` begins as an orthogonal matrix times
    ``gain``: while the units do not saturate, a gradient changes by that factor with every step
    back in time, and so vanishes or explodes (Pascanu et al. 2013, section 2.1).  Training needs
    :func:`~optlab.clipping.clip_grad_norm_`.

    Args:
        inputs: numbers at each time.
        width: hidden units.
        classes: of the outputs.
        gain: of the recurrent weights at the beginning, in (0, inf).

    >>> RNN()(torch.zeros(5, 40)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self, inputs: int = 1, width: int = 64, classes: int = 10, gain: float = 1.0
    ) -> None:
        check_count("inputs", inputs)
        check_count("width", width)
        check_count("classes", classes)
        check_range("gain", gain, "(0, inf)")
        super().__init__()
        self.input = nn.Linear(inputs, width)
        self.recurrent = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, classes)
        nn.init.orthogonal_(self.recurrent.weight, gain)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs ``(samples, classes)``.

        Args:
            x: of shape ``(samples, length, inputs)``, or ``(samples, length)`` for one input.
        """
        driven = self.input(x.unsqueeze(-1) if x.dim() == 2 else x)
        h = torch.tanh(driven[:, 0])
        for now in driven[:, 1:].unbind(1):
            h = torch.tanh(now + self.recurrent(h))
        logits: Tensor = self.output(h)
        return logits
