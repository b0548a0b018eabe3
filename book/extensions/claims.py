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


def summary(records: dict[str, list[Record]]) -> str:
    """How many claims hold, and which are open, in a sentence; records by the claims' ids.

    >>> summary({"M1": [{"passed": True}], "P7": [{"passed": None, "open": "needs a GPU"}]})
    'Of 70 claims, 1 holds as measured, 1 is open (P7 needs a GPU), and 68 are not measured yet.'
    """
    total = sum(len(claims) for claims in texts().values())
    holding = sum(all(record["passed"] for record in found) for found in records.values())
    waiting = [f"{id} {found[0]['open']}" for id, found in records.items() if found[0].get("open")]
    failing = len(records) - holding - len(waiting)
    parts = [f"{holding} {'holds' if holding == 1 else 'hold'} as measured"]
    if failing:
        parts.append(f"{failing} {_be(failing)} not borne out")
    if waiting:
        parts.append(f"{len(waiting)} {_be(len(waiting))} open ({', '.join(waiting)})")
    if rest := total - len(records):
        parts.append(f"{rest} {_be(rest)} not measured yet")
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])}, and {parts[-1]}"
    return f"Of {total} claims, {listed}."


def _be(count: int) -> str:
    return "is" if count == 1 else "are"


def _paragraph(text: str) -> nodes.paragraph:
    return nodes.paragraph("", "", nodes.Text(text), classes=["optlab-summary"])


class ClaimsDirective(SphinxDirective):
    """``{claims}``: every claim of the survey, chapter by chapter, with its measurement."""

    def run(self) -> list[nodes.Node]:
        for path in (CLAIMS, TEXTS):
            self.env.note_dependency(str(path))
        records: dict[str, list[Record]] = {}
        for record in json.loads(CLAIMS.read_text("utf-8")) if CLAIMS.exists() else []:
            records.setdefault(record["id"], []).append(record)
        written = chapters()
        found: list[nodes.Node] = [_paragraph(summary(records))]
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
        note = nodes.emphasis("", "Chapter not written yet: not yet measured.")
        items = nodes.bullet_list(classes=["optlab-unmeasured"])
        for id, text in claims.items():
            item = nodes.paragraph("", "", nodes.strong(id, id), nodes.Text(f" {text}"))
            items += nodes.list_item("", item)
        return [nodes.paragraph("", "", note), items]

    def _table(self, claims: dict[str, str], records: dict[str, list[Record]]) -> nodes.table:
        rows = []
        for id, text in claims.items():
            found = records.get(id, [])
            links: list[nodes.Node] = []
            for record in found:
                links += [nodes.Text(" "), self._link(record)]
            if not found:
                links = [nodes.emphasis("", " not yet measured")]
            title = nodes.paragraph("", "", nodes.strong(id, id), nodes.Text(f" {text}"), *links)
            rows.append(nodes.row("", nodes.entry("", title, morecols=4), classes=["optlab-what"]))
            for record in found:
                rows += [_row(cells) for cells in _figures(record)]
        return _table(["Quantity", "Measured", "Expected", "Tolerance", "Spread"], rows)

    def _link(self, record: Record) -> nodes.reference:
        """A link to the cell; Sphinx relates HTML addresses of one build by themselves."""
        here = self.env.docname.count("/")
        page = record["notebook"].removesuffix(".ipynb")
        name = f"→ {page.rpartition('/')[2]}"
        address = "../" * here + f"{page}.html#{record['anchor']}"
        verdict = {True: "", False: " (fails)", None: f" (open: {record.get('open')})"}
        return nodes.reference(
            name, name + verdict[record["passed"]], refuri=address, internal=True
        )


def _figures(record: Record) -> list[list[str]]:
    """The rows of a record, as text."""
    from optlab.claims import expectation

    seeds = record.get("seeds")
    return [
        [
            "" if row["name"] == "measured" else row["name"],
            f"{row['measured']:.4g}",
            expectation(row),
            f"{record['tolerance']:.4g}",
            f"{row['spread']:.2g} over {len(seeds)} seeds" if seeds else "deterministic",
        ]
        for row in record["rows"]
    ]


def _table(head: list[str], rows: list[nodes.row]) -> nodes.table:
    table = nodes.table(classes=["optlab-claims"])
    group = nodes.tgroup(cols=len(head))
    table += group
    group.extend(nodes.colspec(colwidth=1) for _ in head)
    group += [nodes.thead("", _row(head)), nodes.tbody("", *rows)]
    return table


def _row(cells: list[str]) -> nodes.row:
    entries = [nodes.entry("", nodes.paragraph("", "", nodes.Text(cell))) for cell in cells]
    return nodes.row("", *entries)


def add_anchors(app: Sphinx, doctree: nodes.document) -> None:
    """Give each cell that measures a claim its anchor."""
    path = ROOT / f"{app.env.docname}.ipynb"
    if path not in notebooks():
        return
    ids = {}
    for cell, output in outputs(path):
        if record := output.get("data", {}).get(MIME):
            ids.setdefault(cell, []).append(anchor(record["id"]))
    labels = app.env.get_domain("std").anonlabels  # so that {ref} finds them
    for node in doctree.findall(nodes.container):
        if node.get("nb_element") == "cell_code":
            found = ids.get(node["cell_index"], [])
            node["ids"].extend(found)
            labels.update({name: (app.env.docname, name) for name in found})
