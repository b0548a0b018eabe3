"""The loop: steps, what is recorded after them, and where a run goes on."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from optlab.errors import check_count, strict_keywords
from optlab.precision import Policy
from optlab.training import ranks, state
from optlab.training.callbacks import Callback
from optlab.training.checkpoints import Checkpoints
from optlab.training.history import History
from optlab.training.losses import Losses
from optlab.training.progress import Progress
from optlab.training.signals import Signals
from optlab.training.update import Update


@strict_keywords
class Trainer:
    """Trains a model, by any method, and can be killed at any moment.

    A run that goes on from a checkpoint is the run that was not disturbed, bit for bit, on the same
    hardware.  Ctrl-C and SIGTERM end a run after the current step, with a checkpoint; the second
    one ends it at once.  With several ranks they do so at the next step that is recorded.

    A loss that is not finite ends the run with an error that names the step, the loss scale and
    the first layer at fault.

    Args:
        model: a module, which may be in a wrapper that averages gradients over ranks; it is
            trained in the modes that its modules are in.
        optimizer: of its parameters.
        loss: of outputs and targets, a mean over samples; None where ``closure`` is ``"outputs"``.
        batches: pairs of tensors; see :class:`~optlab.training.batches.Batches`.
        schedule: of torch's, or a function of the step, by which the learning rate is multiplied.
            It moves on after each step that a loss scaler has not left out.
        precision: of the forward pass; ``"fp32"`` by default.
        scaler: of the loss; the precision's own by default.
        clip: the largest norm of the gradients, or a function that clips those of the parameters
            that it gets.
        accumulate: how many parts a batch is computed in; gradients are those of the whole.
        penalty: a term that is added to the loss, such as
            ``lambda: l2_penalty(model.parameters(), 1e-4)``.
        closure: what the optimizer's ``step`` gets: ``"none"``, a closure that calls
            ``backward()`` (``"backward"``), or one that returns the ``"loss"`` or the ``"outputs"``
            with the targets; by default what the optimizer says that it needs.
        evaluate: of the model, to figures by name, called in evaluation mode without gradients.
        evaluate_every: steps from one evaluation to the next; an epoch by default.
        callbacks: in the order of their calls.
        checkpoints: where they are written, and how often.
        keep: what else belongs in a checkpoint, by name: master weights, random generators.
        log_every: steps from one row of the history to the next.
        read_every: steps whose losses are read together, which waits for the device; by default
            1 on a CPU and ``log_every``, which reads them too, elsewhere.  With more than 1, a loss
            that is not finite is found late.
        process_group: the ranks; those of the model's wrapper by default.
        progress: whether to show a progress bar; by default where there is a terminal.

    Attributes:
        step: how many there have been.
        history: rows with the mean loss since the row before, over samples of all ranks, the
            learning rate, the epoch and the figures of evaluations.
        stopped: why a callback has ended the run, or nothing.
        interrupted: by which signal the last run was ended, or nothing.

    Raises:
        ValueError: arguments do not go together, or ranks differ.

    >>> from optlab.data import Sampler
    >>> from optlab.training.batches import Batches
    >>> x = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    >>> line = nn.Linear(1, 1, bias=False)
    >>> optimizer = torch.optim.SGD(line.parameters(), lr=0.1)
    >>> batches = Batches(x, 3 * x, Sampler(4, 2, seed=0))
    >>> trainer = Trainer(line, optimizer, nn.functional.mse_loss, batches, log_every=5)
    >>> trainer.run(epochs=5).column("step"), round(line.weight.item(), 2)
    ([5, 10], 3.0)
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        loss: Callable[[Any, Any], Tensor] | None,
        batches: Any,
        *,
        schedule: LRScheduler | Callable[[int], float] | None = None,
        precision: Policy | None = None,
        scaler: Any = None,
        clip: float | Callable[[list[Tensor]], Any] | None = None,
        accumulate: int = 1,
        penalty: Callable[[], Tensor] | None = None,
        closure: str | None = None,
        evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
        evaluate_every: int | None = None,
        callbacks: Sequence[Callback] = (),
        checkpoints: Checkpoints | None = None,
        keep: Mapping[str, Any] | None = None,
        log_every: int = 10,
        read_every: int | None = None,
        process_group: Any = None,
        progress: bool | None = None,
    ) -> None:
        self.device = next(model.parameters()).device
        if read_every is None:
            read_every = 1 if self.device.type == "cpu" else log_every
        check_count("the number of batches", len(batches))
        for name, value in (("log_every", log_every), ("read_every", read_every)):
            check_count(name, value)
        self.evaluate_every = len(batches) if evaluate_every is None else evaluate_every
        check_count("evaluate_every", self.evaluate_every)
        self.optimizer, self.batches, self.evaluate = optimizer, batches, evaluate
        self.log_every, self.progress = log_every, progress
        precision = precision or Policy("fp32", self.device.type)
        self.scaler = precision.scaler() if scaler is None else scaler
        self.losses = Losses(read_every)
        self.update = Update(
            model,
            optimizer,
            loss,
            self.losses,
            precision=precision,
            scaler=self.scaler,
            clip=clip,
            accumulate=accumulate,
            penalty=penalty,
            closure=closure or str(getattr(optimizer, "closure", "none")),
        )
        self.model: nn.Module = self.update.bare
        wrapped_for = getattr(model, "process_group", None) if self.model is not model else None
        self.group = process_group or wrapped_for
        alone = getattr(optimizer, "process_group", None) is None
        if self.group is not None and alone and self.update.closure in ("loss", "outputs"):
            raise ValueError(f"{type(optimizer).__name__} needs the process_group of the ranks")
        if schedule is not None and not isinstance(schedule, LRScheduler):
            schedule = LambdaLR(optimizer, schedule)
        self.schedule = schedule
        self.callbacks, self.keep = [*callbacks], dict(keep or {})
        self._on_step = [c for c in self.callbacks if type(c).on_step is not Callback.on_step]
        self.checkpoints, self._saved = checkpoints, -1
        self.step, self.history, self.stopped, self.interrupted = 0, History(), "", ""
        if checkpoints is not None:
            state.check_parts(self)
        self.identity = state.identity(self)
        if self.group is not None:
            own = [*self.identity, *state.settings(self), ("precision", repr(precision))]
            ranks.refuse_differing(own, self.group)

    def run(self, steps: int | None = None, *, epochs: int | None = None) -> History:
        """Go on until so many steps, or epochs, have been made in all.

        Returns:
            The history.

        Raises:
            FloatingPointError: a loss is not finite.
            OSError: a checkpoint could not be written; those before are still there.
            ValueError: not exactly one of ``steps`` and ``epochs`` is given, there is no batch, or
                the checkpoints are another run's.
        """
        if (steps is None) == (epochs is None):
            raise ValueError(f"give steps or epochs, got steps={steps!r} and epochs={epochs!r}")
        name, number = ("epochs", epochs) if steps is None else ("steps", steps)
        check_count(name, number, 0)
        last = int(number or 0) * (len(self.batches) if steps is None else 1)
        if self.checkpoints is not None:
            self.checkpoints.check(self.step)
        self.interrupted = ""
        shown = self.progress if ranks.rank_in(self.group) == 0 else False
        bar = Progress(self.step, last, shown)
        try:
            with Signals() as signals:
                self._loop(last, signals, bar)
                self._save(wait=True)
        finally:
            bar.close()
        for callback in self.callbacks:
            callback.on_end(self)
        return self.history

    def stop(self, reason: str) -> None:
        """End the run after this step; a run that goes on from its checkpoint has ended too."""
        self.stopped = reason

    def measure(self) -> dict[str, float]:
        """The evaluation's figures, of the first rank; the model's modes are as before then."""
        if self.evaluate is None:
            raise ValueError("there is no evaluate to measure with")
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        try:
            with torch.no_grad(), self.update.autocast():
                found = {name: float(x) for name, x in self.evaluate(self.model).items()}
        finally:
            for module, mode in modes:
                module.training = mode
        first: dict[str, float] = ranks.gathered(found, self.group)[0]
        return first

    def save(self) -> None:
        """Write a checkpoint now, and wait until it is on the disk; on all ranks."""
        self._save(wait=True)

    def load(self, path: Path | str) -> None:
        """Go on from a checkpoint, on all ranks.

        Raises:
            ValueError: it is not whole, or of another run; nothing has been changed then.
        """
        with ranks.together(self.group):
            state.load(self, path)
        self._saved = self.step

    def resume(self) -> bool:
        """Go on from the last checkpoint where there is one, and say whether there is; see load."""
        if self.checkpoints is None:
            raise ValueError("there are no checkpoints to resume from")
        self.checkpoints.wait()
        path = ranks.gathered(self.checkpoints.latest(), self.group)[0]
        if path is not None:
            self.load(path)
        return path is not None

    def _loop(self, last: int, signals: Signals, bar: Progress) -> None:
        update, schedule, samples = self.update, self.schedule, 0
        while self.step < last and not self.stopped:
            before = self.step
            try:
                for x, y in self.batches:
                    if update(self.step + 1, x, y) and schedule is not None:
                        schedule.step()
                    self.step += 1
                    samples += len(x)
                    self._after_step(last, signals)
                    ends = self.step == last or self.stopped or self.interrupted
                    if bar.due() or ends:
                        bar.draw(self.step, samples, self.losses.last, self._lr())
                    if ends:
                        return
            except FloatingPointError as error:
                raise update.explained(error, self.step, x) from error
            if self.step == before:
                raise ValueError("batches gave none in an epoch")

    def _after_step(self, last: int, signals: Signals) -> None:
        step = self.step
        for callback in self._on_step:
            callback.on_step(self)
        ends = step == last or bool(self.stopped)
        if ends or step % self.log_every == 0:
            self._log(signals)
        if self.evaluate is not None and (ends or step % self.evaluate_every == 0):
            row = self.history.add(step, self.measure())
            for callback in self.callbacks:
                callback.on_evaluation(self, row)
        if signals.caught and self.group is None:
            self.interrupted = signals.caught
        if self.checkpoints is not None and step % self.checkpoints.every == 0:
            self._save(wait=False)

    def _log(self, signals: Signals) -> None:
        """Add a row; with several ranks they also tell each other of signals."""
        own = [*self.losses.take(), float(bool(signals.caught))]
        total, count, caught = ranks.added(own, self.group, self.device)
        figures = {"epoch": self.step // len(self.batches), "lr": self._lr()}
        if count:
            figures["loss"] = total / count
        self.history.add(self.step, figures)
        if caught:
            self.interrupted = signals.caught or "a signal to another rank"

    def _lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def _save(self, wait: bool) -> None:
        if self.checkpoints is None:
            return
        content = state.of_run(self) if self._saved != self.step else None
        with ranks.together(self.group):
            if content is not None and ranks.rank_in(self.group) == 0:
                self.checkpoints.save(self.step, content)
            if wait:
                self.checkpoints.wait()
        self._saved = self.step
