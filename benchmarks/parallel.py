"""What data parallelism costs in a step, beside torch's and beside processes that do not talk.

    python benchmarks/parallel.py [--quick FOLDER]

Writes ``benchmarks/results/parallel.json``.  Two ranks with a thread each train on gloo, and take
turns all at once: with ``optlab.distributed.DataParallel``, with torch's
``DistributedDataParallel``, and each for itself with no message sent.  Where there are GPUs, so do
ranks of nccl, one and as many as there are; else those rows are open.
"""

import argparse
import copy
import random
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from paired import Times, ratios
from record import RESULTS, row, unmeasured, update
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from optlab.distributed import DataParallel, launch

RANKS, ROUNDS, TARGET = 2, 31, 0.3  # seconds of a turn
#: Of two ranks against two processes: 0.9 of their samples in a second, or more.
EFFICIENCY = 0.9
CONTEXT, TOKENS = 64, 256

Row = dict[str, Any]
Problem = tuple[nn.Module, Tensor, Tensor]


class Attending(nn.Module):
    """A block of a GPT: attention to what came before, and two layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.layers = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.register_buffer("future", torch.ones(CONTEXT, CONTEXT).triu(1).bool())

    def forward(self, x: Tensor) -> Tensor:
        h = self.norms[0](x)
        x = x + self.attention(h, h, h, attn_mask=self.future, need_weights=False)[0]
        return x + self.layers(self.norms[1](x))


def mlp(batch: int) -> Problem:
    """0.9 million parameters in four layers."""
    widths = [(784, 512), (512, 512), (512, 512), (512, 10)]
    layers = [layer for pair in widths for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1]), torch.randn(batch, 784), torch.randint(10, (batch,))


def convnet(batch: int) -> Problem:
    """0.2 million parameters, with batch normalization."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride in [(3, 32, 1), (32, 64, 2), (64, 128, 2), (128, 128, 2)]:
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)]
    return nn.Sequential(*layers), torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,))


def gpt(batch: int) -> Problem:
    """0.7 million parameters in three blocks, over bytes."""
    width = 128
    model = nn.Sequential(
        nn.Embedding(TOKENS, width),
        *(Attending(width) for _ in range(3)),
        nn.LayerNorm(width),
        nn.Linear(width, TOKENS),
        nn.Flatten(0, 1),
    )
    tokens = torch.randint(TOKENS, (batch, CONTEXT + 1))
    return model, tokens[:, :-1], tokens[:, 1:].flatten()


#: What is trained, and with how many samples on each rank.  A message's size is the model's,
#: whatever the samples are: the more there are, the less it counts.
PROBLEMS = {
    "MLP": (mlp, 256),
    "MLP, larger batch": (mlp, 1024),
    "convnet": (convnet, 32),
    "GPT": (gpt, 16),
}


def step_of(
    wrap: Callable[[nn.Module], nn.Module], problem: Problem, device: str = "cpu"
) -> Callable[[], None]:
    """A training step of a copy of the model."""
    model, x, y = (part.to(device) for part in problem)
    wrapped = wrap(copy.deepcopy(model))
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(wrapped(x), y).backward()
        optimizer.step()

    return step


def seconds(step: Callable[[], None], repeats: int) -> float:
    """What a step takes until the last rank is done."""
    distributed.barrier()
    began = perf_counter()
    for _ in range(repeats):
        step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    distributed.barrier()
    return (perf_counter() - began) / repeats


def turns(rank: int, name: str, batch: int, rounds: int, target: float, device: str) -> Times:
    """Seconds of a step, round by round, in the same random order on all ranks."""
    torch.set_num_threads(1)
    torch.manual_seed(rank)
    group = None
    if device == "cuda":
        torch.cuda.set_device(rank)
        group = distributed.new_group(backend="nccl")
    problem = PROBLEMS[name][0](batch)
    wraps: dict[str, Callable[[nn.Module], nn.Module]] = {
        "ours": lambda model: DataParallel(model, process_group=group),
        "torch": lambda model: DistributedDataParallel(model, process_group=group),
        "alone": lambda model: model,
    }
    steps = {name: step_of(wrap, problem, device) for name, wrap in wraps.items()}
    for step in steps.values():
        seconds(step, 3)
    repeats = torch.tensor([max(1.0, target / seconds(steps["torch"], 3))])
    distributed.broadcast(repeats, 0)
    order, shuffle = [*steps], random.Random(0).shuffle
    times: Times = {name: [] for name in steps}
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            times[name].append(seconds(steps[name], int(repeats)))
    return times


def measure(
    batch: int | None, rounds: int, target: float, ranks: int = RANKS, device: str = "cpu"
) -> Iterator[Row]:
    """Our time over torch's, and over that of processes that do not talk."""
    for name, (_, usual) in PROBLEMS.items():
        times = launch(turns, ranks, name, batch or usual, rounds, target, device, timeout=600)[0]
        for bar, other, limit in bars(name, ranks, device):
            yield row(bar, ratios(times["ours"], times[other]), limit, at_most=True) | {
                "unit": "ms",
                "ours": 1e3 * statistics.median(times["ours"]),
                other: 1e3 * statistics.median(times[other]),
                "samples_on_a_rank": batch or usual,
                "ranks": ranks,
                "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
            }


def bars(name: str, ranks: int, device: str) -> Iterator[tuple[str, str, float]]:
    """What is promised of a problem: in words, against whom, and the limit."""
    where = f"{name}, {ranks} {'rank' if ranks == 1 else 'ranks'}"
    where += " of nccl" if device == "cuda" else ""
    alone = "1 process without" if ranks == 1 else f"{ranks} independent processes'"
    yield f"{where}: a step's time over torch's", "torch", 1.0
    yield f"{where}: a step's time over {alone}", "alone", round(1 / EFFICIENCY, 3)


def on_gpus(batch: int | None, rounds: int, target: float) -> Iterator[Row]:
    """The same on one GPU and on all, or rows that wait for one."""
    count = torch.cuda.device_count()
    for ranks in sorted({1, count} - {0}):
        if count:
            yield from measure(batch, rounds, target, ranks, "cuda")
        else:
            for name in PROBLEMS:
                for bar, _, limit in bars(name, ranks, "cuda"):
                    yield unmeasured(bar, limit)


def main() -> None:
    """Measure, and write the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", type=Path, metavar="FOLDER", help="only try: write there")
    quick = parser.parse_args().quick
    settings = (2, 2, 0.0) if quick else (None, ROUNDS, TARGET)
    rows = [*measure(*settings), *on_gpus(*settings)]
    common = {"threads": 1, "torch_version": torch.__version__}
    update("parallel", [entry | common for entry in rows], quick or RESULTS)


if __name__ == "__main__":
    main()
