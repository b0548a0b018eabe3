"""The benchmark of clipping and loss scaling runs, on as many elements as it says."""

import math


def test_every_bar_has_its_row(quick):
    rows = quick("safeguards")
    assert [entry["limit"] for entry in rows] == [1.0, 1.1, 1.1, 1.0] * 2


def test_the_large_model_is_as_large_as_a_resnet_18(importable):
    import safeguards

    assert round(sum(map(math.prod, safeguards.LARGE)) / 1e6, 1) == 11.7
    assert len(safeguards.SMALL) == 200
