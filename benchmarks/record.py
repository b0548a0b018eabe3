"""What a benchmark writes: a row for each bar that the project promises, as measured."""

import datetime
import json
import math
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
VERDICTS = {True: "holds", False: "DOES NOT HOLD", None: "reported"}
OPEN = "needs a GPU"


def row(
    bar: str, measured: Sequence[float], limit: float | None, *, at_most: bool = False
) -> dict[str, Any]:
    """The median of what was measured, against the limit that it must stay below.

    With ``at_most`` it may reach the limit.  Without a limit it is only reported.
    """
    value = float(f"{statistics.median(measured):.6g}")
    quarters = statistics.quantiles(measured, n=4) if len(measured) > 1 else [value] * 3
    return {
        "bar": bar,
        "value": value,
        "limit": limit,
        "holds": None if limit is None else value <= limit if at_most else value < limit,
        "spread": float(f"{quarters[2] - quarters[0]:.4g}"),
        "spread_is": f"interquartile range of {len(measured)}",
        "command": "make bench",
        "hardware": processor(),
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


def unmeasured(bar: str, limit: float | None) -> dict[str, Any]:
    """A row that waits for a machine with a GPU."""
    return row(bar, [math.nan], limit) | dict(value=None, spread=None, holds=None, open=OPEN)


def write(topic: str, rows: list[dict[str, Any]], table: str = "", folder: Path = RESULTS) -> None:
    """Write ``TOPIC.json``, and say what it holds, row by row or in a table."""
    _store(topic, rows, folder)
    print(table or "\n".join(_sentence(entry) for entry in rows))


def update(topic: str, rows: list[dict[str, Any]], folder: Path = RESULTS) -> None:
    """Write rows over those of the same bars; what else ``TOPIC.json`` has stays.

    A row without a measurement does not take the place of one.
    """
    written = folder / f"{topic}.json"
    kept = json.loads(written.read_text("utf-8")) if written.exists() else []
    known = {entry["bar"] for entry in kept}
    rows = [entry for entry in rows if "open" not in entry or entry["bar"] not in known]
    fresh = {entry["bar"]: entry for entry in rows}
    _store(topic, [fresh.pop(entry["bar"], entry) for entry in kept] + [*fresh.values()], folder)
    print("\n".join(_sentence(entry) for entry in rows))


def _store(topic: str, rows: list[dict[str, Any]], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / f"{topic}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    partial.replace(path)


def _sentence(entry: dict[str, Any]) -> str:
    verdict = entry.get("open") or VERDICTS[entry["holds"]]
    return f"{entry['bar']}: {entry['value']} (limit {entry['limit']}), {verdict}"


def processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"
