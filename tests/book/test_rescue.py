"""The loss scale's slider on the built page: no kernel, no network, the keyboard and a phone."""

import pytest

PAGE = "chapters/07-practice/02-mixed-precision.html"
STATUS = ".optlab-play [role=status]"


@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_slider_rescues_the_gradients(page, width, scheme):
    tab = page(PAGE, width=width, color_scheme=scheme)
    handle = tab.wait_for_selector('[role=slider][aria-label="Power of two of the loss scale"]')
    tab.wait_for_selector(".optlab-play rect.bar.lost", state="attached")
    assert "Goal not reached." in tab.inner_text(STATUS)
    handle.focus()
    for _ in range(12):
        tab.keyboard.press("ArrowRight")
    assert "Goal reached." in tab.inner_text(STATUS)
    assert "Scale 2¹²" in tab.inner_text(STATUS)
    assert handle.get_attribute("aria-valuetext") == "2 to the 12"
    for _ in range(10):
        tab.keyboard.press("ArrowRight")
    assert "Goal not reached." in tab.inner_text(STATUS)  # the largest overflow
    tab.click(".optlab-play .optlab-rule button >> nth=1")
    assert "Goal reached." in tab.inner_text(STATUS)  # bfloat16 has room
    picture = tab.query_selector(".optlab-picture > svg").bounding_box()
    assert picture["x"] >= 0 and picture["x"] + picture["width"] <= width
