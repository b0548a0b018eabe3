"""Optimizers, in order of complexity: each names its rule, its ranges and its state.

Those of first order are ``torch.optim``'s in their names, keywords, defaults and numbers, and a
``state_dict`` of either loads into the other.  Beside what each names itself, all take these:

``params``
    tensors to optimise, or dicts of parameter groups.
``lr``
    the learning rate (eta), in [0, inf); a float or a tensor of one element.
``weight_decay``
    in [0, inf): its product with the parameter is added to the gradient; where the decay is
    decoupled, its product with ``lr`` is the share that a step takes off the parameter.
``maximize``
    step along the gradient instead of against it.
``compile``
    run each rule as one kernel, made at the first step; the numbers agree but for rounding.

They raise a ValueError for a value out of its range, for no parameters and, at a step, for a sparse
gradient; a TypeError for a misspelt keyword or a value of the wrong kind.  The rules, in
:mod:`optlab.rules`, name their papers.

:class:`LARS` and :class:`LAMB`, which torch lacks, say themselves what their weight decay does.

Those of second order say themselves what they take: :class:`Newton`, :class:`GaussNewton` and
:class:`NaturalGradient` solve one system for all parameters, :class:`KFAC` one for every layer.
"""

from optlab.optimizers.adam import Adam, Adamax, AdamW, NAdam, RAdam
from optlab.optimizers.adaptive import Adadelta, Adagrad, RMSprop
from optlab.optimizers.gauss_newton import GaussNewton
from optlab.optimizers.kfac import KFAC
from optlab.optimizers.large_batch import LAMB, LARS
from optlab.optimizers.natural_gradient import NaturalGradient
from optlab.optimizers.newton import Newton
from optlab.optimizers.sgd import SGD

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
