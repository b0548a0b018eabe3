"""The engine: one ``torch.optim.Optimizer`` that runs any rule of :mod:`optlab.rules`.

A step is ``evaluate`` (the closure), ``precondition`` (the whole model's gradients), then the
update: the rule is recorded (:mod:`optlab.tape`) and runs on blocks of parameters
(:mod:`optlab.blocks`).  An optimizer names its hyperparameters' ranges and its state, and binds a
parameter group to a rule; the rest is here.
"""

import abc
import difflib
import functools
from collections.abc import Callable
from itertools import count
from operator import attrgetter
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import optimizer as torchs

from optlab.blocks import Arrangement, Block
from optlab.checkpoints import Checkpointed
from optlab.errors import check_flag, check_pair, check_range, nearest
from optlab.rules import Rule, decoupled_decay, l2_decay
from optlab.signatures import hyperparameters, starts
from optlab.tape import Recorder, Recording

#: So near to a hyperparameter's name that it must be a slip; schedulers' own keys are not.
SLIP = 0.85
GLOBAL_HOOKS = (torchs._global_optimizer_pre_hooks, torchs._global_optimizer_post_hooks)
LAYOUT = attrgetter("layout")
Gradients = list[Tensor | None]


class Engine(Checkpointed, abc.ABC):
    """Base of the elementwise optimizers.

    Subclasses set ``ranges`` (hyperparameter: allowed interval), ``flags`` (hyperparameters that
    are true or false), ``memory`` (a rule's state variable: torch's name for it in
    ``state_dict``) and ``numbers`` (torch's names of state that is one number per parameter), and
    define :meth:`bind`.

    Parameters of half precision are updated in float32 and keep float32 state.  ``.grad`` is
    never modified.  A parameter whose gradient is ``None`` is skipped.  With ``compile`` a rule
    runs as one kernel, made at the first step.
    """

    ranges: ClassVar[dict[str, str]]
    flags: ClassVar[tuple[str, ...]] = ("maximize",)
    compile: bool

    def __init__(self, params: Any, defaults: dict[str, Any], compile: bool = False) -> None:
        check_flag("compile", compile)
        self.compile = compile
        self._forget()
        self.check_group(defaults)
        if not isinstance(params, (Tensor, dict)):  # torch has its own words for these
            params = list(params)
            if not params:
                raise ValueError("params must hold at least one parameter or group, got none")
        super().__init__(params, defaults)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "compile": self.compile}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget()

    def _forget(self) -> None:
        self._pool: dict[Any, Tensor] = {}
        self._arrangements: dict[int, Arrangement] = {}
        self._bindings: dict[int, Binding] = {}
        self._recorders: dict[Any, Recorder] = {}

    @abc.abstractmethod
    def bind(self, group: dict[str, Any]) -> tuple[Rule, dict[str, Any]]:
        """The rule for a parameter group, and the hyperparameters to call it with."""

    def start(self, rule: Rule, variable: str, group: dict[str, Any]) -> float:
        """The entries of a state variable before the first step."""
        return starts(rule)[variable]

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise when a hyperparameter is out of its range; a subclass adds joint conditions."""
        for name, allowed in self.ranges.items():
            check = check_pair if name == "betas" else check_range
            check(name, group[name], allowed)
        for name in self.flags:
            check_flag(name, group[name])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with hyperparameters of their own; the constructor's fill the gaps.

        Raises:
            TypeError: a key that is a slip of a hyperparameter's name.
            ValueError: a hyperparameter out of range.
        """
        if isinstance(param_group, dict):
            for key in param_group.keys() - self.defaults.keys():
                self._refuse_slip(str(key))
            self.check_numbered(param_group, len(self.param_groups))
        super().add_param_group(param_group)

    def _refuse_slip(self, key: str) -> None:
        bare = key.casefold().strip("_ ")
        if bare in self.defaults or difflib.get_close_matches(bare, self.defaults, 1, SLIP):
            raise TypeError(
                f"{type(self).__name__} has no hyperparameter {key!r}: "
                f"{nearest(bare, self.defaults)}"
            )

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one update; returns the closure's loss, or ``None`` without a closure.

        Raises:
            ValueError: a gradient is sparse; no parameter has been changed then.
        """
        if torch.compiler.is_compiling():
            return torch.compiler.disable(self._hooked_step)(closure)
        if (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or any(GLOBAL_HOOKS)
            or torch.autograd._profiler_enabled()
        ):
            return self._hooked_step(closure)
        return self._step(closure)

    # Torch would wrap it too: hooks and a name in the profiler, at 5 microseconds a step.
    step.hooked = True  # type: ignore[attr-defined]

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = self.evaluate(closure)
        with torch.no_grad():
            gradients = [[p.grad for p in group["params"]] for group in self.param_groups]
            gradients = self.precondition(gradients)
            complete = list(map(self._complete, count(), self.param_groups, gradients))
            updates: list[Any] = []
            for number, group in enumerate(self.param_groups):
                updates += self._prepare(number, group, gradients[number], complete[number])
            for block, recording, names, counted, grads in updates:
                block.update(recording, names, counted, grads, compile=self.compile)
        return loss

    _hooked_step = torch.optim.Optimizer.profile_hook_step(_step)

    def evaluate(self, closure: Callable[[], Any] | None) -> Any:
        """The loss at the present parameters, with gradients enabled."""
        if closure is None:
            return None
        with torch.enable_grad():
            return closure()

    def precondition(self, gradients: list[Gradients]) -> list[Gradients]:
        """The gradients, group by group; a second-order method gives others."""
        return gradients

    def _complete(self, number: int, group: dict[str, Any], grads: Gradients) -> bool:
        """Whether a group's gradients are all there; a sparse one is refused."""
        try:
            if {*map(LAYOUT, grads)} <= {torch.strided}:
                return True
        except AttributeError:  # of one that is None
            pass
        for index, g in enumerate(grads):
            if g is not None and g.layout is not torch.strided:
                names = group.get("param_names")
                raise ValueError(
                    f"{type(self).__name__} takes dense gradients; parameter "
                    f"{names[index] if names else index} of group {number} "
                    f"has one of layout {g.layout}"
                )
        return False

    def _prepare(
        self, index: int, group: dict[str, Any], grads: Gradients, complete: bool
    ) -> list[Any]:
        """What each block of a group is to do: nothing has moved yet."""
        values = [group[name] for name in self.defaults]
        binding = self._bindings.get(index)
        if binding is None or binding.values != values:
            binding = self._bindings[index] = Binding(self, group, values, self._recorders)
            self._arrangements.setdefault(index, Arrangement())
        blocks = self._arrangements[index].fit(
            *(group["params"], grads, complete),
            *(self.state, binding.memory, binding.numbers, self._pool),
        )
        prepared = []
        for block in blocks:
            own = grads if len(block.params) == len(grads) else [grads[i] for i in block.indices]
            if own[0] is not None:  # else none is there
                prepared.append((block, *binding.record(block), own))
        return prepared


class Binding:
    """A parameter group's rule with its hyperparameters, as long as these stay what they are."""

    def __init__(
        self,
        engine: Engine,
        group: dict[str, Any],
        values: list[Any],
        recorders: dict[Any, Recorder],
    ) -> None:
        rule, settings = engine.bind(group)
        start = {engine.memory[v]: engine.start(rule, v, group) for v in starts(rule)}
        self.numbers = {name: start.get(name, 0.0) for name in engine.numbers}
        self.memory = {name: first for name, first in start.items() if name not in self.numbers}
        self.names = [*self.memory]
        self.counted = [name for name in start if name in self.numbers]
        weight_decay, decoupled = group["weight_decay"], group.get("decoupled_weight_decay", False)
        move: Rule = functools.partial(
            _move, rule, group["maximize"], decoupled and weight_decay != 0, weight_decay != 0
        )
        settings = {"rate": group["lr"], "decay": weight_decay, **settings}
        self.settings = {name: float(value) for name, value in settings.items()}
        self.stepped = "step" in hyperparameters(rule)
        form = move.args
        if form not in recorders:
            recorders[form] = Recorder(move, [name in self.memory for name in start])
        self.recorder = recorders[form]
        # A tensor may change and stay the same object: then nothing equals these values.
        lasting = not any(isinstance(v, Tensor) for v in (*values, *group.get("betas", ())))
        self.values = values if lasting else None

    def record(self, block: Block) -> tuple[Recording, list[str], dict[str, float]]:
        """What to do with a block, the names of its state, and what its numbers become."""
        # Without a count in its state, torch tells the first step from the others.
        step = block.number("step") + 1 if "step" in self.numbers else 2.0 - block.fresh
        if self.stepped:
            self.settings["step"] = step
        recording = self.recorder([block.number(name) for name in self.counted], self.settings)
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
    rate: Any,
    decay: Any,
    **settings: Any,
) -> tuple[Any, ...]:
    """A rule with what every optimizer may have before it."""
    if maximize:
        g = -g
    if decoupled:
        theta = decoupled_decay(theta, rate, decay)
    elif decayed:
        g = l2_decay(theta, g, decay)
    return rule(theta, g, *state, **settings)
