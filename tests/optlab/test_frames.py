"""The slider over pictures: what it carries to the page, and what it refuses."""

import pytest
from ipywidgets.embed import embed_data

from optlab import plots
from optlab.widgets.frames import Frame, browse


def frame(reached=False):
    axes = plots.panel("A picture")
    axes.plot([0, 1], [0, 1])
    return Frame((axes,), (f"A line, {reached}.",), f"It was {reached}.", reached)


FRAMES = {"1": frame(), "2.5": frame(True)}


def test_the_page_carries_every_frame_and_the_slider_is_tied_to_it():
    box = browse("Where?", "damping δ", FRAMES, start="2.5")
    state = embed_data([box])["manager_state"]["state"]
    models = [model["state"] for model in state.values()]
    [view] = [model for model in models if "frames" in model]
    assert view["at"] == box.slider.index == 1
    assert [shown["reached"] for shown in view["frames"]] == [False, True]
    for shown, name in zip(view["frames"], FRAMES, strict=True):
        assert shown["figure"].count("<svg") == 1 and "A line" in shown["figure"]
        assert shown["at"] == name
    links = [m["state"] for m in state.values() if m["model_name"] == "LinkModel"]
    own = f"IPY_MODEL_{box.slider.model_id}"
    [link] = [link for link in links if link["source"][0] == own]
    assert [end[1] for end in (link["source"], link["target"])] == ["index", "at"]
    assert all(len(shown["figure"]) < 25_000 for shown in view["frames"])


def test_the_question_is_text_not_markup():
    assert "&lt;b&gt;" in browse("<b>?", "δ", FRAMES, start="1").children[0].value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": " "}, "question must be a text that is not empty"),
        ({"label": ""}, "label must be a text that is not empty"),
        ({"frames": {"1": FRAMES["1"]}}, "frames must be two at least, got 1"),
        ({"frames": {**FRAMES, "3": frame()._replace(alt=("",))}}, "alt must hold one text for"),
        ({"start": "3"}, "start must be one of 1, 2.5, got '3'"),
    ],
)
def test_bad_input_is_named(change, message):
    given = {"question": "?", "label": "δ", "frames": FRAMES, "start": "1", **change}
    with pytest.raises(ValueError, match=message):
        browse(**given)
