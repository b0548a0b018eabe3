"""Memory that the ranks on one machine have in common, and where they meet without a message."""

import fcntl
import mmap
import os
import platform
import secrets
import tempfile
import time
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed

#: A file system in memory, which Linux has.
PLACE = Path("/dev/shm")
#: Processors on which all see one processor's writes in their order.
ORDERED = {"x86_64", "AMD64"}
#: Bytes of a line of their caches: each rank counts in its own.
LINE = 64
#: Seconds in which a rank that waits asks again at once, and from then on after a pause.
EAGER, PAUSE = 1e-3, 1e-4
#: Seconds from one look whether the others are there to the next.
LOOK = 1.0


class Common:
    """Memory in common, made by :func:`common_memory`.

    Attributes:
        memory: for all ranks to write and read, of dtype ``uint8``.
    """

    def __init__(self, content: Tensor, largest: int, file: FileIO, group: Any) -> None:
        self._rank, ranks = distributed.get_rank(group), distributed.get_world_size(group)
        self._file = file  # open, for its locks
        sizes = [ranks * LINE, 2 * _lines(largest)]
        head, given, self.memory = content.split([*sizes, len(content) - sum(sizes)])
        self._given, self._turn = given.view(2, -1), 0
        self._meetings = head.numpy().view(np.int64).reshape(ranks, -1)[:, 0]
        self._patience = group._get_backend(torch.device("cpu")).options._timeout.total_seconds()

    def meet(self) -> None:
        """Wait for all ranks: what each has written before, all can read.

        Raises:
            RuntimeError: one has ended, or has not come within the group's timeout.
        """
        self._meetings[self._rank] += 1
        own, begin = self._meetings[self._rank], time.monotonic()
        look = begin + LOOK
        while self._meetings.min() < own:
            now = time.monotonic()
            if now < begin + EAGER:
                os.sched_yield()
                continue
            time.sleep(PAUSE)
            if now > look:
                self._look(int(own), now - begin)
                look = now + LOOK

    def broadcast(self, values: Tensor) -> None:
        """Overwrite values of one dtype with the first rank's; they are in one piece."""
        # The other turn is free: all have met since, for which they must have read it.
        place = self._given[self._turn, : values.nbytes].view(values.dtype)
        if self._rank == 0:
            place.copy_(values)
        self.meet()
        if self._rank != 0:
            values.copy_(place)
        self._turn = 1 - self._turn

    def _look(self, own: int, waited: float) -> None:
        late = [rank for rank, count in enumerate(self._meetings) if count < own]
        for rank in late:
            # A process's locks end with it, whatever ends it.
            if _locked(self._file, rank) and self._meetings[rank] < own:
                raise RuntimeError(f"rank {rank} of the group has ended")
        if waited > self._patience and late:
            raise RuntimeError(f"ranks {late} have not come within {self._patience:g} s")


def common_memory(size: int, group: Any, largest: int = 0) -> Common | None:
    """So many bytes that every rank of a group can write and all others read, on all ranks.

    The file behind it has no name any more when this returns: the memory is free again when the
    last rank has gone, however it went.

    Args:
        size: in bytes, at least 1.
        group: the ranks, of gloo.
        largest: bytes that :meth:`Common.broadcast` is to take at most; these are added.

    Returns:
        None, on all ranks, where they are not on one machine, or where that has no such memory or
        not as much.

    >>> distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    >>> common = common_memory(1000, distributed.group.WORLD)
    >>> common is None or len(common.memory) == 1000
    True
    >>> distributed.destroy_process_group()
    """
    rank, ranks = distributed.get_rank(group), distributed.get_world_size(group)
    word, whole = secrets.token_bytes(16), ranks * LINE + 2 * _lines(largest) + size
    path = _reserved(whole, word) if rank == 0 else None
    try:
        said: list[Any] = [path, word]
        distributed.broadcast_object_list(said, group=group, group_src=0)
        file = _opened(said[0], whole, said[1])
        seen: list[Any] = [None] * ranks
        distributed.all_gather_object(seen, file is not None and _locked(file, rank), group=group)
        if file is None or not all(seen):
            return None
    finally:
        if path is not None:
            path.unlink()
    content = torch.frombuffer(mmap.mmap(file.fileno(), whole), dtype=torch.uint8)
    return Common(content, largest, file, group)


def _lines(size: int) -> int:
    """At least so many bytes, that entries of any type can follow."""
    return -(-size // LINE) * LINE


def _reserved(size: int, word: bytes) -> Path | None:
    """A file of zeros and a word, with all its memory, so that no write to it can fail."""
    if not PLACE.is_dir() or platform.machine() not in ORDERED:
        return None
    try:
        descriptor, name = tempfile.mkstemp(prefix="optlab-", dir=PLACE)
    except OSError:
        return None
    path = Path(name)
    try:
        os.posix_fallocate(descriptor, 0, size + len(word))
        os.pwrite(descriptor, word, size)
    except OSError:
        path.unlink()
        return None
    finally:
        os.close(descriptor)
    return path


def _opened(path: Path | None, size: int, word: bytes) -> FileIO | None:
    """The file, where this machine has it."""
    if path is None:
        return None
    try:
        file = path.open("r+b", buffering=0)
    except OSError:
        return None
    if os.pread(file.fileno(), len(word), size) == word:
        return file
    file.close()
    return None


def _locked(file: FileIO, rank: int) -> bool:
    """Whether this process has a rank's lock, or gets it because nobody has it.

    It lasts until the process closes the file, by whichever of its descriptors.
    """
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, rank)
    except OSError:
        return False
    return True
