"""Every example once in an epoch, the same batches for any number of ranks, from any point."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optlab.data import Sampler


@st.composite
def settings(draw):
    batch = draw(st.integers(1, 9))
    drop_last = draw(st.booleans())
    count = draw(st.integers(batch if drop_last else 1, 40))
    seed = draw(st.integers(0, 2**32))
    return dict(count=count, batch=batch, seed=seed, drop_last=drop_last)


def make(given, **more):
    return Sampler(
        given["count"], given["batch"], **{k: given[k] for k in ("seed", "drop_last")}, **more
    )


def batches(sampler):
    return [indices.tolist() for indices in sampler]


def stream(sampler, count):
    """So many batches, over as many epochs as they take."""
    found = itertools.chain.from_iterable(iter(lambda: batches(sampler), None))
    return [*itertools.islice(found, count)]


@given(settings())
def test_an_epoch_has_every_example_once(given):
    sampler = make(given)
    count, batch, drop_last = given["count"], given["batch"], given["drop_last"]
    expected = [batch] * (count // batch) + ([count % batch] if count % batch else [])
    expected = expected[: count // batch] if drop_last else expected
    for epoch in range(3):
        assert (sampler.epoch, sampler.step) == (epoch, 0)
        found = batches(sampler)
        assert [len(few) for few in found] == expected and len(sampler) == len(expected)
        indices = [index for few in found for index in few]
        assert len({*indices}) == len(indices) and {*indices} <= {*range(count)}
        assert drop_last or len(indices) == count


@given(settings(), st.data())
def test_ranks_share_each_batch(given, data):
    ranks = data.draw(st.integers(1, given["batch"]))
    shares = [make(given, rank=rank, ranks=ranks) for rank in range(ranks)]
    whole = make(given)
    for _ in range(2):
        parts = [batches(sampler) for sampler in shares]
        for index, batch in enumerate(batches(whole)):
            own = [part[index] for part in parts]
            sizes = [len(few) for few in own]
            assert sizes == sorted(sizes, reverse=True) and sizes[0] - sizes[-1] <= 1
            assert own == [batch[rank::ranks] for rank in range(ranks)]
            assert sorted(itertools.chain(*own)) == sorted(batch)


@given(settings(), st.data())
def test_a_run_goes_on_in_mid_epoch_with_other_ranks(given, data):
    whole = make(given)
    expected = stream(whole, 3 * len(whole))
    stop = data.draw(st.integers(1, 2 * len(whole)))
    before, after = (data.draw(st.integers(1, given["batch"])) for _ in range(2))
    first = make(given, ranks=before)
    # Saved inside the loop, after a batch was given out.
    loops = itertools.chain.from_iterable(itertools.repeat(first))
    for _ in range(stop):
        next(loops)
    saved = json.loads(json.dumps(first.state_dict()))
    for rank in range(after):
        again = make(given, rank=rank, ranks=after)
        again.load_state_dict(saved)
        found = stream(again, len(expected) - stop)
        assert found == [batch[rank::after] for batch in expected[stop:]]


def test_orders_depend_on_seed_and_epoch_apart():
    """Not on their sum, by which neighbouring seeds would share their epochs."""
    orders = {}
    for seed in range(3):
        sampler = Sampler(50, 50, seed=seed)
        for epoch in range(3):
            orders[seed, epoch] = tuple(batches(sampler)[0])
    assert len({*orders.values()}) == 9
    again = Sampler(50, 50, seed=1)
    assert tuple(batches(again)[0]) == orders[1, 0]


def test_places_are_uniform():
    """Chi-squared of which example comes first; 49 degrees of freedom, 99.9% below 85.4."""
    sampler = Sampler(50, 1, seed=0)
    firsts = []
    for epoch in range(2000):
        sampler.epoch, sampler.step = epoch, 0
        firsts.append(next(iter(sampler)).item())
    counts = np.bincount(firsts, minlength=50)
    assert ((counts - 40) ** 2 / 40).sum() < 85.4


def test_indices_take_examples_and_a_loop_may_stop_and_go_on():
    sampler, x = Sampler(10, 3, seed=5), torch.arange(10) * 2
    for indices in sampler:
        assert indices.dtype == torch.int64
        first = x[indices]
        break
    assert (sampler.epoch, sampler.step) == (0, 1)
    rest = [x[indices] for indices in sampler]
    assert sorted(torch.cat([first, *rest]).tolist()) == [*range(0, 20, 2)]
    assert (sampler.epoch, sampler.step) == (1, 0)


def test_a_checkpoint_loaded_inside_a_loop_counts_at_once():
    sampler = Sampler(10, 2, seed=0)
    expected, start = batches(Sampler(10, 2, seed=0)), sampler.state_dict()
    found = []
    for indices in sampler:
        found.append(indices.tolist())
        if len(found) == 3:
            sampler.load_state_dict(start)
    assert found == expected[:3] + expected


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        (dict(count=0), ValueError, "count must be at least 1, got 0"),
        (dict(count=2.0), TypeError, "count must be a whole number, got 2.0"),
        (dict(batch=0), ValueError, "batch must be at least 1"),
        (dict(seed=-1), ValueError, "seed must be at least 0, got -1"),
        (dict(seed=None), TypeError, "seed must be a whole number"),
        (dict(rank=2, ranks=2), ValueError, "rank must be below ranks=2, got 2"),
        (dict(rank=-1), ValueError, "rank must be at least 0"),
        (dict(ranks=0), ValueError, "ranks must be at least 1"),
        (dict(ranks=5), ValueError, "ranks must be at most batch=4, got 5"),
        (dict(drop_last=1), TypeError, "drop_last must be True or False"),
        (dict(batch=11, drop_last=True), ValueError, "batch must be at most count=10"),
        (dict(droplast=True), TypeError, "did you mean 'drop_last'"),
    ],
    ids=str,
)
def test_bad_settings_are_named(given, kind, message):
    with pytest.raises(kind, match=message):
        Sampler(**{**dict(count=10, batch=4, seed=0), **given})


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (dict(count=11), ValueError, "count must be 10, as in this sampler, got 11"),
        (dict(batch=3), ValueError, "batch must be 4"),
        (dict(seed=1), ValueError, "seed must be 0"),
        (dict(drop_last=True), ValueError, "drop_last must be False"),
        (dict(step=3), ValueError, "step must be below 3, the epoch's batches, got 3"),
        (dict(step=-1), ValueError, "step must be at least 0"),
        (dict(epoch=1.5), TypeError, "epoch must be a whole number"),
    ],
    ids=str,
)
def test_a_checkpoint_of_other_batches_is_refused(change, kind, message):
    sampler = Sampler(10, 4, seed=0)
    next(iter(sampler))
    before = sampler.state_dict()
    with pytest.raises(kind, match=message):
        sampler.load_state_dict({**before, "epoch": 7, **change})
    for name in before:
        with pytest.raises(ValueError, match=f"the state dict has no {name}"):
            sampler.load_state_dict({k: v for k, v in before.items() if k != name})
    assert sampler.state_dict() == before
