"""``{measured}``: a figure from an executed notebook, so that prose shows what was measured."""

from pathlib import Path

import nbformat
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from book.extensions.executed import outputs, stored


class MeasuredDirective(SphinxDirective):
    """The figure that a notebook shows with ``plots.show(..., name=NAME)``, with a caption.

    The argument is ``NOTEBOOK#NAME``, the notebook being beside the page, without its suffix.
    """

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        notebook, _, name = self.arguments[0].partition("#")
        path = Path(self.env.doc2path(self.env.docname)).parent / f"{notebook}.ipynb"
        if not path.exists():
            raise self.error(f"there is no notebook {notebook!r} beside this page")
        # The store's file goes when the notebook must run again, which makes this page stale.
        self.env.note_dependency(str(stored(nbformat.read(path, as_version=4))))
        mark = f'data-name="{name}"'
        found = [
            output["data"]["text/html"]
            for _, output in outputs(path)
            if mark in "".join(output.get("data", {}).get("text/html", ""))
        ]
        if len(found) != 1:
            raise self.error(f"{notebook} shows {len(found)} figures named {name!r}, not one")
        figure = nodes.container(classes=["optlab-measured"])
        figure += nodes.raw("", "".join(found[0]), format="html")
        caption = nodes.container(classes=["optlab-caption"])
        self.state.nested_parse(self.content, self.content_offset, caption)
        figure += caption
        self.set_source_info(figure)
        return [figure]
