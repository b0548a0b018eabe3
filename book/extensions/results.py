"""``{results}``: the theorems of all chapters, and which of them answers a question.

Boxes are read off the chapters' text, so that a new one appears by itself; questions stand in
``book/results.toml``.
"""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from book.extensions import ROOT
from book.extensions.claims import TITLES
from book.extensions.executed import folders

QUESTIONS = ROOT / "book" / "results.toml"
KINDS = ("theorem", "lemma", "proposition", "corollary", "definition")
BOX = re.compile(
    r"^(?P<fence>[`:]{3,})\{prf:(?P<kind>\w+)\}[ \t]*(?P<title>.*)\n"
    r"(?P<body>(?:.*\n)*?)(?P=fence)[ \t]*$",
    re.MULTILINE,
)
LABEL = re.compile(r"^:label:[ \t]*(\S+)[ \t]*\n", re.MULTILINE)
FORMULA = re.compile(r"\$\$[ \t]*\((?P<label>[\w-]+)\)")


@dataclass(frozen=True)
class Box:
    """A theorem or its like.

    Args:
        label: what it is referred to by.
        kind: ``"theorem"``, ``"lemma"`` and so on.
        title: in MyST; it may be empty.
        statement: in MyST, without labels.
        proved: whether a proof follows before the next box.
    """

    label: str
    kind: str
    title: str
    statement: str
    proved: bool


def boxes(text: str) -> list[Box]:
    """The boxes of a page that have a label, in order.

    Raises:
        ValueError: one has none, so that nothing could lead to it.
    """
    found: list[Box] = []
    for match in BOX.finditer(text):
        kind, title, body = match["kind"], match["title"].strip(), match["body"]
        if kind == "proof" and found:
            found[-1] = Box(**{**vars(found[-1]), "proved": True})
        elif kind in KINDS:
            label = LABEL.search(body)
            if label is None:
                raise ValueError(f"the {kind} {title!r} has no label")
            statement = FORMULA.sub("$$", LABEL.sub("", body)).strip()
            found.append(Box(label[1], kind, title, statement, proved=False))
    return found


def page(folder: str) -> Path:
    """A chapter's text."""
    return ROOT / "chapters" / folder / "index.md"


def questions() -> dict[str, list[str]]:
    """By label, the questions that it answers."""
    asked: dict[str, list[str]] = {}
    for question, label in tomllib.loads(QUESTIONS.read_text("utf-8")).items():
        asked.setdefault(label, []).append(question)
    return asked


class ResultsDirective(SphinxDirective):
    """``{results}``: a section for each written chapter."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(QUESTIONS))
        asked = questions()
        found: list[nodes.Node] = []
        for number, (name, title) in enumerate(TITLES.items(), 1):
            folder = folders().get(name)
            if folder is None or not page(folder).exists():
                continue
            self.env.note_dependency(str(page(folder)))
            text = page(folder).read_text("utf-8")
            section = nodes.section(ids=[f"results-{name}"], names=[], classes=["optlab-results"])
            section += nodes.title("", f"{number} {title}")
            lines = [entry(box, asked) for box in boxes(text)]
            lines += formulas(text, asked) + headings(name, folder, asked)
            self.state.nested_parse(
                StringList("\n\n".join(lines).splitlines(), source=str(QUESTIONS)),
                self.content_offset,
                section,
            )
            found.append(section)
        return found


def entry(box: Box, asked: dict[str, list[str]]) -> str:
    """A box: its number, title, proof, statement and questions."""
    title = f"**{{prf:ref}}`{box.label}`** {box.title}".rstrip()
    proof = f" · {{ref}}`proof <{proof_label(box.label)}>`" if box.proved else " · not proved here"
    asking = [answers(asked[box.label])] if box.label in asked else []
    parts = [title + proof, *asking, box.statement]
    return "\n\n".join(["::::{div} optlab-result", *parts, "::::"])


def answers(lines: list[str]) -> str:
    """Questions in a style of their own."""
    return f"[{' '.join(lines)}]{{.optlab-asked}}"


def formulas(text: str, asked: dict[str, list[str]]) -> list[str]:
    """A line for each formula outside of boxes that a question leads to."""
    labels = [match["label"] for match in FORMULA.finditer(text)]
    return [
        f"- Formula {{eq}}`{label}`: {answers(asked[label])}" for label in labels if label in asked
    ]


def headings(name: str, folder: str, asked: dict[str, list[str]]) -> list[str]:
    """A line for each heading that a question leads to."""
    return [
        f"- [](/chapters/{folder}/index.md#{label.partition('#')[2]}): {answers(lines)}"
        for label, lines in asked.items()
        if label.startswith(f"{name}#")
    ]


def proof_label(label: str) -> str:
    """What a box's proof is referred to by."""
    return f"proof-{label}"


def add_proofs(app: Sphinx, doctree: nodes.document) -> None:
    """Give each proof an anchor of its own, named after the box above it."""
    labels = app.env.get_domain("std").anonlabels
    last = None
    for node in doctree.findall(nodes.Element):
        if node.get("realtype") in KINDS:
            last = node["label"]
        elif isinstance(node, nodes.admonition) and "proof" in node["ids"] and last:
            name = proof_label(last)
            node["ids"] = [name]
            labels[name] = app.env.docname, name
            last = None
