"""Dynamic loss scaling: a loss made so large that gradients in half precision do not underflow."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed
from torch.optim import Optimizer

from optlab.errors import check_count, check_flag, check_range

#: What a checkpoint has, by the names of :class:`torch.amp.GradScaler`.
KEYS = ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")


class Event(NamedTuple):
    """What an update, or an evaluation within a step, did.

    Args:
        update: how many updates there had been.
        scale: after it.
        skipped: whether a step was left out.
    """

    update: int
    scale: float
    skipped: bool


class _LeftOutError(Exception):
    """Leaves an optimizer's step before it changes anything."""


class LossScaler:
    """Multiplies the loss, divides its gradients, and leaves out the steps in which they overflow.

    After an overflow the scale falls by ``backoff_factor``; after ``growth_interval`` updates
    without one it rises by ``growth_factor`` (after Micikevicius et al. 2018).  To be used like
    :class:`torch.amp.GradScaler`, whose scales and skipped steps it has, whose checkpoints it
    loads, and which loads its own.  Beyond that:

    - the scale does not fall below ``min_scale``;
    - a closure is allowed: when its gradients overflow it is called again with a lower scale, and
      only at the lowest is the step left out;
    - gradients of all ranks count where they hold a part each.

    Args:
        init_scale: in ``[min_scale, inf)``.
        growth_factor: in (1, inf).
        backoff_factor: in (0, 1).
        growth_interval: updates.
        min_scale: in (0, inf).
        enabled: whether to do anything at all.
        process_group: ranks that hold a part of the gradients each, not a copy.

    Attributes:
        history: an :class:`Event` for each change of the scale and each step left out.

    >>> weight = torch.ones(1, requires_grad=True)
    >>> optimizer, scaler = torch.optim.SGD([weight], lr=1.0), LossScaler(init_scale=8.0)
    >>> for factor in (0.5, math.inf):
    ...     optimizer.zero_grad()
    ...     scaler.scale((factor * weight).sum()).backward()
    ...     _ = scaler.step(optimizer)
    ...     scaler.update()
    >>> weight.item(), scaler.get_scale(), scaler.history
    (0.5, 4.0, [Event(update=2, scale=4.0, skipped=True)])
    """

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        *,
        min_scale: float = 1.0,
        enabled: bool = True,
        process_group: Any = None,
    ) -> None:
        check_range("min_scale", min_scale, "(0, inf)")
        check_range("init_scale", init_scale, f"[{min_scale}, inf)")
        check_range("growth_factor", growth_factor, "(1, inf)")
        check_range("backoff_factor", backoff_factor, "(0, 1)")
        check_count("growth_interval", growth_interval)
        check_flag("enabled", enabled)
        self._scale = _single(init_scale)
        self.growth_factor, self.backoff_factor = growth_factor, backoff_factor
        self.growth_interval, self.min_scale = growth_interval, min_scale
        self.process_group = process_group
        self.history: list[Event] = []
        self._enabled = enabled
        self._clean = self._updates = 0
        #: Whether gradients were not finite, by optimizer, since the last update.
        self._overflowed: dict[Optimizer, Tensor | bool] = {}
        self._stepped: set[Optimizer] = set()

    def is_enabled(self) -> bool:
        """Whether it does anything."""
        return self._enabled

    def get_scale(self) -> float:
        """What the loss is multiplied by."""
        return self._scale if self._enabled else 1.0

    def scale(self, outputs: Any) -> Any:
        """The loss times the scale; also losses in lists, tuples and dicts.

        A loss in half precision is taken to float32 first, in which the product is finite.
        """
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            return outputs.to(torch.promote_types(outputs.dtype, torch.float32)) * self._scale
        if isinstance(outputs, dict):
            return {name: self.scale(value) for name, value in outputs.items()}
        if isinstance(outputs, list | tuple):
            return type(outputs)(self.scale(value) for value in outputs)
        raise TypeError(f"a loss must be a tensor or hold tensors, got {type(outputs).__name__}")

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide an optimizer's gradients by the scale, in place, to clip or to look at them.

        Raises:
            RuntimeError: it has been done since the last update, or the step taken, or there is no
                gradient.
            ValueError: a gradient is in float16, in which the quotient would underflow.
        """
        if not self._enabled:
            return
        if optimizer in self._stepped:
            raise RuntimeError("unscale_() after step(): call it before, or update() first")
        if optimizer in self._overflowed:
            raise RuntimeError("unscale_() a second time since the last update()")
        found = self._unscale(optimizer)
        if found is None:
            raise RuntimeError("unscale_(): no parameter of this optimizer has a gradient")
        self._overflowed[optimizer] = found

    def step(
        self, optimizer: Optimizer, closure: Callable[[], Any] | None = None, **keywords: Any
    ) -> Any:
        """Unscale the gradients, where that is not done, and step unless one is not finite.

        A closure scales its loss and passes it back; it must set gradients to zero first.

        Returns:
            What the optimizer's step returns; None when it was left out.

        Raises:
            RuntimeError: a second time since the last update, or there is no gradient.
        """
        given = () if closure is None else (closure,)
        if not self._enabled:
            return optimizer.step(*given, **keywords)
        if optimizer in self._stepped:
            raise RuntimeError("step() a second time since the last update()")
        if closure is not None:
            if optimizer in self._overflowed:
                raise RuntimeError("unscale_() before step(closure): the closure's are unscaled")
            return self._step_with(optimizer, closure, keywords)
        if optimizer not in self._overflowed:
            self.unscale_(optimizer)
        self._overflowed[optimizer] = left_out = bool(self._overflowed[optimizer])
        # An error of the optimizer's leaves the step to be tried again.
        result = None if left_out else optimizer.step(**keywords)
        self._stepped.add(optimizer)
        return result

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Adapt the scale, after the steps of all optimizers; or set it.

        Raises:
            RuntimeError: no gradient was looked at since the last update.
            ValueError: the new scale is below ``min_scale``, or not finite.
        """
        if not self._enabled:
            return
        if new_scale is not None:
            check_range("new_scale", new_scale, f"[{self.min_scale}, inf)")
            self._updates += 1
            self._set(_single(float(new_scale)), False)
        else:
            if not self._overflowed:
                raise RuntimeError("update() before any unscale_() or step()")
            overflowed = any(bool(found) for found in self._overflowed.values())
            self._updates += 1
            if overflowed:
                self._back_off(True)
            else:
                self._clean += 1
                if self._clean == self.growth_interval:
                    self._clean, larger = 0, _single(self._scale * self.growth_factor)
                    self._set(larger if math.isfinite(larger) else self._scale, False)
        self._overflowed, self._stepped = {}, set()

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint, which torch takes too; empty when not enabled."""
        if not self._enabled:
            return {}
        factors = self.growth_factor, self.backoff_factor
        values = (self._scale, *factors, self.growth_interval, self._clean)
        own = {"updates": self._updates, "history": [tuple(event) for event in self.history]}
        return {**dict(zip(KEYS, values, strict=True)), **own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint, of torch's GradScaler too; ``min_scale`` stays this scaler's.

        Raises:
            ValueError: an entry is missing or out of its range; nothing has been changed then.
        """
        if not self._enabled:
            return
        missing = [key for key in KEYS if key not in state_dict]
        if missing:
            raise ValueError(f"the state dict has no {', '.join(missing)}: it is not of a scaler")
        scale, growth, backoff, interval, clean = (state_dict[key] for key in KEYS)
        check_range("scale", scale, f"[{self.min_scale}, inf)")
        check_range("growth_factor", growth, "(1, inf)")
        check_range("backoff_factor", backoff, "(0, 1)")
        check_count("growth_interval", interval)
        check_range("_growth_tracker", clean, f"[0, {interval})")
        history = [Event(*event) for event in state_dict.get("history", [])]
        self._scale, self.growth_factor, self.backoff_factor = scale, growth, backoff
        self.growth_interval, self._clean, self.history = interval, clean, history
        self._updates = state_dict.get("updates", 0)

    def _unscale(self, optimizer: Optimizer) -> Tensor | None:
        """Whether a gradient is not finite, or None without any; no waiting for the device."""
        kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for group in optimizer.param_groups:
            for p in group["params"]:
                if (grad := p.grad) is not None:
                    if grad.dtype is torch.float16:
                        raise ValueError(
                            "gradients in float16 cannot be unscaled without underflow: keep "
                            "parameters in float32 under autocast, or behind MasterWeights"
                        )
                    if grad.is_sparse:
                        grad = grad._values()
                    kinds.setdefault((grad.device, grad.dtype), []).append(grad)
        if not kinds:
            return None
        found: list[Tensor] = []
        for (device, _), grads in kinds.items():
            flag = torch.zeros((), device=device)
            inverse = torch.full((), 1 / self._scale, device=device)
            torch._amp_foreach_non_finite_check_and_unscale_(grads, flag, inverse)
            found.append(flag)
        total = found[0]
        for flag in found[1:]:
            total = total + flag.to(total.device)
        if self.process_group is not None:
            distributed.all_reduce(total, distributed.ReduceOp.MAX, self.process_group)
        return total

    def _step_with(
        self, optimizer: Optimizer, closure: Callable[[], Any], keywords: dict[str, Any]
    ) -> Any:
        first = True

        def unscaled() -> Any:
            nonlocal first
            while True:
                loss = closure()
                found = self._unscale(optimizer)
                # Without gradients it is of an optimizer that passes back by itself.
                if found is None or not bool(found):
                    break
                if self._scale <= self.min_scale:
                    if first:
                        raise _LeftOutError
                    break  # the optimizer is amid its step, and has to judge
                self._back_off(False)
            first = False
            return loss

        try:
            result = optimizer.step(unscaled, **keywords)
            self._overflowed[optimizer] = False
        except _LeftOutError:
            result, self._overflowed[optimizer] = None, True
        self._stepped.add(optimizer)
        return result

    def _back_off(self, skipped: bool) -> None:
        self._clean = 0
        self._set(max(_single(self._scale * self.backoff_factor), self.min_scale), skipped)

    def _set(self, scale: float, skipped: bool) -> None:
        if skipped or scale != self._scale:
            self.history.append(Event(self._updates, scale, skipped))
        self._scale = scale


def _single(number: float) -> float:
    """Rounded to float32, in which torch has its scale."""
    return float(torch.tensor(number, dtype=torch.float32))
