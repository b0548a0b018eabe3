"""Every notebook runs alone, in an empty folder, and gives the outputs that are stored with it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from book.extensions import ROOT, address, executed, strip

NOTEBOOKS = sorted((ROOT / "chapters").glob("*/*.ipynb"))
RUN = [path for path in NOTEBOOKS if path.stem != "exercises"]
WIDTH = 100
FIRST = """import importlib.util

REPOSITORY = "{url}"  # the book's public address; empty until it is published
if importlib.util.find_spec("optlab") is None:
    if not REPOSITORY:
        raise SystemExit("optlab is not installed: clone the book and run `make env`.")
    %pip install --quiet "optlab-book @ git+{{REPOSITORY}}\""""


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", RUN, ids=name)
def test_notebook_runs_alone(path, tmp_path):
    shutil.copy(path, tmp_path)
    unwanted = ("PYTHONPATH", "PYTEST_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(unwanted)}
    nbval = ["--nbval-lax", "--nbval-cell-timeout=300", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *nbval, path.name],
        cwd=tmp_path,
        env=environment | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert f"{len(code(path))} passed" in done.stdout
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_every_notebook_is_in_the_book():
    listed = set(executed.notebooks())
    assert {path for path in RUN if f"chapters/{path.parent.name}" in toc()} == listed


def toc() -> set[str]:
    return {entry.rpartition("/")[0] for entry in executed._contents()}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_first_cell_finds_the_package(path):
    first = code(path)[0]
    assert first.source.strip() == FIRST.format(url=address.current())
    assert "remove-cell" in first.metadata.get("tags", [])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_notebook_is_stored_without_outputs(path):
    notebook = read(path)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in code(path):
        compared = strip.KEPT in cell.metadata.get("tags", [])
        assert cell.execution_count == (1 if compared else None)
        assert bool(cell.outputs) == compared, "run `make book format`"
        if compared:
            assert not any("image/png" in output.get("data", {}) for output in cell.outputs)
    before = nbformat.writes(notebook)
    assert nbformat.writes(strip.strip(notebook)) == before, "run `make format`"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_code_fits_the_page(path):
    wide = [line for cell in code(path) for line in cell.source.splitlines() if len(line) > WIDTH]
    assert wide == []


@pytest.mark.parametrize("path", RUN, ids=name)
def test_images_are_described(path):
    for cell in code(path):
        for output in cell.outputs:
            assert "image/svg+xml" not in output.get("data", {}), "show it with optlab.plots.show"


def test_strip_keeps_what_tests_compare():
    new = nbformat.v4
    output = new.new_output("execute_result", {"text/plain": "1"}, execution_count=3)
    kept = new.new_code_cell("1", outputs=[output], metadata={"tags": [strip.KEPT]})
    lost = new.new_code_cell("2", outputs=[output], execution_count=4)
    notebook = strip.strip(new.new_notebook(cells=[kept, lost], metadata={"widgets": {}}))
    assert notebook.cells[0].outputs[0].data == {"text/plain": "1"}
    assert notebook.cells[1].outputs == [] and notebook.cells[1].execution_count is None
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


@pytest.mark.parametrize("url", ["https://example.org/a/b", ""])
def test_address_is_set_everywhere(url, tmp_path, monkeypatch):
    chapter = tmp_path / "chapters" / "01-x"
    chapter.mkdir(parents=True)
    shutil.copy(ROOT / "_config.yml", tmp_path)
    cell = nbformat.v4.new_code_cell(FIRST.format(url="https://old.example/a"))
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), chapter / "a.ipynb")
    monkeypatch.setattr(address, "ROOT", tmp_path)
    address.set_address(url)
    assert code(chapter / "a.ipynb")[0].source == FIRST.format(url=url)
    config = yaml.safe_load((tmp_path / "_config.yml").read_text("utf-8"))
    assert config["repository"]["url"] == url == address.current()


@pytest.mark.parametrize(
    "url", ["example.org", "http://example.org/a/b", 'https://a/b"; x', "x\ny"]
)
def test_address_is_checked(url, tmp_path, monkeypatch):
    monkeypatch.setattr(address, "ROOT", tmp_path)
    with pytest.raises(ValueError, match="URL must be like"):
        address.set_address(url)
