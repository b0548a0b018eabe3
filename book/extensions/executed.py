"""Executed notebooks: a store of outputs, found by fingerprint.

``_build/executed/FINGERPRINT.ipynb`` is a notebook that ran to its end.  MyST-NB reads notebooks
through :func:`read`, which puts the stored outputs back into the text of today.
"""

import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from sphinx_external_toc.parsing import parse_toc_yaml
from tqdm import tqdm

from book.extensions import EXECUTED, ROOT
from book.extensions.fingerprint import fingerprint

TIMEOUT = 120  # seconds that a cell may take
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class NotebookError(Exception):
    """A cell did not run to its end; the message is for the author of the notebook."""


def chapters() -> list[str]:
    """The chapters in the table of contents, such as ``momentum``, in its order."""
    return list(folders())


def folders() -> dict[str, str]:
    """The chapters' folders by name, such as ``03-momentum`` by ``momentum``, in order."""
    found = [name.split("/")[1] for name in _contents() if name.startswith("chapters/")]
    return {folder.partition("-")[2]: folder for folder in found}


def notebooks() -> list[Path]:
    """The notebooks of the book that are executed: all in its contents but students' exercises."""
    paths = [ROOT / f"{name.removesuffix('.ipynb')}.ipynb" for name in _contents()]
    return [path for path in paths if path.exists() and path.stem != "exercises"]


def _contents() -> list[str]:
    return list(parse_toc_yaml(ROOT / "_toc.yml").keys())


def stored(notebook: NotebookNode) -> Path:
    """Where the outputs of a notebook are, or will be."""
    return EXECUTED / f"{fingerprint(notebook)}.ipynb"


def read(text: str) -> NotebookNode:
    """A notebook with its stored outputs, if it has any: the reader that MyST-NB calls."""
    notebook = nbformat.reads(text, as_version=4)
    path = stored(notebook)
    if not path.exists():
        return notebook
    ran = nbformat.read(path, as_version=4)
    notebook.metadata.update(ran.metadata)
    cells = (cell for cell in ran.cells if cell.cell_type == "code")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            done = next(cells)
            cell.outputs, cell.execution_count = done.outputs, done.execution_count
    return notebook


def run_stale() -> int:
    """Execute the notebooks whose outputs are not in the store; return how many there were.

    Raises:
        NotebookError: at the first that fails; those before it stay in the store.
    """
    EXECUTED.mkdir(parents=True, exist_ok=True)
    needed = {path: nbformat.read(path, as_version=4) for path in notebooks()}
    stale = {path: book for path, book in needed.items() if not stored(book).exists()}
    for number, (path, notebook) in enumerate(stale.items(), 1):
        label = f"[{number}/{len(stale)}] {path.relative_to(ROOT)}"
        target = stored(notebook)
        _execute(notebook, path, label)
        partial = target.with_suffix(f".{os.getpid()}")
        nbformat.write(notebook, partial)
        partial.replace(target)  # whole or not at all
    current = {stored(notebook) for notebook in needed.values()}
    for path in EXECUTED.iterdir():
        if path not in current:
            path.unlink()
    return len(stale)


def _execute(notebook: NotebookNode, path: Path, label: str) -> None:
    """Run a notebook in an empty folder, in place, and show how far it is."""
    total = sum(cell.cell_type == "code" for cell in notebook.cells)
    state = {"count": 0}
    began = time.perf_counter()
    live = sys.stderr.isatty()
    bar = tqdm(total=total, desc=label, unit="cell", disable=not live, leave=True)

    def start(cell: NotebookNode, cell_index: int) -> None:
        state["count"] += cell.cell_type == "code"

    def done(cell: NotebookNode, cell_index: int, execute_reply: dict) -> None:
        bar.update()

    with tempfile.TemporaryDirectory() as folder, bar:
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
            on_cell_start=start,
            on_cell_executed=done,
        )
        try:
            _wait(client)
        except CellExecutionError as error:
            reason = f"{error.ename}: {error.evalue}"
        except CellTimeoutError:
            reason = f"TimeoutError: a cell may take {TIMEOUT} s"
        except DeadKernelError:
            reason = "DeadKernelError: the kernel died (out of memory?)"
        else:
            if not live:
                print(f"{label}: {total} cells, {time.perf_counter() - began:.1f} s", flush=True)
            return
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    raise NotebookError(_report(path, state["count"], code, ANSI.sub("", reason)))


def _wait(client: NotebookClient) -> None:
    """Execute in a thread, since in the main one nbclient takes Ctrl-C for its own."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(client.execute)
        try:
            future.result()
        except KeyboardInterrupt:
            while not future.done():
                kernel = getattr(getattr(client.km, "provisioner", None), "process", None)
                if kernel is not None:
                    kernel.kill()
                time.sleep(0.1)
            raise


def _report(path: Path, number: int, code: list[str], reason: str) -> str:
    lines = code[number - 1].splitlines()
    shown = "\n".join(f"    {line}" for line in lines[:6]) + ("\n    ..." if lines[6:] else "")
    where = f"{path.relative_to(ROOT)}, code cell {number} of {len(code)}"
    return f"{where}:\n\n{shown}\n\n{reason}"


def outputs(path: Path) -> Iterator[tuple[int, NotebookNode]]:
    """Each output of an executed notebook, with the number of its cell (from 0, of all cells)."""
    for number, cell in enumerate(read(path.read_text("utf-8")).cells):
        for output in cell.get("outputs", []):
            yield number, output
