"""K-FAC on two processes: the factors of the joined batch, and ranks that stay equal."""

import functools

import pytest
import torch
from torch import distributed, multiprocessing
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from optlab import KFAC
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


def work(rank, path, results):
    distributed.init_process_group("gloo", f"file://{path}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    x, y = X.chunk(2)[rank], Y.chunk(2)[rank]
    for number, settings in enumerate(SETTINGS):
        wrapped = DistributedDataParallel(network())
        optimizer = KFAC(wrapped, "categorical", **settings)
        results.put((number, "wrapped", trained(wrapped, optimizer, x, y)))
        model = network()
        group = distributed.group.WORLD
        optimizer = KFAC(model, "categorical", process_group=group, **settings)
        average = functools.partial(averaged, model)
        results.put((number, "by hand", trained(model, optimizer, x, y, average)))
        optimizer.remove_hooks()
    # One rank fails: both say so.
    model = network()
    optimizer = KFAC(model, "categorical", process_group=group, damping=0.0)
    functional.cross_entropy(model(x[:1]), y[:1]).backward()
    with pytest.raises(ValueError, match="cannot be inverted"):
        optimizer.step()
    distributed.barrier()
    distributed.destroy_process_group()


def test_two_ranks_are_one_process(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    path = str(tmp_path / "meet")
    ranks = [context.Process(target=work, args=(rank, path, results)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    found = {}
    for _ in range(4 * len(SETTINGS)):
        number, form, params = results.get()
        found.setdefault((number, form), []).append([p.clone() for p in params])
    for process in ranks:
        process.join(30)
        assert process.exitcode == 0
    for (number, _), (first, second) in found.items():
        for p, q in zip(first, second, strict=True):
            assert torch.equal(p, q)
        if SETTINGS[number]["fisher"] != "sampled":  # which draws anew on every rank
            model = network()
            expected = trained(model, KFAC(model, "categorical", **SETTINGS[number]), X, Y)
            torch.testing.assert_close(first, expected, rtol=1e-10, atol=1e-12)
