"""The benchmark of the training loop runs."""


def test_every_bar_has_its_row(quick):
    rows = quick("training")
    assert [entry["limit"] for entry in rows] == [1.05, 1.02] * 2
    assert all(entry["with"] > 0 and entry["without"] > 0 for entry in rows)
