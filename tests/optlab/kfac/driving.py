"""A small network, a batch, and a training step for K-FAC."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from optlab import KFAC
from tests.optlab.kfac.blocks import double, x_of

X, Y = x_of(8, 4), torch.tensor([0, 1, 2, 0, 1, 1, 2, 0])


def network(seed=0):
    return double(
        nn.Linear(4, 5), nn.LayerNorm(5), nn.ReLU(inplace=True), nn.Linear(5, 3), seed=seed
    )


def step(model, optimizer, x=X, y=Y):
    optimizer.zero_grad()
    loss = functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()


def values(model):
    return [p.detach().clone() for p in model.parameters()]


def factors_of(run):
    """Of a loop that ends in a step, from the same start."""
    model = network()
    optimizer = KFAC(model, "categorical", fisher="exact")
    run(model, optimizer)
    return optimizer.factors()


def usual(model, optimizer):
    step(model, optimizer)


def refused(model, optimizer, error, message):
    before = values(model)
    with pytest.raises(error, match=message):
        optimizer.step()
    for p, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, old)
