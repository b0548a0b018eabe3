"""Sliders: what is built and refused in Python, and that the page's numbers are Python's."""

import inspect
import json
import math

import ipywidgets
import pytest
from ipywidgets.embed import embed_data

from optlab.descent import descend
from optlab.landscapes import LANDSCAPES
from optlab.modes import invariants, polyak, radius, rate, regime
from optlab.rules import PARTS, RULES, average
from optlab.signatures import starts
from optlab.widgets import Playground, View, equations, play
from optlab.widgets.javascript import translate
from tests.optlab.node import from_source, module

SHOWN = [name for name, update in RULES.items() if equations.has_view(update)]
LINEAR = ["sgd", "momentum", "nesterov"]
OPTIONS = {"sgd": [{"lr": 0.0198}, {"lr": 0.001}]}
PAIRS = [{"lr": 0.0331, "beta": 0.669}, {"lr": 0.001, "beta": 0.9}, {"lr": 1 / 9, "beta": 4 / 9}]


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory):
    """What a JavaScript expression gives in the module that the page loads as ``m``."""
    return module(View._esm, tmp_path_factory.mktemp("view"))


@pytest.mark.parametrize("scene", LANDSCAPES)
@pytest.mark.parametrize("name", LINEAR)
def test_a_path_is_the_one_that_python_takes(evaluate, name, scene):
    steps = 40 if scene == "rosenbrock" else 125
    for options in OPTIONS.get(name, PAIRS):
        try:
            expected = [list(point) for point in descend(name, scene, steps=steps, **options)]
        except OverflowError:
            continue
        call = f"m.descend(m.rules.{name}, m.landscapes.{scene}, {json.dumps(options)}, {steps})"
        got = [[math.nan if v is None else v for v in point] for point in evaluate(call)]
        finite = [point for point in expected if all(abs(v) < 1e9 for v in point)]
        if scene == "ellipse" or scene == "bend":  # no power in their gradients
            assert got[: len(finite)] == finite  # the same doubles: JSON carries them exactly
        for mine, theirs in zip(finite, got, strict=False):
            assert mine == pytest.approx(theirs, rel=1e-9, abs=1e-12)


def test_kicks_move_the_path_as_noise_does(evaluate):
    kicks = [[0.5 * (-1) ** step, 0.25 * step] for step in range(8)]
    box = play("Noise?", rules=["momentum"], kicks=kicks)
    assert box.view.settings["kicks"] == kicks
    rows = iter([*kicks, (0.0, 0.0), (0.0, 0.0)])  # exact once the rows are used up
    options = {"lr": 0.01, "beta": 0.5}
    path = descend("momentum", "ellipse", steps=10, noise=lambda: next(rows), **options)
    call = f"m.rules.momentum, m.landscapes.ellipse, {json.dumps(options)}, 10, {json.dumps(kicks)}"
    assert evaluate(f"m.descend({call})") == [list(point) for point in path]


@pytest.mark.parametrize("scene", LANDSCAPES)
@pytest.mark.parametrize("name", equations.ADAPTIVE)
def test_an_adaptive_rule_takes_pythons_path_with_what_stays_fixed(evaluate, name, scene):
    slot, fixed = equations.ADAPTIVE[name]
    for lr, beta in ((0.3, 0.9), (0.01, 0.5)):
        settings = {"lr": lr, **fixed, **({slot: beta} if slot else {})}
        path = descend(name, scene, steps=100, **settings)
        options = json.dumps({"lr": lr, "beta": beta})
        got = evaluate(f"m.descend(m.rules.{name}, m.landscapes.{scene}, {options}, 100)")
        assert len(got) == 101
        for mine, theirs in zip(path[:40], got, strict=False):
            assert theirs == pytest.approx(list(mine), rel=1e-6, abs=1e-9)
        if scene == "ellipse":
            call = f"m.slowest(m.rules.{name}, m.landscapes.{scene}, {options})"
            left = math.dist(got[-1], (0, 0)) / math.dist(path[0], (0, 0))
            slow = evaluate(call)
            assert slow["rate"] == pytest.approx(left**0.01, rel=1e-9)
            assert slow["regime"] == ""


@pytest.mark.parametrize("name", LINEAR)
def test_the_plane_is_the_one_of_modes(evaluate, name):
    grid = [
        {"lr": lr, "beta": beta} if name != "sgd" else {"lr": lr}
        for lr in (0.0005, 0.01, 0.0199, 0.0331, 0.05)
        for beta in (0.0, 0.3, 0.669, 0.9, 0.98)
    ]
    call = f"m.invariants(m.rules.{name}, lam, options)"
    got = evaluate(f"[1, 100].map((lam) => {json.dumps(grid)}.map((options) => {call}))")
    for lam, row in zip((1.0, 100.0), got, strict=True):
        expected = [list(invariants(RULES[name], lam=lam, **options)) for options in grid]
        assert row == expected  # the same doubles: JSON carries each exactly
    call = f"m.slowest(m.rules.{name}, m.landscapes.ellipse, options)"
    got = evaluate(f"{json.dumps(grid)}.map((options) => {call})")
    for options, slow in zip(grid, got, strict=True):
        pairs = [invariants(RULES[name], lam=lam, **options) for lam in (1.0, 100.0)]
        worst = max(pairs, key=lambda pair: radius(*pair))
        assert slow["rate"] == pytest.approx(rate(RULES[name], (1.0, 100.0), **options), rel=1e-15)
        assert slow["regime"] == regime(*worst)


def test_reached_is_the_step_from_which_the_error_stays(evaluate):
    calls = ["[1, .1, .01], .1, 2", "[1, .05, .2, .01], .1, 3", "[1, .5, .4], .1, 2"]
    calls += ["[1, .5, .4, .05], .1, 2", "[1, .01, NaN], .1, 2", "[1, .1, .1, 9], .1, 2"]
    got = evaluate(f"[{', '.join(f'm.reached({call})' for call in calls)}]")
    assert got == [1, 3, None, None, None, None]


def test_numbers_in_words(evaluate):
    values = [0, 1, 0.0331, 1234.5, 1e-6, 1.26e-7, -0.25, 2.5e9, 0.00099, 99999]
    assert evaluate(f"{values}.map((value) => m.words(value))") == [
        *("0", "1", "0.033", "1200", "10⁻⁶", "1.3\u00a0×\u00a010⁻⁷", "−0.25"),
        *("2.5\u00a0×\u00a010⁹", "9.9\u00a0×\u00a010⁻⁴", "10⁵"),
    ]
    assert evaluate("[NaN, Infinity].map((value) => m.words(value))") == ["beyond all numbers"] * 2


def test_the_page_carries_the_rules_that_have_a_view_and_no_others():
    assert [*LINEAR, *equations.ADAPTIVE] == SHOWN
    for name in SHOWN:
        assert translate(average, RULES[name]).partition("\n\n")[2] in View._esm
        assert not any(starts(RULES[name]).values())  # view.js starts at zero
    uncalled = {part.__name__ for part in PARTS} - {"average"}  # which Adam calls
    for name in (*RULES.keys() - SHOWN, *uncalled):
        assert f"function {name}(" not in View._esm
        assert f"{name}: {{update" not in View._esm
    for scene in LANDSCAPES.values():
        assert translate(scene.gradient) in View._esm


def test_the_page_carries_the_parts_that_its_rules_call(monkeypatch, tmp_path):
    source = """
from optlab.rules import average

def faded(theta, g, m, *, lr, beta):
    m = average(m, g, beta)
    theta = theta - lr * m
    return theta, m
"""
    monkeypatch.setitem(equations.RULES, "faded", from_source(source, "faded", tmp_path))
    assert translate(average) in equations.script()


def test_one_character_of_a_rule_changes_the_sliders(monkeypatch, tmp_path):
    before = equations.script()
    source = inspect.getsource(RULES["momentum"]).replace("theta - lr", "theta + lr")
    monkeypatch.setitem(equations.RULES, "momentum", from_source(source, "momentum", tmp_path))
    after = equations.script()
    assert [a for a, b in zip(before, after, strict=True) if a != b] == ["-"]


def test_which_landscapes_have_modes():
    assert [name for name, scene in LANDSCAPES.items() if equations.is_quadratic(scene)] == [
        "ellipse"
    ]


def links(box):
    """Pairs of (class of the slider, its trait, the view's trait) that the page ties together."""
    state = embed_data(views=[box])["manager_state"]["state"]
    found = []
    for model in state.values():
        if model["model_name"] == "LinkModel":
            ends = [model["state"][end] for end in ("source", "target")]
            (one, trait), (other, partner) = [(end[0].split("_", 2)[-1], end[1]) for end in ends]
            assert state[other]["model_name"] == "AnyModel"
            found.append((state[one]["model_name"], trait, partner))
    return found


def test_sliders_are_real_and_tied_to_the_view():
    box = play("Which?", lr=(0.001, 0.1, 0.02), beta=(0.0, 0.98, 0.5), rule="nesterov")
    assert isinstance(box.sliders["lr"], ipywidgets.FloatLogSlider)
    assert isinstance(box.sliders["beta"], ipywidgets.FloatSlider)
    assert (box.sliders["lr"].value, box.sliders["beta"].value) == (0.02, 0.5)
    assert (box.view.lr, box.view.beta, box.view.chosen) == (0.02, 0.5, 2)
    assert box.rule.index == 2
    assert box.rule.options == ("gradient descent", "heavy ball", "Nesterov")
    assert {
        ("ToggleButtonsModel", "index", "chosen"),
        ("FloatLogSliderModel", "value", "lr"),
        ("FloatSliderModel", "value", "beta"),
    } <= set(links(box))


@pytest.mark.parametrize("name", ["lr", "beta"])
def test_sliders_are_observed_at_both_ends_and_between(name):
    box = play("Which?", lr=(0.001, 0.1, 0.01), beta=(0.0, 0.98, 0.5))
    slider = box.sliders[name]
    start = slider.value
    low, high = box.view.settings[name]
    told = []
    slider.observe(lambda change: told.append(change["new"]), "value")
    for value in (low, high, start):
        slider.value = value
    assert told == pytest.approx([low, high, start])


def test_a_rule_without_momentum_has_no_momentum_slider():
    box = play("Which?", rules=["sgd"])
    assert set(box.sliders) == {"lr"}
    assert box.rule is None


@pytest.mark.parametrize(
    ("lr", "beta"),
    [
        ((0.001, 0.1, 0.01), (0.0, 0.98, 0.0)),
        ((1 / 144, 2 / 9, 1 / 9), (0.0, 8 / 9, 4 / 9)),
        ((0.003, 0.07, 0.02), (0.1, 0.95, 0.333)),
        ((0.1, 0.11, 0.1), (0.5, 0.51, 0.51)),
    ],
)
def test_the_start_is_a_position_of_the_slider(lr, beta):
    box = play("Which?", lr=lr, beta=beta)
    for slider, start in ((box.sliders["lr"], math.log10(lr[2])), (box.sliders["beta"], beta[2])):
        place = (start - slider.min) / slider.step
        assert abs(place - round(place)) < 0.02
        assert (slider.max - slider.min) / slider.step == pytest.approx(
            round((slider.max - slider.min) / slider.step)
        )


def test_what_stands_where_no_picture_can():
    box = play("Reach 10⁻⁶ in 100 steps?")
    assert repr(box) == "Reach 10⁻⁶ in 100 steps? [sliders: lr and beta]"
    bundle = box._repr_mimebundle_()
    assert bundle["text/plain"] == repr(box)
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_the_question_is_text_not_markup():
    box = play("Is <b>η</b> < 1?")
    assert "&lt;b&gt;η&lt;/b&gt; &lt; 1?" in box.children[0].value


def test_every_view_weighs_little():
    assert len(View._esm.encode()) < 30_000
    assert len(View._css.encode()) < 8_000


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"scene": "elipse"}, ValueError, "no landscape 'elipse': did you mean 'ellipse'"),
        ({"scene": LANDSCAPES["bend"]}, TypeError, "scene must be a landscape's name"),
        ({"rules": ["momentun"]}, ValueError, "no rule 'momentun': did you mean 'momentum'"),
        ({"rules": "sgd"}, TypeError, "rules must be a list of names, got 'sgd'"),
        ({"rules": [RULES["sgd"]]}, TypeError, "rules must be a list of names"),
        ({"rules": []}, ValueError, "rules must be one or more names"),
        ({"rules": ["sgd", "sgd"]}, ValueError, "each once"),
        ({"rule": "nestrov"}, ValueError, "rule must be one of rules, got 'nestrov': did you mean"),
        ({"goal": 0}, ValueError, r"goal must be in \(0, 1\), got 0"),
        ({"goal": 1.0}, ValueError, r"goal must be in \(0, 1\), got 1.0"),
        ({"goal": math.nan}, ValueError, "goal must be in"),
        ({"goal": "small"}, TypeError, "goal must be a number"),
        ({"budget": 0}, ValueError, r"budget must be in \[1, 1000\], got 0"),
        ({"budget": 1001}, ValueError, "budget must be in"),
        ({"budget": 10.5}, TypeError, r"budget must be a whole number in \[1, 1000\], got 10.5"),
        ({"budget": True}, TypeError, r"budget must be a number in \[1, 1000\], got True"),
        ({"bugdet": 9}, TypeError, r"play\(\) has no argument 'bugdet': did you mean 'budget'"),
        ({"lr": 0.1}, TypeError, r"lr must be \(low, high, start\), got 0.1"),
        ({"lr": (0.1, 0.2)}, TypeError, r"lr must be \(low, high, start\)"),
        ({"lr": (0.0, 0.2, 0.1)}, ValueError, r"lr must be in \(0, inf\), got 0.0"),
        ({"lr": (0.1, math.inf, 0.1)}, ValueError, "lr must be in"),
        ({"lr": (0.2, 0.1, 0.15)}, ValueError, "low <= start <= high"),
        ({"lr": (0.1, 0.2, 0.3)}, ValueError, "low <= start <= high"),
        ({"beta": (0.0, 1.0, 0.5)}, ValueError, r"beta must be in \[0, 1\), got 1.0"),
        ({"beta": (-0.1, 0.9, 0.5)}, ValueError, "beta must be in"),
        ({"question": " "}, TypeError, "question must be a text"),
        ({"question": 7}, TypeError, "question must be a text"),
    ],
)
def test_bad_input_is_named(change, error, message):
    with pytest.raises(error, match=message):
        play(**({"question": "Which?"} | change))


def test_a_misspelt_keyword_is_refused():
    with pytest.raises(TypeError, match="steps"):
        play("Which?", steps=100)


def test_a_rule_with_other_hyperparameters_has_no_view(monkeypatch):
    def other(theta, g, *, lr, decay):
        return (theta - lr * decay * g,)

    monkeypatch.setitem(equations.RULES, "other", other)
    with pytest.raises(ValueError, match="other needs decay, lr"):
        play("Which?", rules=["other"])
    with pytest.raises(ValueError, match="adamw needs beta1, beta2, eps, lr, step"):
        play("Which?", rules=["adamw"])
    for name in RULES.keys() - SHOWN:
        with pytest.raises(ValueError, match=f"rules must need lr and at most beta; {name} needs"):
            play("Which?", rules=["sgd", name])


def test_a_rule_that_is_not_linear_has_no_view(monkeypatch):
    def sign(theta, g, *, lr):
        return (theta - lr * ((g > 0) - (g < 0)),)

    monkeypatch.setitem(equations.RULES, "sign", sign)
    assert not equations.has_view(sign)
    with pytest.raises(ValueError, match=r"rule must be linear .*, got sign\(\)"):
        play("Which?", rules=["sign"])


def test_the_textbook_pair_is_at_hand():
    lr, beta = polyak(1, 25)
    box = play("Which?", lr=(lr / 16, 2 * lr, lr), beta=(0.0, 2 * beta, beta))
    assert isinstance(box, Playground)
    assert box.view.settings["positions"] == {"lr": 200, "beta": 178}
