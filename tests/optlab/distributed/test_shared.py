"""Memory in common: all ranks see it, or none has it, and who is gone is not waited for."""

import datetime
import os
import platform
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import distributed

from optlab.distributed import launch, launching, shared

pytestmark = pytest.mark.skipif(
    not shared.PLACE.is_dir() or platform.machine() not in shared.ORDERED,
    reason="no memory in common on this kind of machine",
)


def talk(rank, ranks):
    """What all have written, in each of many turns."""
    common = shared.common_memory(2 * 8 * ranks, distributed.group.WORLD, 24)
    turns = common.memory.view(torch.int64).view(2, ranks)
    heard = []
    for turn in range(200):
        turns[turn % 2, rank] = 1000 * rank + turn
        common.meet()
        heard.append(turns[turn % 2].tolist())
        given = torch.full((3 - turn % 2,), 1000.0 * rank + turn, dtype=torch.float64)
        common.broadcast(given)
        assert given.tolist() == [turn] * (3 - turn % 2)
    return heard


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_all_see_what_each_has_written(ranks):
    before = {*shared.PLACE.glob("optlab-*")}
    for heard in launch(talk, ranks, ranks):
        assert heard == [[1000 * rank + turn for rank in range(ranks)] for turn in range(200)]
    assert {*shared.PLACE.glob("optlab-*")} <= before


def without(rank, reason):
    if reason == "no place":
        shared.PLACE = Path("/nowhere")
    elif reason == "elsewhere" and rank == 1:
        own = shared._opened
        shared._opened = lambda path, size, word: own(path, size, b"another's")
    size = 2**60 if reason == "no room" else 1
    return shared.common_memory(size, distributed.group.WORLD) is None


@pytest.mark.parametrize("reason", ["no place", "no room", "elsewhere"])
def test_none_has_what_one_cannot_have(reason):
    before = {*shared.PLACE.glob("optlab-*")}
    assert launch(without, 2, reason) == [True, True]
    assert {*shared.PLACE.glob("optlab-*")} <= before


def wait_in_vain(rank, folder, killed):
    shared.LOOK = 0.05
    group = distributed.new_group(timeout=datetime.timedelta(seconds=1.5))
    common = shared.common_memory(1, group)
    if rank == 1:
        if killed:
            os.kill(os.getpid(), signal.SIGKILL)
        while not (folder / "said").exists():
            time.sleep(0.01)
        return
    try:
        common.meet()
    except RuntimeError as error:
        (folder / "partial").write_text(str(error))
        (folder / "partial").rename(folder / "said")


def test_a_rank_that_has_ended_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(launching, "GRACE", 20.0)
    with pytest.raises(RuntimeError, match="rank 1"):
        launch(wait_in_vain, 2, tmp_path, True)
    assert (tmp_path / "said").read_text() == "rank 1 of the group has ended"


def test_a_rank_that_does_not_come_is_not_waited_for_without_end(tmp_path):
    launch(wait_in_vain, 2, tmp_path, False)
    assert (tmp_path / "said").read_text() == "ranks [1] have not come within 1.5 s"
