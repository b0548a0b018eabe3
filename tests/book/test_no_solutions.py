"""The built book holds no solution: neither on a page, nor in its sources or its search index."""

import html
import re
from pathlib import Path

import nbformat

from course.release import ROOT, secrets, visible

TEXT = {".html", ".txt", ".js", ".ipynb", ".md", ".json", ".py", ".xml", ".css", ".map"}


def words(text: str) -> str:
    """The letters and digits, so that a line is found whatever marks stand between its words."""
    return " ".join(re.findall(r"[0-9A-Za-z]+", text))


def public() -> str:
    """What the project itself publishes: the package, and the book's and the chapters' text."""
    files = [p for d in ("optlab", "chapters", "book") for p in sorted((ROOT / d).rglob("*"))]
    shown = [p for p in files if p.suffix in {".py", ".md", ".ipynb"} and p.stem != "exercises"]
    return "\n".join(path.read_text("utf-8") for path in shown)


def hidden_lines() -> set[str]:
    """The lines that only instructors may read, without those that stand elsewhere anyway."""
    sources = sorted((ROOT / "course" / "source").glob("*/*.ipynb"))
    notebooks = [nbformat.read(path, as_version=4) for path in sources]
    allowed = words("\n".join([public(), *map(visible, notebooks)]))
    lines = {words(line) for notebook in notebooks for line in secrets(notebook)}
    return {line for line in lines if len(line) >= 25 and line not in allowed}


def test_no_solution_line_is_in_any_file_of_the_book(book: Path) -> None:
    hidden = hidden_lines()
    assert len(hidden) > 100
    exercises = book / "chapters" / "03-momentum" / "exercises.html"
    assert exercises.exists()
    for path in sorted(p for p in book.rglob("*") if p.suffix in TEXT and p.is_file()):
        text = path.read_text("utf-8", errors="replace")
        if path.suffix == ".html":
            text = html.unescape(re.sub(r"<[^>]+>", "", text)) + " " + text
        assert "BEGIN SOLUTION" not in text and "BEGIN HIDDEN TESTS" not in text, path
        text = words(text)
        assert [line for line in hidden if line in text] == [], path


def test_the_search_would_find_a_solution(tmp_path: Path) -> None:
    hidden = hidden_lines()
    line = next(iter(sorted(hidden)))
    page = "<p>" + "</span> <b>".join(line.split()) + "</p>"
    assert line in words(html.unescape(re.sub(r"<[^>]+>", "", page)))
