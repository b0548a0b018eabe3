"""One turn of the loop: from a batch to an update of the parameters, by any method."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optlab.clipping import clip_grad_norm_
from optlab.errors import check_choice, check_count, check_range
from optlab.precision import Policy
from optlab.training.losses import Losses
from optlab.training.offender import first_offender

#: What an optimizer's step is given: nothing; or a closure that calls ``backward()`` and returns
#: the loss; or one that returns the loss with its graph, or outputs and targets.
CLOSURES = ("none", "backward", "loss", "outputs")


class Update:
    """Forward and backward pass, clipping, and the optimizer's step.

    For the arguments see :class:`~optlab.training.trainer.Trainer`.

    Args:
        losses: is told each batch's loss.

    Attributes:
        bare: the model without a wrapper.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        loss: Any,
        losses: Losses,
        *,
        precision: Policy,
        scaler: Any,
        clip: float | Callable[[list[Tensor]], Any] | None,
        accumulate: int,
        penalty: Callable[[], Tensor] | None,
        closure: str,
    ) -> None:
        check_choice("closure", closure, CLOSURES)
        check_count("accumulate", accumulate)
        if (loss is None) != (closure == "outputs"):
            raise ValueError(
                "loss must be None where the optimizer's likelihood is the loss, and only there: "
                f"got {loss!r} with closure={closure!r}"
            )
        given = {"clip": clip, "penalty": penalty, "accumulate": accumulate > 1 or None}
        allowed = {"none": [*given], "backward": [*given], "loss": ["penalty"], "outputs": []}
        refused = [
            name for name in given if given[name] is not None and name not in allowed[closure]
        ]
        if closure != "none" and scaler.is_enabled():
            refused += [] if closure == "backward" and clip is None else ["scaler"]
        if refused:
            raise ValueError(f"{refused[0]} does not go with closure={closure!r}")
        if clip is not None and not callable(clip):
            check_range("clip", clip, "(0, inf)")
        self.model, self.optimizer, self.loss, self.losses = model, optimizer, loss, losses
        self.scaler, self.accumulate, self.penalty = scaler, accumulate, penalty
        self.clip, self.closure = clip, closure
        mixed = precision.dtype is not torch.float32
        self.autocast: Callable[[], Any] = precision.autocast if mixed else nullcontext
        # Wrappers that average over ranks offer this, and may offer to weigh a rank by its samples.
        self._no_sync: Any = getattr(model, "no_sync", None)
        self._counted: Any = getattr(model, "batch", None) if self._no_sync else None
        self.bare: Any = model.module if self._no_sync else model
        self._made, self._graph = False, None
        if scaler.is_enabled():
            optimizer.register_step_post_hook(self._note)

    def __call__(self, step: int, x: Any, y: Any) -> bool:
        """Update, and say whether that was done: a loss scaler may leave it out.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        if self.closure == "none":
            self.optimizer.zero_grad()
            # Its graph goes when the next one is there, as in a loop by hand: it takes a hundredth
            # of a step longer when the allocator has gaps to close in between.
            self._graph = self._backward(step, x, y)
            if self.clip is not None:
                self.scaler.unscale_(self.optimizer)
                self._clip()
            self._made = not self.scaler.is_enabled()
            self.scaler.step(self.optimizer)
        elif self.closure == "backward":
            self._made = not self.scaler.is_enabled()
            self.scaler.step(self.optimizer, self._again(step, x, y))
        else:
            self._made = True
            self._second_order(step, x, y)
        self.scaler.update()
        return self._made

    def explained(self, error: FloatingPointError, done: int, x: Any) -> FloatingPointError:
        """The same error with what can be found out, after so many steps and with the inputs."""

        def forward(x: Tensor) -> Any:
            with self.autocast():
                return self.bare(x)

        where = f"after step {done}, with loss scale {self.scaler.get_scale():g}"
        return FloatingPointError(f"{error} ({where}): {first_offender(self.bare, x, forward)}")

    def _loss(self, x: Any, y: Any) -> Any:
        with self.autocast():
            loss = self.loss(self.model(x), y)
        return loss if self.penalty is None else loss + self.penalty()

    def _backward(self, step: int | None, x: Any, y: Any) -> Any:
        """Gradients of the mean over a batch, which is returned; without a step it is not told."""
        if self.accumulate == 1 and self._counted is None:
            return self._part(step, x, y, 1.0)
        count = len(x)
        total: Any = 0.0
        if not count and self._counted is None:
            raise ValueError("a batch is empty: the mean loss over it is not defined")
        cut = x.chunk(self.accumulate), y.chunk(self.accumulate)
        parts = [*zip(*cut, strict=True)] if count else []
        with self._counted(count) if self._counted else nullcontext():
            for number, (xs, ys) in enumerate(parts, 1):
                waits = self._no_sync is not None and number < len(parts)
                with self._no_sync() if waits else nullcontext():
                    total = total + self._part(step, xs, ys, len(xs) / count).detach()
        return total

    def _part(self, step: int | None, x: Any, y: Any, share: float) -> Any:
        loss = self._loss(x, y)
        if step is not None:
            self.losses.add(step, loss, len(x))
        if share != 1:
            loss = share * loss
        self.scaler.scale(loss).backward()
        return loss

    def _again(self, step: int, x: Any, y: Any) -> Callable[[], Any]:
        told: int | None = step

        def closure() -> Any:
            nonlocal told
            self.optimizer.zero_grad()
            loss = self._backward(told, x, y)
            told = None  # what it is asked for later may be at a trial's parameters
            if self.clip is not None:
                self._clip()
            return loss

        return closure

    def _second_order(self, step: int, x: Any, y: Any) -> None:
        def outputs() -> Any:
            with self.autocast():
                return self.model(x), y

        def loss() -> Any:
            return self._loss(x, y)

        closure: Any = loss if self.closure == "loss" else outputs
        self.losses.add(step, torch.as_tensor(self.optimizer.step(closure)), len(x))

    def _clip(self) -> None:
        params = [p for group in self.optimizer.param_groups for p in group["params"]]
        if callable(self.clip):
            self.clip(params)
        elif self.clip is not None:
            clip_grad_norm_(params, self.clip)

    def _note(self, *_: Any) -> None:
        self._made = True
