"""The engine: one ``torch.optim.Optimizer`` that runs any rule of :mod:`optlab.rules`.

A step is ``evaluate`` (the closure), ``precondition`` (the whole model), then ``update``
(a rule, parameter by parameter).  An optimizer names its hyperparameters' ranges and its
state, and binds a parameter group to a rule; the rest is here.
"""

import abc
import difflib
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from optlab.errors import check_flag, check_range, nearest
from optlab.rules import RULES, Rule
from optlab.signatures import hyperparameters, states

HALF = (torch.float16, torch.bfloat16)
#: So near to a hyperparameter's name that it must be a slip; schedulers' own keys are not.
SLIP = 0.85
# Of each rule: its state variables, and whether it takes the step's number.  A table, since
# torch.compile would trace the functions that find them.
_SIGNATURES = {rule: (states(rule), "step" in hyperparameters(rule)) for rule in RULES.values()}


def _signature(rule: Rule) -> tuple[tuple[str, ...], bool]:
    """The entry of the table, made for a rule of the user's own when it first runs."""
    if rule not in _SIGNATURES:
        _SIGNATURES[rule] = (states(rule), "step" in hyperparameters(rule))
    return _SIGNATURES[rule]


class Engine(torch.optim.Optimizer, abc.ABC):
    """Base of the elementwise optimizers.

    Subclasses set ``ranges`` (hyperparameter: allowed interval), ``flags`` (hyperparameters that
    are true or false) and ``memory`` (a rule's state variable: torch's name for it in
    ``state_dict``), and define :meth:`bind`.

    Parameters of half precision are updated in float32 and keep float32 state.  ``.grad`` is
    never modified.  A parameter whose gradient is ``None`` is skipped.
    """

    ranges: ClassVar[dict[str, str]]
    flags: ClassVar[tuple[str, ...]] = ("maximize",)
    memory: ClassVar[dict[str, str]] = {}

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
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

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one update; returns the closure's loss, or ``None`` without a closure.

        Raises:
            ValueError: a gradient is sparse; no parameter has been changed then.
        """
        loss = self.evaluate(closure)
        self._refuse_sparse()
        self.precondition()
        for group in self.param_groups:
            rule, settings = self.bind(group)
            for p in group["params"]:
                if p.grad is not None:
                    self.update(p, p.grad, rule, settings, group)
        return loss

    def evaluate(self, closure: Callable[[], Any] | None) -> Any:
        """The loss at the present parameters, with gradients enabled."""
        if closure is None:
            return None
        with torch.enable_grad():
            return closure()

    def precondition(self) -> None:
        """Nothing here; a second-order method maps the whole model's gradients."""

    def update(
        self,
        p: Tensor,
        g: Tensor,
        rule: Rule,
        settings: dict[str, Any],
        group: dict[str, Any],
    ) -> None:
        """Apply the rule to one parameter and its gradient, in float32 at least."""
        theta, g = (p.float(), g.float()) if p.dtype in HALF else (p, g)
        if group["maximize"]:
            g = -g
        if group["weight_decay"] != 0:
            g = g + group["weight_decay"] * theta
        variables, numbered = _signature(rule)
        names = [self.memory[name] for name in variables]
        state = self.state[p] if names else {}
        past = [state.get(name) for name in names]
        if numbered:  # torch's state keeps no count: first or later
            settings = {**settings, "step": 1 if past[0] is None else 2}
        past = [torch.zeros_like(theta) if value is None else value for value in past]
        new, *past = rule(theta, g, *past, **settings)
        p.copy_(new)
        state.update(zip(names, past, strict=True))

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
            for name in self.memory.values():
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
            if p.dtype in HALF:
                for name in self.memory.values():
                    value = saved["state"].get(index, {}).get(name)
                    if value is not None:
                        self.state[p][name] = value.to(p.device, torch.float32, copy=True)

    def _numbered(self, saved: dict[str, Any]) -> list[tuple[int, Tensor]]:
        """Each parameter with its number in a state dict; torch refuses counts that differ."""
        numbers = [index for group in saved["param_groups"] for index in group["params"]]
        parameters = [p for group in self.param_groups for p in group["params"]]
        return list(zip(numbers, parameters, strict=False))

    def _refuse_sparse(self) -> None:
        for number, group in enumerate(self.param_groups):
            names = group.get("param_names")
            for index, p in enumerate(group["params"]):
                if p.grad is not None and p.grad.layout != torch.strided:
                    raise ValueError(
                        f"{type(self).__name__} takes dense gradients; parameter "
                        f"{names[index] if names else index} of group {number} "
                        f"has one of layout {p.grad.layout}"
                    )
