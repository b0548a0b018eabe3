"""The book's Sphinx extension: directives, served scripts, and what makes a page stale."""

import filecmp
from pathlib import Path
from typing import Any

import nbformat
from myst_nb.sphinx_ import NbMetadataCollector
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment

from book.extensions import ROOT, VENDOR, assets
from book.extensions.cards import CardsDirective, MethodsDirective
from book.extensions.chapter import ChapterRole
from book.extensions.claims import ClaimsDirective, add_anchors
from book.extensions.executed import notebooks, stored
from book.extensions.measured import MeasuredDirective
from book.extensions.results import ResultsDirective, add_proofs
from book.extensions.rule import RuleDirective

#: In this order, and after all others: RequireJS changes how some scripts that follow it load.
SCRIPTS = ("widget-setup.js", "vendor/require.js", "vendor/embed-amd.js")


def hide_buttons(app: Sphinx, config: Config) -> None:
    """Leave out the buttons that need the repository's address while there is none."""
    options = config.html_theme_options
    known = bool(options.get("repository_url"))
    for name in ("repository", "issues", "edit_page"):
        options[f"use_{name}_button"] = known
    if not known:
        options.pop("repository_url", None)
        options["launch_buttons"] = {}


def static_changed(copies: Path) -> bool:
    """Whether a file in book/static differs from the built book's copy of it.

    Sphinx copies them only when it has a page to write.
    """
    static = ROOT / "book" / "static"
    files = [path for path in static.iterdir() if path.is_file()]
    files.append(VENDOR / assets.MARK)
    pairs = [(path, copies / path.relative_to(static)) for path in files]
    return not all(there.exists() and filecmp.cmp(here, there) for here, there in pairs)


def find_stale(app: Sphinx, env: BuildEnvironment, added: set, changed: set, removed: set) -> list:
    """The pages of notebooks with other outputs than shown; all pages, if a served file changed."""
    if static_changed(Path(app.outdir) / "_static"):
        return list(env.all_docs)
    before: dict[str, str] = getattr(env, "optlab_outputs", {})
    now = {}
    for path in notebooks():
        name = path.relative_to(ROOT).with_suffix("").as_posix()
        now[name] = stored(nbformat.read(path, as_version=4)).name
    env.optlab_outputs = now
    return [name for name in now if name in env.all_docs and before.get(name) != now[name]]


def add_widgets(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Load the widget manager, from the book's own files, on pages that hold widgets."""
    if "ipywidgets_state" in NbMetadataCollector.get_js_files(app.env, page):
        for number, script in enumerate(SCRIPTS):
            app.add_js_file(script, priority=900 + number, defer="defer")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register everything with Sphinx."""
    # Jupyter Book sets it for an extension that the book does without.
    app.add_config_value("comments_config", {}, "")
    app.add_directive("rule", RuleDirective)
    app.add_directive("claims", ClaimsDirective)
    app.add_directive("measured", MeasuredDirective)
    app.add_directive("methods", MethodsDirective)
    app.add_directive("cards", CardsDirective)
    app.add_directive("results", ResultsDirective)
    app.add_role("chapter", ChapterRole())
    app.add_css_file("book.css")
    app.connect("config-inited", hide_buttons, priority=100)
    app.connect("env-get-outdated", find_stale)
    app.connect("doctree-read", add_anchors)
    app.connect("doctree-read", add_proofs)
    app.connect("html-page-context", add_widgets)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
