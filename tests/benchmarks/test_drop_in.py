"""Training scripts give the same losses when only their import line is changed."""

import gzip
import importlib
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
OPTIONS = ["--steps", "12", "--dtype", "float64"]


@pytest.fixture(scope="module")
def drop_in() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        return importlib.import_module("drop_in")


@pytest.fixture
def clothes(tmp_path, monkeypatch) -> Path:
    """A small data set in Fashion-MNIST's files: noise, brighter with the label."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, 256)
    images = generator.integers(0, 100, (256, 28, 28)) + 15 * labels[:, None, None]
    for name, array in ("images-idx3", images), ("labels-idx1", labels):
        shape = np.array(array.shape, ">u4").tobytes()
        data = b"\0\0\x08" + bytes([array.ndim]) + shape + array.astype(np.uint8).tobytes()
        (tmp_path / f"train-{name}-ubyte.gz").write_bytes(gzip.compress(data))
    monkeypatch.setenv("OPTLAB_FASHION_MNIST", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_a_convnet_trains_the_same(drop_in, clothes, name):
    options = [*OPTIONS, "--optimizer", name]
    theirs = drop_in.losses("convnet", drop_in.TORCH, *options)
    assert len(theirs) == 12 and theirs[-1] < theirs[0]
    assert drop_in.difference(drop_in.losses("convnet", drop_in.OURS, *options), theirs) < 1e-9


def test_a_gpt_trains_the_same(drop_in):
    theirs = drop_in.losses("gpt", drop_in.TORCH, *OPTIONS)
    assert len(theirs) == 12 and theirs[-1] < theirs[0]
    assert drop_in.difference(drop_in.losses("gpt", drop_in.OURS, *OPTIONS), theirs) < 1e-9


def test_another_optimizer_under_the_name_is_noticed(drop_in):
    wrong = "import types, torch; optim = types.SimpleNamespace(AdamW=torch.optim.Adam)"
    assert drop_in.compare("gpt", wrong, *OPTIONS) > 1e-6


@pytest.mark.parametrize("left", ["images", "labels", None])
def test_missing_data_are_named(drop_in, clothes, left):
    for path in clothes.iterdir():
        if left is None or left not in path.name:
            path.unlink()
    with pytest.raises(RuntimeError) as error:
        drop_in.losses("convnet", drop_in.TORCH, *OPTIONS)
    message = str(error.value).splitlines()[-1]
    for kind in {"images", "labels"}:
        assert (f"no train-{kind}" in message) == (kind != left)
    assert str(clothes) in message
    assert "OPTLAB_FASHION_MNIST" in message and "dataset-fashion-mnist" in message


def test_a_file_of_another_kind_is_refused(drop_in, clothes):
    (clothes / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"<html>"))
    with pytest.raises(RuntimeError, match=r"train-labels.* is not an idx file"):
        drop_in.losses("convnet", drop_in.TORCH, *OPTIONS)


def test_curves_are_compared_step_by_step(drop_in):
    assert drop_in.difference([1.0, 2.0], [1.0, 2.0]) == 0
    assert drop_in.difference([1.0, 3.0], [1.0, 2.0]) == 0.5
    assert drop_in.difference([1.0, math.nan], [1.0, math.nan]) == math.inf
    for curves in ([], []), ([1.0], [1.0, 2.0]):
        with pytest.raises(ValueError, match="equally long"):
            drop_in.difference(*curves)
