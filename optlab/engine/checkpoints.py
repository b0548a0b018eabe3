"""Checkpoints: state dicts that are torch's, checked before loading and exact after."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from optlab.engine.kernels import working


class Checkpointed(torch.optim.Optimizer):
    """An optimizer whose state dict loads into torch's namesake, and the other way round."""

    memory: ClassVar[dict[str, str]] = {}
    numbers: ClassVar[tuple[str, ...]] = ()

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

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise when a hyperparameter is out of its range."""

    def check_numbered(self, group: dict[str, Any], number: int) -> None:
        """The same for a group that need not name every hyperparameter; the error says which."""
        try:
            self.check_group({**self.defaults, **group})
        except (TypeError, ValueError) as error:
            raise type(error)(f"{error} (parameter group {number})") from None

    def _check_saved(self, saved: dict[str, Any]) -> None:
        for number, group in enumerate(saved["param_groups"]):
            self.check_numbered(group, number)
        for index, p in self._numbered(saved):
            state = saved["state"].get(index, {})
            if not isinstance(state, dict):
                raise ValueError(f"state of parameter {index} must be a dict, got {state!r}")
            for name in self._shaped():
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
            exact = [*self.numbers, *(self._shaped() if working(p.dtype) != p.dtype else [])]
            for name in exact:
                value = saved["state"].get(index, {}).get(name)
                if isinstance(value, Tensor):
                    dtype = working(p.dtype) if name not in self.numbers else value.dtype
                    self.state[p][name] = value.to(value.device, dtype, copy=True)

    def _shaped(self) -> list[str]:
        """Names of the state that has a parameter's shape."""
        return [name for name in self.memory.values() if name not in self.numbers]

    def _numbered(self, saved: dict[str, Any]) -> list[tuple[int, Tensor]]:
        """Each parameter with its number in a state dict; torch refuses counts that differ."""
        numbers = [index for group in saved["param_groups"] for index in group["params"]]
        parameters = [p for group in self.param_groups for p in group["params"]]
        return list(zip(numbers, parameters, strict=False))
