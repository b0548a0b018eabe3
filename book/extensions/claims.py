"""Claims: gather the records of all executed notebooks, and show them on one page."""

import json
import os
import tomllib
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from book.extensions import CLAIMS, ROOT
from book.extensions.executed import chapters, notebooks, outputs

MIME = "application/vnd.optlab.claim+json"
TEXTS = ROOT / "optlab" / "claims.toml"
TITLES = {
    "introduction": "Introduction",
    "sgd": "Stochastic gradient descent",
    "momentum": "Momentum",
    "adaptive": "Adaptive learning rates",
    "second-order": "Second-order methods",
    "regularisation": "Regularisation",
    "practice": "Practical considerations",
    "conclusion": "Conclusion",
}

Record = dict[str, Any]


def texts() -> dict[str, dict[str, str]]:
    """The survey's claims: chapter, then id, then text."""
    return tomllib.loads(TEXTS.read_text("utf-8"))


def anchor(id: str) -> str:
    """The HTML id of the cell that measures a claim."""
    return f"claim-{id.lower()}"


def collect() -> list[Record]:
    """The records in the executed notebooks' outputs, in the book's order."""
    records = []
    for path in notebooks():
        for cell, output in outputs(path):
            record = output.get("data", {}).get(MIME)
            if record is not None:
                place = {
                    "chapter": path.parent.name.partition("-")[2],
                    "notebook": path.relative_to(ROOT).as_posix(),
                    "cell": cell,
                    "anchor": anchor(record["id"]),
                }
                records.append(place | record)
    return records


def write() -> list[Record]:
    """Gather the records into ``_build/claims.json``, touching it only when they differ."""
    records = collect()
    text = json.dumps(records, indent=1) + "\n"
    if not CLAIMS.exists() or CLAIMS.read_text("utf-8") != text:
        partial = CLAIMS.with_suffix(f".{os.getpid()}")
        partial.write_text(text, "utf-8")
        partial.replace(CLAIMS)
    return records


class ClaimsDirective(SphinxDirective):
    """``{claims}``: every claim of the survey, chapter by chapter, with its measurement."""

    def run(self) -> list[nodes.Node]:
        for path in (CLAIMS, TEXTS):
            self.env.note_dependency(str(path))
        records: dict[str, list[Record]] = {}
        for record in json.loads(CLAIMS.read_text("utf-8")) if CLAIMS.exists() else []:
            records.setdefault(record["id"], []).append(record)
        written = chapters()
        found: list[nodes.Node] = []
        for number, (chapter, claims) in enumerate(texts().items(), 1):
            title = f"{number} {TITLES.get(chapter, chapter)}"
            section = nodes.section(ids=[f"claims-{chapter}"], names=[])
            section += nodes.title(title, title)
            if chapter in written:
                section += self._table(claims, records)
            else:
                section += self._unwritten(claims)
            found.append(section)
        return found

    def _unwritten(self, claims: dict[str, str]) -> list[nodes.Node]:
        note = nodes.paragraph("", "", nodes.emphasis("", "Chapter not written yet: not yet measured."))
        items = nodes.bullet_list(classes=["optlab-unmeasured"])
        for id, text in claims.items():
            item = nodes.paragraph("", "", nodes.strong(id, id), nodes.Text(f" {text}"))
            items += nodes.list_item("", item)
        return [note, items]

    def _table(self, claims: dict[str, str], records: dict[str, list[Record]]) -> nodes.table:
        rows = []
        for id, text in claims.items():
            if id not in records:
                rows.append([id, text, "not yet measured", "", "", "", "", ""])
            for record in records.get(id, []):
                rows += self._rows(record, text)
        head = ["", "Claim", "Quantity", "Measured", "Expected", "Tolerance", "Spread", "Measured in"]
        return _table(head, rows)

    def _rows(self, record: Record, text: str) -> list[list[Any]]:
        from optlab.claims import expectation

        seeds = record.get("seeds")
        rows = []
        for row in record["rows"]:
            spread = f"{row['spread']:.2g} over {len(seeds)} seeds" if seeds else "deterministic"
            name = "" if row["name"] == "measured" else row["name"]
            measured = f"{row['measured']:.4g}"
            tolerance = f"{record['tolerance']:.2g}"
            rows.append([name, measured, expectation(row), tolerance, spread])
        lead = [record["id"], text], [self._link(record)]
        blank = ["", ""], [""]
        return [
            [*(lead if first else blank)[0], *row, *(lead if first else blank)[1]]
            for first, row in zip([True] + [False] * len(rows), rows, strict=False)
        ]

    def _link(self, record: Record) -> nodes.reference:
        """A link to the cell; Sphinx relates HTML addresses of one build by themselves."""
        here = self.env.docname.count("/")
        page = record["notebook"].removesuffix(".ipynb")
        name = page.rpartition("/")[2]
        address = "../" * here + f"{page}.html#{record['anchor']}"
        verdict = "" if record["passed"] else " (fails)"
        return nodes.reference(name, name + verdict, refuri=address, internal=True)


def _table(head: list[str], rows: list[list[Any]]) -> nodes.table:
    table = nodes.table(classes=["optlab-claims"])
    group = nodes.tgroup(cols=len(head))
    table += group
    group.extend(nodes.colspec(colwidth=1) for _ in head)
    top, body = nodes.thead(), nodes.tbody()
    top += _row(head)
    body.extend(map(_row, rows))
    group += [top, body]
    return table


def _row(cells: list[Any]) -> nodes.row:
    row = nodes.row()
    for cell in cells:
        inner = cell if isinstance(cell, nodes.Node) else nodes.Text(cell)
        row += nodes.entry("", nodes.paragraph("", "", inner))
    return row


def add_anchors(app: Sphinx, doctree: nodes.document) -> None:
    """Give each cell that measures a claim its anchor."""
    path = ROOT / f"{app.env.docname}.ipynb"
    if path not in notebooks():
        return
    ids = {}
    for cell, output in outputs(path):
        if record := output.get("data", {}).get(MIME):
            ids.setdefault(cell, []).append(anchor(record["id"]))
    for node in doctree.findall(nodes.container):
        if node.get("nb_element") == "cell_code":
            node["ids"].extend(ids.get(node["cell_index"], []))
