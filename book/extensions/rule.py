"""``{rule}``: a listing taken from optlab's source, so that the page shows what runs."""

import ast
import importlib.util
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective


class RuleDirective(SphinxDirective):
    """A function or class of optlab, without its docstring, with a link to its API page.

    The argument is a name in ``optlab.rules``, or in another module with ``:module:``.
    """

    required_arguments = 1
    option_spec: ClassVar = {"module": directives.unchanged, "name": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        module = f"optlab.{self.options.get('module', 'rules')}"
        path = source(module)
        self.env.note_dependency(str(path))
        try:
            code = listing(path.read_text("utf-8"), name)
        except KeyError:
            raise self.error(f"{module} has no function or class {name!r}") from None
        block = nodes.literal_block(code, code, language="python")
        block["classes"].append("optlab-listing")
        self.set_source_info(block)
        caption = nodes.caption("", "", self._link(module, name), nodes.Text(" in "))
        caption += nodes.literal(text=f"{module.replace('.', '/')}.py")
        wrapper = nodes.container("", caption, block, literal_block=True)
        wrapper["classes"].append("literal-block-wrapper")
        self.set_source_info(wrapper)
        self.add_name(wrapper)
        return [wrapper]

    def _link(self, module: str, name: str) -> addnodes.pending_xref:
        link = addnodes.pending_xref(
            "",
            nodes.literal(text=name),
            refdomain="py",
            reftype="obj",
            reftarget=f"{module}.{name}",
            refdoc=self.env.docname,
            refexplicit=True,
            refwarn=True,
        )
        self.set_source_info(link)
        return link


def source(module: str) -> Path:
    """The file of a module, found without importing it."""
    package, _, name = module.partition(".")
    spec = importlib.util.find_spec(package)
    folder = Path(next(iter(spec.submodule_search_locations)))
    return folder / f"{name.replace('.', '/')}.py"


def listing(text: str, name: str) -> str:
    """The lines of a top-level function or class, decorators and all, but no docstring.

    Raises:
        KeyError: there is no such definition.
    """
    for node in ast.parse(text).body:
        if getattr(node, "name", None) == name:
            lines = text.splitlines()
            first = min([node.lineno, *(mark.lineno for mark in node.decorator_list)])
            drop: set[int] = set()
            if ast.get_docstring(node) is not None:
                doc = node.body[0]
                last = doc.end_lineno
                if last < node.end_lineno and not lines[last].strip():
                    last += 1  # and the empty line below it
                drop = set(range(doc.lineno, last + 1))
            numbers = range(first, node.end_lineno + 1)
            return "\n".join(lines[n - 1] for n in numbers if n not in drop)
    raise KeyError(name)
