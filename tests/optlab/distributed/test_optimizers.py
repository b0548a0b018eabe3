"""A loss that is infinite on one rank is so for all: whole-network methods average it first."""

import torch
from torch import nn

from optlab import optimizers
from optlab.distributed import launch


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
