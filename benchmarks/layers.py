"""What normalization and dropout cost, forward and backward, beside torch's.

    python benchmarks/layers.py [--quick FOLDER]

Writes ``benchmarks/results/layers.json``: both as they are, both compiled, and ours compiled beside
torch's as it is.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from paired import ratios, take_turns
from record import RESULTS, row, update
from torch import nn

from optlab import regularizers

THREADS, ROUNDS, LIMIT = 2, 31, 1.1
#: Layer, its arguments, the shape of its input, whether channels come last in memory.
LAYERS: list[tuple[str, tuple[Any, ...], tuple[int, ...], bool]] = [
    ("BatchNorm2d", (64,), (64, 64, 28, 28), False),
    ("BatchNorm2d", (64,), (64, 64, 28, 28), True),
    ("BatchNorm2d", (256,), (64, 256, 7, 7), False),
    ("BatchNorm1d", (512,), (512, 512), False),
    ("LayerNorm", (384,), (32, 64, 384), False),
    ("LayerNorm", (768,), (8192, 768), False),
    ("Dropout", (0.1,), (32, 64, 384), False),
    ("Dropout", (0.1,), (8192, 768), False),
]

Row = dict[str, Any]


def passing(layer: Callable[..., Any], params: list[Any], x: Any) -> Callable[[], None]:
    """A forward and a backward pass."""
    weight = torch.randn_like(x)

    def passes() -> None:
        torch.autograd.grad(layer(x), [x, *params], weight)

    return passes


def measure(layers: list[tuple[str, tuple[Any, ...], tuple[int, ...], bool]], rounds: int) -> Any:
    """Our time over torch's, layer by layer."""
    for name, arguments, shape, last in layers:
        torch.manual_seed(0)
        torch.compiler.reset()
        x = torch.randn(shape)
        if last:
            x = x.contiguous(memory_format=torch.channels_last)
        x.requires_grad_()
        contenders = {}
        for whose, module in (("ours", regularizers), ("torch's", nn)):
            layer = getattr(module, name)(*arguments)
            params = list(layer.parameters())
            contenders[whose] = passing(layer, params, x)
            contenders[f"{whose} compiled"] = passing(torch.compile(layer), params, x)
        times = take_turns(contenders, rounds, 2e-2, lambda: None)
        where = f"{shape}{', channels last' if last else ''}"
        yield from rows(f"{name} over torch's, {where}", times)


def rows(title: str, times: dict[str, list[float]]) -> Iterator[Row]:
    """Three ratios of one layer."""
    for ours, theirs, words, limit in (
        ("ours", "torch's", "as they are", LIMIT),
        ("ours compiled", "torch's compiled", "both compiled", LIMIT),
        ("ours compiled", "torch's", "ours compiled, torch's as it is", None),
    ):
        found = ratios(times[ours], times[theirs])
        yield row(f"{title}: {words}", found, limit, at_most=True) | {
            "unit": "us",
            "ours": 1e6 * statistics.median(times[ours]),
            "torch": 1e6 * statistics.median(times[theirs]),
        }


def main() -> None:
    """Measure, and write the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", type=Path, metavar="FOLDER", help="only try: write there")
    quick = parser.parse_args().quick
    torch.set_num_threads(1 if quick else THREADS)
    layers = [("BatchNorm1d", (4,), (8, 4), False)] if quick else LAYERS
    found = measure(layers, 2 if quick else ROUNDS)
    common = {"threads": torch.get_num_threads(), "torch_version": torch.__version__}
    update("layers", [entry | common for entry in found], quick or RESULTS)


if __name__ == "__main__":
    main()
