"""Figures: inline SVG that takes the page's colours and says what it shows."""

import re
import xml.etree.ElementTree as ET

import pytest

from optlab import plots
from optlab.landscapes import LANDSCAPES


@pytest.fixture
def shown(monkeypatch):
    """The HTML that show() displays."""
    pages = []
    monkeypatch.setattr(plots, "display", lambda page: pages.append(page.data))
    return pages


def pictures(page):
    return [ET.fromstring(text) for text in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def line_panel():
    axes = plots.panel("A title", xlabel="step", ylabel="η")
    axes.plot([0.123456, 1], [0.123456, 2])
    return axes


def test_a_panel_is_an_image_with_its_text_for_those_who_cannot_see(shown):
    plots.show(line_panel(), line_panel(), alt=["a <rising> line", "another"])
    one, other = pictures(shown[0])
    assert one.get("role") == "img" and one.get("aria-label") == "a <rising> line"
    assert other.get("aria-label") == "another"


def test_colours_are_the_pages(shown):
    plots.show(line_panel(), alt="a line")
    svg = re.search(r"<svg.*</svg>", shown[0], re.DOTALL)[0]
    assert "var(--optlab-blue)" in svg and "currentColor" in svg
    left = set(re.findall(r"#[0-9a-f]{6}\b", svg)) - {"#ffffff"}
    assert not left, f"fixed colours {left}"


def test_words_are_not_recoloured_and_no_id_stands_twice(shown):
    axes = line_panel()
    axes.set_title("what #0072b2 is")
    plots.show(axes, line_panel(), alt=["one", "two"])
    assert "what #0072b2 is" in shown[0]
    ids = re.findall(r'<g id="[^"]*"', shown[0])
    assert ids == []


def test_a_label_has_the_size_of_the_style(shown):
    axes = line_panel()
    plots.label(axes, "here", (0.5, 1), plots.BLUE)
    plots.show(axes, alt="a line")
    assert re.search(r"font(-size)?: 11px[^>]*>here<", shown[0])


def test_text_stays_text_and_its_digits(shown):
    axes = line_panel()
    axes.set_xticks([0.125, 0.375])
    plots.show(axes, alt="a line")
    words = {"".join(node.itertext()).strip() for node in pictures(shown[0])[0].iter()}
    assert {"A title", "step", "η", "0.125", "0.375"} <= words
    assert not re.search(r' d="[^"]*\.\d{4}', shown[0]), "coordinates carry useless digits"


@pytest.mark.parametrize("name", [n for n, s in LANDSCAPES.items() if len(s.start) == 2])
def test_contours_of_every_landscape(shown, name):
    axes = plots.panel()
    plots.contours(axes, LANDSCAPES[name])
    plots.label(axes, "there", (0, 0), plots.BLUE, to=(1, 1))
    plots.show(axes, alt="level lines", name=name)
    assert f'data-name="{name}"' in shown[0]


@pytest.mark.parametrize("alt", ["", " ", ["one"], ["one", "two", "three"], ["one", ""]])
def test_every_panel_needs_a_text(shown, alt):
    with pytest.raises(ValueError, match="one text for each of 2 panels"):
        plots.show(line_panel(), line_panel(), alt=alt)
    assert not shown


def test_no_panel_and_a_line_for_a_map_are_refused():
    with pytest.raises(ValueError, match="panels must be one at least"):
        plots.show(alt=[])
    with pytest.raises(ValueError, match="scene must have 2 coordinates, 'bend' has 1"):
        plots.contours(plots.panel(), LANDSCAPES["bend"])


def contrast(one, other):
    """WCAG 2 contrast ratio of two colours."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        lin = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * lin[0] + 0.7152 * lin[1] + 0.0722 * lin[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", [name for name in plots.COLOURS if name != "ink"])
def test_colours_are_readable_on_both_grounds(name):
    light, dark = plots.COLOURS[name]
    assert contrast(light, "#ffffff") >= 4.0
    assert contrast(dark, "#121212") >= 4.5
