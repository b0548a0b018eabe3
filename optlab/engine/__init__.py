"""The engine: it runs any rule of :mod:`optlab.rules` on a network's parameters, fast.

An optimizer names a rule, the ranges of its hyperparameters and its state.  From there, in the
order of a step:

``optimizer``
    the ``torch.optim.Optimizer`` that they all are: groups, closures, hooks.
``binding``
    a rule with one group's hyperparameters, and the weight decay before it.
``tape``
    the rule's arithmetic, recorded once; later steps only compute its numbers.
``packing``, ``parts``, ``blocks``
    small parameters side by side in memory, to be updated as one.
``kernels``
    what is recorded, run in place or compiled.
``checkpoints``
    state dicts that are torch's, checked before they are loaded.
"""

from optlab.engine.optimizer import Engine, settings

__all__ = ["Engine", "settings"]
