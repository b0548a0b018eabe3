"""``{methods}`` and ``{cards}``: a table of all methods, and a card for each.

Both write MyST from ``book/methods.toml`` and from what the package, the claims' records and the
benchmarks say, and have it parsed where the directive stands.
"""

import json

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from book.extensions import CLAIMS, methods
from book.extensions.chapter import chapter, number
from book.extensions.claims import anchor, texts
from book.extensions.executed import folders
from book.extensions.methods import Measured, Method, Row


class MethodsDirective(SphinxDirective):
    """``{methods}``: the opening table."""

    def run(self) -> list[nodes.Node]:
        found = nodes.container(classes=["optlab-methods"])
        self.parse(table(self.load()), found)
        return [found]

    def load(self) -> dict[str, Method]:
        """The source; the page depends on it and on all that is derived."""
        for path in methods.files():
            self.env.note_dependency(str(path))
        try:
            return methods.load()
        except methods.MethodsError as error:
            raise self.error(str(error)) from None

    def parse(self, text: str, into: nodes.Element) -> None:
        """Parse MyST into a node."""
        lines = StringList(text.splitlines(), source=str(methods.METHODS))
        self.state.nested_parse(lines, self.content_offset, into)


class CardsDirective(MethodsDirective):
    """``{cards}``: a section for each method."""

    def run(self) -> list[nodes.Node]:
        found: list[nodes.Node] = []
        records = json.loads(CLAIMS.read_text("utf-8")) if CLAIMS.exists() else []
        recorded = {record["id"] for record in records}
        for name, method in self.load().items():
            section = nodes.section(names=[label(name)], classes=["optlab-card"])
            self.state.document.note_explicit_target(section)
            section += nodes.title(name, name)
            self.parse(card(method, recorded), section)
            found.append(section)
        return found


def label(name: str) -> str:
    """What a method's card is referred to by."""
    return f"method-{name.lower()}"


def measured(method: Method) -> dict[str, Measured]:
    """What was measured of each of a method's settings, by the setting's name."""
    chosen = method.settings or {method.name: {}}
    return {name: methods.measure(method.name, given) for name, given in chosen.items()}


def table(found: dict[str, Method]) -> str:
    """All methods, a line each."""
    lines = ["| method | state | chapter | paper |", "|---|---|---|---|"]
    for name, method in found.items():
        floats = [f"{sum(one.state.values()):.3g}" for one in measured(method).values()]
        chapters = ", ".join(short(where) for where in method.where)
        first = f"{{ref}}`{name} <{label(name)}>`"
        paper = f"{{cite:t}}`{method.papers[0]}`"
        lines.append(f"| {first} | {' to '.join(ends(floats))} | {chapters} | {paper} |")
    return "\n".join(lines)


def short(where: str) -> str:
    """A chapter's number, with a link where there is one."""
    name, _, heading = where.partition("#")
    if name not in folders():
        return f"{number(name)}"
    return f"[{number(name)}](/chapters/{folders()[name]}/index.md{'#' * bool(heading)}{heading})"


def ends(values: list[str]) -> list[str]:
    """The least and the greatest, or the only one."""
    ordered = sorted(set(values), key=float)
    return ordered if len(ordered) == 1 else [ordered[0], ordered[-1]]


def card(method: Method, recorded: set[str]) -> str:
    """A method's card: what it is, its listings, and what is known of it."""
    found = measured(method)
    facts = {
        "State": state(method, found),
        "Cost of a step": cost(method, found),
        "Defaults": ", ".join(
            f"`{key}={value!r}`" for key, value in methods.defaults(method.name).items()
        ),
        "Typical values": method.typical,
        "When to use it": method.use,
        "When not": method.avoid,
        "Measured here": "\n".join(claimed(method, recorded) + barred(method)),
        "Explained in": "; ".join(map(chapter, method.where)),
        "Paper": f"{{cite:t}}`{','.join(method.papers)}`",
        "In the package": f"{{py:class}}`~{methods.path(method.name)}`",
    }
    items = [f"{term}\n: {indent(text)}" for term, text in facts.items() if text]
    first, *others = methods.listings(method)
    parts = [methods.summary(method.name), f"$$\n{method.equation.strip()}\n$$", listing(first)]
    if others:
        names = ", ".join(f"`{place.rpartition('.')[2]}`" for place in others)
        parts += [f"::::{{dropdown}} {names}", *map(listing, others), "::::"]
    return "\n\n".join([*parts, *items])


def listing(place: str) -> str:
    """The directive for a function of the package."""
    module, _, name = place.rpartition(".")
    return f"```{{rule}} {name}\n:module: {module}\n```"


def indent(text: str) -> str:
    """Text as a definition's, its later lines indented."""
    return text.replace("\n", "\n  ")


def under(method: Method, setting: str) -> str:
    """What to say before a setting's figures, where a method has several."""
    if not method.settings:
        return ""
    given = ", ".join(f"`{key}={value!r}`" for key, value in method.settings[setting].items())
    return f"with {given}: " if given else "by default: "


def state(method: Method, found: dict[str, Measured]) -> str:
    """What is kept between steps, of each setting."""
    lines = []
    for name, one in found.items():
        total = sum(one.state.values())
        parts = ", ".join(
            kept if share == 1 else f"{kept} {share:.2f}" for kept, share in one.state.items()
        )
        text = f"{total:.3g} for each parameter: {parts}" if one.state else "nothing"
        if one.numbers:
            text += f"; for each tensor {', '.join(f'`{key}`' for key in one.numbers)}"
        lines.append(under(method, name) + text)
    text = bullets(lines)
    if any(share != 1 for one in found.values() for share in one.state.values()):
        width = methods.WIDTH
        text += f"\n\nThat is for a layer of {width} inputs and outputs; it varies with the shape."
    return text


def bullets(lines: list[str]) -> str:
    """A list, unless there is but one line."""
    return lines[0] if len(lines) == 1 else "\n".join(f"- {line}" for line in lines)


def cost(method: Method, found: dict[str, Measured]) -> str:
    """Arithmetic and memory traffic of a step, and its time where that was measured."""
    if method.cost:
        return method.cost
    lines = []
    for name, one in found.items():
        kept = round(sum(one.state.values()))
        text = f"{one.operations} operation{'s' * (one.operations != 1)} on each weight, "
        text += f"{2 + kept} numbers read and {1 + kept} written"
        lines.append(under(method, name) + text + timed(name))
    rows = [row for name in found for row in methods.timings(name).values()]
    note = f"Times are of ResNet-18, 11.7 million parameters: {machine(rows[0])}." if rows else ""
    return f"{bullets(lines)}\n\n{note}"


def timed(name: str) -> str:
    """A setting's time, and beside torch's."""
    parts = []
    for kind, row in sorted(methods.timings(name).items(), reverse=True):
        title = "as it is" if kind == "default" else kind
        parts.append(
            f"{row['ours']:.3g} ms {title} ({row['value']:.2f} of torch's {row['against']})"
        )
    return "; " + ", ".join(parts) if parts else ""


def machine(row: Row) -> str:
    """Where and when a row was measured."""
    return f"{row['hardware']}, {row['date']}"


def claimed(method: Method, recorded: set[str]) -> list[str]:
    """A line for each claim, with a link to the cell that measures it."""
    every = {id: text for chapter in texts().values() for id, text in chapter.items()}
    lines = []
    for id in method.claims:
        link = f"{{ref}}`{id} <{anchor(id)}>`" if id in recorded else f"{id} (not measured yet)"
        lines.append(f"- {link}: {every[id]}")
    return lines


def barred(method: Method) -> list[str]:
    """A line for each row of the benchmarks: on agreement with torch, and what the source names."""
    lines = []
    for row in methods.agreement(method.name) + [methods.rows()[bar] for bar in method.bars]:
        text = f"- {row['bar'][0].upper()}{row['bar'][1:]}: {row['value']:.3g}"
        if row["limit"] is not None:
            text += f", where {row['limit']:.3g} was aimed at" + ", missed" * (not row["holds"])
        lines.append(f"{text} ({machine(row)}).")
    return lines
