"""What K-FAC costs: a step beside SGD's, its growth with the network, memory.

    python benchmarks/curvature.py [--only PART] [--quick FOLDER]

Writes ``benchmarks/results/curvature.json``.  What its steps gain stands in ``autoencoders.py`` and
``epochs.py``; other libraries are in the comparison where they are installed, see ``peers.py``.
"""

import argparse
import functools
import gc
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from paired import ratios, take_turns
from peers import Peer, Step, installed
from record import RESULTS, row, update
from torch import Tensor, nn
from torch.nn import functional

import optlab

THREADS = 2

Row = dict[str, Any]


def perceptron(width: int, layers: int = 4) -> nn.Sequential:
    """So many layers of equal width."""
    torch.manual_seed(0)
    made = [layer for _ in range(layers) for layer in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*made[:-1])


def step_of(width: int, samples: int, make: Callable[[nn.Module], Any]) -> Step:
    """A training step of a perceptron."""

    def own(model: nn.Module, x: Tensor, y: Tensor) -> Step:
        optimizer = make(model)

        def step() -> None:
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()

        return step

    return stepping(width, samples, own)


def stepping(width: int, samples: int, peer: Peer) -> Step:
    """The same for a contender that makes its whole step."""
    return peer(perceptron(width), torch.randn(samples, width), torch.arange(samples) % width)


def of_sgd(model: nn.Module) -> torch.optim.Optimizer:
    """What a step is compared with."""
    return torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9)


def of_kfac(**settings: Any) -> Callable[[nn.Module], Any]:
    """K-FAC with a rate at which the loss stays finite however long it is timed."""
    return lambda model: optlab.KFAC(model, "categorical", lr=1e-6, **settings)


def steps(rounds: int, width: int = 512, samples: int = 512) -> Iterator[Row]:
    """Time of a step over SGD's; turns of ten steps, in which inverses are made once."""
    limits = {1: 2.7, 10: 1.9}
    variants: dict[str, tuple[dict[str, Any], bool]] = {}
    for fisher in ("sampled", "empirical"):
        for every in (1, 10):
            name = f"{fisher} Fisher, factors every {every}, inverses every 10"
            variants[name] = dict(fisher=fisher, factor_every=every, kl_clip=None), True
    variants["sampled Fisher, factors every 1, inverses every 10, steps clipped"] = (
        dict(kl_clip=1e-30),
        False,
    )
    variants["eigenbasis, factors every 1, inverses every 10"] = (
        dict(damping_form="eigenbasis", kl_clip=None),
        False,
    )
    variants["EKFAC, factors every 1, inverses every 10"] = dict(ekfac=True, kl_clip=None), False

    def ten(step: Callable[[], None]) -> Callable[[], None]:
        def turn() -> None:
            for _ in range(10):
                step()

        return turn

    made = {name: ten(step_of(width, samples, of_kfac(**v[0]))) for name, v in variants.items()}
    made["SGD"] = ten(step_of(width, samples, of_sgd))
    for name, peer in installed().items():
        variants[name], made[name] = ({}, False), ten(stepping(width, samples, peer))
    times = take_turns(made, rounds, 1e-3, lambda: None, 1)
    for name, (settings, limited) in variants.items():
        limit = limits[settings["factor_every"]] if limited else None
        title = f"step over SGD's, 4 layers of {width}, batch {samples}: {name}"
        yield row(title, ratios(times[name], times["SGD"]), limit, at_most=True) | {
            "unit": "ms",
            "ours": 100 * statistics.median(times[name]),
            "sgd": 100 * statistics.median(times["SGD"]),
        }


def growth(rounds: int, widths: tuple[int, ...], batches: tuple[int, ...]) -> Iterator[Row]:
    """Time of a step with width and batch, beside what products and inverses count."""
    sizes = [(width, 512) for width in widths] + [(512, batch) for batch in batches]
    found = []
    for width, samples in sizes:
        pair = {
            "K-FAC": step_of(width, samples, of_kfac(kl_clip=None)),
            "SGD": step_of(width, samples, of_sgd),
        }
        times = take_turns(pair, rounds, 1e-3, lambda: None, 11)
        # Steps with inverses count a tenth.
        milliseconds = 1e3 * statistics.mean(times["K-FAC"])
        found.append((width, samples, milliseconds, 1e3 * statistics.mean(times["SGD"])))
    table = np.array(found)
    d, n = table[:, 0], table[:, 1]
    terms = np.stack([d**3, d**2 * n, np.ones_like(d)], 1)
    # Relative errors count: sizes span three orders of magnitude.
    factors, *_ = np.linalg.lstsq(terms / table[:, 2:3], np.ones(len(d)), rcond=None)
    for (width, samples, own, sgd), model in zip(found, terms @ factors, strict=True):
        title = f"growth, step in ms: 4 layers of {width}, batch {samples}"
        yield row(title, [own], None) | {"unit": "ms", "sgd": sgd, "model": float(model)}
    yield row("growth: ms for a million of d^3, beside d^2 N", [1e6 * factors[0]], None) | {
        "d^2 N": 1e6 * float(factors[1]),
        "constant": float(factors[2]),
        "each": "inverses every 10 steps",
    }


def memory() -> Iterator[Row]:
    """What an optimizer keeps beyond parameters and gradients, as a multiple of the model."""
    contenders: dict[str, Callable[[], Step]] = {
        name: functools.partial(step_of, 512, 64, make)
        for name, make in {
            "SGD": of_sgd,
            "Adam": lambda model: torch.optim.Adam(model.parameters(), 1e-6),
            "K-FAC": of_kfac(),
            "EKFAC": of_kfac(ekfac=True),
        }.items()
    }
    for name, peer in installed().items():
        contenders[name] = functools.partial(stepping, 512, 64, peer)
    model = sum(p.nbytes for p in perceptron(512).parameters())
    bare = held(functools.partial(step_of, 512, 64, lambda m: torch.optim.SGD(m.parameters(), 0.1)))
    for name, make in contenders.items():
        title = f"memory: state over the model's parameters, 4 layers of 512, {name}"
        yield row(title, [(held(make) - bare) / model], None)


def held(make: Callable[[], Step]) -> int:
    """Bytes of the tensors that are there after two steps and were not before."""
    before = storages()
    step = make()
    step()
    step()
    return sum(size for place, size in storages().items() if place not in before)


def storages() -> dict[int, int]:
    """The memory of all tensors that Python knows: its address and size."""
    gc.collect()
    tensors = [found for found in gc.get_objects() if type(found) in (Tensor, nn.Parameter)]
    memory = [tensor.untyped_storage() for tensor in tensors]
    return {storage.data_ptr(): storage.nbytes() for storage in memory}


def main() -> None:
    """Measure, and write the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", type=Path, metavar="FOLDER", help="only try: write there")
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "steps": lambda: steps(15),
        "memory": memory,
        "growth": lambda: growth(11, (128, 256, 512, 1024, 2048), (64, 1024, 4096)),
    }
    parser.add_argument("--only", choices=parts, help="measure this; the other rows stay")
    options = parser.parse_args()
    quick = options.quick
    torch.set_num_threads(1 if quick else THREADS)
    if quick:
        parts["steps"] = lambda: steps(2, 16, 8)
        parts["growth"] = lambda: growth(2, (8, 16), (4, 8))
    common = {"threads": torch.get_num_threads(), "torch_version": torch.__version__}
    chosen = [options.only] if options.only else [*parts]
    rows = [entry | common for name in chosen for entry in parts[name]()]
    update("curvature", rows, quick or RESULTS)


if __name__ == "__main__":
    main()
