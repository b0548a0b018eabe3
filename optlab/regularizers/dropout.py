"""Dropout: a network thinned at random in training."""

import torch
from torch import Tensor, nn

from optlab.errors import check_choice, check_range

#: When activations are scaled, so that training and test agree in expectation.
SCALINGS = ("training", "test")


class Dropout(nn.Module):
    """Sets each activation to zero with probability ``p`` while the module is in training mode.

    What is left is divided by ``1 - p`` (*inverted* dropout, as :class:`torch.nn.Dropout`), or all
    is multiplied by ``1 - p`` at test time, as Srivastava et al. (2014, section 4) have it.  The
    expectation at test time is that of training in both cases; in the second both are less.

    Args:
        p: in [0, 1].
        scaling: ``"training"`` or ``"test"``.
        generator: of the mask; torch's own by default.

    >>> Dropout(0.25, "test").eval()(torch.ones(2))
    tensor([0.7500, 0.7500])
    """

    def __init__(
        self,
        p: float = 0.5,
        scaling: str = "training",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_range("p", p, "[0, 1]")
        check_choice("scaling", scaling, SCALINGS)
        self.p, self.scaling, self.generator = p, scaling, generator

    def extra_repr(self) -> str:
        """For the module's text."""
        return f"p={self.p}, scaling={self.scaling!r}"

    def forward(self, x: Tensor) -> Tensor:
        """``x`` of any shape, thinned in training mode."""
        keep = 1 - self.p
        if not self.training:
            return keep * x if self.scaling == "test" else x
        if self.p == 0:
            return x
        mask = torch.empty_like(x).bernoulli_(keep, generator=self.generator)
        if self.scaling == "training" and keep > 0:
            mask.div_(keep)
        return x * mask
