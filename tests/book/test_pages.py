"""Every page of the book, opened in a browser that reaches nothing but the book."""

import pytest

from book.extensions import ROOT


def pages() -> list[str]:
    from sphinx_external_toc.parsing import parse_toc_yaml

    names = parse_toc_yaml(ROOT / "_toc.yml").keys()
    return [f"{name.removesuffix('.md').removesuffix('.ipynb')}.html" for name in names]


SCROLLING_LISTINGS = """() => [
  ...document.querySelectorAll('.cell_input pre, .literal-block-wrapper pre')
].filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent)"""

OTHERS = ["index.html", "genindex.html", "search.html"]


@pytest.mark.parametrize("path", OTHERS)
def test_other_pages_open(page, path):
    page(path).wait_for_function("document.title")  # index.html leads on to another


@pytest.mark.parametrize("path", pages())
@pytest.mark.parametrize("width", [375, 1280])
def test_page(page, path, width):
    """It opens by itself, its mathematics is typeset, and nothing makes it scroll sideways."""
    tab = page(path, width=width)
    assert tab.title()
    assert tab.locator("mjx-container").count() >= tab.locator(".math").count()
    assert tab.locator("mjx-merror").count() == 0
    wide = tab.evaluate("document.scrollingElement.scrollWidth")
    culprits = tab.evaluate(
        """width => [...document.querySelectorAll('.bd-article *')].filter(
             e => e.getBoundingClientRect().right > width + 1).slice(0, 3)
             .map(e => e.outerHTML.slice(0, 200))""",
        width,
    )
    assert wide <= width, culprits
    if width == 1280:
        assert tab.evaluate(SCROLLING_LISTINGS) == []


def test_mathematics_has_the_books_fonts(page):
    tab = page("book/preface.html")
    assert tab.locator("mjx-container").count() > 10
    loaded = tab.evaluate(
        "async () => { await document.fonts.ready;"
        " return [...document.fonts].filter(f => f.status == 'loaded').map(f => f.family) }"
    )
    assert any("MJXTEX" in family for family in loaded)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_follows_the_readers_colour_scheme(page, scheme):
    tab = page("book/preface.html", color_scheme=scheme)
    colour = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    numbers = [int(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    assert (sum(numbers) > 384) == (scheme == "light")


def test_widget_scripts_come_only_with_widgets(book):
    for path in pages():
        text = (book / path).read_text("utf-8")
        has_widget = "application/vnd.jupyter.widget-view+json" in text
        assert ("vendor/require.js" in text) == has_widget, path
