"""Fixtures: the book as `make book` builds it, served, and opened in a browser with no network.

``book`` is the built folder, ``site`` the address it is served on, and ``page`` opens pages:

    def test_title(page):
        tab = page("book/preface.html", width=375, color_scheme="dark")
        assert tab.title()

A test that used ``page`` fails if a page asked another host for anything, logged an error to the
console or raised one.
"""

import importlib.util
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from book.extensions import HTML, ROOT
from book.extensions.build import server

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def _browser_module() -> Any:
    spec = importlib.util.spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def book() -> Path:
    """The book's HTML folder, up to date; built apart, where no test has patched anything."""
    command = [sys.executable, "-m", "book.extensions.build"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return HTML


@pytest.fixture(scope="session")
def site(book: Path) -> Iterator[str]:
    """The address of the served book, with a slash at its end."""
    with server(book, port=0) as serving:
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}/"
        serving.shutdown()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless browser."""
    from playwright.sync_api import sync_playwright

    browser = _browser_module()
    path = browser.find()
    if path is None:
        pytest.fail(browser.HOW, pytrace=False)
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=ARGUMENTS)


@pytest.fixture
def page(site: str, chromium: Any) -> Iterator[Callable[..., Any]]:
    """Open a page of the book: ``page("book/preface.html", width=375, color_scheme="dark")``.

    Other keywords are those of Playwright's ``new_context``.  The page comes loaded, with its
    mathematics typeset.
    """
    troubles: list[str] = []
    contexts = []

    def check(route: Any) -> None:
        if route.request.url.startswith(site):
            route.continue_()
        else:
            troubles.append(f"asked for {route.request.url}")
            route.abort()

    def open_page(path: str, *, width: int = 1280, height: int = 900, **options: Any) -> Any:
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        context.route("**/*", check)
        context.route_web_socket(
            re.compile(".*"), lambda socket: troubles.append(f"opened {socket.url}")
        )
        tab = context.new_page()
        tab.on("pageerror", lambda error: troubles.append(f"{path}: {error}"))
        tab.on(
            "console",
            lambda message: message.type == "error" and troubles.append(f"{path}: {message.text}"),
        )
        tab.goto(site + path, wait_until="load")
        tab.wait_for_selector("meta[http-equiv=refresh]", state="detached")  # index.html's
        tab.evaluate("() => window.MathJax?.startup?.promise?.then(() => null)")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert not troubles, "\n".join(troubles)
