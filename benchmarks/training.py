"""What the training loop costs beside one written by hand, and what its checkpoints cost.

    python benchmarks/training.py [--quick FOLDER]

Writes ``benchmarks/results/training.json``.  A turn is 500 steps on the digits, in batches of 64,
with Adam: of a perceptron, whose steps are so short that a loop's own time shows, and of a
convolutional network.  A turn with checkpoints has five, on the disk of the results, and waits for
the last one.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from paired import ratios, take_turns
from record import RESULTS, row, update
from torch import nn

from optlab.data import Sampler, digits
from optlab.models import convnet, mlp
from optlab.optimizers import Adam
from optlab.training import Batches, Checkpoints, Trainer

THREADS, ROUNDS, STEPS, TURN = 1, 15, 100, 5
MODELS = {"perceptron": mlp, "convolutional network": convnet}

Row = dict[str, Any]


def parts(make: Callable[[], nn.Module]) -> tuple[nn.Module, Adam, Any, Batches]:
    """A model, its optimizer, the loss and the data."""
    torch.manual_seed(0)
    data, model = digits(), make()
    batches = Batches(data.x, data.y, Sampler(len(data.x), 64, seed=0))
    return model, Adam(model.parameters(), lr=1e-3), nn.functional.cross_entropy, batches


def by_hand(make: Callable[[], nn.Module], steps: int) -> Callable[[], None]:
    """The loop that one would write."""
    model, optimizer, loss_of, batches = parts(make)

    def run() -> None:
        done = 0
        while True:
            for x, y in batches:
                optimizer.zero_grad()
                loss = loss_of(model(x), y)
                loss.backward()
                optimizer.step()
                done += 1
                if done == steps:
                    return

    return run


def by_trainer(
    make: Callable[[], nn.Module], steps: int, checkpoints: Checkpoints | None = None
) -> Callable[[], object]:
    """The same steps, watched and recorded."""
    trainer = Trainer(*parts(make), checkpoints=checkpoints, progress=False)
    return lambda: trainer.run(trainer.step + steps)


def measure(rounds: int, steps: int, folder: Path) -> Iterator[Row]:
    """Times of turns over times of turns without."""
    for name, make in MODELS.items():
        contenders = {
            "hand": by_hand(make, TURN * steps),
            "loop": by_trainer(make, TURN * steps),
            "checkpoint": by_trainer(make, TURN * steps, Checkpoints(folder / name, every=steps)),
        }
        times = take_turns(contenders, rounds, 0.0, lambda: None, 2)
        pairs = {
            f"training loop over one by hand, {name}": ("loop", "hand", 1.05),
            f"a checkpoint every {steps} steps over none, {name}": ("checkpoint", "loop", 1.02),
        }
        for bar, (ours, theirs, limit) in pairs.items():
            yield row(bar, ratios(times[ours], times[theirs]), limit, at_most=True) | {
                "unit": "us in a step",
                "with": 1e6 * statistics.median(times[ours]) / (TURN * steps),
                "without": 1e6 * statistics.median(times[theirs]) / (TURN * steps),
            }


def main() -> None:
    """Measure, and write the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", type=Path, metavar="FOLDER", help="only try: write there")
    quick = parser.parse_args().quick
    torch.set_num_threads(THREADS)
    target = quick or RESULTS
    with TemporaryDirectory(dir=target) as folder:
        rows = [*measure(2 if quick else ROUNDS, 4 if quick else STEPS, Path(folder))]
    common = {"threads": torch.get_num_threads(), "torch_version": torch.__version__}
    update("training", [entry | common for entry in rows], target)


if __name__ == "__main__":
    main()
