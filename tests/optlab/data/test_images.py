"""Digits beside scikit-learn's, and Fashion-MNIST from small files in its place."""

import gzip
import hashlib
import struct

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from optlab.data import digits, fashion_mnist, images

NAMES = [*images.FILES]
SHAPES = [(5, 28, 28), (5,), (3, 28, 28), (3,)]


def packed(array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes(), mtime=0)


@pytest.fixture
def arrays():
    generator = np.random.default_rng(0)
    return [
        generator.integers(256 if len(shape) > 1 else 10, size=shape).astype(np.uint8)
        for shape in SHAPES
    ]


@pytest.fixture
def folder(tmp_path, arrays, monkeypatch):
    """Four small files where the environment variable points, and nothing elsewhere."""
    folder = tmp_path / "own"
    folder.mkdir()
    for name, array in zip(NAMES, arrays, strict=True):
        (folder / name).write_bytes(packed(array))
    monkeypatch.setenv("OPTLAB_FASHION_MNIST", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(images, "DEBIAN", tmp_path / "absent")
    monkeypatch.setattr(images, "SOURCE", (tmp_path / "absent").as_uri())
    return folder


def check(data, arrays):
    x, y, x_test, y_test = map(torch.tensor, arrays)
    for found, expected in ((data.x, x), (data.x_test, x_test)):
        assert found.dtype == torch.float32 and found.shape == (len(expected), 1, 28, 28)
        torch.testing.assert_close(found[:, 0] * 255, expected.float())
    assert torch.equal(data.y, y.long()) and torch.equal(data.y_test, y_test.long())
    assert data.classes == 10


def test_digits_are_scikit_learns():
    data = digits()
    pixels, labels = load_digits(return_X_y=True)
    rows = torch.cat([torch.cat([data.x, data.x_test]).flatten(1) * 16, _column(data)], 1)
    expected = torch.tensor(np.column_stack([pixels, labels]), dtype=torch.float32)
    assert sorted(rows.tolist()) == sorted(expected.tolist())
    assert data.x.dtype == torch.float32 and data.y.dtype == torch.int64
    assert data.x.min() == 0 and data.x.max() == 1


def _column(data):
    return torch.cat([data.y, data.y_test]).unsqueeze(1).float()


def test_digits_are_drawn_by_seed():
    assert all(map(torch.equal, digits(3)[:4], digits(seed=3)[:4]))
    assert not torch.equal(digits(3).y, digits(4).y)


def test_standardized_by_the_training_set():
    data = digits().standardized()
    assert data.x.mean().item() == pytest.approx(0, abs=1e-5)
    assert data.x.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    raw = digits()
    # The same line for both: through two points of one, foretells the other.
    slope = 1 / raw.x.double().std(correction=0)
    expected = (raw.x_test - raw.x.double().mean()) * slope
    torch.testing.assert_close(data.x_test, expected.float(), rtol=1e-5, atol=1e-5)
    with pytest.raises(TypeError, match=r"real numbers can be standardized, got torch\.int64"):
        raw._replace(x=raw.y).standardized()


def test_all_tensors_move():
    moved = digits().to("meta")
    assert {tensor.device.type for tensor in moved[:4]} == {"meta"} and moved.classes == 10


def test_a_folder_of_ones_own(folder, arrays):
    check(fashion_mnist(), arrays)


def test_the_folder_of_debian_comes_second(folder, arrays, monkeypatch):
    monkeypatch.setattr(images, "DEBIAN", folder)
    monkeypatch.setenv("OPTLAB_FASHION_MNIST", "")
    check(fashion_mnist(), arrays)


def test_a_download_comes_last(folder, arrays, tmp_path, monkeypatch):
    monkeypatch.delenv("OPTLAB_FASHION_MNIST")
    monkeypatch.setattr(images, "SOURCE", folder.as_uri())
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in NAMES}
    monkeypatch.setattr(images, "FILES", hashes)
    check(fashion_mnist(), arrays)
    kept = tmp_path / "cache" / "optlab" / "fashion-mnist"
    assert sorted(path.name for path in kept.iterdir()) == sorted(NAMES)
    monkeypatch.setattr(images, "SOURCE", (tmp_path / "absent").as_uri())
    check(fashion_mnist(), arrays)


def test_a_download_of_something_else_is_refused(folder, tmp_path, monkeypatch):
    """The published hashes are not those of the small files."""
    monkeypatch.delenv("OPTLAB_FASHION_MNIST")
    monkeypatch.setattr(images, "SOURCE", folder.as_uri())
    with pytest.raises(RuntimeError, match="or set OPTLAB_FASHION_MNIST to a folder"):
        fashion_mnist()
    assert [*(tmp_path / "cache").rglob("*.gz")] == []


def test_a_folder_that_lacks_a_file_is_named(folder, monkeypatch):
    monkeypatch.setattr(images, "DEBIAN", folder)
    monkeypatch.setenv("OPTLAB_FASHION_MNIST", str(folder.parent))
    with pytest.raises(FileNotFoundError, match=r"OPTLAB_FASHION_MNIST .* has no train-images"):
        fashion_mnist()
    monkeypatch.setenv("OPTLAB_FASHION_MNIST", str(folder))
    (folder / NAMES[2]).unlink()
    with pytest.raises(FileNotFoundError, match=r"has no t10k-images-idx3-ubyte\.gz$"):
        fashion_mnist()


def altered(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-9], "cannot be unpacked"),
        (lambda content: content[: len(content) // 2], "cannot be unpacked"),
        (lambda content: b"", "is no idx file of bytes: it begins with b''"),
        (altered, "cannot be unpacked"),
        (lambda content: b"<html>", "cannot be unpacked"),
        (lambda content: gzip.compress(b"<html>"), "is no idx file of bytes"),
        (lambda content: gzip.compress(b"\0\0\x08\3\0\0"), "is no idx file of bytes"),
        (
            lambda content: gzip.compress(gzip.decompress(content)[:-1]),
            r"has 3919 bytes of data, not the \[5, 28, 28\] it announces",
        ),
    ],
)
def test_a_damaged_file_is_named(folder, damage, message):
    path = folder / NAMES[0]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as raised:
        fashion_mnist()
    assert NAMES[0] in str(raised.value)


def test_images_and_labels_must_fit(folder, arrays):
    (folder / NAMES[3]).write_bytes(packed(arrays[1]))
    with pytest.raises(ValueError, match=r"t10k images and labels do not fit.* \(3, 28, 28\) and"):
        fashion_mnist()
