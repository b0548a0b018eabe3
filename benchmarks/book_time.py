"""What the book promises: a second build is quick, a notebook takes a minute, a page is light.

    python benchmarks/book_time.py [RUNS]

Writes ``benchmarks/results/book.json``.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import row, write

ROOT = Path(__file__).parents[1]
SLIDERS = ROOT / "_build" / "html" / "chapters" / "03-momentum" / "03-playground.html"


def build() -> float:
    """Seconds that a build of the book takes."""
    return seconds([sys.executable, "-m", "book.extensions.build"], ROOT)


def execute(notebook: Path) -> float:
    """Seconds that a notebook takes by itself, in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        output = ["--output", "out", "--output-dir", folder, "--to", "notebook", "--execute"]
        return seconds([sys.executable, "-m", "jupyter", "nbconvert", *output, notebook], folder)


def seconds(command: list[str | Path], folder: str | Path) -> float:
    """How long a command takes."""
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    """Measure, write the rows, and say them."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    build()  # the first, whatever it has to do
    rows = [row("make book with nothing changed, seconds", [build() for _ in range(runs)], 10)]
    for path in sorted((ROOT / "chapters").glob("*/[0-9]*.ipynb")):
        times = [execute(path) for _ in range(runs)]
        rows.append(row(f"{path.parent.name}/{path.stem} from start to end, seconds", times, 60))
    weight = SLIDERS.stat().st_size / 1000
    rows.append(row("slider page beyond shared files, kB", [weight], 400))
    write("book", rows)


if __name__ == "__main__":
    main()
