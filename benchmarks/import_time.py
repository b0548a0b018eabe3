"""What `from optlab import SGD` adds to `import torch`: paired runs in fresh processes.

    python benchmarks/import_time.py [RUNS]

Writes ``benchmarks/results/import.json``.
"""

import subprocess
import sys

from record import row, write

CODE = "import time; began = time.perf_counter(); {}; print(time.perf_counter() - began)"
TORCH = "import torch"
#: The package itself imports its optimizers only when they are asked for.
BOTH = "import torch; from optlab import SGD"


def seconds(statement: str) -> float:
    """How long the statement takes in a process of its own."""
    command = [sys.executable, "-c", CODE.format(statement)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Measure, write the row, and say it."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    seconds(BOTH)  # the first fills the disk's cache
    added = [seconds(BOTH) - seconds(TORCH) for _ in range(runs)]
    write("import", [row("from optlab import SGD adds to import torch, seconds", added, 0.2)])


if __name__ == "__main__":
    main()
