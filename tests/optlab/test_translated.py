"""The translated equations compute Python's numbers."""

import inspect
import math
import random

import pytest

from optlab.landscapes import LANDSCAPES
from optlab.modes import radius, regime
from optlab.rules import PARTS, RULES
from optlab.signatures import RANGES
from optlab.widgets.javascript import translate
from tests.optlab.node import Leeway, browser, from_source, samples

EQUATIONS = (*PARTS, *RULES.values())
#: State that is a square, a size, or a product of momenta.
NOT_NEGATIVE = {"s", "d", "u", "v_max"}


def drawn(rng, rule, parameter):
    """A value that the parameter may have: over many magnitudes, or at an end of its range."""
    name = parameter.name
    if name == "step":
        return float(rng.choice([1, 2, 3, rng.randint(4, 9), rng.randint(10, 3000)]))
    if name == "mu_product":
        return rng.choice([1.0, 10 ** rng.uniform(-9, 0)])
    if RANGES.get(name) in ("[0, 1)", "[0, 1]"):
        return rng.choice([0.0, 0.5, 0.9, 0.999, rng.uniform(0, 0.9999)])
    size = 10 ** rng.uniform(-9, 4)
    if rule.__name__ == "ratio":
        return size if name == "b" else rng.choice([0.0, size])
    if name == "eps":
        return size * 1e-4  # never zero, which Python may not divide by
    squared = name == "v" and rule.__name__ not in ("momentum", "nesterov", "lars")
    if name in RANGES or name in NOT_NEGATIVE or squared:
        return rng.choice([0.0, size, size])
    return rng.choice([0.0, size, -size])


def compared(function, code, parameters, count=400):
    """Fail where JavaScript's numbers are not Python's, up to the last bits of powers."""
    rng, leeway = random.Random(function.__name__), Leeway(*EQUATIONS)
    rows = [[drawn(rng, function, p) for p in parameters] for _ in range(count)]
    names = [p.name for p in parameters]
    options = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    plain = names[: len(names) - len(options)]
    given = ", ".join([*plain, f"{{{', '.join(options)}}}"] if options else plain)
    got = browser(code, f"({', '.join(names)}) => {function.__name__}({given})", rows)
    for row, theirs in zip(rows, got, strict=True):
        chosen = dict(zip(options, row[len(plain) :], strict=True))
        mine = leeway.results(function.__name__, row[: len(plain)], chosen)
        for (number, allowed), found in zip(mine, theirs, strict=True):
            assert abs(number - found) <= allowed, (
                dict(zip(names, row, strict=True)),
                mine,
                theirs,
            )


@pytest.mark.parametrize("function", EQUATIONS, ids=lambda f: f.__name__)
def test_every_rule_and_part_gives_the_same_numbers(function):
    parameters = list(inspect.signature(function).parameters.values())
    compared(function, translate(*EQUATIONS), parameters)


@pytest.mark.parametrize("name", RULES)
def test_defaults_are_carried_over(name):
    parameters = inspect.signature(RULES[name]).parameters.values()
    needed = [p for p in parameters if p.kind is not p.KEYWORD_ONLY or p.default is p.empty]
    compared(RULES[name], translate(*EQUATIONS), needed, count=100)


def power(x, y):
    return x**y


def test_a_power_is_within_one_unit_of_the_last_place():
    rng = random.Random(7)
    rows = [[10 ** rng.uniform(-18, 12), 0.5] for _ in range(3000)]
    rows += [[rng.uniform(0, 1), float(rng.randint(1, 3000))] for _ in range(3000)]
    rows += [[0.96, rng.uniform(0, 100)] for _ in range(3000)]
    got = browser(translate(power), "power", rows)
    for (x, y), (theirs,) in zip(rows, got, strict=True):
        assert abs(x**y - theirs) <= math.ulp(x**y), (x, y)


@pytest.mark.parametrize("part", ["value", "gradient"])
@pytest.mark.parametrize("name", LANDSCAPES)
def test_every_landscape_gives_the_same_numbers(name, part):
    function = getattr(LANDSCAPES[name], part)
    leeway, rows = Leeway(function), samples(len(LANDSCAPES[name].start))
    for row, theirs in zip(
        rows, browser(translate(function), function.__name__, rows), strict=True
    ):
        mine = leeway.results(function.__name__, row, {})
        for (number, allowed), found in zip(mine, theirs, strict=True):
            assert abs(number - found) <= allowed, (row, mine, theirs)


def test_radius_is_within_one_unit_of_the_last_place():
    rows = samples(2)
    got = browser(translate(radius), "radius", rows)
    for (trace, det), (theirs,) in zip(rows, got, strict=True):
        mine = radius(trace, det)
        assert abs(mine - theirs) <= math.ulp(mine), (trace, det)


def test_regime_agrees():
    rows = samples(2)
    got = browser(translate(radius, regime), "regime", rows)
    expected = [regime(*row) for row in rows]
    assert {"diverges", "ripples", "alternates", "monotone"} == set(expected)
    assert [row[0] for row in got] == expected


#: One character to change in a rule that has no ``theta - lr``.
SLIPS = {
    "rmsprop_momentum": ("g * g", "g - g"),
    "rmsprop_centered_momentum": ("g * g", "g - g"),
    "adamw": ("beta1=beta1", "beta1=beta2"),
    "lars": ("theta - v", "theta + v"),
}


@pytest.mark.parametrize("name", RULES)
def test_one_character_of_a_rule_changes_the_javascript(name, tmp_path):
    source = inspect.getsource(RULES[name])
    changed = source.replace(*SLIPS.get(name, ("theta - lr", "theta + lr")))
    assert sum(a != b for a, b in zip(source, changed, strict=True)) == 1
    others = [function for function in EQUATIONS if function is not RULES[name]]
    fresh = translate(*others, from_source(changed, name, tmp_path))
    before = translate(*others, RULES[name])
    assert sum(a != b for a, b in zip(before, fresh, strict=True)) == 1
