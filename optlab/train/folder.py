"""What is left of a run: configuration, versions, metrics, checkpoints and a plot, in a folder."""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from optlab import __version__
from optlab.train.configuration import Configuration
from optlab.train.reading import pairs_of, read, written
from optlab.training import Callback, History, Trainer
from optlab.training.checkpoints import write_whole
from optlab.training.ranks import difference


class Folder:
    """The folder of a run.

    ==========================  =================================================================
    ``configuration.yaml``      all keys, defaults too; the command takes it as it is
    ``versions.jsonl``          a line for each start: packages, machine, device, processes
    ``metrics.jsonl``           a line for each row of the history
    ``checkpoints/``            see :class:`~optlab.training.checkpoints.Checkpoints`
    ``plot.png``                loss and evaluations, drawn at the end
    ==========================  =================================================================

    Args:
        path: is made where it is not there.
        chosen: the configuration.

    Raises:
        ValueError: the folder is of another configuration; the first difference is named.
    """

    def __init__(self, path: Path | str, chosen: Configuration) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        configuration = self.path / "configuration.yaml"
        if configuration.is_file():
            differs = difference(pairs_of(read(str(configuration))), pairs_of(chosen))
            if differs:
                raise ValueError(
                    f"{self.path} is the folder of another run: {differs}; choose another folder"
                )
        else:
            self.path.mkdir(parents=True, exist_ok=True)
            write_whole(configuration, written(chosen).encode())

    def note_start(self, device: torch.device, ranks: int, step: int) -> None:
        """Add a line to the versions."""
        with (self.path / "versions.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "ranks": ranks, **versions(device)}) + "\n")

    def draw(self, history: History) -> None:
        """Draw the plot anew."""
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot(xlabel="step", ylabel="loss")
        for name in history.columns():
            if name.endswith("loss"):
                axes.plot(history.column("step", where=name), history.column(name), label=name)
        axes.legend(frameon=False)
        figure.savefig(self.path / "plot.png", dpi=120)


class Metrics(Callback):
    """Writes each row of the history as a line of JSON, as soon as it is complete.

    Args:
        folder: of the run; None on ranks that write nothing.
    """

    def __init__(self, folder: Folder | None) -> None:
        self.folder, self._written = folder, 0

    def begin(self, history: History) -> None:
        """Have the file hold what the history does: a run that was killed may have been further."""
        if self.folder is not None:
            history.write(self.folder.path / "metrics.jsonl")
        self._written = len(history)

    def on_step(self, trainer: Trainer) -> None:
        # This is before the step's own row is there, so all that are there are complete.
        if len(trainer.history) > self._written:
            self._write(trainer.history)

    def on_end(self, trainer: Trainer) -> None:
        self._write(trainer.history)
        if self.folder is not None and len(trainer.history):
            self.folder.draw(trainer.history)

    def _write(self, history: History) -> None:
        rows, self._written = history.rows[self._written :], len(history)
        if self.folder is not None and rows:
            with (self.folder.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)


def versions(device: torch.device) -> dict[str, Any]:
    """Of what a run's numbers depend on.

    >>> sorted(versions(torch.device("cpu")))
    ['device', 'machine', 'numpy', 'optlab', 'pydantic', 'python', 'threads', 'torch']
    """
    gpu = device.type == "cuda"
    return {
        "optlab": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "pydantic": version("pydantic"),
        "machine": platform.platform(),
        "device": torch.cuda.get_device_name(device) if gpu else platform.machine(),
        "threads": torch.get_num_threads(),
    }
