"""Data by name."""

from typing import Any

from optlab.data.dataset import Dataset
from optlab.data.images import digits, fashion_mnist
from optlab.data.signals import mnist1d
from optlab.data.text import python_source
from optlab.errors import nearest

#: What loads a data set, by its name.
LOADERS = {load.__name__: load for load in (digits, mnist1d, fashion_mnist, python_source)}


def load(name: str, **settings: Any) -> Dataset:
    """A data set in memory.

    Args:
        name: of one of the ``LOADERS``.
        settings: those of its loader.

    Raises:
        ValueError: there is no such data set, or a setting is out of range.
        TypeError: the loader has no such setting.

    >>> load("digit")
    Traceback (most recent call last):
    ValueError: no data set 'digit': did you mean 'digits'? Known: digits, mnist1d, ...
    """
    if name not in LOADERS:
        raise ValueError(f"no data set {name!r}: {nearest(name, LOADERS)}")
    return LOADERS[name](**settings)
