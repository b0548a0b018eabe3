"""Text that every Python installation has: the source of its standard library."""

import sys
import sysconfig
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from optlab.data.dataset import Dataset
from optlab.errors import check_count, strict_keywords

#: One in so many files is for tests.
HELD_OUT = 10


@strict_keywords
def python_source(context: int = 128, size: int = 2**20, seed: int = 0) -> Dataset:
    """The standard library's modules as bytes, with the next byte for a target.

    The text is cut into windows that do not overlap, each with the bytes that follow its own by
    one.  Those for tests are from other files.  Another version of Python has another text.

    Args:
        context: the length of a window, in bytes.
        size: bytes to train on, of about four million; there are up to a tenth as many for tests.
        seed: of the files' order, a tenth of which is for tests.

    Raises:
        ValueError: there is not so much text, or no window fits into it.
        FileNotFoundError: this Python has come without its source.

    >>> data = python_source(context=8, size=800)
    >>> data.x.shape, data.x_test.shape, torch.equal(data.x[0, 1:], data.y[0, :-1])
    (torch.Size([99, 8]), torch.Size([9, 8]), True)
    """
    check_count("context", context)
    check_count("size", size)
    check_count("seed", seed, 0)
    files = modules()
    order = np.random.default_rng(seed).permutation(len(files))
    held_out = {*order[::HELD_OUT].tolist()}
    train = b"".join(files[index].read_bytes() for index in order if index not in held_out)
    test = b"".join(files[index].read_bytes() for index in order[::HELD_OUT])
    # The text for tests must hold a window too.
    least = HELD_OUT * (context + 1)
    if not least <= size <= len(train):
        raise ValueError(f"size must be in [{least}, {len(train)}], got {size}")
    x, y = _windows(train[:size], context)
    x_test, y_test = _windows(test[: size // HELD_OUT], context)
    return Dataset(x, y, x_test, y_test, 256)


def modules() -> list[Path]:
    """The standard library's modules that are one file each, by name."""
    folder = Path(sysconfig.get_path("stdlib"))
    paths = [folder / f"{name}.py" for name in sorted(sys.stdlib_module_names)]
    found = [path for path in paths if path.is_file()]
    if not found:
        raise FileNotFoundError(f"the standard library in {folder} has no source files")
    return found


def _windows(text: bytes, context: int) -> tuple[Tensor, Tensor]:
    """Windows of tokens, and those one later; both are views of the same numbers."""
    tokens = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
    end = (len(tokens) - 1) // context * context
    return tokens[:end].view(-1, context), tokens[1 : end + 1].view(-1, context)
