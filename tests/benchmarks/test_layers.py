"""The benchmark of normalization and dropout runs."""


def test_every_bar_has_its_row(quick):
    rows = quick("layers")
    assert [entry["limit"] for entry in rows] == [1.1, 1.1, None]
    assert all(entry["value"] > 0 for entry in rows)
