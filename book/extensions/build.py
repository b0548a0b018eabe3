"""Build the book: served files, stale notebooks, pages; then serve it, with ``--serve``.

    python -m book.extensions.build [--serve]

The steps are safe to interrupt: each leaves its results whole or not at all.
"""

import argparse
import contextlib
import http.server
import shutil
import sys
import time
from functools import partial
from pathlib import Path

from filelock import FileLock

from book.extensions import BUILD, HTML, ROOT

PORT = 8000
REDIRECT = '<!doctype html><meta charset="utf-8"><title>{title}</title>\n' + (
    '<meta http-equiv="refresh" content="0; url={page}"><a href="{page}">{title}</a>\n'
)


class BuildError(Exception):
    """The book cannot be built; the message says why."""


def build() -> Path:
    """Bring ``_build/html`` up to date and return it.

    Raises:
        BuildError: npm, a notebook or Sphinx failed.
    """
    BUILD.mkdir(exist_ok=True)
    with FileLock(BUILD / ".lock"):
        return _build()


def _build() -> Path:
    from book.extensions import assets, claims, executed

    try:
        if assets.fetch():
            _say("Fetched the scripts that the pages serve.")
        ran = executed.run_stale()
    except (assets.AssetsError, executed.NotebookError) as error:
        raise BuildError(str(error)) from None
    _say(f"Executed {ran} notebook{'s' * (ran != 1)}; the others' results are at hand.")
    claims.write()
    _sphinx()
    return HTML


def _sphinx() -> None:
    from jupyter_book.sphinx import build_sphinx

    doctrees = BUILD / ".doctrees"
    # Sphinx tells warnings once and writes pages in place: after a build that did not end well,
    # only a fresh one is to be trusted.
    unfinished = BUILD / ".unfinished"
    if unfinished.exists():
        for folder in (doctrees, HTML):
            shutil.rmtree(folder, ignore_errors=True)
    unfinished.touch()
    result = build_sphinx(
        ROOT,
        HTML,
        noconfig=True,
        path_config=ROOT / "_config.yml",
        confoverrides={
            "external_toc_path": str(ROOT / "_toc.yml"),
            "latex_individualpages": False,
            "nitpicky": True,
        },
        doctreedir=doctrees,
        warningiserror=True,
        keep_going=True,
        quiet=True,
    )
    if isinstance(result, KeyboardInterrupt):
        raise result
    if result:
        raise BuildError("Sphinx could not build the book without warnings: see above.")
    page = _home()
    (HTML / "index.html").write_text(REDIRECT.format(page=page, title="The book"), "utf-8")
    unfinished.unlink()


def _home() -> str:
    from sphinx_external_toc.parsing import parse_toc_yaml

    return f"{parse_toc_yaml(ROOT / '_toc.yml').root.docname}.html"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files, and no line per request."""

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def end_headers(self) -> None:
        """Have browsers ask again: a page may have been rebuilt."""
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()


def server(folder: Path, port: int = PORT) -> http.server.ThreadingHTTPServer:
    """A server of the folder on this machine alone, on a free port if the given one is taken."""
    handler = partial(Handler, directory=str(folder))
    try:
        return http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError:
        return http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)


def _say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Build the book, and serve it.")
    parser.add_argument("--serve", action="store_true", help="serve the book when it is built")
    options = parser.parse_args()
    began = time.perf_counter()
    try:
        build()
    except BuildError as error:
        sys.exit(f"\nThe book was not built.\n\n{error}\n")
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; what was finished is kept, and the next build goes on from there.")
    _say(f"Built {HTML.relative_to(ROOT)} in {time.perf_counter() - began:.1f} s.")
    if options.serve:
        with server(HTML) as serving, contextlib.suppress(KeyboardInterrupt):
            _say(f"Serving the book on http://127.0.0.1:{serving.server_port}/ (Ctrl-C stops it).")
            serving.serve_forever()


if __name__ == "__main__":
    main()
