"""Large batches: each layer moves in proportion to the norm of its parameters.

A layer is a parameter.  Where its norm is zero, or that of its gradient (LARS) or step (LAMB), the
ratio of norms is 1, as is customary: by the paper a parameter of zeros would never move.

The papers scale every parameter.  Biases and the scales of normalization are customarily left out,
and not decayed; that is a parameter group with ``trust=False``:

>>> import torch
>>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.LayerNorm(8), torch.nn.Linear(8, 2))
>>> weights = [p for p in model.parameters() if p.dim() > 1]
>>> others = [p for p in model.parameters() if p.dim() <= 1]
>>> plain = {"params": others, "trust": False, "weight_decay": 0}
>>> optimizer = LAMB([{"params": weights}, plain], lr=1e-2)

Norms are of whole parameters: a process that holds a part of one would see the part's alone.  Each
layer is run by itself, so with many small ones ``compile=True`` saves most of the time.
"""

from typing import Any, ClassVar

from torch import Tensor

from optlab import rules
from optlab.engine import Engine, settings
from optlab.engine.binding import Bound
from optlab.errors import strict_keywords


@strict_keywords
class LARS(Engine):
    """Momentum, with a rate for each layer: the ratio of its norm to its gradient's.

    You, Gitman and Ginsburg (2017), algorithm 1.  With ``lr=1`` and no momentum, a step is
    ``trust_coefficient`` times as long as the parameter.

    Args:
        momentum: the coefficient (beta), in [0, 1); the velocity holds the learning rate.
        weight_decay: in [0, inf); also in the ratio, beside the gradient's norm.
        trust_coefficient: the paper's eta, in [0, inf).
        eps: added to the ratio's denominator, in [0, inf); the paper has none.
        trust: scale by the ratio; else it is 1.

    Rule: :func:`~optlab.rules.lars`.

    >>> import torch
    >>> theta = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    >>> optimizer = LARS([theta], lr=1.0, momentum=0.0, trust_coefficient=0.1, eps=0.0)
    >>> optimizer.step(lambda: (1000 * theta[0]).backward())
    >>> theta.data
    tensor([2.5000, 4.0000])
    """

    ranges: ClassVar = {
        "lr": "[0, inf)",
        "momentum": "[0, 1)",
        "weight_decay": "[0, inf)",
        "trust_coefficient": "[0, inf)",
        "eps": "[0, inf)",
    }
    flags: ClassVar = ("trust", "maximize")
    memory: ClassVar = {"v": "momentum_buffer"}
    layerwise: ClassVar = True

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 0,
        trust_coefficient: float = 1e-3,
        eps: float = 1e-8,
        trust: bool = True,
        *,
        maximize: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__(params, settings(locals()), compile)

    def bind(self, group: dict[str, Any]) -> Bound:
        names = ("lr", "weight_decay", "trust_coefficient", "eps", "trust")
        return rules.lars, {**{name: group[name] for name in names}, "beta": group["momentum"]}


@strict_keywords
class LAMB(Engine):
    """AdamW, with each layer's step brought to ``lr`` times the layer's norm.

    You et al. (2020), algorithm 2, with the identity for phi.

    Args:
        betas: decays of the two means, each in [0, 1).
        eps: added to the root, in [0, inf).
        weight_decay: in [0, inf); its product with the parameter is added to Adam's step.
        trust: scale by the ratio; else this is :class:`~optlab.optimizers.adam.AdamW`.

    Rule: :func:`~optlab.rules.lamb`.

    >>> import torch
    >>> theta = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    >>> optimizer = LAMB([theta], lr=0.1, weight_decay=0)
    >>> optimizer.step(lambda: (1000 * theta[0]).backward())
    >>> theta.data
    tensor([2.5000, 4.0000])
    """

    ranges: ClassVar = {
        "lr": "[0, inf)",
        "betas": "[0, 1)",
        "eps": "[0, inf)",
        "weight_decay": "[0, inf)",
    }
    flags: ClassVar = ("trust", "maximize")
    memory: ClassVar = {"m": "exp_avg", "v": "exp_avg_sq"}
    numbers: ClassVar = ("step",)
    layerwise: ClassVar = True

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 1e-2,
        trust: bool = True,
        *,
        maximize: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__(params, settings(locals()), compile)

    def bind(self, group: dict[str, Any]) -> Bound:
        beta1, beta2 = group["betas"]
        names = ("lr", "eps", "weight_decay", "trust")
        shared = {name: group[name] for name in names}
        return rules.lamb, {**shared, "beta1": beta1, "beta2": beta2}
