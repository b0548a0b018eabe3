"""The command: ``python -m optlab.train CONFIG [key=value ...]``, alone or under ``torchrun``."""

import argparse
import signal
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import distributed

from optlab import __version__
from optlab.train.building import trainer_of
from optlab.train.configuration import Configuration
from optlab.train.estimate import estimate
from optlab.train.folder import Folder, Metrics
from optlab.train.joining import joined
from optlab.train.parts import data_of, rate_of, steps_of
from optlab.train.place import JoiningError, Place, device, place
from optlab.train.reading import pairs_of, read, ready, written
from optlab.training import Checkpoints
from optlab.training.ranks import refuse_differing, together

#: What is told in a sentence; anything else is a defect, and shown with where it happened.
TOLD = ValueError, OSError, FloatingPointError, JoiningError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status.

    0 where the run is complete, 1 after an error, 128 and the signal's number where it was
    interrupted.

    >>> main(["digits-mlp", "optimizer.rate=1"])
    1
    """
    given = _parser().parse_args(arguments)
    where = "optlab.train"
    try:
        here = place()
        where += f", rank {here.rank}" if here.ranks > 1 else ""
        return _run(read(given.config, given.change), here, given.dry_run)
    except TOLD as error:
        print(f"{where}: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print(f"{where}: interrupted before the first step", file=sys.stderr)
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m optlab.train",
        description="Train a model. Started again with the same folder, a run goes on.",
        epilog="Ready configurations: " + ", ".join(ready()),
    )
    parser.add_argument("config", help="a YAML file, or the name of a ready configuration")
    parser.add_argument("change", nargs="*", metavar="key=value", help="such as optimizer.lr=1e-2")
    parser.add_argument(
        "--dry-run", action="store_true", help="show configuration, parameters and memory, and end"
    )
    return parser


def _run(chosen: Configuration, here: Place, dry: bool) -> int:
    if dry:
        if here.rank == 0:
            _show(chosen, here.ranks)
        return 0
    on = device(chosen.device, here.local)
    if chosen.parallel == "none":
        if here.ranks > 1:
            raise ValueError(
                f"parallel is none, but {here.ranks} processes were started: set parallel to own, "
                "ddp or fsdp"
            )
        return _train(chosen, None, on)
    with joined(here, on, chosen.timeout):
        return _train(chosen, distributed.group.WORLD, on)


def _show(chosen: Configuration, ranks: int) -> None:
    data = data_of(chosen)
    epoch = len(data.x) // chosen.batch if chosen.drop_last else -(-len(data.x) // chosen.batch)
    found = estimate(chosen, data, ranks)
    print(written(chosen))
    print(f"steps       {steps_of(chosen, epoch):10,}, {epoch} in an epoch")
    if chosen.scaling is not None:
        print(
            f"rate        {rate_of(chosen):10.4g}, scaled from {chosen.scaling.reference} samples"
        )
    print(found, f"for each of {ranks} processes")


def _train(chosen: Configuration, group: Any, on: torch.device) -> int:
    own = [*pairs_of(chosen), ("torch", torch.__version__), ("optlab", __version__)]
    refuse_differing(own, group)
    first, ranks = (True, 1) if group is None else (group.rank() == 0, group.size())
    folder: Folder | None = None
    with together(group):
        if first:
            folder = Folder(chosen.folder, chosen)
    metrics = Metrics(folder)
    checkpoints = Checkpoints(f"{chosen.folder}/checkpoints", chosen.checkpoint_every)
    trainer, steps = trainer_of(chosen, data_of(chosen), group, on, checkpoints, [metrics])
    trainer.resume()
    metrics.begin(trainer.history)
    if folder is not None:
        folder.note_start(on, ranks, trainer.step)
        print(
            f"{chosen.data.name}, {chosen.model.name}, {chosen.optimizer.name}: steps "
            f"{trainer.step} to {steps} on {ranks} x {on.type}, in {folder.path}",
            flush=True,
        )
    history = trainer.run(steps)
    if folder is not None:
        rows = ", ".join(
            f"{name} {value:.6g}" for name, value in (history.rows or [{}])[-1].items()
        )
        print(trainer.stopped or trainer.interrupted or "complete", rows, sep=": ", flush=True)
    if not trainer.interrupted:
        return 0
    return 128 + getattr(signal, trainer.interrupted, signal.SIGTERM)
