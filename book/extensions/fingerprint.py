"""Fingerprints: what an executed notebook depends on, as one string.

A notebook's fingerprint covers its code cells, the source of the modules of optlab that it imports,
directly or through others, the data files that those name, and the pinned versions.  Prose is left
out: a better sentence executes nothing.
"""

import ast
import functools
import hashlib
import re
from pathlib import Path

import grimp
import nbformat

from book.extensions import ROOT

PACKAGE = "optlab"
DATA = {".toml", ".js", ".css", ".json", ".csv"}
MAGIC = re.compile(r"^\s*[%!?].*$", re.MULTILINE)


@functools.cache
def graph() -> grimp.ImportGraph:
    """The imports between optlab's modules."""
    return grimp.build_graph(PACKAGE, cache_dir=None)


def fingerprint(notebook: nbformat.NotebookNode) -> str:
    """A string that changes when the notebook's outputs may."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    digest = hashlib.sha256()
    for source in code:
        digest.update(source.encode() + b"\0")
    for path in (ROOT / "constraints.txt", *files(imports("\n".join(code)))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:32]


def imports(code: str) -> set[str]:
    """The modules of optlab that code names in its import statements."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(MAGIC.sub("pass", code))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.add(inner if inner in graph().modules else node.module)
    return {name for name in names if name in graph().modules}


def files(modules: set[str]) -> list[Path]:
    """The source of modules and of all that they import, with the data files named in it."""
    closure = set(modules)
    for module in modules:
        closure |= graph().find_upstream_modules(module)
    # Python runs a package's __init__ on the way to a module in it.
    for module in list(closure):
        while "." in module:
            module = module.rpartition(".")[0]
            closure.add(module)
    sources = sorted(map(_source, closure))
    text = "".join(path.read_text("utf-8") for path in sources)
    stems = {path.stem for path in sources}
    data = [
        path
        for path in sorted((ROOT / PACKAGE).rglob("*"))
        if path.suffix in DATA and (path.name in text or path.stem in stems)
    ]
    return sources + data


def _source(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
