"""MNIST-1D: each step against another computation, and the whole against the published set."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from sklearn.linear_model import LogisticRegression

from optlab.data import mnist1d, signals

#: Of the 5,000 signals that the authors published: products of values some places apart.
PUBLISHED = {1: 0.815, 2: 0.533, 3: 0.351, 5: 0.200, 10: 0.066}


def test_templates_begin_and_end_at_zero():
    x = signals.templates()
    assert x.shape == (10, 12)
    np.testing.assert_allclose(x[:, [0, -1]], 0, atol=1e-15)
    np.testing.assert_allclose(x.std(1), 1 / 6)
    # By hand: heights 3, where the digit 5 is lowest, are 2 below its ends.
    heights = np.array([5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5])
    assert x[5, 1] == pytest.approx(-2 / heights.std() / 6)


def test_dilated_is_linear_interpolation():
    digits = np.random.default_rng(0).standard_normal((25, 12))
    padding = np.arange(36, 61)
    x, inside = signals.dilated(digits, padding)
    for row, digit, zeros, where in zip(x, digits, padding, inside, strict=True):
        padded = np.concatenate([digit, np.zeros(zeros)])
        places = np.linspace(0, len(padded) - 1, 72)
        np.testing.assert_allclose(row, np.interp(places, np.arange(len(padded)), padded))
        assert where.tolist() == (places < 12).tolist() and (row[~where] == 0).all()


def test_smoothed_is_scipys_filter():
    x = np.random.default_rng(0).standard_normal((3, 72))
    np.testing.assert_allclose(signals.smoothed(x), gaussian_filter1d(x, 2.0), atol=1e-12)


def test_resampled_keeps_lines():
    x = np.stack([np.linspace(-1, 2, 72), np.cos(np.arange(72))])
    found = signals.resampled(x)
    np.testing.assert_allclose(found[0], np.linspace(-1, 2, 40), atol=1e-12)
    places = np.linspace(0, 71, 40)
    np.testing.assert_allclose(found[1], np.interp(places, np.arange(72), x[1]), atol=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_statistics_are_those_published(seed):
    data = mnist1d(seed=seed)
    assert data.x.shape == (4000, 40) and data.x_test.shape == (1000, 40)
    x, y = torch.cat([data.x, data.x_test]), torch.cat([data.y, data.y_test])
    assert x.dtype == torch.float32 and y.dtype == torch.int64 and data.classes == 10
    assert y.bincount().tolist() == [500] * 10
    assert x.mean().item() == pytest.approx(0, abs=1e-6)
    assert x.std(correction=0).item() == pytest.approx(1, abs=1e-6)
    for apart, expected in PUBLISHED.items():
        product = (x[:, :-apart] * x[:, apart:]).mean().item()
        assert product == pytest.approx(expected, abs=0.02), apart
    # Digits stand anywhere: no place has a mean, and all have about the same spread.
    assert x.mean(0).abs().max() < 0.08
    assert x.std(0).min() > 0.7 and x.std(0).max() < 1.2


def test_a_linear_model_has_the_published_accuracy():
    """32% (Greydanus and Kobak 2024)."""
    data = mnist1d()
    model = LogisticRegression(max_iter=300).fit(data.x, data.y)
    assert model.score(data.x_test, data.y_test) == pytest.approx(0.32, abs=0.04)


def test_sizes_and_seeds():
    small = mnist1d(train=30, test=20, seed=3)
    assert len(small.x) == len(small.y) == 30 and len(small.x_test) == len(small.y_test) == 20
    assert all(map(torch.equal, small[:4], mnist1d(30, 20, 3)[:4]))
    assert not torch.equal(small.x, mnist1d(30, 20, 4).x)
    with pytest.raises(ValueError, match="train must be at least 1, got 0"):
        mnist1d(train=0)
    with pytest.raises(ValueError, match="test must be at least 1"):
        mnist1d(test=0)
    with pytest.raises(ValueError, match="seed must be at least 0"):
        mnist1d(seed=-1)
