"""``{chapter}``: a link to a chapter by name, or its name while it is not written."""

from docutils import nodes
from sphinx.util.docutils import SphinxRole

from book.extensions.claims import TITLES
from book.extensions.executed import folders


class ChapterRole(SphinxRole):
    """``{chapter}`momentum#a-ball-in-a-valley```: its number, and the heading or the title."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        try:
            text = chapter(self.text)
        except ValueError as error:
            return [], [self.inliner.reporter.error(str(error), line=self.lineno)]
        return self.inliner.parse(text, self.lineno, self.inliner, self.inliner.parent)


def chapter(where: str) -> str:
    """MyST that leads to a chapter, or to a heading in it.

    Raises:
        ValueError: there is no such chapter, and none is planned.
    """
    name, _, heading = where.partition("#")
    title = f"Chapter {number(name)}, {TITLES[name]}"
    if name not in folders():
        return title
    path = f"/chapters/{folders()[name]}/index.md"
    return f"Chapter {number(name)}, [](<{path}#{heading}>)" if heading else f"[{title}]({path})"


def number(name: str) -> int:
    """A chapter's number."""
    if name not in TITLES:
        raise ValueError(f"no chapter {name!r}: {', '.join(TITLES)}")
    return list(TITLES).index(name) + 1
