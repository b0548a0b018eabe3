"""The ``torch.optim.Optimizer`` that all optimizers here are.

A step is ``evaluate`` (the closure), ``precondition`` (the whole model's gradients), then the
update, block by block, and ``review``.
"""

import abc
import difflib
from collections.abc import Callable
from itertools import count
from operator import attrgetter
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import optimizer as torchs

from optlab.engine.binding import Binding, Bound
from optlab.engine.blocks import Arrangement
from optlab.engine.checkpoints import Checkpointed
from optlab.engine.recorder import Recorder
from optlab.errors import check_flag, check_pair, check_range, nearest
from optlab.rules import Rule
from optlab.signatures import starts

#: So near to a hyperparameter's name that it must be a slip; schedulers' own keys are not.
SLIP = 0.85
GLOBAL_HOOKS = (torchs._global_optimizer_pre_hooks, torchs._global_optimizer_post_hooks)
GRADIENT, LAYOUT = attrgetter("grad"), attrgetter("layout")
Gradients = list[Tensor | None]


class Engine(Checkpointed, abc.ABC):
    """Base of the optimizers.

    Subclasses set ``ranges`` (hyperparameter: allowed interval), ``flags`` (hyperparameters that
    are true or false), ``memory`` (a rule's state variable: torch's name for it in
    ``state_dict``), ``numbers`` (torch's names of state that is one number per parameter) and
    ``layerwise`` (whether a rule takes norms, so that each parameter stays by itself), and define
    :meth:`bind`.  Weight decay is the engine's, unless the rule takes it.

    Parameters of half precision are updated in float32 and keep float32 state.  ``.grad`` is
    never modified.  A parameter whose gradient is ``None`` is skipped.  With ``compile`` a rule
    runs as one kernel, made at the first step.
    """

    ranges: ClassVar[dict[str, str]]
    flags: ClassVar[tuple[str, ...]] = ("maximize",)
    layerwise: ClassVar[bool] = False
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
    def bind(self, group: dict[str, Any]) -> Bound:
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
            ValueError: a hyperparameter out of range, or a parameter that is a view of its
                conjugate or negative.
        """
        if isinstance(param_group, dict):
            for key in param_group.keys() - self.defaults.keys():
                self._refuse_slip(str(key))
            self.check_numbered(param_group, len(self.param_groups))
        super().add_param_group(param_group)
        if any(p.is_conj() or p.is_neg() for p in self.param_groups[-1]["params"]):
            self.param_groups.pop()
            raise ValueError("params must not be conjugated or negated lazily: resolve them first")

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
        given = () if closure is None else (closure,)  # what hooks are told of
        if torch.compiler.is_compiling():
            return torch.compiler.disable(self._hooked_step)(*given)
        if (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or any(GLOBAL_HOOKS)
            or torch._C._autograd._profiler_enabled()
        ):
            return self._hooked_step(*given)
        return self._step(closure)

    # Torch would wrap it too: hooks and a name in the profiler, at 5 microseconds a step.
    step.hooked = True  # type: ignore[attr-defined]

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = self.evaluate(closure)
        enabled = torch.is_grad_enabled()
        torch._C._set_grad_enabled(False)  # torch.no_grad(), at a fifth of its time
        try:
            gradients = [[*map(GRADIENT, group["params"])] for group in self.param_groups]
            gradients = self.precondition(gradients)
            complete = list(map(self._complete, count(), self.param_groups, gradients))
            updates: list[Any] = []
            for number, group in enumerate(self.param_groups):
                updates += self._prepare(number, group, gradients[number], complete[number])
            if self.compile:
                for block, recording, *_ in updates:
                    block.build(recording.program)
            for block, recording, names, counted, grads in updates:
                block.update(recording, names, counted, grads, compile=self.compile)
        finally:
            torch._C._set_grad_enabled(enabled)
        self.review(loss, closure)
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

    def review(self, loss: Any, closure: Callable[[], Any] | None) -> None:
        """Look back at a step; a method that adapts itself compares the losses."""

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
        values = list(map(group.get, self.defaults))
        binding = self._bindings.get(index)
        if binding is None or binding.values != values:
            bound = self.bind(group)
            start = {self.memory[v]: self.start(bound[0], v, group) for v in starts(bound[0])}
            binding = Binding(bound, group, values, start, self.numbers, self._recorders)
            self._bindings[index] = binding
            self._arrangements.setdefault(index, Arrangement())
        arrangement = self._arrangements[index]
        if not arrangement.fits(group["params"], grads, complete, self.state, binding.memory):
            state = self.state, binding.memory, binding.numbers
            arrangement.renew(grads, *state, self._pool, self.layerwise)
        prepared = []
        for block in arrangement.blocks:
            own = block.pick(grads)
            if own[0] is not None:  # else none is there
                prepared.append((block, *binding.record(block), own))
        return prepared


def settings(arguments: dict[str, Any]) -> dict[str, Any]:
    """The hyperparameters among a constructor's ``locals()``."""
    others = {"self", "__class__", "params", "compile"}
    return {name: value for name, value in arguments.items() if name not in others}
