"""K-FAC beside AdamW on a convolutional network: epochs of Fashion-MNIST to 91 % test accuracy.

    python benchmarks/epochs.py [--quick FOLDER]

Writes ``benchmarks/results/epochs.json``.  Rates fall linearly to zero over a run's own number of
epochs, which is tuned with the rest, as is the batch; so the figure is the least training that
brings a method to the target.  Both methods have the same number of trials, ranked by the epochs
that they need, then by their error; each with its best settings then runs from other seeds.
"""

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from paired import ratios
from record import RESULTS, row, update
from scripts.convnet import fashion_mnist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from tuning import Method

import optlab

THREADS, TRIALS, SEEDS, TARGET, LIMIT = 2, 8, (1, 2, 3), 0.09, 0.6
#: The test error is measured so often in an epoch.
PARTS = 4
TASK = "convnet of 113,000 parameters, Fashion-MNIST"

Row = dict[str, Any]


class Data(NamedTuple):
    """Images of shape ``(count, 1, 28, 28)`` and labels, to train and to test."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


def network(seed: int, width: int = 32) -> nn.Module:
    """Three convolutions, each halving the image, then a linear layer."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for into, out in [(1, width), (width, 2 * width), (2 * width, 4 * width)]:
        layers += [nn.Conv2d(into, out, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * width, 10))


def adamw(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Torch's AdamW."""
    return torch.optim.AdamW(model.parameters(), lr, weight_decay=weight_decay)


def kfac(model: nn.Module, lr: float, damping: float, weight_decay: float) -> Any:
    """K-FAC with factors every five steps and inverses every ten."""
    settings = dict(lr=lr, damping=damping, weight_decay=weight_decay, kl_clip=1e-2)
    return optlab.KFAC(model, "categorical", factor_every=5, inverse_every=10, **settings)


#: Of both spaces. That of the epochs has the target in its reach, and not at its ends.
BATCH = {"batch": (64.0, 512.0)}
METHODS = (
    Method(
        "AdamW",
        adamw,
        {"lr": (1e-3, 1e-2), "weight_decay": (1e-3, 0.3), **BATCH, "epochs": (2.0, 8.0)},
    ),
    Method(
        "K-FAC",
        kfac,
        {
            "lr": (0.01, 0.2),
            "damping": (0.03, 1.0),
            "weight_decay": (1e-4, 1e-2),
            **BATCH,
            "epochs": (1.0, 4.0),
        },
    ),
)


class Run(NamedTuple):
    """Test errors, with the epochs and seconds of training until each."""

    errors: list[float]
    epochs: list[float]
    seconds: list[float]

    def reached(self) -> int | None:
        """Which of them is the first at the target, or None."""
        return next((i for i, error in enumerate(self.errors) if error <= TARGET), None)

    def rank(self) -> tuple[float, float]:
        """Epochs to the target, then the least error."""
        first = self.reached()
        return math.inf if first is None else self.epochs[first], min(self.errors)


def train(method: Method, settings: dict[str, float], seed: int, data: Data) -> Run:
    """Train for the epochs that the settings say, or until the target is reached."""
    own = dict(settings)
    size, epochs, model = round(own.pop("batch")), own.pop("epochs"), network(seed)
    optimizer = method.make(model, **own)
    each = len(data.x) // size
    steps = round(epochs * each)
    schedule = LambdaLR(optimizer, lambda step: 1 - step / steps)
    measured = {round(k * each / PARTS) for k in range(1, math.ceil(PARTS * epochs))} | {steps}
    run, generator, spent = Run([], [], []), torch.Generator().manual_seed(seed), 0.0
    for step in range(steps):
        if step % each == 0:
            order = torch.randperm(len(data.x), generator=generator)
        batch = order[step % each * size :][:size]
        began = perf_counter()
        optimizer.zero_grad()
        cross_entropy(model(data.x[batch]), data.y[batch]).backward()
        try:
            optimizer.step()
        except (FloatingPointError, ValueError):  # it diverged
            return Run([*run.errors, 1.0], [*run.epochs, epochs], [*run.seconds, spent])
        schedule.step()
        spent += perf_counter() - began
        if step + 1 in measured:
            run.errors.append(error_of(model, data))
            run.epochs.append((step + 1) / each)
            run.seconds.append(spent)
            if run.errors[-1] <= TARGET:
                break
    return run


@torch.no_grad()
def error_of(model: nn.Module, data: Data) -> float:
    """The share of test images that the model takes for something else."""
    model.eval()
    guesses = torch.cat([model(few).argmax(1) for few in data.x_test.split(1_000)])
    model.train()
    return float((guesses != data.y_test).float().mean())


def tune(method: Method, data: Data, trials: int) -> tuple[dict[str, float], Row]:
    """The best settings, and a row on all that was tried."""
    tried = []
    for settings in method.settings(trials):
        rank = train(method, settings, 0, data).rank()
        tried.append((*rank, settings))
        print(method.name, settings, rank, file=sys.stderr)
    best = min(tried, key=lambda trial: trial[:2])
    title = f"{TASK}: epochs to 91 %, best of {trials} trials, {method.name}"
    return best[2], row(title, [best[0]], None) | {
        "space": method.space,
        "settings": best[2],
        "tried": tried,
    }


def race(data: Data, trials: int, seeds: tuple[int, ...]) -> Iterator[Row]:
    """Epochs and seconds to the target; a run that misses it counts as without end."""
    epochs: dict[str, list[float]] = {method.name: [] for method in METHODS}
    seconds: dict[str, list[float]] = {method.name: [] for method in METHODS}
    best: dict[str, dict[str, float]] = {}
    for method in METHODS:
        best[method.name], entry = tune(method, data, trials)
        yield entry
    for seed in seeds:
        for method in METHODS:
            run = train(method, best[method.name], seed, data)
            first = run.reached()
            epochs[method.name].append(math.inf if first is None else run.epochs[first])
            seconds[method.name].append(math.inf if first is None else run.seconds[first])
            print(method.name, seed, run, file=sys.stderr)
    theirs, ours = (method.name for method in METHODS)
    title = f"{TASK}: {ours}'s {{}} to 91 % over {theirs}'s"
    counted = row(title.format("epochs"), ratios(epochs[ours], epochs[theirs]), LIMIT, at_most=True)
    yield counted | {"seeds": seeds, "epochs": epochs}
    timed = row(title.format("time"), ratios(seconds[ours], seconds[theirs]), None)
    yield timed | {"seeds": seeds, "seconds": seconds}


def read() -> Data:
    """Fashion-MNIST, in the scale of its training images."""
    return Data(*fashion_mnist(), *fashion_mnist("t10k"))


def main() -> None:
    """Measure, and write the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", type=Path, metavar="FOLDER", help="only try: write there")
    quick = parser.parse_args().quick
    torch.set_num_threads(1 if quick else THREADS)
    if quick:
        torch.manual_seed(0)
        y = torch.arange(1_000) % 10
        x = 0.1 * torch.randn(1_000, 1, 28, 28) + 3 * torch.eye(28)[y, None, None]
        rows = race(Data(x, y, x[:100], y[:100]), 1, (1,))
    else:
        rows = race(read(), TRIALS, SEEDS)
    common = {"threads": torch.get_num_threads(), "torch_version": torch.__version__}
    update("epochs", [entry | common for entry in rows], quick or RESULTS)


if __name__ == "__main__":
    main()
