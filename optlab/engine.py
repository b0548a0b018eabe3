"""The engine: one ``torch.optim.Optimizer`` that runs any rule of :mod:`optlab.rules`.

A step is ``evaluate`` (the closure), ``precondition`` (the whole model's gradients), then the
update: the rule is recorded once (:mod:`optlab.tape`) and runs on blocks of parameters
(:mod:`optlab.blocks`).  An optimizer names its hyperparameters' ranges and its state, and binds a
parameter group to a rule; the rest is here.
"""

import abc
import difflib
from collections.abc import Callable
from operator import is_
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import optimizer as torchs

from optlab.blocks import Block, partition
from optlab.errors import check_flag, check_pair, check_range, nearest
from optlab.kernels import working
from optlab.rules import Rule, decoupled_decay, l2_decay
from optlab.signatures import hyperparameters, starts
from optlab.tape import Recording, record

#: So near to a hyperparameter's name that it must be a slip; schedulers' own keys are not.
SLIP = 0.85
GLOBAL_HOOKS = (torchs._global_optimizer_pre_hooks, torchs._global_optimizer_post_hooks)
Gradients = list[Tensor | None]


class Engine(torch.optim.Optimizer, abc.ABC):
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
    memory: ClassVar[dict[str, str]] = {}
    numbers: ClassVar[tuple[str, ...]] = ()
    compile: bool

    def __init__(self, params: Any, defaults: dict[str, Any], compile: bool = False) -> None:
        check_flag("compile", compile)
        self.compile = compile
        self._arrange_anew()
        self.check_group(defaults)
        if not isinstance(params, (Tensor, dict)):  # torch has its own words for these
            params = list(params)
            if not params:
                raise ValueError("params must hold at least one parameter or group, got none")
        super().__init__(params, defaults)

    @abc.abstractmethod
    def bind(self, group: dict[str, Any]) -> tuple[Rule, dict[str, Any]]:
        """The rule for a parameter group, and the hyperparameters to call it with."""

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise when a hyperparameter is out of its range; a subclass adds joint conditions."""
        for name, allowed in self.ranges.items():
            if name == "betas":
                check_pair(name, group[name], allowed)
            else:
                check_range(name, group[name], allowed)
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
            self._check_numbered(param_group, len(self.param_groups))
        super().add_param_group(param_group)

    def _refuse_slip(self, key: str) -> None:
        bare = key.casefold().strip("_ ")
        if bare in self.defaults or difflib.get_close_matches(bare, self.defaults, 1, SLIP):
            raise TypeError(
                f"{type(self).__name__} has no hyperparameter {key!r}: "
                f"{nearest(bare, self.defaults)}"
            )

    def _check_numbered(self, group: dict[str, Any], number: int) -> None:
        try:
            self.check_group({**self.defaults, **group})
        except (TypeError, ValueError) as error:
            raise type(error)(f"{error} (parameter group {number})") from None

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one update; returns the closure's loss, or ``None`` without a closure.

        Raises:
            ValueError: a gradient is sparse; no parameter has been changed then.
        """
        hooks = (self._optimizer_step_pre_hooks, self._optimizer_step_post_hooks)
        if torch.compiler.is_compiling():
            return torch.compiler.disable(self._hooked_step)(closure)
        if any((*hooks, *GLOBAL_HOOKS)) or torch.autograd._profiler_enabled():
            return self._hooked_step(closure)
        return self._step(closure)

    # Torch would wrap it: hooks and a name in the profiler, at 5 microseconds a step.
    step.hooked = True  # type: ignore[attr-defined]

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = self.evaluate(closure)
        with torch.no_grad():
            gradients = [[p.grad for p in group["params"]] for group in self.param_groups]
            self._refuse_sparse(gradients)
            gradients = self.precondition(gradients)
            known, self._recordings = self._recordings, {}
            updates = [
                update
                for number, group in enumerate(self.param_groups)
                for update in self._prepare(number, group, gradients[number], known)
            ]
            for block, *update in updates:
                block.update(*update, compile=self.compile)
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

    def start(self, rule: Rule, variable: str, group: dict[str, Any]) -> float:
        """The entries of a state variable before the first step."""
        return starts(rule)[variable]

    def _prepare(
        self, index: int, group: dict[str, Any], gradients: Gradients, known: dict[Any, Recording]
    ) -> list[tuple[Any, ...]]:
        """What each block of a group is to do: nothing has moved yet."""
        rule, settings = self.bind(group)
        settings = {k: float(v) if isinstance(v, Tensor) else v for k, v in settings.items()}
        lr, weight_decay = float(group["lr"]), float(group["weight_decay"])
        decoupled, maximize = group.get("decoupled_weight_decay", False), group["maximize"]
        variables = [self.memory[variable] for variable in starts(rule)]
        names = [name for name in variables if name not in self.numbers]

        def update(theta: Any, g: Any, *state: Any) -> tuple[Any, ...]:
            if maximize:
                g = -g
            if weight_decay != 0 and decoupled:
                theta = decoupled_decay(theta, lr, weight_decay)
            elif weight_decay != 0:
                g = l2_decay(theta, g, weight_decay)
            return rule(theta, g, *state, **settings)

        prepared = []
        for block in self._arrange(index, group, gradients, rule):
            grads = [gradients[i] for i in block.indices]
            if grads[0] is None:  # then all are
                continue
            # Without a count in its state, torch tells the first step from the others.
            step = block.number("step") + 1 if "step" in self.numbers else 2 - block.fresh
            if "step" in hyperparameters(rule):
                settings["step"] = step
            state = [block.number(n) if n in self.numbers else None for n in variables]
            key = (rule, maximize, decoupled, weight_decay, lr, *state, *settings.values())
            recording = self._recordings.get(key) or known.get(key)
            if recording is None:
                recording = record(update, None, None, *state)
            self._recordings[key] = recording
            numbers = dict(
                zip([n for n in variables if n in self.numbers], recording.floats, strict=True)
            )
            if "step" in self.numbers:
                numbers["step"] = step
            prepared.append((block, recording, names, numbers, grads))
        return prepared

    def _arrange(
        self, index: int, group: dict[str, Any], gradients: Gradients, rule: Rule
    ) -> list[Block]:
        """The group's blocks, of which none has only some of its gradients."""
        params, state = group["params"], self.state
        memory = {self.memory[v]: self.start(rule, v, group) for v in starts(rule)}
        numbers = {name: memory.pop(name, 0.0) for name in self.numbers}
        seen, blocks = self._blocks.get(index, ([], []))
        same = len(seen) == len(params) and all(map(is_, seen, params))
        kept, dropped = [], []
        for block in blocks:
            absent = sum(gradients[i] is None for i in block.indices) if same else 0
            whole = absent == len(block.params) or (absent == 0 and block.fits(state, memory))
            (kept if same and whole else dropped).append(block)
        placed = sum(len(block.indices) for block in kept)
        if placed == len(params):
            return blocks
        taken = {i for block in kept for i in block.indices}
        rest = [i for i, g in enumerate(gradients) if g is not None and i not in taken]
        if not rest and not dropped:
            return blocks
        # Parameters that were apart stay so: else those that come and go would move every time.
        origin = {p: number for number, block in enumerate(dropped) for p in block.params}
        for block in dropped:
            block.release()

        def past(p: Tensor) -> tuple[Any, ...]:
            entry = state.get(p, {})
            counted = [float(entry.get(name, start)) for name, start in numbers.items()]
            return origin.get(p), *counted, *(entry.get(name) is None for name in memory)

        made = [
            Block(indices, [params[i] for i in indices], state, memory, numbers, self._pool)
            for indices in partition(params, rest, past)
        ]
        self._blocks[index] = (list(params), [*kept, *made])
        return self._blocks[index][1]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint of this optimizer or of torch's namesake.

        As in torch, state takes its parameter's dtype; but that of a half-precision parameter
        stays in float32, where torch's loader alone would round it.

        Raises:
            TypeError: a hyperparameter of the wrong kind.
            ValueError: a hyperparameter out of range, or state that does not fit; nothing has
                been changed then.
        """
        final: dict[str, Any] = {}

        def check(_: Any, saved: dict[str, Any]) -> None:
            self._check_saved(saved)
            final.update(saved)

        # Hooks, so that users' own run before: the check sees the state dict that they made.
        hooks = [
            self.register_load_state_dict_pre_hook(check),
            self.register_load_state_dict_post_hook(lambda _: self._restore(final), prepend=True),
        ]
        try:
            super().load_state_dict(state_dict)
        finally:
            for hook in hooks:
                hook.remove()

    def _check_saved(self, saved: dict[str, Any]) -> None:
        for number, group in enumerate(saved["param_groups"]):
            self._check_numbered(group, number)
        for index, p in self._numbered(saved):
            state = saved["state"].get(index, {})
            if not isinstance(state, dict):
                raise ValueError(f"state of parameter {index} must be a dict, got {state!r}")
            for name in self._memory():
                value = state.get(name)
                if value is not None and getattr(value, "shape", None) != p.shape:
                    shape = tuple(getattr(value, "shape", ())) or value
                    raise ValueError(
                        f"{name} of parameter {index} must have shape {tuple(p.shape)}, got {shape}"
                    )

    def _restore(self, saved: dict[str, Any]) -> None:
        for group in self.param_groups:
            for name, default in self.defaults.items():
                group.setdefault(name, default)
        for index, p in self._numbered(saved):
            if working(p.dtype) != p.dtype:
                for name in self._memory():
                    value = saved["state"].get(index, {}).get(name)
                    if value is not None:
                        self.state[p][name] = value.to(p.device, torch.float32, copy=True)

    def _memory(self) -> list[str]:
        """Names of the state that has a parameter's shape."""
        return [name for name in self.memory.values() if name not in self.numbers]

    def _numbered(self, saved: dict[str, Any]) -> list[tuple[int, Tensor]]:
        """Each parameter with its number in a state dict; torch refuses counts that differ."""
        numbers = [index for group in saved["param_groups"] for index in group["params"]]
        parameters = [p for group in self.param_groups for p in group["params"]]
        return list(zip(numbers, parameters, strict=False))

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "compile": self.compile}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._arrange_anew()

    def _arrange_anew(self) -> None:
        self._blocks: dict[int, tuple[list[Tensor], list[Block]]] = {}
        self._pool: dict[Any, Tensor] = {}
        self._recordings: dict[Any, Recording] = {}

    def _refuse_sparse(self, gradients: list[Gradients]) -> None:
        for number, (group, grads) in enumerate(zip(self.param_groups, gradients, strict=True)):
            for index, g in enumerate(grads):
                if g is not None and g.layout is not torch.strided:
                    names = group.get("param_names")
                    raise ValueError(
                        f"{type(self).__name__} takes dense gradients; parameter "
                        f"{names[index] if names else index} of group {number} "
                        f"has one of layout {g.layout}"
                    )
