"""Set the repository's public address: in _config.yml, and in each notebook's first cell.

python -m book.extensions.address URL     ("" takes it back)
"""

import re
import sys
from pathlib import Path

import nbformat

from book.extensions import ROOT

CONFIG = re.compile(r'^(repository:\n(?: .*\n)*? +url *: *)"[^"\n]*"', re.MULTILINE)
CELL = re.compile(r'^REPOSITORY = "[^"\n]*"', re.MULTILINE)
ALLOWED = re.compile(r"https://[\w.-]+(/[\w.~-]+)+|")


def notebooks() -> list[Path]:
    """Every notebook that starts with the cell: the chapters' and the exercises' sources."""
    return sorted([*ROOT.glob("chapters/*/*.ipynb"), *ROOT.glob("course/source/*/*.ipynb")])


def current() -> str:
    """The address in _config.yml, or an empty string."""
    import yaml

    return yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))["repository"]["url"]


def set_address(url: str) -> None:
    """Write the address everywhere.

    Raises:
        ValueError: it is not an https address of a repository, and not empty.
    """
    if not ALLOWED.fullmatch(url):
        raise ValueError(f"URL must be like https://HOST/OWNER/NAME, or empty, got {url!r}")
    config = ROOT / "_config.yml"
    text, count = CONFIG.subn(lambda match: f'{match[1]}"{url}"', config.read_text("utf-8"))
    if count != 1:
        raise ValueError("_config.yml has no line `url:` under `repository:`")
    config.write_text(text, "utf-8")
    for path in notebooks():
        notebook = nbformat.read(path, as_version=4)
        code = next(cell for cell in notebook.cells if cell.cell_type == "code")
        code.source = CELL.sub(f'REPOSITORY = "{url}"', code.source)
        path.write_text(nbformat.writes(notebook) + "\n", "utf-8")


if __name__ == "__main__":
    try:
        set_address(sys.argv[1] if len(sys.argv) > 1 else "")
    except ValueError as error:
        sys.exit(str(error))
