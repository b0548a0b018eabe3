"""MNIST-1D: ten signals of 40 numbers each, bent and hidden in noise, generated here."""

import numpy as np
import torch
from numpy.typing import NDArray

from optlab.data.dataset import Dataset
from optlab.errors import check_count, strict_keywords

Array = NDArray[np.float64]

#: The ten digits drawn as lines of 12 heights, as the authors have them.
DRAWN = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)
DRAWN_LENGTH, LENGTH, FINAL = 12, 72, 40
#: The authors' settings: zeros added behind a digit, shift, and what is drawn symmetrically.
PADDING, SHIFT, SCALE, SHEAR = (36, 60), 48, 0.4, 0.75
#: Deviations: of the smooth noise around the signal, in time of its smoothing, of that on all.
AROUND, SMOOTH, ON_ALL = 0.25, 2.0, 0.02


@strict_keywords
def mnist1d(train: int = 4000, test: int = 1000, seed: int = 0) -> Dataset:
    """MNIST-1D (Greydanus and Kobak 2024, section 2), generated with the settings of the paper.

    From the authors: the ten digits, the steps of the recipe in their order, all their settings,
    and the sizes.  Own: the code, which takes all samples at once, and its random numbers, so that
    no single sample is theirs.  Each digit is equally frequent in both parts together.  All values
    together have mean 0 and deviation 1.

    Args:
        train: how many signals there are for training.
        test: how many for tests.
        seed: of all random numbers.

    >>> mnist1d().x.shape, mnist1d().y.bincount().sum()
    (torch.Size([4000, 40]), tensor(4000))
    """
    check_count("train", train)
    check_count("test", test)
    check_count("seed", seed, 0)
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(train + test) % len(DRAWN))
    signals = _signals(templates()[labels], generator)
    signals = (signals - signals.mean()) / signals.std()
    x, y = torch.tensor(signals, dtype=torch.float32), torch.tensor(labels)
    return Dataset(x[:train], y[:train], x[train:], y[train:], len(DRAWN))


def templates() -> Array:
    """The digits, shape ``(10, 12)``: all of one deviation, beginning and ending at zero."""
    x = np.array(DRAWN)
    x = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    scaled: Array = (x - x[:, :1]) / 6
    return scaled


def _signals(digits: Array, generator: np.random.Generator) -> Array:
    """A signal of shape ``(FINAL,)`` for every digit."""
    count = len(digits)
    padding = generator.integers(PADDING[0], PADDING[1] + 1, count)
    x, inside = dilated(digits, padding)
    x = x * (1 + SCALE * generator.uniform(-0.5, 0.5, (count, 1)))
    shift = generator.integers(0, SHIFT, (count, 1))
    turned = (np.arange(LENGTH) - shift) % LENGTH
    x, inside = np.take_along_axis(x, turned, 1), np.take_along_axis(inside, turned, 1)
    around = smoothed(AROUND * generator.standard_normal(x.shape))
    x = np.where(inside, x, around) + ON_ALL * generator.standard_normal(x.shape)
    slope = SHEAR * generator.uniform(-0.5, 0.5, (count, 1))
    return resampled(x - slope * np.linspace(-0.5, 0.5, LENGTH))


def dilated(digits: Array, padding: NDArray[np.int64]) -> tuple[Array, NDArray[np.bool_]]:
    """Digits with zeros behind, stretched to one length by linear interpolation.

    Args:
        digits: of shape ``(samples, 12)``.
        padding: how many zeros follow each, ``(samples,)``.

    Returns:
        The values, ``(samples, LENGTH)``, and where the digit is.
    """
    last = DRAWN_LENGTH + padding[:, None] - 1
    place = np.arange(LENGTH) * last / (LENGTH - 1)
    inside = place < DRAWN_LENGTH
    left = np.minimum(place.astype(int), DRAWN_LENGTH - 1)
    share = np.minimum(place - left, 1)
    padded = np.pad(digits, ((0, 0), (0, 1)))
    at, after = (np.take_along_axis(padded, index, 1) for index in (left, left + 1))
    return (1 - share) * at + share * after, inside


def smoothed(x: Array) -> Array:
    """Rows convolved with a Gaussian of deviation ``SMOOTH``, mirrored at their ends."""
    reach = int(4 * SMOOTH)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / SMOOTH) ** 2)
    padded = np.pad(x, ((0, 0), (reach, reach)), "symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=1)
    result: Array = windows @ (weights / weights.sum())
    return result


def resampled(x: Array) -> Array:
    """Rows at ``FINAL`` places from their first to their last, by linear interpolation."""
    length = x.shape[1]
    places = np.linspace(0, length - 1, FINAL)
    basis = [np.interp(places, np.arange(length), row) for row in np.eye(length)]
    result: Array = x @ np.array(basis)
    return result
