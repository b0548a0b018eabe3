"""The benchmark of data parallelism runs, on models as large as it says."""


def test_every_bar_has_its_row(quick):
    rows = quick("parallel")
    assert [entry["limit"] for entry in rows] == [1.0, 1.111] * 3
    assert all(entry["ranks"] == 2 for entry in rows)


def test_models_are_as_large_as_they_say(importable):
    import parallel

    for name, (make, _) in parallel.PROBLEMS.items():
        model, x, y = make(2)
        count = sum(p.numel() for p in model.parameters()) / 1e6
        assert make.__doc__.startswith(f"{count:.1f} million"), name
        assert len(model(x)) == len(y)
