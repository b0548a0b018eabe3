"""What `from optlab import SGD` adds to `import torch`: paired runs in fresh processes, medians.

    python benchmarks/import_time.py [RUNS]

Writes ``benchmarks/results/import.json``.
"""

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

LIMIT = 0.2
RESULT = Path(__file__).parent / "results" / "import.json"
CODE = "import time; began = time.perf_counter(); {}; print(time.perf_counter() - began)"
TORCH = "import torch"
#: The package itself imports its optimizers only when they are asked for.
BOTH = "import torch; from optlab import SGD"


def seconds(statement: str) -> float:
    """How long the statement takes in a process of its own."""
    command = [sys.executable, "-c", CODE.format(statement)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def main() -> None:
    """Measure, write the row, and say it."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    seconds(BOTH)  # the first fills the disk's cache
    added = [seconds(BOTH) - seconds(TORCH) for _ in range(runs)]
    value = statistics.median(added)
    quarters = statistics.quantiles(added, n=4)
    row = {
        "bar": "from optlab import SGD adds to import torch, in seconds (median of paired runs)",
        "value": round(value, 4),
        "limit": LIMIT,
        "holds": value < LIMIT,
        "spread": round(quarters[2] - quarters[0], 4),
        "spread_is": f"interquartile range of {runs} pairs",
        "command": "make bench",
        "hardware": processor(),
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps([row], indent=1) + "\n", "utf-8")
    print(f"from optlab import SGD adds {value:.3f} s to import torch (limit {LIMIT} s)")


if __name__ == "__main__":
    main()
