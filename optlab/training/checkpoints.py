"""Checkpoints: files that are whole or not there, and that run no code when they are read."""

import errno
import io
import os
import pickle
import re
import zipfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from optlab.errors import check_count

#: Of what :class:`~optlab.training.trainer.Trainer` writes.
FORMAT = 1
NAME = re.compile(r"step-(\d{9})\.pt")


class Checkpoints:
    """The checkpoints of one run in a folder, of which the last ones are kept.

    A checkpoint is made within a step, in memory, and written while the run goes on: beside its
    place, flushed to the disk and then moved there, so that whatever happens, and whenever, each
    file is a whole checkpoint.  An error in writing is raised by the next call.

    Args:
        folder: is made where it is not there.
        every: steps from one checkpoint to the next.
        keep: how many are kept, at least 1.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoints = Checkpoints(folder, keep=1)
    ...     checkpoints.save(100, {"weight": torch.ones(2)})
    ...     checkpoints.save(200, {"weight": torch.zeros(2)})
    ...     checkpoints.wait()
    ...     [path.name for path in checkpoints.paths()], read(checkpoints.paths()[-1])
    (['step-000000200.pt'], {'weight': tensor([0., 0.])})
    """

    def __init__(self, folder: Path | str, every: int = 100, keep: int = 3) -> None:
        check_count("every", every)
        check_count("keep", keep)
        self.folder, self.every, self.keep = Path(folder), every, keep
        self.folder.mkdir(parents=True, exist_ok=True)
        self._writer = ThreadPoolExecutor(1, "checkpoints")
        self._writing: Future[None] | None = None
        self._tried = False

    def paths(self) -> list[Path]:
        """The files that are there, the oldest first."""
        return sorted(path for path in self.folder.iterdir() if NAME.fullmatch(path.name))

    def latest(self) -> Path | None:
        """The last file that is there."""
        return next(iter(reversed(self.paths())), None)

    def check(self, step: int) -> None:
        """Raise a ValueError where there are checkpoints from after a step: of another run."""
        latest = self.latest()
        if latest is not None and int(NAME.fullmatch(latest.name)[1]) > step:  # type: ignore[index]
            raise ValueError(
                f"{latest} is from after step {step}, where this run is: resume from it, or give "
                "the run another folder"
            )

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Begin to write a checkpoint; it is the state at this moment.

        Raises:
            OSError: the one before could not be written.
            TypeError: the state has something that could not be read without running code.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        if not self._tried:
            try:
                torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
            except pickle.UnpicklingError as error:
                raise TypeError(
                    f"a checkpoint can hold tensors and plain values: {error}"
                ) from None
            self._tried = True
        self.wait()
        path = self.folder / f"step-{step:09}.pt"
        self._writing = self._writer.submit(self._write, path, buffer)

    def wait(self) -> None:
        """Wait until what was saved is on the disk.

        Raises:
            OSError: it could not be written; the checkpoints before are still there.
        """
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def _write(self, path: Path, buffer: io.BytesIO) -> None:
        before = self.latest()
        try:
            write_whole(path, buffer.getbuffer())
        except OSError as error:
            full = "the disk is full: " if error.errno == errno.ENOSPC else ""
            kept = f"{before} is still there" if before else "there is none before it"
            raise OSError(
                error.errno, f"{full}{path} could not be written ({error.strerror}); {kept}"
            ) from error
        for old in self.paths()[: -self.keep]:
            old.unlink()


def write_whole(path: Path, content: Any) -> None:
    """Write a file beside its place, flush it to the disk and move it there, in one step.

    Raises:
        OSError: it could not be written; what was there before still is.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name too
    finally:
        os.close(folder)


def read(path: Path | str) -> Any:
    """What a checkpoint holds, on the CPU; it can run no code.

    Raises:
        ValueError: the file is cut or altered, or not a checkpoint.
        FileNotFoundError: there is none.
    """
    content = Path(path).read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            damaged = archive.testzip()  # sums that torch writes, but does not compare
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} is damaged")
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        problem: object = "it holds more than tensors and plain values"
    except Exception as error:  # of zipfile, zlib and torch there are many kinds
        problem = error
    raise ValueError(f"{path} is no whole checkpoint: {problem}")
