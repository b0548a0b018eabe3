"""The benchmark of lower precision runs, and its parts of memory are what they should be."""

import json


def test_every_bar_has_its_row(quick):
    rows = {entry["bar"]: entry for entry in quick("precision")}
    limits = [entry["limit"] for entry in rows.values() if entry["limit"] is not None]
    assert limits == [1.0] * 12
    sizes = {
        tuple(bar.split(": ")[1].split(", ")): entry["bytes_for_a_parameter"]
        for bar, entry in rows.items()
        if bar.startswith("memory")
    }
    half = "fp16 weights with copies in fp32"
    for part, single, mixed in (
        ("weights", 4, 2),
        ("copies of weights", 0, 4),
        ("gradients", 4, 4),
        ("moments", 8, 8),
    ):
        assert abs(sizes[part, "fp32"] - single) < 0.1 and abs(sizes[part, half] - mixed) < 0.1
    saved = "saved for the backward pass"
    assert sizes[saved, half] < 0.9 * sizes[saved, "fp32"]
    assert sizes["all", "fp32"] > 16


def test_open_rows_do_not_take_the_place_of_measured_ones(importable, tmp_path, capsys):
    import record

    record.update("topic", [record.unmeasured("a", 1.0), record.unmeasured("b", 1.0)], tmp_path)
    record.update("topic", [record.row("a", [0.5], 1.0)], tmp_path)
    record.update("topic", [record.unmeasured("a", 1.0), record.unmeasured("b", 1.0)], tmp_path)
    rows = {entry["bar"]: entry for entry in json.loads((tmp_path / "topic.json").read_text())}
    assert rows["a"]["value"] == 0.5 and rows["a"]["holds"]
    assert rows["b"]["value"] is None and rows["b"]["holds"] is None
    assert rows["b"]["open"] == "needs a GPU"
    assert "b: None (limit 1.0), needs a GPU" in capsys.readouterr().out
