"""The ring adds up what all ranks have, and sends as little as its title says."""

import pytest
import torch
from torch import distributed

from optlab.distributed import launch, ring_all_reduce

#: Shapes with as many entries as divide by all numbers of ranks, as do not, and as are too few.
SHAPES = [(24, 5), (7, 11), (101,), (2,), ()]


def own(rank, shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(rank), dtype=torch.float64)


def work(rank):
    found = {}
    for ranks in (2, 3, 4):
        group = distributed.new_group([*range(4 - ranks, 4)])
        if rank < 4 - ranks:
            continue
        for shape in SHAPES:
            tensor = own(rank, shape)
            sent = ring_all_reduce(tensor, group)
            found[ranks, shape] = tensor, sent
    turned = own(rank, (4, 6)).T
    ring_all_reduce(turned)
    found["turned"] = turned
    return found


@pytest.fixture(scope="module")
def found():
    return launch(work, 4)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_sums_and_bytes(found, ranks, shape):
    members = range(4 - ranks, 4)
    expected = sum(own(rank, shape) for rank in members)
    entries, traffic = expected.numel(), 0
    for rank in members:
        total, sent = found[rank][ranks, shape]
        torch.testing.assert_close(total, expected, rtol=1e-14, atol=1e-15)
        assert torch.equal(total, found[3][ranks, shape][0])
        # All chunks but one, twice; chunks differ by one entry at most.
        fewest, most = entries // ranks, -(-entries // ranks)
        assert 2 * (entries - most) <= sent / 8 <= 2 * (entries - fewest)
        traffic += sent / 8
    assert traffic == 2 * (ranks - 1) * entries


def test_a_tensor_in_another_order_of_memory(found):
    expected = sum(own(rank, (4, 6)) for rank in range(4)).T
    for rank in range(4):
        torch.testing.assert_close(found[rank]["turned"], expected, rtol=1e-14, atol=1e-15)
