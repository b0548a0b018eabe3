"""optlab: optimization methods for deep neural networks, the equation being the code."""

from optlab.optimizers import SGD

__all__ = ["SGD"]
__version__ = "0.1.0"
