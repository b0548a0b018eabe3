"""Bindings: a rule with a parameter group's hyperparameters, ready to be recorded for a block."""

import functools
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from torch import Tensor

from optlab.engine.blocks import Block
from optlab.engine.recorder import Recorder
from optlab.engine.tape import Recording
from optlab.rules import Rule, decoupled_decay, l2_decay
from optlab.signatures import hyperparameters

#: A rule, and the hyperparameters to call it with.
Bound = tuple[Rule, dict[str, Any]]


class Binding:
    """A parameter group's rule with its hyperparameters, as long as these stay what they are.

    Args:
        bound: the rule, and the hyperparameters to call it with.
        group: the parameter group.
        values: the group's hyperparameters, to be compared with later ones.
        start: of each state variable, torch's name and the entries at the start.
        numbers: which of these are one number per parameter; the count of steps may be another.
        recorders: those made so far, for bindings that differ in their numbers alone.
    """

    def __init__(
        self,
        bound: Bound,
        group: Mapping[str, Any],
        values: Sequence[Any],
        start: Mapping[str, float],
        numbers: Sequence[str],
        recorders: MutableMapping[Any, Recorder],
    ) -> None:
        rule, settings = bound
        self.numbers = {name: start.get(name, 0.0) for name in numbers}
        self.memory = {name: first for name, first in start.items() if name not in self.numbers}
        self.names = [*self.memory]
        self.counted = [name for name in start if name in self.numbers]
        taken = hyperparameters(rule)
        weight_decay = 0.0 if "weight_decay" in taken else group["weight_decay"]
        decoupled = group.get("decoupled_weight_decay", False)
        form = (rule, group["maximize"], decoupled and weight_decay != 0, weight_decay != 0)
        settings = {"engine_lr": group["lr"], "engine_decay": weight_decay, **settings}
        self.settings = {name: float(value) for name, value in settings.items()}
        self.stepped = "step" in taken
        if form not in recorders:
            shaped = [name in self.memory for name in start]
            recorders[form] = Recorder(functools.partial(_move, *form), shaped)
        self.recorder = recorders[form]
        # A tensor may change and stay the same object: then nothing equals these values.
        lasting = not any(isinstance(v, Tensor) for v in (*values, *group.get("betas", ())))
        self.values = values if lasting else None

    def record(self, block: Block) -> tuple[Recording, list[str], dict[str, float]]:
        """What to do with a block, the names of its state, and what its numbers become.

        Raises:
            TypeError: the rule takes norms, and the block has several parameters in one.
        """
        # Without a count in its state, torch tells the first step from the others.
        step = block.number("step") + 1 if "step" in self.numbers else 2.0 - block.fresh
        if self.stepped:
            self.settings["step"] = step
        recording = self.recorder([block.number(name) for name in self.counted], self.settings)
        if recording.program.layerwise and block.packed:
            raise TypeError("a rule that takes norms needs layerwise = True in its optimizer")
        counted = dict(zip(self.counted, recording.floats, strict=True)) if self.counted else {}
        if "step" in self.numbers:
            counted["step"] = step
        return recording, self.names, counted


def _move(
    rule: Rule,
    maximize: bool,
    decoupled: bool,
    decayed: bool,
    theta: Any,
    g: Any,
    *state: Any,
    engine_lr: Any,
    engine_decay: Any,
    **settings: Any,
) -> tuple[Any, ...]:
    """A rule with what every optimizer may have before it."""
    if maximize:
        g = -g
    if decoupled:
        theta = decoupled_decay(theta, engine_lr, engine_decay)  # type: ignore[no-untyped-call]
    elif decayed:
        g = l2_decay(theta, g, engine_decay)  # type: ignore[no-untyped-call]
    return rule(theta, g, *state, **settings)
