"""Other libraries' K-FAC, for comparison: curvlinops and singd, where they are installed.

    .venv/bin/python -m pip install -c constraints.txt curvlinops-for-pytorch singd

They are not among the project's dependencies.
"""

import importlib
import importlib.metadata
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Step = Callable[[], None]
Peer = Callable[[nn.Module, Tensor, Tensor], Step]


def singd(every: int) -> Peer:
    """Structured inverse-free natural gradient (Lin et al. 2024), dense: the empirical Fisher."""

    def make(model: nn.Module, x: Tensor, y: Tensor) -> Step:
        module = importlib.import_module("singd.optim.optimizer")
        optimizer = module.SINGD(model, lr=1e-6, T=every)

        def step() -> None:
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            optimizer.step()

        return step

    return make


def curvlinops(model: nn.Module, x: Tensor, y: Tensor) -> Step:
    """Factors and inverses of the sampled Fisher, made anew in every step, and SGD with them."""
    module = importlib.import_module("curvlinops")
    params = list(model.parameters())
    optimizer = torch.optim.SGD(params, 1e-6, momentum=0.9)
    settings: dict[str, Any] = dict(separate_weight_and_bias=False, check_deterministic=False)

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        factors = module.KFACLinearOperator(
            model, nn.CrossEntropyLoss(), params, [(x, y)], **settings
        )
        inverse = module.KFACInverseLinearOperator(
            factors, damping=1e-3, use_heuristic_damping=True
        )
        for p, direction in zip(params, inverse @ [p.grad for p in params], strict=True):
            p.grad = direction.detach()
        optimizer.step()

    return step


def installed() -> dict[str, Peer]:
    """The peers that are there, by name, version and what they do in a step."""
    known: dict[str, tuple[str, Peer]] = {
        "factors every 1, no inverses": ("singd", singd(1)),
        "factors every 10, no inverses": ("singd", singd(10)),
        "factors every 1, inverses every 1": ("curvlinops-for-pytorch", curvlinops),
    }
    found = {}
    for does, (name, make) in known.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            warnings.warn(f"{name} is not installed: its rows are not measured", stacklevel=2)
        else:
            found[f"{name} {version}, {does}"] = make
    return found
