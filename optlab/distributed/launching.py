"""Several ranks on this machine: a function run by processes that can talk to each other."""

import datetime
import multiprocessing
import os
import pickle
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import distributed

from optlab.errors import check_count, check_range

#: Seconds that ranks have after one has failed, to say that they failed earlier.
GRACE = 1.0


class _Report(NamedTuple):
    """What a rank says in the end: its result, or the traceback of an error."""

    failed: bool
    result: Any
    when: float


def launch(
    function: Callable[..., Any], ranks: int, *args: Any, timeout: float = 120.0
) -> list[Any]:
    """Call ``function(rank, *args)`` in as many new processes, as ranks of one gloo group.

    The group is torch's default one, over this machine's loopback interface.  Cores are shared out:
    each rank has as many threads as fall to it.  No process is left when this returns or raises.

    Args:
        function: can be imported: of a module, not of a notebook's cell.
        ranks: how many, at least 1.
        args: can be pickled, like the results; ranks have copies.
        timeout: seconds for all of it, starting processes included; in (0, inf).

    Returns:
        The results in the order of ranks.

    Raises:
        RuntimeError: a rank raised, or ended without a result; the message names it, and has its
            traceback.  The others are ended a second later at most.
        TimeoutError: ranks had not returned in time; the message names them.
        ValueError: the function or an argument cannot be passed to another process.

    >>> import operator
    >>> launch(operator.add, 2, 10)  # 0 + 10 and 1 + 10
    [10, 11]
    """
    check_count("ranks", ranks)
    check_range("timeout", timeout, "(0, inf)")
    call, deadline = _pickled(function, args), time.monotonic() + timeout
    context = multiprocessing.get_context("spawn")
    processes, pipes = [], []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for rank in range(ranks):
                here, there = context.Pipe(duplex=False)
                place = rank, ranks, str(Path(folder) / "meeting")
                process = context.Process(target=_work, args=(call, place, timeout, there))
                process.start()
                there.close()  # so that the end of the process ends the pipe
                processes.append(process)
                pipes.append(here)
            reports = _reports(pipes, deadline)
        finally:
            for process in processes:
                process.kill()
                process.join()
    return _results(reports, [process.exitcode for process in processes], timeout)


def _work(
    call: bytes, place: tuple[int, int, str], timeout: float, pipe: "Connection[Any, Any]"
) -> None:
    """What a process does: meet the others, call, report."""
    rank, ranks, path = place
    if sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // ranks))
    try:
        limit = datetime.timedelta(seconds=timeout)
        distributed.init_process_group("gloo", f"file://{path}", limit, rank=rank, world_size=ranks)
        function, args = pickle.loads(call)
        result = pickle.dumps(function(rank, *args))
        if distributed.is_initialized():
            distributed.barrier()  # a rank that leaves breaks off the messages of others
            distributed.destroy_process_group()
        report = _Report(False, result, time.monotonic())
    except Exception:
        report = _Report(True, traceback.format_exc(), time.monotonic())
    pipe.send(report)


def _pickled(function: Callable[..., Any], args: tuple[Any, ...]) -> bytes:
    interactive = not hasattr(sys.modules["__main__"], "__file__")
    if interactive and getattr(function, "__module__", None) == "__main__":
        raise ValueError(
            "function must be of a module that other processes can import: write it to a file, in "
            "a notebook with %%writefile, and import it"
        )
    try:
        return pickle.dumps((function, args))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"function and args must be such that pickle takes them: {error}"
        ) from None


def _reports(pipes: "list[Connection[Any, Any]]", deadline: float) -> dict[int, _Report | None]:
    """By rank what it said until the deadline, or until shortly after one failed; None: it died."""
    found: dict[int, _Report | None] = {}
    while len(found) < len(pipes):
        silent = [pipe for rank, pipe in enumerate(pipes) if rank not in found]
        ready = wait(silent, max(0.0, deadline - time.monotonic()))
        if not ready:
            break
        for pipe in silent:
            if pipe in ready:
                try:
                    report = pipe.recv()
                except EOFError:
                    report = None
                if report is None or report.failed:
                    deadline = min(deadline, time.monotonic() + GRACE)
                found[pipes.index(pipe)] = report
    return found


def _results(
    reports: dict[int, _Report | None], codes: list[int | None], timeout: float
) -> list[Any]:
    """In the order of ranks; or raise what went wrong first."""
    # Others raise because a rank is gone, or because one has raised: these come after it.
    for rank, report in reports.items():
        if report is None:
            raise RuntimeError(
                f"rank {rank} died, with exit code {codes[rank]}, before it returned"
            )
    failed = [(r.when, rank, r.result) for rank, r in reports.items() if r is not None and r.failed]
    if failed:
        _, rank, text = min(failed)
        raise RuntimeError(f"rank {rank} raised:\n{text}")
    late = [str(rank) for rank in range(len(codes)) if rank not in reports]
    if late:
        raise TimeoutError(f"ranks {', '.join(late)} had not returned after {timeout} seconds")
    return [pickle.loads(reports[rank].result) for rank in range(len(codes))]  # type: ignore[union-attr]
