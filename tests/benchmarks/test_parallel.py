"""The benchmark of data parallelism runs, on models as large as it says."""

import torch


def test_every_bar_has_its_row(quick):
    rows = quick("parallel")
    measured = [entry for entry in rows if "nccl" not in entry["bar"]]
    assert [entry["limit"] for entry in measured] == [1.0, 1.111] * 4
    assert all(entry["ranks"] == 2 and entry["value"] > 0 for entry in measured)
    assert [entry["limit"] for entry in rows if entry not in measured][:2] == [1.0, 1.111]
    if not torch.cuda.is_available():
        assert all(entry.get("open") == "needs a GPU" for entry in rows if entry not in measured)


def test_models_are_as_large_as_they_say(importable):
    import parallel

    for name, (make, _) in parallel.PROBLEMS.items():
        model, x, y = make(2)
        count = sum(p.numel() for p in model.parameters()) / 1e6
        assert make.__doc__.startswith(f"{count:.1f} million"), name
        assert len(model(x)) == len(y)
