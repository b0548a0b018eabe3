"""Normalise the notebooks: no outputs but those that tests compare, nothing that varies by run.

python -m book.extensions.strip [NOTEBOOK ...]     (all of the book's, if none is named)

A cell whose output is compared gets it from the notebook's last execution, if there is one that
fits the code of today; so `make book` and `make format` renew it.
"""

import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from book.extensions import ROOT
from book.extensions.executed import read

KEPT = "nbval-check-output"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def every() -> list[Path]:
    """The notebooks in the repository's chapters."""
    return sorted((ROOT / "chapters").glob("*/*.ipynb"))


def strip(notebook: NotebookNode) -> NotebookNode:
    """Normalise a notebook in place, and return it."""
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": KERNEL, "language_info": {"name": "python"}}
        | {key: value for key, value in notebook.metadata.items() if key == "mystnb"}
    )
    for cell in notebook.cells:
        for key in ("execution", "collapsed", "scrolled", "ExecuteTime"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            kept = KEPT in cell.metadata.get("tags", []) and bool(cell.outputs)
            cell.execution_count = 1 if kept else None  # nbval takes None for a cell never run
            cell.outputs = cell.outputs if kept else []
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = None
    return notebook


def main() -> None:
    """The command line."""
    for path in map(Path, sys.argv[1:]) if sys.argv[1:] else every():
        before = path.read_text("utf-8")
        after = nbformat.writes(strip(read(before))) + "\n"
        if after != before:
            path.write_text(after, "utf-8")
            print(f"stripped {path}")


if __name__ == "__main__":
    main()
