"""Images with their classes: handwritten digits, and Fashion-MNIST.

Pixels are in [0, 1]; :meth:`~optlab.data.dataset.Dataset.standardized` brings them to mean 0.
"""

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from optlab.data.dataset import Dataset
from optlab.data.download import cache, fetch
from optlab.errors import check_count, strict_keywords

#: Names the folder of Fashion-MNIST.
VARIABLE = "OPTLAB_FASHION_MNIST"
#: Where Debian's package ``dataset-fashion-mnist`` has it.
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
#: The authors' repository, at its last commit.
SOURCE = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/"
    "b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion"
)
#: The published files, images and labels for training and for tests, with their SHA-256.
FILES = {
    "train-images-idx3-ubyte.gz": (
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
    ),
    "train-labels-idx1-ubyte.gz": (
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
    ),
}
ADVICE = (
    f"or set {VARIABLE} to a folder that has {', '.join(FILES)}, "
    "or install Debian's package dataset-fashion-mnist"
)


@strict_keywords
def digits(seed: int = 0) -> Dataset:
    """1,797 handwritten digits of 8x8 pixels (Alpaydin and Kaynak 1998), which scikit-learn brings.

    Args:
        seed: draws the 297 for tests; 1,500 are left for training.

    >>> digits().x.shape, digits().x_test.shape
    (torch.Size([1500, 1, 8, 8]), torch.Size([297, 1, 8, 8]))
    """
    from sklearn.datasets import load_digits  # takes a second, which others need not wait

    check_count("seed", seed, 0)
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    x = torch.tensor(images[order] / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    y = torch.tensor(labels[order], dtype=torch.int64)
    return Dataset(x[:1500], y[:1500], x[1500:], y[1500:], 10)


@strict_keywords
def fashion_mnist() -> Dataset:
    """60,000 images of clothes and 10,000 for tests, of 28x28 pixels (Xiao et al. 2017).

    They are read from the folder that the environment variable ``OPTLAB_FASHION_MNIST`` names; if
    it is not set, from where Debian's package ``dataset-fashion-mnist`` has them, or else from a
    download, which is checked by its hash and kept in :func:`~optlab.data.download.cache`.

    Raises:
        FileNotFoundError: a file is not in the folder.
        ValueError: a file is damaged.
        RuntimeError: the download failed.
    """
    x, y, x_test, y_test = map(idx, _files())
    for name, images, labels in (("train", x, y), ("t10k", x_test, y_test)):
        if images.dim() != 3 or labels.shape != images.shape[:1]:
            shapes = f"{tuple(images.shape)} and {tuple(labels.shape)}"
            raise ValueError(f"the {name} images and labels do not fit, with shapes {shapes}")
    x, x_test = (images.unsqueeze(1).float() / 255 for images in (x, x_test))
    return Dataset(x, y.long(), x_test, y_test.long(), 10)


def idx(path: Path) -> Tensor:
    """The bytes in a compressed idx file, in their shape.

    Such a file has two zeros, the type (8: bytes), the number of dimensions, each dimension in
    four bytes with the highest first, and the data.

    Raises:
        ValueError: it is cut, or of another kind.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be unpacked: {error}; get it again") from error
    if content[:3] != b"\0\0\x08" or len(content) < (begin := 4 + 4 * content[3]):
        raise ValueError(f"{path} is no idx file of bytes: it begins with {content[:4]!r}")
    shape = np.frombuffer(content[4:begin], ">u4").tolist()
    values = np.frombuffer(content, np.uint8, offset=begin)
    if values.size != math.prod(shape):
        raise ValueError(f"{path} has {values.size} bytes of data, not the {shape} it announces")
    return torch.tensor(values.reshape(shape))


def _files() -> list[Path]:
    named = os.environ.get(VARIABLE)
    folder = Path(named) if named else DEBIAN
    missing = [name for name in FILES if not (folder / name).is_file()]
    if not missing:
        return [folder / name for name in FILES]
    if named:
        raise FileNotFoundError(
            f"{VARIABLE} must name a folder with Fashion-MNIST: {folder} has no "
            f"{' and no '.join(missing)}"
        )
    place = cache() / "fashion-mnist"
    return [fetch(f"{SOURCE}/{name}", code, place / name, ADVICE) for name, code in FILES.items()]
