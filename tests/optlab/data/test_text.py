"""Python's own source as windows of bytes, with whole files held out."""

import sys
import sysconfig
from pathlib import Path

import pytest
import torch

from optlab.data import python_source, text


@pytest.fixture
def letters(tmp_path, monkeypatch):
    """Twenty files, each of another byte."""
    paths = []
    for index in range(20):
        path = tmp_path / f"{index}.py"
        path.write_bytes(bytes([index]) * 100)
        paths.append(path)
    monkeypatch.setattr(text, "modules", lambda: paths)


def test_files_for_tests_are_others(letters):
    data = python_source(context=9, size=1800)
    train, test = ({*part.unique().tolist()} for part in (data.x, data.x_test))
    assert len(train) == 18 and len(test) == 2 and not train & test
    other = python_source(context=9, size=1800, seed=1)
    assert {*other.x_test.unique().tolist()} != test


def test_windows_are_the_text_and_targets_the_next_byte(letters):
    data = python_source(context=7, size=900)
    assert data.x.shape == data.y.shape == (899 // 7, 7)
    assert data.x_test.shape == data.y_test.shape == (89 // 7, 7)
    flat, after = data.x.flatten(), data.y.flatten()
    assert torch.equal(flat[1:], after[:-1])
    # Nine files of 100 bytes, one after the other.
    assert flat.tolist() == [flat[100 * (i // 100)].item() for i in range(len(flat))]
    assert data.classes == 256 and data.x.dtype == data.y.dtype == torch.int64


def test_the_text_is_pythons():
    data = python_source(size=100_000)
    assert data.x.shape == (99_999 // 128, 128)
    begins = {path.read_bytes()[:128] for path in text.modules()}
    assert bytes(data.x[0].tolist()) in begins and bytes(data.x_test[0].tolist()) in begins
    assert all(map(torch.equal, data[:4], python_source(size=100_000)[:4]))
    folder = Path(sysconfig.get_path("stdlib"))
    found = text.modules()
    assert {path.parent for path in found} == {folder} and len(found) > 100
    assert {path.stem for path in found} <= sys.stdlib_module_names


def test_too_much_and_too_little(letters):
    assert len(python_source(context=9, size=1800).x) == 1799 // 9
    with pytest.raises(ValueError, match=r"size must be in \[100, 1800\], got 1801"):
        python_source(context=9, size=1801)
    assert len(python_source(context=9, size=100).x_test) == 1
    with pytest.raises(ValueError, match=r"size must be in \[100, 1800\], got 99"):
        python_source(context=9, size=99)
    with pytest.raises(ValueError, match="context must be at least 1"):
        python_source(context=0)


def test_no_source(monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(FileNotFoundError, match="has no source files"):
        python_source()
