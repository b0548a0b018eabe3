"""The benchmark of curvature runs, and its task is what it says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    command = [sys.executable, BENCHMARKS / "curvature.py", "--quick", folder]
    subprocess.run(command, check=True, capture_output=True)
    return json.loads((folder / "curvature.json").read_text())


def test_every_bar_has_its_row(rows):
    limits = [entry["limit"] for entry in rows if entry["limit"] is not None]
    assert sorted(limits) == [1 / 8, 1 / 4, 0.3, 0.6, 1.9, 1.9, 2.7, 2.7]
    tuned = [entry for entry in rows if "space" in entry]
    assert len(tuned) == 3 and len({len(entry["tried"]) for entry in tuned}) == 1
    for entry in tuned:
        for _, settings in entry["tried"]:
            for name, (low, high) in entry["space"].items():
                assert low <= settings[name] <= high


def test_curves_are_curves(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import curves

    drawn = curves.images(40)
    assert drawn.shape == (40, 256) and drawn.min() >= 0 and drawn.max() <= 1
    assert 0.02 < drawn.mean() < 0.3  # a line on an empty ground
    assert torch.equal(drawn, curves.images(40))
    assert (drawn.amax(1) > 0.5).all() and len(drawn.unique(dim=0)) == 40
    points = list(curves.Method("", None, {"lr": (1e-3, 1.0)}, 0).settings(8))
    assert len({round(point["lr"], 9) for point in points}) == 8
