"""How a benchmark is tried."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The rows that a benchmark writes in its small form."""

    def run(topic):
        folder = tmp_path_factory.mktemp("results")
        command = [sys.executable, BENCHMARKS / f"{topic}.py", "--quick", folder]
        subprocess.run(command, check=True, capture_output=True)
        return json.loads((folder / f"{topic}.json").read_text())

    return run


@pytest.fixture
def importable(monkeypatch):
    """Benchmarks import each other from their own folder."""
    monkeypatch.syspath_prepend(BENCHMARKS)
