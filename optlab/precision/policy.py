"""A policy: by the name of a format, in which type operations run and whether losses are scaled."""

from contextlib import AbstractContextManager
from typing import Any

import torch

from optlab.errors import check_choice
from optlab.precision.scaler import LossScaler

#: The types of the operations that may run in half precision, by the policies' names.
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Policy:
    """Mixed precision by one word.

    Matrix products and convolutions run in the type, what needs range or sums stays in float32, as
    :class:`torch.autocast` chooses; parameters and gradients are in float32.  ``"fp16"`` needs a
    scaled loss (Micikevicius et al. 2018), ``"bf16"`` has the range of ``"fp32"`` and needs none.

    Args:
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        device: its type, such as ``"cuda"``.

    Raises:
        ValueError: the precision is not known.

    >>> policy = Policy("bf16")
    >>> with policy.autocast():
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.bfloat16
    >>> policy.scaler().get_scale()
    1.0
    """

    def __init__(self, precision: str, device: str = "cpu") -> None:
        check_choice("precision", precision, TYPES)
        self.precision, self.device = precision, torch.device(device).type
        self.dtype = TYPES[precision]

    def __repr__(self) -> str:
        return f"Policy({self.precision!r}, {self.device!r})"

    def autocast(self) -> AbstractContextManager[Any]:
        """For the forward pass and the loss; not for the backward pass."""
        enabled = self.dtype is not torch.float32
        dtype = self.dtype if enabled else None
        return torch.autocast(self.device, dtype, enabled=enabled)

    def scaler(self, **settings: Any) -> LossScaler:
        """A :class:`~optlab.precision.scaler.LossScaler` with these settings, at work for fp16."""
        return LossScaler(**settings, enabled=self.dtype is torch.float16)
