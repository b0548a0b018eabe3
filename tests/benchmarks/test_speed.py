"""The benchmark of speed measures what it says, and writes a row for each bar."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
KEYS = {"bar", "value", "limit", "holds", "spread", "spread_is", "command", "hardware", "python"}
KEYS |= {"date", "unit", "ours", "threads", "torch_version"}
SHAPES = ["MLP", "200 tensors", "ResNet-18"]
ON_SHAPES = [
    "step, compiled, over torch's fused",
    "step, default, over torch's foreach or loop",
    "peak memory, default, over torch's foreach",
    "peak memory, compiled, over torch's foreach",
]


@pytest.fixture
def load(monkeypatch) -> Any:
    def module(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(BENCHMARKS)
        return importlib.import_module(name)

    return module


def test_every_bar_has_its_row(tmp_path):
    command = [sys.executable, BENCHMARKS / "speed.py", "--device", "cpu", "--quick", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = {entry["bar"]: entry for entry in json.loads((tmp_path / "speed.json").read_text())}
    expected = {f"{title}: Adam, {shape}" for title in ON_SHAPES for shape in SHAPES}
    expected.add("recompilations, as a schedule changes lr in every step: Adam")
    for way in "default", "compiled":
        expected.add(f"training step, {way}, over torch's default: Adam, MLP")
        expected.add(f"share of the memory-traffic limit, {way}: Adam, ResNet-18")
    for cache in "empty", "filled":
        expected.add(f"first compiled step in a fresh process, {cache} cache: Adam")
    assert rows.keys() == expected
    for name, entry in rows.items():
        assert entry.keys() >= KEYS
        within = None if entry["limit"] is None else entry["value"] <= entry["limit"]
        assert entry["holds"] is within
        assert name.partition(": ")[0] in done.stdout
    limits = [rows[f"step, compiled, over torch's fused: Adam, {shape}"] for shape in SHAPES]
    assert [entry["limit"] for entry in limits] == [0.7, 0.3, 1.0]
    assert all(entry["torch"].keys() == {"fused", "foreach", "loop"} for entry in limits)
    kernels = rows["recompilations, as a schedule changes lr in every step: Adam"]
    # One for small tensors, on one thread, and one for large.
    assert (kernels["ours"], kernels["value"]) == (2, 0)


def test_shapes_are_what_they_are_called(load):
    shapes = load("contenders").SHAPES
    counts = {
        name: (len(s), sum(map(torch.Size.numel, map(torch.Size, s)))) for name, s in shapes.items()
    }
    assert counts == {
        "MLP": (6, 26_122),
        "200 tensors": (200, 416_000),
        "ResNet-18": (62, 11_689_512),
    }


def test_peak_counts_every_allocation(load):
    memory = load("memory")

    def run() -> None:
        first = torch.empty(1000)
        seen = torch.from_numpy(first.view(torch.uint8).numpy())
        del first
        second = torch.empty(500)
        del seen
        torch.empty(900)
        del second

    assert memory.peak_of_processor(run) == 4 * 1500
    assert memory.peak("SGD", "loop", "MLP", "cpu") == 2 * 4 * 26_122  # parameters and gradients


def test_contenders_take_turns(load):
    calls: list[str] = []
    contenders = {name: lambda name=name: calls.append(name) for name in "abc"}
    paired = load("paired")
    times = paired.take_turns(contenders, 4, 0.0, lambda: calls.append("|"), warm_up=2)
    assert {name: len(measured) for name, measured in times.items()} == dict.fromkeys("abc", 4)
    turns = [turn for turn in "".join(calls).split("|") if turn]
    rounds = [turns[i : i + 3] for i in range(len(turns) - 12, len(turns), 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1
    assert paired.ratios([1.0, 4.0], [2.0, 2.0]) == [0.5, 2.0]
    assert paired.fastest({"a": [1, 9, 9], "b": [2, 2, 30]}, ["a", "b"]) == "b"
