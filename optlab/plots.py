"""Plots: one style for every figure, drawn once and readable on light and dark pages.

A figure is one panel; :func:`show` puts panels side by side where the page is wide and below
one another on a phone.  Figures are inline SVG whose ink follows the page's text colour, so
the same output serves the book in both themes, JupyterLab and Colab.
"""

import html
import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from IPython.display import HTML, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from optlab.landscapes import Landscape

#: Colour-blind safe after Okabe and Ito (2008), *Color universal design*: on light, on dark.
COLOURS = {
    "blue": ("#0072b2", "#56b4e9"),
    "orange": ("#c95400", "#f0a03c"),
    "green": ("#008060", "#2fc79b"),
    "purple": ("#a34a86", "#e09ccc"),
    "ink": ("#1b1b1c", "currentColor"),
}
BLUE, ORANGE, GREEN, PURPLE, INK = (light for light, _ in COLOURS.values())
#: The same method has the same colour in every figure.
METHOD = {"sgd": PURPLE, "momentum": BLUE, "nesterov": ORANGE}

STYLE: Any = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.prop_cycle": cycler(color=[BLUE, ORANGE, GREEN, PURPLE]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "font.size": 11,
    "grid.alpha": 0.15,
    "grid.color": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "optlab",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}

_CSS = (
    ".optlab-figure {{ display: flex; flex-wrap: wrap; gap: 0.5rem 1rem; margin: 1rem 0;"
    " background: none; }}"
    " .optlab-figure svg {{ flex: 1 1 20rem; min-width: 0; max-width: 31rem; height: auto;"
    " background: none; fill: currentColor; {light} }}"
    ' html[data-theme="dark"] .optlab-figure svg,'
    ' body[data-jp-theme-light="false"] .optlab-figure svg,'
    " html[theme=dark] .optlab-figure svg {{ {dark} }}"
).format(
    light="; ".join(
        f"--optlab-{name}: {light}" for name, (light, _) in COLOURS.items() if name != "ink"
    ),
    dark="; ".join(
        f"--optlab-{name}: {dark}" for name, (_, dark) in COLOURS.items() if name != "ink"
    ),
)


def panel(
    title: str = "",
    *,
    xlabel: str = "",
    ylabel: str = "",
    size: tuple[float, float] = (4.8, 3.5),
) -> Axes:
    """An empty panel; ``size`` is width and height in inches.  Draw on it, then :func:`show`."""
    with matplotlib.rc_context(STYLE):
        axes = Figure(figsize=size, layout="constrained").add_subplot()
        axes.set_title(title)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.grid(True)
    return axes


def contours(axes: Axes, scene: Landscape, levels: int = 9) -> None:
    """Draw a 2-D landscape's level lines, evenly spaced in the root of the height.

    Raises:
        ValueError: the landscape is not of two coordinates.
    """
    if len(scene.start) != 2:
        raise ValueError(f"scene must have 2 coordinates, {scene.name!r} has {len(scene.start)}")
    (left, right), (low, high) = scene.view
    x, y = np.meshgrid(np.linspace(left, right, 200), np.linspace(low, high, 200))
    height = np.asarray(scene.value(x, y))
    least = height.min()
    roots = np.linspace(0, (height.max() - least) ** 0.5, levels + 1)[1:]
    axes.grid(False)
    axes.contour(x, y, height, levels=least + roots**2, colors=INK, alpha=0.25, linewidths=0.8)
    axes.plot(*scene.minimum, "+", color=INK, markersize=10)
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
    axes.locator_params(nbins=6)


def label(
    axes: Axes,
    text: str,
    at: tuple[float, float],
    color: str,
    *,
    align: str = "left",
    to: tuple[float, float] | None = None,
) -> None:
    """Write a direct label at data coordinates ``at``, with a leader line ``to`` what it names."""
    leader = {"arrowstyle": "-", "color": color, "lw": 0.8, "shrinkA": 1, "shrinkB": 0}
    where = {"xy": at} if to is None else {"xy": to, "xytext": at, "arrowprops": leader}
    axes.annotate(
        text,
        color=color,
        fontsize=STYLE["font.size"],
        ha=align,
        va="center",
        annotation_clip=False,
        **where,
    )


def show(*panels: Axes, alt: str | Sequence[str], name: str = "") -> None:
    """Display panels as one figure.

    Args:
        panels: from :func:`panel`.
        alt: what each panel shows, for those who cannot see it; one text per panel.
        name: by which the chapter's prose finds the figure, unique in its notebook.

    Raises:
        ValueError: an empty text, or not as many texts as panels.
    """
    texts = [alt] if isinstance(alt, str) else list(alt)
    if not panels:
        raise ValueError("panels must be one at least, got none")
    if len(texts) != len(panels) or not all(text.strip() for text in texts):
        raise ValueError(f"alt must hold one text for each of {len(panels)} panels, got {texts!r}")
    pictures = "".join(_svg(axes, text) for axes, text in zip(panels, texts, strict=True))
    mark = f' data-name="{html.escape(name)}"' if name else ""
    display(HTML(f'<style>{_CSS}</style><div class="optlab-figure"{mark}>{pictures}</div>'))


def _svg(axes: Axes, alt: str) -> str:
    """The panel as an ``<svg>`` element whose colours are the page's."""
    file = io.StringIO()
    figure: Any = axes.get_figure(root=True)
    with matplotlib.rc_context(STYLE):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<[^>]*>", lambda tag: _for_the_page(tag[0]), text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(alt)}" ', 1)


def _for_the_page(tag: str) -> str:
    """A tag of a figure with the page's colours and font, and no more digits than one can see."""
    if tag.startswith("<g id="):  # names that would stand twice on a page, and serve nothing
        return "<g>"
    for name, (light, _) in COLOURS.items():
        tag = tag.replace(light, "currentColor" if name == "ink" else f"var(--optlab-{name})")
    tag = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", tag)
    return re.sub(
        r' (?:d|x|y|transform)="[^"]*"', lambda it: re.sub(r"(\.\d\d)\d+", r"\1", it[0]), tag
    )
