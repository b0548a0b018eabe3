"""What a benchmark writes: a row for each bar that the project promises, as measured."""

import datetime
import json
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def row(bar: str, measured: Sequence[float], limit: float) -> dict[str, Any]:
    """The median of what was measured, against the limit that it must stay below."""
    value = statistics.median(measured)
    quarters = statistics.quantiles(measured, n=4) if len(measured) > 1 else [value] * 3
    return {
        "bar": bar,
        "value": round(value, 4),
        "limit": limit,
        "holds": value < limit,
        "spread": round(quarters[2] - quarters[0], 4),
        "spread_is": f"interquartile range of {len(measured)}",
        "command": "make bench",
        "hardware": processor(),
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


def write(topic: str, rows: list[dict[str, Any]]) -> None:
    """Write ``results/TOPIC.json``, and say what it holds."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{topic}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    partial.replace(path)
    for entry in rows:
        verdict = "holds" if entry["holds"] else "DOES NOT HOLD"
        print(f"{entry['bar']}: {entry['value']} (limit {entry['limit']}), {verdict}")


def processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"
