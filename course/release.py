"""Write the students' notebooks, ``chapters/*/exercises.ipynb``, from their sources.

    python -m course.release            generate them
    python -m course.release --check    exit with 1 if one is not what would be generated

nbgrader's own ``generate_assignment`` does the work, in a temporary folder.
"""

import argparse
import os
import re
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.apps import NbGraderAPI
from traitlets.config import PyFileConfigLoader

ROOT = Path(__file__).resolve().parents[1]
REGION = re.compile(r"### BEGIN (SOLUTION|HIDDEN TESTS)\n(.*?)### END \1", re.DOTALL)


class ReleaseError(Exception):
    """nbgrader failed, or left a solution in a student's notebook."""


def grader(folder: Path) -> NbGraderAPI:
    """nbgrader on a copy of the course in ``folder``, each assignment's student version made."""
    sources = ROOT / "course" / "source"
    shutil.copytree(sources, folder / "source", ignore=shutil.ignore_patterns(".*"))
    config = PyFileConfigLoader("nbgrader_config.py", path=str(ROOT / "course")).load_config()
    config.CourseDirectory.root = str(folder)
    # nbgrader starts `alembic` by its bare name, which is next to this Python.
    os.environ["PATH"] = sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"]
    api = NbGraderAPI(config=config)
    for assignment in sorted(path.name for path in sources.iterdir() if path.is_dir()):
        done = api.generate_assignment(assignment)
        if not done["success"]:
            raise ReleaseError(f"{assignment}: {done.get('error')}\n{done.get('log')}")
    return api


def released() -> dict[Path, str]:
    """Each student's notebook, by the path at which it is committed."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        grader(folder)
        texts = {}
        for path in sorted((folder / "released").glob("*/*.ipynb")):
            name = path.relative_to(folder / "released")
            source = nbformat.read(folder / "source" / name, as_version=4)
            texts[ROOT / "chapters" / name] = _normalised(path, source)
        return texts


def secrets(source: NotebookNode) -> Iterator[str]:
    """What only instructors may read: the lines of solutions and of hidden tests."""
    for cell in source.cells:
        for _, region in REGION.findall(cell.source):
            yield from filter(None, map(str.strip, region.splitlines()))


def visible(source: NotebookNode) -> str:
    """What students may read: the source without solutions and hidden tests."""
    return "\n".join(REGION.sub("", cell.source) for cell in source.cells)


def _normalised(path: Path, source: NotebookNode) -> str:
    notebook = nbformat.read(path, as_version=4)
    lines = {line.strip() for cell in notebook.cells for line in cell.source.splitlines()}
    allowed = {line.strip() for line in visible(source).splitlines()}
    leaked = lines & set(secrets(source)) - allowed
    if leaked:
        raise ReleaseError(f"{path.name} would show students: {sorted(leaked)[0]}")
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    return nbformat.writes(notebook) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write the students' notebooks.")
    parser.add_argument("--check", action="store_true", help="only say what is not up to date")
    check = parser.parse_args(arguments).check
    try:
        texts = released()
    except ReleaseError as error:
        print(error, file=sys.stderr)
        return 1
    orphans = set((ROOT / "chapters").glob("*/exercises.ipynb")) - set(texts)
    for path in sorted(orphans):
        print(f"{path.relative_to(ROOT)} has no source in course/source", file=sys.stderr)
    stale = [path for path, text in texts.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            name = path.relative_to(ROOT)
            print(f"{name} is stale: run `python -m course.release`", file=sys.stderr)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(texts[path], "utf-8")
        partial.replace(path)  # whole or not at all
        print(f"wrote {path.relative_to(ROOT)}")
    return 1 if orphans or (check and stale) else 0


if __name__ == "__main__":
    sys.exit(main())
