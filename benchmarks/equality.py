"""Whether ranks come to the numbers of one process, for every optimizer of the package.

    python benchmarks/equality.py [--quick FOLDER]

Writes ``benchmarks/results/equality.json``: the largest difference of a parameter after 20 steps in
float64, on 2 and 3 ranks with their parts of each batch, from one process with all of it.
"""

import argparse
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, row, update
from torch import Tensor, nn
from torch.nn import functional

from optlab import optimizers
from optlab.distributed import DataParallel, launch

ROWS, STEPS, LIMIT = 12, 20, 1e-12
#: Systems are well-conditioned: else the last digits of a sum grow by their condition.
SETTINGS: dict[str, dict[str, Any]] = {
    "KFAC": dict(fisher="exact"),
    "Newton": dict(damping=5.0, globalization="line_search"),
    "GaussNewton": dict(damping=1.0, adaptive=False, progress=None),
    "NaturalGradient": dict(damping=1.0),
}


def trained(name: str, rank: int, ranks: int) -> Tensor:
    """The parameters that an optimizer ends at, on one of several ranks."""
    torch.manual_seed(0)
    model: nn.Module = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    if ranks > 1:
        model = DataParallel(model)
    made = getattr(optimizers, name)
    known = inspect.signature(made).parameters
    given = {"model": model} if "model" in known else {"params": model.parameters()}
    given |= {"likelihood": "categorical", "process_group": getattr(model, "process_group", None)}
    given = {key: value for key, value in given.items() if key in known}
    optimizer = made(**given, **SETTINGS.get(name, {}))
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(ROWS, 6, dtype=torch.float64, generator=generator).chunk(ranks)[rank]
        y = torch.randint(4, (ROWS,), generator=generator).chunk(ranks)[rank]

        def loss(x: Tensor = x, y: Tensor = y) -> Tensor:
            return functional.cross_entropy(model(x), y)

        def outputs(x: Tensor = x, y: Tensor = y) -> tuple[Tensor, Tensor]:
            return model(x), y

        closure = {"loss": loss, "outputs": outputs}.get(getattr(optimizer, "closure", "none"))
        if closure is None:
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
        else:
            optimizer.step(closure)
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def work(rank: int, ranks: int) -> dict[str, Tensor]:
    """What every optimizer ends at."""
    return {name: trained(name, rank, ranks) for name in optimizers.__all__}


def measure() -> Iterator[dict[str, Any]]:
    """A row for each optimizer and number of ranks."""
    alone = work(0, 1)
    for ranks in (2, 3):
        found = launch(work, ranks, ranks)
        for name, expected in alone.items():
            apart = [float((own[name] - expected).abs().max()) for own in found]
            bar = f"{name}, {ranks} ranks against one process: largest difference after 20 steps"
            yield row(bar, [max(apart)], LIMIT, at_most=True) | {"dtype": "float64"}


def main() -> None:
    """Measure, and write the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", type=Path, metavar="FOLDER", help="write there")
    quick = parser.parse_args().quick
    update("equality", [*measure()], quick or RESULTS)


if __name__ == "__main__":
    main()
