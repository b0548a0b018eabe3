"""K-FAC beside SGD with momentum and Adam on deep autoencoders: steps and time to a loss.

    python benchmarks/autoencoders.py [--only TASK] [--quick FOLDER]

Writes ``benchmarks/results/autoencoders.json``.  After the CURVES and MNIST tasks of Hinton and
Salakhutdinov (2006), which Martens and Grosse (2015) take: the networks are deep, narrow in the
middle, and hard for a method that knows no curvature.

Every method has the same number of trials, ranked by the loss at the end; K-FAC's have a share of
the steps.  Each method with its best settings then runs from other seeds.  Time is that of training
alone; runs of one seed follow each other.
"""

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from paired import ratios
from record import RESULTS, row, update
from scripts.convnet import fashion_mnist
from torch import Tensor, nn
from torch.nn import functional
from tuning import Method

import optlab

THREADS, SEEDS = 2, (1, 2, 3)
SIDE, PEN = 16, 0.6
BATCH = 500
#: On how many of the training images the loss is evaluated, and how often.
EVALUATED, EVERY = 5_000, 20

Row = dict[str, Any]


class Task(NamedTuple):
    """An autoencoder, its images, and how much is spent on it.

    Args:
        name: in words.
        sizes: of the layers.
        images: so many, of shape ``(count, sizes[0])``, in [0, 1].
        count: how many there are.
        trials: of each method.
        budget: steps of a first-order method.
        share: the budget over that of K-FAC's trials.
        fewer: how many times fewer steps K-FAC must need than each of the first-order methods that
            run it.
        time: what share of their time it may take.
    """

    name: str
    sizes: tuple[int, ...]
    images: Callable[[int], Tensor]
    count: int
    trials: int
    budget: int
    share: int
    fewer: tuple[float, ...]
    time: tuple[float, ...]


def curves(count: int) -> Tensor:
    """Random cubic Bezier curves drawn with a soft pen."""
    generator = torch.Generator().manual_seed(0)
    t = torch.linspace(0, 1, 40)
    weights = torch.stack([math.comb(3, k) * t**k * (1 - t) ** (3 - k) for k in range(4)])
    axis = torch.arange(float(SIDE))
    drawn = []
    for few in torch.empty(count).split(500):
        corners = torch.rand(len(few), 4, 2, generator=generator) * (SIDE - 1)
        points = torch.einsum("kt,nkc->ntc", weights, corners)
        x, y = (torch.exp(-((points[..., c, None] - axis) ** 2) / (2 * PEN**2)) for c in (0, 1))
        drawn.append((x.unsqueeze(2) * y.unsqueeze(3)).amax(1).flatten(1))
    return torch.cat(drawn)


def clothes(count: int) -> Tensor:
    """The first training images of Fashion-MNIST."""
    images = fashion_mnist()[0][:count].flatten(1)
    return (images - images.min()) / (images.max() - images.min())


TASKS = {
    "curves": Task(
        "autoencoder of curves, 256-100-50-12 mirrored, batches of 500",
        (256, 100, 50, 12, 50, 100, 256),
        images=curves,
        count=20_000,
        trials=16,
        budget=4_000,
        share=8,
        fewer=(8, 4),
        time=(0.3, 0.6),
    ),
    "clothes": Task(
        "autoencoder of Fashion-MNIST, 784-1000-500-250-30 mirrored, batches of 500",
        (784, 1000, 500, 250, 30, 250, 500, 1000, 784),
        images=clothes,
        count=60_000,
        trials=8,
        budget=480,
        share=4,
        fewer=(4,),
        time=(1.0,),
    ),
}


def network(sizes: tuple[int, ...], seed: int) -> nn.Sequential:
    """The mirrored autoencoder: tanh units, a linear code, logits of the pixels."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for into, out in itertools.pairwise(sizes):
        linear = nn.Linear(into, out)
        nn.init.xavier_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.Tanh()]
    code, output = len(sizes) // 2, len(sizes) - 1
    for layer in (output, code):
        del layers[2 * layer - 1]
    return nn.Sequential(*layers)


def loss(model: nn.Module, x: Tensor) -> Tensor:
    """The mean over images of the cross-entropy, added up over their pixels."""
    return functional.binary_cross_entropy_with_logits(model(x), x, reduction="sum") / len(x)


def sgd(model: nn.Module, lr: float, forget: float) -> torch.optim.Optimizer:
    """Torch's SGD; the momentum is one less ``forget``."""
    return torch.optim.SGD(model.parameters(), lr, momentum=1 - forget)


def adam(model: nn.Module, lr: float, forget: float) -> torch.optim.Optimizer:
    """Torch's Adam; ``beta1`` is one less ``forget``."""
    return torch.optim.Adam(model.parameters(), lr, betas=(1 - forget, 0.999))


def kfac(model: nn.Module, **settings: float) -> torch.optim.Optimizer:
    """K-FAC with factors every step and inverses every ten."""
    return optlab.KFAC(model, "bernoulli", momentum=0.9, **settings)


METHODS = (
    Method("SGD with momentum", sgd, {"lr": (3e-4, 3e-2), "forget": (0.005, 0.2)}),
    Method("Adam", adam, {"lr": (3e-4, 3e-2), "forget": (0.02, 0.3)}),
    Method("K-FAC", kfac, {"lr": (0.03, 0.3), "damping": (1e-3, 1.0), "kl_clip": (3e-4, 3e-2)}),
)


class Run(NamedTuple):
    """Losses every :data:`EVERY` steps, and the seconds of training until then."""

    losses: list[float]
    seconds: list[float]

    def steps_to(self, target: float) -> int | None:
        """The first step at which the loss is at most this, or None."""
        for number, value in enumerate(self.losses, 1):
            if value <= target:
                return number * EVERY
        return None


def train(
    task: Task,
    method: Method,
    settings: dict[str, float],
    seed: int,
    steps: int,
    data: Tensor,
    target: float = -math.inf,
) -> Run:
    """Train until ``steps``, or until the loss is at the target."""
    model = network(task.sizes, seed)
    optimizer = method.make(model, **settings)
    shown, generator = data[:EVALUATED], torch.Generator().manual_seed(seed)
    losses: list[float] = []
    seconds: list[float] = []
    spent = 0.0
    for step in range(1, steps + 1):
        batch = data[torch.randint(len(data), (BATCH,), generator=generator)]
        began = perf_counter()
        optimizer.zero_grad()
        value = loss(model, batch)
        value.backward()
        try:
            optimizer.step()
        except (FloatingPointError, ValueError):  # it diverged
            return Run([*losses, math.inf], [*seconds, math.inf])
        spent += perf_counter() - began
        if step % EVERY == 0:
            with torch.no_grad():
                losses.append(float(loss(model, shown)))
            seconds.append(spent)
            if losses[-1] <= target or not math.isfinite(losses[-1]):
                break
    return Run(losses, seconds)


def tune(
    task: Task, method: Method, data: Tensor, trials: int, steps: int
) -> tuple[dict[str, float], Row]:
    """The best settings, and a row on all that was tried."""
    tried = []
    for settings in method.settings(trials):
        losses = train(task, method, settings, 0, steps, data).losses
        tried.append((losses[-1], settings))
        print(method.name, settings, losses[-1], file=sys.stderr)
    best, settings = min(tried, key=lambda trial: (not trial[0] < math.inf, trial[0]))
    entry = row(f"{task.name}: loss of the best of {trials} trials, {method.name}", [best], None)
    entry |= {"steps": steps, "space": method.space, "settings": settings, "tried": tried}
    return settings, entry


def race(
    task: Task, data: Tensor, trials: int, budget: int, seeds: tuple[int, ...]
) -> Iterator[Row]:
    """Steps and seconds to the loss that SGD with momentum ends at."""
    methods = (*METHODS[: len(task.fewer)], METHODS[-1])
    first, *others = methods
    own = others[-1].name
    best = {}
    for method in methods:
        steps = budget // task.share if method.name == own else budget
        best[method.name], entry = tune(task, method, data, trials, steps)
        yield entry
    steps_of: dict[str, list[float]] = {method.name: [] for method in methods}
    seconds: dict[str, list[float]] = {method.name: [] for method in methods}
    targets = []
    for seed in seeds:
        reference = train(task, first, best[first.name], seed, budget, data)
        targets.append(reference.losses[-1])
        steps_of[first.name].append(budget)
        seconds[first.name].append(reference.seconds[-1])
        print(first.name, seed, targets[-1], reference.seconds[-1], file=sys.stderr)
        for method in others:
            run = train(task, method, best[method.name], seed, budget, data, targets[-1])
            # One that does not arrive is counted with all the steps that it had.
            reached = run.steps_to(targets[-1])
            steps_of[method.name].append(reached or budget)
            seconds[method.name].append(run.seconds[-1])
            print(method.name, seed, reached, run.losses[-1], run.seconds[-1], file=sys.stderr)
    for method, fewer, share in zip(methods, task.fewer, task.time, strict=False):
        name = method.name
        details = {"seeds": seeds, "to_the_loss_after": budget, "targets": targets}
        title = f"{task.name}: K-FAC's {{}} over {{}} of {name}, to the loss that SGD ends at"
        yield row(
            title.format("steps", "those"),
            ratios(steps_of[own], steps_of[name]),
            1 / fewer,
            at_most=True,
        ) | {**details, "steps": {own: steps_of[own], name: steps_of[name]}}
        yield row(
            title.format("time", "that"),
            ratios(seconds[own], seconds[name]),
            share,
            at_most=True,
        ) | {**details, "seconds": {own: seconds[own], name: seconds[name]}}


def main() -> None:
    """Measure, and write the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", type=Path, metavar="FOLDER", help="only try: write there")
    parser.add_argument("--only", choices=TASKS, help="measure this; the other rows stay")
    options = parser.parse_args()
    quick = options.quick
    torch.set_num_threads(1 if quick else THREADS)
    common = {"threads": torch.get_num_threads(), "torch_version": torch.__version__}
    for name in [options.only] if options.only else TASKS:
        task = TASKS[name]
        if quick:
            small = task._replace(sizes=tuple(2 + size // 20 for size in task.sizes))
            rows = race(small, torch.rand(500, small.sizes[0]), 1, task.share * EVERY, (1,))
        else:
            rows = race(task, task.images(task.count), task.trials, task.budget, SEEDS)
        update("autoencoders", [entry | common for entry in rows], quick or RESULTS)


if __name__ == "__main__":
    main()
