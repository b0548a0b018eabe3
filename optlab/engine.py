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

from optlab.errors import check_range, nearest
from optlab.rules import Rule, hyperparameters, states

HALF = (torch.float16, torch.bfloat16)
#: So near to a hyperparameter's name that it must be a slip; schedulers' own keys are not.
SLIP = 0.85


class Engine(torch.optim.Optimizer, abc.ABC):
    """Base of the elementwise optimizers.

    Subclasses set ``ranges`` (hyperparameter: allowed interval), ``memory`` (a rule's state
    variable: torch's name for it in ``state_dict``) and define :meth:`bind`.

    Parameters of half precision are updated in float32 and keep float32 state.  ``.grad`` is
    never modified.  A parameter whose gradient is ``None`` is skipped.
    """

    ranges: ClassVar[dict[str, str]]
    memory: ClassVar[dict[str, str]] = {}

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        self.check_group(defaults)
        super().__init__(params, defaults)

    @abc.abstractmethod
    def bind(self, group: dict[str, Any]) -> tuple[Rule, dict[str, Any]]:
        """The rule for a parameter group, and the hyperparameters to call it with."""

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise when a hyperparameter is out of its range; a subclass adds joint conditions."""
        for name, allowed in self.ranges.items():
            check_range(name, group[name], allowed)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with hyperparameters of their own; the constructor's fill the gaps.

        Raises:
            TypeError: a key that is a slip of a hyperparameter's name.
            ValueError: a hyperparameter out of range.
        """
        if isinstance(param_group, dict):
            for key in param_group.keys() - self.defaults.keys():
                if difflib.get_close_matches(str(key), self.defaults, n=1, cutoff=SLIP):
                    raise TypeError(
                        f"{type(self).__name__} has no hyperparameter {key!r}: "
                        f"{nearest(key, self.defaults)}"
                    )
            self.check_group({**self.defaults, **param_group})
        super().add_param_group(param_group)

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
        names = [self.memory[name] for name in states(rule)]
        if not names:
            p.copy_(rule(theta, g, **settings)[0])
            return
        state = self.state[p]
        state["step"] = state.get("step", 0) + 1
        past = [state[name] if name in state else torch.zeros_like(theta) for name in names]
        if "step" in hyperparameters(rule):
            settings = {**settings, "step": state["step"]}
        new, *past = rule(theta, g, *past, **settings)
        p.copy_(new)
        state.update(zip(names, past, strict=True))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint of this optimizer or of torch's namesake.

        State keeps the dtype it was saved in: torch's loader alone would round the float32
        state of a half-precision parameter to half precision.

        Raises:
            ValueError: a saved hyperparameter is out of range, or the groups do not match.
        """
        for group in state_dict["param_groups"]:
            self.check_group({**self.defaults, **group})
        super().load_state_dict(state_dict)
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            for name, default in self.defaults.items():
                group.setdefault(name, default)
            for p, index in zip(group["params"], saved["params"], strict=True):
                for name, value in state_dict["state"].get(index, {}).items():
                    if torch.is_tensor(value) and value.is_floating_point() and name != "step":
                        self.state[p][name] = value.to(p.device, copy=True)
                if p in self.state:  # torch's SGD does not count its steps
                    self.state[p].setdefault("step", 1)

    def _refuse_sparse(self) -> None:
        for index, group in enumerate(self.param_groups):
            for number, p in enumerate(group["params"]):
                if p.grad is not None and p.grad.layout != torch.strided:
                    name = group.get("param_names", {number: f"number {number}"})[number]
                    raise ValueError(
                        f"{type(self).__name__} takes dense gradients; parameter {name} of "
                        f"group {index} has one of layout {p.grad.layout}"
                    )
