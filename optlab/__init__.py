"""optlab: optimization methods for deep neural networks, the equation being the code."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optlab.optimizers import (
        KFAC,
        LAMB,
        LARS,
        SGD,
        Adadelta,
        Adagrad,
        Adam,
        Adamax,
        AdamW,
        GaussNewton,
        NAdam,
        NaturalGradient,
        Newton,
        RAdam,
        RMSprop,
    )

__all__ = [
    "KFAC",
    "LAMB",
    "LARS",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "GaussNewton",
    "NAdam",
    "NaturalGradient",
    "Newton",
    "RAdam",
    "RMSprop",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """An optimizer, imported when first asked for: the equations alone need no torch."""
    if name in __all__:
        from optlab import optimizers

        return getattr(optimizers, name)
    raise AttributeError(f"module 'optlab' has no attribute {name!r}")
