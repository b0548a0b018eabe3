"""K-FAC on two processes: the factors of the joined batch, and ranks that stay equal."""

import functools

import pytest
import torch
from torch import distributed
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from optlab import KFAC
from optlab.distributed import launch
from tests.optlab.kfac.driving import X, Y, network

SETTINGS = [
    dict(fisher="exact"),
    dict(fisher="empirical", inverse_every=2),
    dict(fisher="exact", ekfac=True),
    dict(fisher="sampled", damping_form="eigenbasis", momentum=0),
]


def trained(model, optimizer, x, y, average=lambda: None):
    for _ in range(4):
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        average()
        optimizer.step()
    return [p.detach() for p in model.parameters()]


def averaged(model):
    for p in model.parameters():
        distributed.all_reduce(p.grad)
        p.grad /= 2


def work(rank):
    x, y = X.chunk(2)[rank], Y.chunk(2)[rank]
    found = []
    for settings in SETTINGS:
        wrapped = DistributedDataParallel(network())
        optimizer = KFAC(wrapped, "categorical", **settings)
        found.append(trained(wrapped, optimizer, x, y))
        model = network()
        group = distributed.group.WORLD
        optimizer = KFAC(model, "categorical", process_group=group, **settings)
        found.append(trained(model, optimizer, x, y, functools.partial(averaged, model)))
        optimizer.remove_hooks()
    # One rank fails: both say so.
    model = network()
    optimizer = KFAC(model, "categorical", process_group=group, damping=0.0)
    functional.cross_entropy(model(x[:1]), y[:1]).backward()
    with pytest.raises(ValueError, match="cannot be inverted"):
        optimizer.step()
    return found


def test_two_ranks_are_one_process():
    pairs = [*zip(*launch(work, 2), strict=True)]
    assert len(pairs) == 2 * len(SETTINGS)
    for number, (first, second) in enumerate(pairs):
        settings = SETTINGS[number // 2]
        for p, q in zip(first, second, strict=True):
            assert torch.equal(p, q)
        if settings["fisher"] != "sampled":  # which draws anew on every rank
            model = network()
            expected = trained(model, KFAC(model, "categorical", **settings), X, Y)
            torch.testing.assert_close(first, expected, rtol=1e-10, atol=1e-12)
