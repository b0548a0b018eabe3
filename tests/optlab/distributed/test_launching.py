"""Ranks return, or the one that went wrong is named in time, and no process is left."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from torch import distributed, nn

from optlab.distributed import DataParallel, launch


def training(rank, how):
    """Goes wrong on one rank in the middle of a step, while the others wait for its gradients."""
    model = DataParallel(nn.Linear(2, 2))
    for step in range(3):
        loss = model(torch.ones(1, 2)).sum()
        if (step, rank) == (1, 1):
            if how == "raise":
                raise ArithmeticError("of this rank alone")
            if how == "exit":
                os._exit(7)
            os.kill(os.getpid(), signal.SIGKILL)
        loss.backward()


def asleep(rank):
    time.sleep(1000)


def shared(rank, tensor):
    """Ranks have copies of arguments; results may be of tensors with gradients."""
    tensor += rank
    distributed.all_reduce(tensor)
    return (nn.Parameter(tensor) * 2, torch.get_num_threads())


@pytest.mark.parametrize(
    ("how", "ranks", "message"),
    [
        ("raise", 3, r"rank 1 raised:\nTraceback[\s\S]*ArithmeticError: of this rank alone"),
        ("exit", 2, "rank 1 died, with exit code 7, before it returned"),
        ("kill", 2, "rank 1 died, with exit code -9, before it returned"),
    ],
)
def test_the_rank_that_failed_is_named(how, ranks, message):
    began = time.monotonic()
    with pytest.raises(RuntimeError, match=message):
        launch(training, ranks, how, timeout=1000)
    assert time.monotonic() - began < 500  # not the timeout
    assert multiprocessing.active_children() == []


def test_ranks_that_do_not_return_are_ended():
    with pytest.raises(TimeoutError, match=r"ranks 0 had not returned after 0.5 seconds"):
        launch(asleep, 1, timeout=0.5)
    assert multiprocessing.active_children() == []


def test_arguments_are_copied_and_results_are_in_order():
    tensor = torch.zeros(2)
    for doubled, threads in launch(shared, 2, tensor):
        assert doubled.tolist() == [2.0, 2.0] and doubled.requires_grad
        assert threads == max(1, os.cpu_count() // 2)
    assert tensor.tolist() == [0.0, 0.0] and not tensor.is_shared()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: launch(asleep, 0), ValueError, "ranks"),
        (lambda: launch(asleep, 1, timeout=0), ValueError, "timeout"),
        (lambda: launch(lambda rank: rank, 1), ValueError, "pickle"),
        (lambda: launch(asleep, 1, SimpleNamespace(f=lambda: 0)), ValueError, "pickle"),
    ],
)
def test_what_cannot_be_launched_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_functions_of_a_cell_are_refused():
    code = "import optlab.distributed as d\ndef f(rank): pass\nd.launch(f, 1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "with %%writefile" in done.stderr.splitlines()[-1]
