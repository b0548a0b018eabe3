"""The task of the curvature benchmark: an autoencoder of drawn curves, and how methods run on it.

After the CURVES task of Hinton and Salakhutdinov (2006), which Martens and Grosse (2015) take: the
network is deep, narrow in the middle, and hard for a method that knows no curvature.  The images
here are drawn anew.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any, NamedTuple

import torch
from scipy.stats import qmc
from torch import Tensor, nn
from torch.nn import functional

import optlab

SIDE, IMAGES, BATCH = 16, 20_000, 500
SIZES = (256, 100, 50, 12, 50, 100, 256)
#: On how many of the training images the loss is evaluated, and how often.
EVALUATED, EVERY = 5_000, 20
PEN = 0.6


def images(count: int = IMAGES) -> Tensor:
    """Random cubic Bezier curves drawn with a soft pen, of shape ``(count, 256)``, in [0, 1]."""
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


def network(seed: int) -> nn.Sequential:
    """The mirrored autoencoder: tanh units, a linear code, logits of the pixels."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for into, out in itertools.pairwise(SIZES):
        linear = nn.Linear(into, out)
        nn.init.xavier_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear] if out in (min(SIZES), SIZES[-1]) else [linear, nn.Tanh()]
    return nn.Sequential(*layers)


def loss(model: nn.Module, x: Tensor) -> Tensor:
    """The mean over images of the cross-entropy, added up over their pixels."""
    return functional.binary_cross_entropy_with_logits(model(x), x, reduction="sum") / len(x)


class Method(NamedTuple):
    """An optimizer and what is tuned: each setting between two ends, on a logarithmic scale."""

    name: str
    make: Callable[..., Any]
    space: dict[str, tuple[float, float]]
    trial: int  # steps

    def settings(self, trials: int) -> Iterator[dict[str, float]]:
        """Settings that fill the space evenly."""
        points = qmc.Sobol(len(self.space), seed=0).random(trials)
        for point in points:
            ends = zip(point, self.space.items(), strict=True)
            yield {name: low * (high / low) ** share for share, (name, (low, high)) in ends}


def sgd(model: nn.Module, lr: float, forget: float) -> torch.optim.Optimizer:
    """Torch's SGD; the momentum is one less ``forget``."""
    return torch.optim.SGD(model.parameters(), lr, momentum=1 - forget)


def adam(model: nn.Module, lr: float, forget: float) -> torch.optim.Optimizer:
    """Torch's Adam; ``beta1`` is one less ``forget``."""
    return torch.optim.Adam(model.parameters(), lr, betas=(1 - forget, 0.999))


def kfac(model: nn.Module, **settings: float) -> torch.optim.Optimizer:
    """K-FAC with factors every step and inverses every ten."""
    return optlab.KFAC(model, "bernoulli", momentum=0.9, **settings)


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
    method: Method,
    settings: dict[str, float],
    seed: int,
    steps: int,
    data: Tensor,
    target: float = -math.inf,
) -> Run:
    """Train until ``steps``, or until the loss is at the target."""
    model = network(seed)
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
