"""Every optimizer on several ranks takes the steps that one process takes with the joined batch."""

import inspect

import pytest
import torch
from torch import nn
from torch.nn import functional

from optlab import optimizers
from optlab.distributed import DataParallel, launch

ROWS, STEPS = 12, 20
#: Systems are well-conditioned: else the last digits of a sum grow by their condition.
SETTINGS = {
    "KFAC": dict(fisher="exact"),
    "Newton": dict(damping=5.0, globalization="line_search"),
    "GaussNewton": dict(damping=1.0, adaptive=False, progress=None),
    "NaturalGradient": dict(damping=1.0),
}


def trained(name, rank, ranks):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    if ranks > 1:
        model = DataParallel(model)
    made = getattr(optimizers, name)
    given = {"params": model.parameters(), "likelihood": "categorical", "model": model}
    given["process_group"] = getattr(model, "process_group", None)
    known = inspect.signature(made).parameters
    if "model" in known:
        del given["params"]
    given = {key: value for key, value in given.items() if key in known}
    optimizer = made(**given, **SETTINGS.get(name, {}))
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(ROWS, 6, dtype=torch.float64, generator=generator).chunk(ranks)[rank]
        y = torch.randint(4, (ROWS,), generator=generator).chunk(ranks)[rank]

        def loss(x=x, y=y):
            return functional.cross_entropy(model(x), y)

        def outputs(x=x, y=y):
            return model(x), y

        closure = {"loss": loss, "outputs": outputs}.get(getattr(optimizer, "closure", "none"))
        if closure is None:
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
        else:
            optimizer.step(closure)
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def work(rank, ranks):
    return {name: trained(name, rank, ranks) for name in optimizers.__all__}


@pytest.fixture(scope="module")
def alone():
    return work(0, 1)


@pytest.fixture(scope="module", params=[2, 3])
def together(request):
    return launch(work, request.param, request.param)


@pytest.mark.parametrize("name", optimizers.__all__)
def test_ranks_are_one_process(name, alone, together):
    for found in together:
        torch.testing.assert_close(found[name], alone[name], rtol=0, atol=1e-12)


def one_is_infinite(rank):
    theta = nn.Parameter(torch.ones(2))
    optimizer = optimizers.Newton([theta], process_group=torch.distributed.group.WORLD)
    factor = torch.inf if rank == 1 else 1.0
    try:
        optimizer.step(lambda: factor * theta @ theta)
    except FloatingPointError as error:
        return str(error)


def test_a_loss_that_is_infinite_on_one_rank_ends_all():
    assert launch(one_is_infinite, 2) == ["the loss is inf"] * 2
