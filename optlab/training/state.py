"""What a checkpoint of a run holds, whose it is, and how a run takes it over."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from optlab.training import ranks
from optlab.training.checkpoints import FORMAT, read
from optlab.training.randomness import go_on, random_state

if TYPE_CHECKING:
    from optlab.training.trainer import Trainer

Pairs = list[tuple[str, str]]
#: Attributes of a trainer that have a state.
PARTS = ("model", "optimizer", "schedule", "scaler", "batches", "losses", "history")


def identity(trainer: "Trainer") -> Pairs:
    """What a checkpoint must have been made with, by name: the model's and the optimizer's form."""
    model, optimizer, schedule = trainer.model, trainer.optimizer, trainer.schedule
    named = [*model.named_parameters(), *model.named_buffers()]
    pairs = [(f"the model's {name}", f"{tuple(t.shape)} {t.dtype}") for name, t in named]
    pairs.append(("the optimizer", type(optimizer).__name__))
    for number, group in enumerate(optimizer.param_groups):
        # A part of a parameter that is shared out over ranks says what the whole is.
        shapes = [tuple(getattr(p, "whole", p.shape)) for p in group["params"]]
        pairs.append((f"parameter group {number}", str(shapes)))
    pairs += [
        ("the schedule", type(schedule).__name__),
        ("the loss scaler", "on" if trainer.scaler.is_enabled() else "off"),
        ("callbacks", str([type(callback).__name__ for callback in trainer.callbacks])),
        ("what to keep", str(sorted(trainer.keep))),
    ]
    return pairs


def settings(trainer: "Trainer") -> Pairs:
    """What must be the same on all ranks besides, so that they do the same."""
    update, checkpoints = trainer.update, trainer.checkpoints
    pairs = [
        (f"{name} of parameter group {number}", repr(value))
        for number, group in enumerate(trainer.optimizer.param_groups)
        for name, value in group.items()
        if name != "params"
    ]
    own = {
        "clip": "a function" if callable(update.clip) else update.clip,
        "accumulate": update.accumulate,
        "closure": update.closure,
        "penalty": update.penalty is not None,
        "evaluate": trainer.evaluate is not None,
        "evaluate_every": trainer.evaluate_every,
        "log_every": trainer.log_every,
        "checkpoints": checkpoints and checkpoints.every,
        "batches": len(trainer.batches),
    }
    if hasattr(trainer.batches, "state_dict"):
        own["the position in the batches"] = trainer.batches.state_dict()
    return pairs + [(name, repr(value)) for name, value in own.items()]


def parts(trainer: "Trainer") -> dict[str, Any]:
    """All that has a state, by name."""
    own = {name: getattr(trainer, name) for name in PARTS}
    callbacks = {f"callback {number}": c for number, c in enumerate(trainer.callbacks)}
    kept = {f"keep {name}": part for name, part in trainer.keep.items()}
    return {name: part for name, part in {**own, **callbacks, **kept}.items() if part is not None}


def check_parts(trainer: "Trainer") -> None:
    """Raise a TypeError that names what has no state to be kept."""
    for name, part in parts(trainer).items():
        stateful = hasattr(part, "state_dict") and hasattr(part, "load_state_dict")
        if not stateful and not isinstance(part, torch.Generator):
            raise TypeError(
                f"{name} must have state_dict() and load_state_dict(), or be a generator, for "
                f"checkpoints, got {type(part).__name__}"
            )


def of_run(trainer: "Trainer") -> dict[str, Any]:
    """For a checkpoint; with several ranks, to be called on all."""
    randomness = ranks.gathered(random_state(), trainer.group)
    return {"format": FORMAT, "identity": trainer.identity, **_own(trainer, randomness)}


def load(trainer: "Trainer", path: Path | str) -> None:
    """Take over a checkpoint.

    Raises:
        ValueError: it is not whole, or of another run; nothing has been changed then.
    """
    found = read(path)
    if not isinstance(found, dict) or "format" not in found:
        raise ValueError(f"{path} is not a checkpoint of a training run")
    if found["format"] != FORMAT:
        raise ValueError(f"{path} has format {found['format']!r}; this version reads {FORMAT}")
    differs = ranks.difference(trainer.identity, found.get("identity", []))
    if differs:
        raise ValueError(f"{path} is of another run: {differs}")
    before = copy.deepcopy(_own(trainer, [random_state()] * ranks.ranks_in(trainer.group)))
    try:
        _apply(trainer, found)
    except Exception as error:
        _apply(trainer, before)
        raise ValueError(f"{path} does not fit this run: {error}") from error


def _own(trainer: "Trainer", randomness: list[Any]) -> dict[str, Any]:
    states = {
        name: part.get_state() if isinstance(part, torch.Generator) else part.state_dict()
        for name, part in parts(trainer).items()
    }
    return dict(step=trainer.step, stopped=trainer.stopped, random=randomness, parts=states)


def _apply(trainer: "Trainer", found: dict[str, Any]) -> None:
    for name, part in parts(trainer).items():
        state = found["parts"][name]
        if isinstance(part, torch.Generator):
            part.set_state(state)
        else:
            part.load_state_dict(state)
    trainer.step, trainer.stopped = found["step"], found["stopped"]
    go_on(found["random"], ranks.rank_in(trainer.group), ranks.ranks_in(trainer.group))
