"""The playground on the built page: no kernel, no network, a mouse, a keyboard and a phone.

The fixture ``page`` fails a test on any error in the console and on any request that leaves.
"""

import contextlib
import json
import math
import os
import re
import socket
import subprocess
import sys
import time
from itertools import pairwise

import nbformat
import pytest

from optlab.descent import descend
from optlab.landscapes import landscape

PAGE = "chapters/03-momentum/03-playground.html"
QUESTIONS = 5
WEIGHT = 400_000
PICTURES = ["Path of", "against step on a log scale", "Plane of learning rate and momentum"]
#: Each question's landscape and goal, in the page's order, and settings that reach it.
ANSWERS = [
    ("ellipse", 0.14, {"rule": "sgd", "lr": 0.0198}),
    ("ellipse", 1e-6, {"rule": "momentum", "lr": 0.0331, "beta": 0.69}),
    ("ellipse", 0.01, {"rule": "momentum", "lr": 0.03, "beta": 0.7}),
    ("ellipse", 1e-4, {"rule": "nesterov", "lr": 0.0133, "beta": 0.793}),
    ("bend", 1e-6, {"rule": "nesterov", "lr": 0.04, "beta": 0.667}),
]

#: What a reader sees of one widget: what moves in the pictures, and the text.
SEEN = """(box) => ({
  pictures: [...box.querySelectorAll(".optlab-picture > svg")].map((svg) => svg.innerHTML),
  labels: [...box.querySelectorAll(".optlab-picture > svg")].map((svg) => svg.ariaLabel),
  text: box.querySelector("[role=status]").innerText,
  state: box.querySelector("[role=status]").dataset.state,
  words: [...box.querySelectorAll("[role=slider]")].map((handle) => handle.ariaValueText),
})"""

#: Press a key so many times on a handle, and collect what the pictures show after each.
PRESSES = """([handle, key, count]) => {
  const picture = handle.closest(".optlab-play").querySelector(".optlab-view");
  const seen = [];
  for (let i = 0; i < count; i++) {
    const event = new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true });
    handle.dispatchEvent(event);
    seen.push([...picture.querySelectorAll("svg svg")].map((pen) => pen.innerHTML).join());
  }
  return seen;
}"""


@pytest.fixture
def tab(page):
    """The page, with every widget drawn."""
    return ready(page(PAGE))


def ready(tab):
    tab.wait_for_function(
        """(count) => document.querySelectorAll(".optlab-plane .here, .optlab-plane .cross").length
          >= count && [...document.querySelectorAll(".optlab-play")].every((box) =>
            [...box.querySelectorAll(".noUi-handle")].every((handle) => handle.ariaLabel))""",
        arg=QUESTIONS,
        timeout=30_000,
    )
    return tab


def boxes(tab):
    found = tab.query_selector_all(".optlab-play")
    assert len(found) == QUESTIONS
    return found


def handles(box):
    return box.query_selector_all("[role=slider]")


def seen(box):
    """What is seen once the words of the sliders have followed."""
    box.evaluate("() => new Promise((done) => setTimeout(done, 20))")
    return box.evaluate(SEEN)


def press(handle, key):
    handle.focus()
    handle.press(key)


def settings(tab):
    """The settings of every view, in the page's order."""
    text = tab.inner_text('script[type="application/vnd.jupyter.widget-state+json"]')
    models = json.loads(text)["state"].values()
    given = [model["state"]["settings"] for model in models if "settings" in model["state"]]
    order = [(scene, goal) for scene, goal, _ in ANSWERS]
    return sorted(given, key=lambda view: order.index((view["scene"], view["goal"])))


def error(scene, path):
    """The share of the start that is left after each step, as the page defines it."""
    scene = landscape(scene)
    if scene.name == "ellipse":
        left = [math.dist(point, scene.minimum) for point in path]
    else:
        left = [scene.value(*point) - scene.value(*scene.minimum) for point in path]
    return [value / left[0] for value in left]


def move_to(tab, handle, low, high, positions, value):
    """Go to the position nearest to a value, with keys alone; return the value there."""
    press(handle, "Home")
    count = round((value - low) / (high - low) * positions)
    tab.evaluate(PRESSES, [handle, "ArrowRight", count])
    return low + count * (high - low) / positions


def test_every_question_has_its_pictures_and_says_what_it_shows(tab):
    for box in boxes(tab):
        shown = seen(box)
        assert len(shown["labels"]) == 3
        for label, expected in zip(shown["labels"], PICTURES, strict=True):
            assert expected in label
        assert "after 100 steps the" in shown["text"]
        assert shown["state"] == "open"
        assert {svg.get_attribute("role") for svg in box.query_selector_all("figure > svg")} == {
            "img"
        }
        assert box.query_selector("[role=status]").get_attribute("aria-live") == "polite"
        names = [handle.get_attribute("aria-label") for handle in handles(box)]
        assert names == ["Learning rate η", "Momentum β"][: len(names)]
        assert all(handle.get_attribute("tabindex") == "0" for handle in handles(box))


def test_keys_move_every_slider_from_end_to_end(tab):
    for box in boxes(tab):
        for i, handle in enumerate(handles(box)):
            states = [seen(box)]  # the default
            for key in ("ArrowRight", "End", "ArrowLeft", "Home"):
                press(handle, key)
                states.append(seen(box))
            for before, after in pairwise(states):
                assert before["words"][i] != after["words"][i]
                assert before["text"] != after["text"]
                assert before["pictures"][0] != after["pictures"][0]
                assert before["pictures"][1] != after["pictures"][1]
                assert before["pictures"][2] != after["pictures"][2]
            assert all(state["state"] in ("open", "reached") for state in states)


def test_no_position_of_a_slider_is_dead(tab):
    for box, view in zip(boxes(tab), settings(tab), strict=True):
        for handle, name in zip(handles(box), ("lr", "beta"), strict=False):
            press(handle, "Home")
            pictures = tab.evaluate(PRESSES, [handle, "ArrowRight", view["positions"][name]])
            assert len(set(pictures)) == view["positions"][name]
            press(handle, "ArrowRight")  # at the end there is nowhere to go
            assert seen(box)["state"] in ("open", "reached")


def test_a_mouse_moves_every_slider(tab):
    for box in boxes(tab):
        for i, handle in enumerate(handles(box)):
            handle.scroll_into_view_if_needed()
            before = seen(box)
            at = handle.bounding_box()
            x, y = at["x"] + at["width"] / 2, at["y"] + at["height"] / 2
            tab.mouse.move(x, y)
            tab.mouse.down()
            tab.mouse.move(x + 25, y, steps=3)
            tab.mouse.up()
            after = seen(box)
            assert before["words"][i] != after["words"][i]
            assert before["text"] != after["text"]
            assert all(a != b for a, b in zip(before["pictures"], after["pictures"], strict=True))


def test_pointing_into_the_plane_moves_the_sliders(tab):
    for box in boxes(tab):
        before = seen(box)
        plane = box.query_selector(".optlab-plane")
        plane.scroll_into_view_if_needed()
        at = plane.bounding_box()
        tab.mouse.click(at["x"] + at["width"] * 0.4, at["y"] + at["height"] * 0.3)
        after = seen(box)
        assert all(a != b for a, b in zip(before["words"], after["words"], strict=True))
        shown = [node.inner_text() for node in box.query_selector_all(".widget-readout")]
        assert [float(text) for text in shown] == pytest.approx(
            [float(text) for text in after["words"]], rel=0.006
        )


def test_goals_are_reached_where_the_answers_say_and_python_agrees(tab):
    views = settings(tab)
    for box, view, (scene, goal, answer) in zip(boxes(tab), views, ANSWERS, strict=True):
        names = [name for name, _, _ in view["rules"]]
        if len(names) > 1:
            button = box.query_selector_all(".optlab-rule button")[names.index(answer["rule"])]
            button.click()
            seen(box)
            assert button.get_attribute("aria-pressed") == "true"
        lr, *beta = handles(box)
        low, high = map(math.log10, view["lr"])
        exponent = move_to(tab, lr, low, high, view["positions"]["lr"], math.log10(answer["lr"]))
        options = {"lr": 10**exponent}
        if beta:
            ends = [*view["beta"], view["positions"]["beta"]]
            options["beta"] = move_to(tab, beta[0], *ends, answer["beta"])
        shown = seen(box)
        assert shown["state"] == "reached", shown["text"]
        left = error(scene, descend(answer["rule"], scene, steps=125, **options))
        step = 1 + max(t for t, value in enumerate(left) if value > goal)
        assert f"Goal reached at step {step}." in shown["text"]
        assert share(shown["text"]) == pytest.approx(left[100], rel=0.06, abs=1e-300)
        press(lr, "End")
        assert seen(box)["state"] == "open"


def share(text):
    """The number in "the error is 1.7 × 10⁻⁸ of its start"."""
    mantissa, power = re.search(r"is ([\d.]*)(?:\s×\s)?(?:10(\S+))? of its start", text).groups()
    digits = (power or "⁰").translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))
    return float(mantissa or 1) * 10.0 ** int(digits)


def test_the_rule_is_chosen_with_a_key(tab):
    box = boxes(tab)[3]
    before = seen(box)
    assert before["text"].count("Nesterov, ") == 1
    box.query_selector_all(".optlab-rule button")[1].press("Enter")
    after = seen(box)
    assert after["text"].count("Heavy ball, ") == 1
    assert all(a != b for a, b in zip(before["pictures"], after["pictures"], strict=True))


@pytest.mark.parametrize("width", [320, 375])
def test_a_phone_shows_all_in_one_column(page, width):
    tab = ready(page(PAGE, width=width, height=812, has_touch=True))
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    for box in boxes(tab):
        lefts = set()
        for svg in box.query_selector_all("figure > svg"):
            at = svg.bounding_box()
            lefts.add(at["x"])
            assert at["x"] >= 0
            assert at["x"] + at["width"] <= width
        assert len(lefts) == 1
        assert box.evaluate("(box) => box.scrollWidth <= box.clientWidth")


#: The size on the screen of every text in the widgets, and the contrast against its paper.
TEXTS = """() => {
  const channel = (value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  };
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => 0.2126 * channel(rgb[0]) + 0.7152 * channel(rgb[1])
    + 0.0722 * channel(rgb[2]);
  const paper = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return light(colour);
    }
    return 1;
  };
  const nodes = document.querySelectorAll(".optlab-play text, .optlab-play figcaption, "
    + ".optlab-play .key, .optlab-play [role=status] *, .optlab-play .widget-label, "
    + ".optlab-play .widget-readout, .optlab-play p, .optlab-play button");
  return [...nodes].filter((node) => node.textContent.trim()).map((node) => {
    const style = getComputedStyle(node);
    const ink = light(numbers(node.tagName === "text" ? style.fill : style.color));
    const [low, high] = [ink, paper(node)].sort((a, b) => a - b);
    const scale = node.getCTM ? node.getCTM().d : 1;
    return [node.textContent, parseFloat(style.fontSize) * Math.abs(scale || 1),
      (high + 0.05) / (low + 0.05)];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_text_can_be_read(page, width, scheme):
    tab = ready(page(PAGE, width=width, color_scheme=scheme))
    assert tab.evaluate("document.documentElement.dataset.theme") == scheme
    texts = tab.evaluate(TEXTS)
    assert len(texts) > 100
    for text, size, contrast in texts:
        assert contrast >= 4.5, text
        if "rotate" not in text and size:
            assert size >= 11, text


def test_labels_of_axes_do_not_meet(tab):
    overlaps = tab.evaluate(
        """() => [...document.querySelectorAll(".optlab-picture > svg")].flatMap((svg) => {
          const texts = [...svg.querySelectorAll(":scope > text")].filter((t) => t.textContent);
          const boxes = texts.map((text) => text.getBoundingClientRect());
          return texts.flatMap((text, i) => texts.slice(i + 1).filter((_, k) => {
            const [a, b] = [boxes[i], boxes[i + 1 + k]];
            const [aTop, bTop] = [a.top + 4, b.top + 4]; // above the digits there is only room
            return a.left < b.right && b.left < a.right && aTop < b.bottom && bTop < a.bottom;
          }).map((other) => `${text.textContent} / ${other.textContent}`));
        })"""
    )
    assert overlaps == []


def test_a_failure_is_seen(site, chromium):
    """A view whose landscape is missing says so where its result would be, and in the console."""
    context = chromium.new_context()
    tab = context.new_page()
    raised = []
    tab.on("pageerror", lambda error: raised.append(str(error)))

    def spoil(route):
        response = route.fetch()
        body = response.text().replace('"scene": "bend"', '"scene": "gone"')
        route.fulfill(response=response, body=body)

    tab.route(f"**/{PAGE}", spoil)
    tab.goto(site + PAGE)
    status = tab.wait_for_selector('[role=status][data-state="error"]', timeout=30_000)
    assert "The picture could not be drawn. TypeError" in status.inner_text()
    assert len(raised) == 1
    context.close()


def test_the_page_is_light(book):
    path = book / PAGE
    text = path.read_text("utf-8")
    assert len(text.encode()) < WEIGHT
    assert text.count("export default") == QUESTIONS  # one copy of the view's code for each
    # Whatever else the page loads is shared by all pages of the book, or by all with widgets.
    own = [src for src in re.findall(r'(?:src|href)="([^"#?:]+)', text) if "03-playground" in src]
    assert all(src.endswith((".ipynb", ".html")) for src in own)


CELL = """
from optlab.widgets import play
box = play("Reach it?", rules=["momentum", "nesterov"])
box.sliders["lr"].observe(lambda change: open("told", "a").write("lr"), "value")
box
"""


@pytest.fixture
def lab(tmp_path):
    """The address of a notebook in a JupyterLab of its own."""
    cell = nbformat.v4.new_code_cell(CELL.strip())
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel})
    nbformat.write(notebook, tmp_path / "one.ipynb")
    private = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    private += ("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    environment = os.environ | {name: str(tmp_path / name) for name in private}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    command += ["--IdentityProvider.token=", f"--ServerApp.root_dir={tmp_path}"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    log = tmp_path / "log"
    with log.open("w") as output:
        server = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        for _ in range(240):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert server.poll() is None, log.read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/lab/tree/one.ipynb"
    finally:
        server.terminate()
        server.wait(30)


def test_the_same_cell_works_in_jupyterlab(lab, chromium, tmp_path):
    context = chromium.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(120_000)
    tab = context.new_page()
    raised = []
    tab.on("pageerror", lambda error: raised.append(str(error)))
    tab.goto(lab)
    tab.click(".jp-Notebook .jp-CodeCell .cm-content")
    tab.wait_for_selector(".jp-NotebookPanel-toolbar [data-status=idle]", state="attached")
    tab.keyboard.press("Control+Enter")
    tab.wait_for_selector(".optlab-plane .here", state="attached")
    tab.wait_for_selector('.optlab-lr [role=slider][aria-label="Learning rate η"]')
    box = tab.query_selector(".optlab-play")
    for handle in handles(box):
        before = seen(box)
        press(handle, "ArrowRight")
        after = seen(box)
        assert before["text"] != after["text"]
        assert all(a != b for a, b in zip(before["pictures"], after["pictures"], strict=True))
    before = seen(box)
    box.query_selector_all(".optlab-rule button")[1].click()
    assert seen(box)["text"] != before["text"]
    for _ in range(100):  # the kernel is told too
        if (tmp_path / "told").exists():
            break
        time.sleep(0.1)
    assert (tmp_path / "told").read_text() == "lr"
    context.close()
    assert raised == []
