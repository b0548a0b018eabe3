"""The benchmark of what K-FAC costs runs."""

import pytest


def test_every_bar_has_its_row(quick):
    rows = quick("curvature")
    assert sorted(entry["limit"] for entry in rows if entry["limit"]) == [1.9, 1.9, 2.7, 2.7]
    kept = {
        entry["bar"].split(", ")[2]: entry["value"]
        for entry in rows
        if entry["bar"].startswith("memory")
    }
    # Momentum, two moments; then momentum, A, G and their inverses, of 513 and of 512 a side.
    assert kept["SGD"] == 1 and kept["Adam"] == pytest.approx(2, abs=1e-4)
    expected = 1 + 2 * (513**2 + 512**2) / (512 * 513)
    assert kept["K-FAC"] == pytest.approx(expected, abs=0.01)  # and gathered gradients of biases
    assert all("model" in entry for entry in rows if entry["bar"].startswith("growth, step"))
