"""The build: what is executed again and when, what a failure says, what the pages hold."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup
from pybtex.database import parse_file

from book.extensions import (
    CLAIMS,
    ROOT,
    VENDOR,
    assets,
    claims,
    executed,
    fingerprint,
    methods,
    rule,
)

new = nbformat.v4


# --- fingerprints ---------------------------------------------------------------------------


def notebook(*cells: str) -> nbformat.NotebookNode:
    return new.new_notebook(cells=[new.new_code_cell(cell) for cell in cells])


def test_prose_and_outputs_are_no_part_of_a_fingerprint():
    plain = notebook("x = 1")
    told = notebook("x = 1")
    told.cells.insert(0, new.new_markdown_cell("A better sentence."))
    told.cells[1].outputs = [new.new_output("stream", text="1")]
    assert fingerprint.fingerprint(plain) == fingerprint.fingerprint(told)
    assert fingerprint.fingerprint(plain) != fingerprint.fingerprint(notebook("x = 2"))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("from optlab.rules import momentum", {"optlab.rules"}),
        ("from optlab import rules, SGD", {"optlab.rules", "optlab"}),
        ("import optlab.descent as d", {"optlab.descent"}),
        ("%matplotlib inline\n!ls\nimport numpy", set()),
    ],
)
def test_imports_are_read_off_the_code(code, expected):
    assert fingerprint.imports(code) == expected


def test_files_follow_imports():
    names = {path.name for path in fingerprint.files({"optlab.descent"})}
    assert {"descent.py", "rules.py", "landscapes.py", "__init__.py"} <= names
    assert not {"engine.py", "plots.py"} & names
    assert "claims.toml" in {path.name for path in fingerprint.files({"optlab.claims"})}


# --- a small book, built for itself ---------------------------------------------------------


def write(folder: Path, name: str, *cells: str) -> None:
    nbformat.write(
        new.new_notebook(
            cells=[new.new_markdown_cell(f"# {name}"), *map(new.new_code_cell, cells)],
            metadata={"kernelspec": {"display_name": "P", "language": "python", "name": "python3"}},
        ),
        folder / f"{name}.ipynb",
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A repository with a page, a listing and two notebooks."""
    folder = tmp_path_factory.mktemp("small")
    for name in ("_config.yml", "constraints.txt", "package-lock.json"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "optlab", folder / "optlab")
    shutil.copytree(ROOT / "book" / "extensions", folder / "book" / "extensions")
    (folder / "book" / "static").mkdir()
    shutil.copy(ROOT / "book" / "static" / "book.css", folder / "book" / "static")
    shutil.copy(ROOT / "book" / "static" / "favicon.svg", folder / "book" / "static")
    shutil.copy(ROOT / "book" / "references.bib", folder / "book")
    assets.fetch()
    (folder / "book" / "static" / "vendor").symlink_to(VENDOR)
    (folder / "_toc.yml").write_text(
        "format: jb-book\nroot: home\nchapters:\n- file: n1\n- file: n2\n"
    )
    (folder / "home.md").write_text(
        "# Home\n\n```{rule} sgd\n```\n\n```{eval-rst}\n.. autofunction:: optlab.rules.sgd\n```\n"
    )
    write(folder, "n1", "from optlab.rules import sgd\nsgd(1.0, 0.5, lr=0.5)")
    write(folder, "n2", "6 * 7")
    return folder


def build(folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "book.extensions.build"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )


def text(folder: Path, page: str) -> str:
    html = (folder / "_build" / "html" / f"{page}.html").read_text("utf-8")
    return BeautifulSoup(html, "html.parser").get_text()


def test_a_book_from_nothing_to_a_failure(small):
    """One test in steps, since each build takes seconds."""
    done = build(small)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Executed 2 notebooks" in done.stdout
    assert "theta = theta - lr * g" in text(small, "home")
    assert "(0.75,)" in text(small, "n1") and "42" in text(small, "n2")

    # Nothing changed: nothing runs.
    done = build(small)
    assert done.returncode == 0 and "Executed 0 notebooks" in done.stdout

    # A style: copied, though no page's text changed.
    style = small / "book" / "static" / "book.css"
    style.write_text(style.read_text("utf-8") + "/* new */\n", "utf-8")
    done = build(small)
    assert done.returncode == 0 and "Executed 0 notebooks" in done.stdout
    assert (small / "_build" / "html" / "_static" / "book.css").read_text().endswith("/* new */\n")

    # One character of a rule: the listing changes, and what the notebook shows, and no other runs.
    rules = small / "optlab" / "rules.py"
    source = rules.read_text("utf-8")
    rules.write_text(source.replace("theta = theta - lr * g", "theta = theta + lr * g"), "utf-8")
    done = build(small)
    assert "Executed 1 notebook;" in done.stdout, done.stdout + done.stderr
    assert "theta = theta + lr * g" in text(small, "home")
    assert "(1.25,)" in text(small, "n1")

    # A build that ended in the midst of writing: the next one trusts none of its pages.
    (small / "_build" / ".unfinished").touch()
    (small / "_build" / "html" / "n2.html").write_text("<p>half a pa")
    done = build(small)
    assert done.returncode == 0 and "Executed 0 notebooks" in done.stdout
    assert "42" in text(small, "n2")

    # A failing notebook: named, with cell and error; what ran before it is kept.
    write(small, "n1", "'a new cell'")
    write(small, "n2", "x = 1", "def divide(a):\n    return a / 0\n\ndivide(x)")
    done = build(small)
    assert done.returncode != 0
    assert "n2.ipynb, code cell 2 of 2" in done.stderr
    assert "def divide(a):" in done.stderr
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) < 40
    write(small, "n2", "x = 1")
    done = build(small)
    assert done.returncode == 0 and "Executed 1 notebook;" in done.stdout

    # A warning is an error, also the second time.
    (small / "home.md").write_text("# Home\n\n[](nowhere.md)\n")
    assert [build(small).returncode != 0 for _ in range(2)] == [True, True]


# --- the directive --------------------------------------------------------------------------


def test_listing_has_no_docstring():
    source = (
        '"""A module."""\n\n@cache\ndef f(x):\n    """What.\n\n    More.\n    """\n\n    return x\n'
    )
    assert rule.listing(source, "f") == "@cache\ndef f(x):\n    return x"
    with pytest.raises(KeyError):
        rule.listing(source, "g")


def test_every_listing_is_the_packages_text(book):
    """What the book prints as a rule is, line by line, in the source."""
    found = 0
    for path in pages(book):
        for block in soup(path).select(
            ".literal-block-wrapper .optlab-listing pre, .optlab-listing.literal-block-wrapper pre"
        ):
            found += 1
            source = "".join(p.read_text("utf-8") for p in (ROOT / "optlab").rglob("*.py"))
            assert all(line in source for line in block.get_text().splitlines())
    assert found


# --- the pages ------------------------------------------------------------------------------


def pages(book: Path) -> list[Path]:
    return [
        book / f"{name.rsplit('.', 1)[0] if name.endswith(('.md', '.ipynb')) else name}.html"
        for name in executed._contents()
    ]


def soup(path: Path, cache: dict = {}) -> BeautifulSoup:  # noqa: B006
    if path not in cache:
        cache[path] = BeautifulSoup(path.read_text("utf-8"), "html.parser")
    return cache[path]


def test_links_and_anchors_resolve(book):
    broken = []
    anchors: dict[Path, set[str]] = {}
    for path in pages(book):
        for link in soup(path).select("a[href]"):
            parts = urlsplit(link["href"])
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                broken.append((path.name, link["href"]))
            elif parts.fragment and target.suffix == ".html":
                if target not in anchors:
                    anchors[target] = {tag["id"] for tag in soup(target).select("[id]")}
                if unquote(parts.fragment) not in anchors[target]:
                    broken.append((path.name, link["href"]))
    assert broken == []


def test_ids_are_unique(book):
    for path in pages(book):
        # Inside drawings, matplotlib names groups alike; what they refer to is named by content.
        # The contents of theorems get one name from sphinx-proof, which nothing links to.
        tags = [tag for tag in soup(path).select(".bd-article [id]") if not tag.find_parent("svg")]
        counts = Counter(tag["id"] for tag in tags)
        twice = {name for name, count in counts.items() if count > 1}
        assert twice <= {"proof-content"}, path.name


def test_pictures_are_described(book):
    for path in pages(book):
        for image in soup(path).select(".bd-article img"):
            assert image.get("alt", "").strip(), (path.name, image)
        for drawing in soup(path).select(".bd-article svg"):
            hidden = drawing.find_parent(attrs={"aria-hidden": "true"}) or drawing.get(
                "aria-hidden"
            )
            told = drawing.get("aria-label") or drawing.get("aria-labelledby") or drawing.title
            holder = drawing.find_parent(attrs={"aria-label": True})
            assert hidden or told or holder, (path.name, str(drawing)[:200])


def test_pages_name_no_other_host(book):
    for path in book.rglob("*.html"):
        page = soup(path)
        sources = [tag["src"] for tag in page.select("[src]")]
        sources += [tag["href"] for tag in page.select("link[href]:not([rel=canonical])")]
        assert [url for url in sources if urlsplit(url).netloc] == [], path.name


def test_buttons_that_need_an_address_are_absent_without_one(book):
    from book.extensions import address

    text = "".join(path.read_text("utf-8") for path in pages(book))
    has = "source-repository-button" in text or "colab.research" in text
    assert has == bool(address.current())
    assert 'href=""' not in text


# --- references and claims ------------------------------------------------------------------


def written() -> str:
    """All the book's prose."""
    names = [ROOT / name for name in executed._contents()]
    paths = [
        p for n in names for p in (n, n.with_name(f"{n.name}.md"), n.with_name(f"{n.name}.ipynb"))
    ]
    return "\n".join(path.read_text("utf-8") for path in paths if path.is_file())


def test_references_are_cited_and_can_be_found():
    entries = parse_file(ROOT / "book" / "references.bib").entries
    roles = re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", written())
    cited = {key.strip() for role in roles for key in role.split(",")}
    cited |= {key for method in methods.load().values() for key in method.papers}
    assert cited == set(entries)
    for key, entry in entries.items():
        assert {"doi", "eprint", "isbn", "url"} & set(entry.fields), key


def test_each_claim_of_a_written_chapter_has_one_record(book):
    records = json.loads(CLAIMS.read_text("utf-8"))
    counts = Counter(record["id"] for record in records)
    expected = {id for chapter in executed.chapters() for id in claims.texts()[chapter]}
    assert counts == Counter(expected)
    for record in records:
        assert record["passed"] or (record["passed"] is None and record["open"]), record["id"]
        assert record["id"] in claims.texts()[record["chapter"]]
        assert (ROOT / record["notebook"]).is_file()


def test_claims_page_lists_all_and_links_to_their_cells(book):
    page = soup(book / "book" / "claims.html")
    shown = {tag.get_text() for tag in page.select(".bd-article strong")}
    assert {id for chapter in claims.texts().values() for id in chapter} <= shown
    links = {link["href"].rpartition("#")[2] for link in page.select(".optlab-claims a")}
    records = json.loads(CLAIMS.read_text("utf-8"))
    assert {record["anchor"] for record in records} == links
    counted = page.select_one(".optlab-summary").get_text()
    assert f"{sum(record['passed'] is True for record in records)} hold as measured" in counted
    for record in records:
        if record["passed"] is None:
            link = page.find("a", href=re.compile(f"#{record['anchor']}$"))
            assert f"open: {record['open']}" in link.get_text()
            assert f"{record['id']} {record['open']}" in counted


@pytest.mark.parametrize(
    ("verdicts", "sentence"),
    [
        (
            {"M1": True, "M2": True},
            "Of 70 claims, 2 hold as measured, and 68 are not measured yet.",
        ),
        ({"M1": False}, "0 hold as measured, 1 is not borne out, and 69 are not measured yet."),
        ({"P7": None}, "0 hold as measured, 1 is open (P7 needs a GPU), and 69 are not"),
    ],
)
def test_an_open_claim_is_counted_as_neither_verdict(verdicts, sentence):
    records = {
        id: [{"passed": passed, **({"open": "needs a GPU"} if passed is None else {})}]
        for id, passed in verdicts.items()
    }
    assert sentence in claims.summary(records)


def test_the_summary_ends_when_all_claims_hold():
    everything = {id: [{"passed": True}] for chapter in claims.texts().values() for id in chapter}
    assert claims.summary(everything) == "Of 70 claims, 70 hold as measured."
