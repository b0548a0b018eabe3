"""What ranks train, and what one process trains with the joined batch."""

import contextlib
import math

import torch
from torch import nn
from torch.nn import functional

import optlab
from optlab.distributed import DataParallel

ROWS, STEPS = 12, 20
OPTIMIZERS = {
    "sgd": lambda model: optlab.SGD(model.parameters(), lr=0.3, momentum=0.9),
    "adamw": lambda model: optlab.AdamW(model.parameters(), lr=0.01),
    "kfac": lambda model: optlab.KFAC(model, "categorical", lr=0.1, fisher="exact"),
}
#: Optimizer, how the rows are spread over ranks, and the size of buckets.
RUNS = [
    ("sgd", "even", 2**20),
    ("sgd", "accumulated", 100),
    ("sgd", "uneven", 1),
    ("adamw", "uneven", 200),
    ("kfac", "even", 100),
    ("kfac", "uneven", 2**20),
]


class Branched(nn.Module):
    """A layer for marked rows only, and one that is never used."""

    def __init__(self, seed=0, mark=0.8):
        super().__init__()
        self.mark = mark
        torch.manual_seed(seed)
        self.body = nn.Linear(4, 5, dtype=torch.float64)
        self.idle = nn.Linear(5, 3, dtype=torch.float64)
        self.branch = nn.Linear(5, 3, dtype=torch.float64)
        self.head = nn.Linear(5, 3, dtype=torch.float64)

    def forward(self, x):
        h = torch.tanh(self.body(x))
        y, marked = self.head(h), (x[:, 0] > self.mark).nonzero()[:, 0]
        return y.index_add(0, marked, self.branch(h[marked])) if len(marked) else y


def network(optimizer, seed=0):
    """For K-FAC all rows are marked: it counts a layer's samples where the layer is used."""
    return Branched(seed, -math.inf if optimizer == "kfac" else 0.8)


def rows(step):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(ROWS, 4, dtype=torch.float64, generator=generator)
    return x, torch.randint(3, (ROWS,), generator=generator)


def sizes(spread, step, ranks):
    """How many rows each rank has; of an uneven spread one has none, in turn."""
    if spread == "even":
        return [ROWS // ranks] * ranks
    most = ROWS if ranks == 2 else ROWS - 3
    own = [most, 0, ROWS - most][:ranks]
    return own[step % ranks :] + own[: step % ranks]


def loss_of(model, x, y):
    return functional.cross_entropy(model(x), y)


def passes(model, spread, step, rank, ranks):
    """A rank's part of a step's forward and backward passes."""
    x, y = rows(step)
    if spread == "accumulated":
        parts = torch.arange(ROWS).chunk(2 * ranks)[2 * rank : 2 * rank + 2]
        for part, context in zip(parts, (model.no_sync(), contextlib.nullcontext()), strict=True):
            with context:
                (loss_of(model, x[part], y[part]) / 2).backward()
        return
    own = sizes(spread, step, ranks)
    x, y = x.split(own)[rank], y.split(own)[rank]
    with model.batch(len(x)) if spread == "uneven" else contextlib.nullcontext():
        if len(x):
            loss_of(model, x, y).backward()


def trained_by_ranks(run, rank, ranks, group=None, **settings):
    optimizer, spread, bucket_bytes = run
    settings |= dict(bucket_bytes=bucket_bytes, process_group=group)
    model = DataParallel(network(optimizer, rank), **settings)
    stepped = OPTIMIZERS[optimizer](model)
    for step in range(STEPS):
        stepped.zero_grad()
        passes(model, spread, step, rank, ranks)
        stepped.step()
    assert model.module.idle.weight.grad is None
    return {name: p.detach() for name, p in model.module.named_parameters()}


def trained_alone(optimizer):
    model = network(optimizer)
    stepped = OPTIMIZERS[optimizer](model)
    for step in range(STEPS):
        stepped.zero_grad()
        loss_of(model, *rows(step)).backward()
        stepped.step()
    return {name: p.detach() for name, p in model.named_parameters()}
