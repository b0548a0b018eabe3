"""What clipping and loss scaling cost in a step, beside torch's.

    python benchmarks/safeguards.py [--quick FOLDER]

Writes ``benchmarks/results/safeguards.json``.  Gradients are of 200 small tensors, and of 11.7
million entries in the shapes of a ResNet-18; half of the clippings find a norm to shorten.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from paired import ratios, take_turns
from record import RESULTS, row, update
from torch import Tensor, nn

from optlab.clipping import clip_grad_norm_, clip_grad_value_
from optlab.precision import LossScaler

THREADS, ROUNDS = 2, 31
SMALL = [(16, 16)] * 200
#: Convolutions of four stages, and what comes before and after.
LARGE = [
    (64, 3, 7, 7),
    *[(64, 64, 3, 3)] * 4,
    *[(128, 64, 3, 3), (128, 64, 1, 1), *[(128, 128, 3, 3)] * 3],
    *[(256, 128, 3, 3), (256, 128, 1, 1), *[(256, 256, 3, 3)] * 3],
    *[(512, 256, 3, 3), (512, 256, 1, 1), *[(512, 512, 3, 3)] * 3],
    *[(64,)] * 10,
    *[(128,)] * 10,
    *[(256,)] * 10,
    *[(512,)] * 10,
    (1000, 512),
    (1000,),
]

Row = dict[str, Any]


class Nothing(torch.optim.Optimizer):
    """An optimizer whose step is free, so that only the scaler's part is timed."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})

    def step(self, closure: Any = None) -> None:
        """Nothing."""


def with_gradients(shapes: list[tuple[int, ...]]) -> list[Tensor]:
    """Parameters of these shapes with normally distributed gradients."""
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    for p in parameters:
        p.grad = torch.randn_like(p)
    return parameters


def clipping(parameters: list[Tensor], clip: Callable[..., Any]) -> Callable[[], None]:
    """By norm: once without need, once with, so that the gradients stay as they are."""
    norm = float(torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in parameters])))

    def calls() -> None:
        clip(parameters, 2 * norm)
        clip(parameters, 0.999999 * norm)

    return calls


def by_value(parameters: list[Tensor], clip: Callable[..., Any]) -> Callable[[], None]:
    """By value."""
    return lambda: clip(parameters, 1.0)


def scaling(parameters: list[Tensor], scaler: Any) -> Callable[[], None]:
    """All calls of a scaler in a step but the backward pass."""
    optimizer, loss = Nothing(parameters), torch.tensor(1.0)

    def calls() -> None:
        scaler.scale(loss)
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()

    return calls


def measure(sizes: dict[str, list[tuple[int, ...]]], rounds: int) -> Iterator[Row]:
    """Our time over torch's."""
    utils = nn.utils
    for size, shapes in sizes.items():
        made = with_gradients(shapes)
        # A scale of 1 leaves the gradients as they are.
        scalers = LossScaler(init_scale=1.0), torch.amp.GradScaler("cpu", init_scale=1.0)
        pairs = {
            "clip_grad_norm_": [
                clipping(made, clip) for clip in (clip_grad_norm_, utils.clip_grad_norm_)
            ],
            "clip_grad_value_": [
                by_value(made, clip) for clip in (clip_grad_value_, utils.clip_grad_value_)
            ],
            "clip_grad_norm_, both compiled": [
                clipping(made, torch.compile(clip))
                for clip in (clip_grad_norm_, utils.clip_grad_norm_)
            ],
            "loss scaler": [scaling(made, scaler) for scaler in scalers],
        }
        for name, (ours, theirs) in pairs.items():
            times = take_turns({"ours": ours, "torch": theirs}, rounds, 2e-2, lambda: None)
            limit = 1.1 if "compiled" in name or name == "clip_grad_value_" else 1.0
            found = ratios(times["ours"], times["torch"])
            yield row(f"{name} over torch's, {size}", found, limit, at_most=True) | {
                "unit": "us",
                "ours": 1e6 * statistics.median(times["ours"]),
                "torch": 1e6 * statistics.median(times["torch"]),
            }


def main() -> None:
    """Measure, and write the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", type=Path, metavar="FOLDER", help="only try: write there")
    quick = parser.parse_args().quick
    torch.set_num_threads(1 if quick else THREADS)
    sizes = {"200 small tensors": SMALL, "11.7M elements": LARGE}
    if quick:
        sizes = {name: shapes[-2:] for name, shapes in sizes.items()}
    rows = measure(sizes, 2 if quick else ROUNDS)
    common = {"threads": torch.get_num_threads(), "torch_version": torch.__version__}
    update("safeguards", [entry | common for entry in rows], quick or RESULTS)


if __name__ == "__main__":
    main()
