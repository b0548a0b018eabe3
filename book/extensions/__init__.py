"""What builds the book: execution of the notebooks, Sphinx directives, served files."""

from pathlib import Path

#: The repository, which is also the book's source folder.
ROOT = Path(__file__).parents[2]
BUILD = ROOT / "_build"
EXECUTED = BUILD / "executed"
CLAIMS = BUILD / "claims.json"
HTML = BUILD / "html"
VENDOR = ROOT / "book" / "static" / "vendor"
