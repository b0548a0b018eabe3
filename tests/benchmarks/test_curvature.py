"""The benchmark of what K-FAC costs runs."""


def test_every_bar_has_its_row(quick):
    rows = quick("curvature")
    assert sorted(entry["limit"] for entry in rows if entry["limit"]) == [1.9, 1.9, 2.7, 2.7]
    assert sum(entry["bar"].startswith("memory") for entry in rows) == 3
    assert all("model" in entry for entry in rows if entry["bar"].startswith("growth, step"))
