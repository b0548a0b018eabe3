"""Every optimizer on several ranks takes the steps that one process takes with the joined batch."""

from optlab import optimizers


def test_ranks_are_one_process(quick):
    rows = quick("equality")
    assert [entry["bar"] for entry in rows if not entry["holds"]] == []
    assert len(rows) == 2 * len(optimizers.__all__)
    assert all(entry["limit"] == 1e-12 for entry in rows)
