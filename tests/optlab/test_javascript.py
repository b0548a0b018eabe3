"""The language that is translated to JavaScript, and that nothing else slips through."""

import keyword
import math

import pytest

from optlab import rules
from optlab.modes import regime
from optlab.widgets import javascript
from optlab.widgets.javascript import translate
from tests.optlab.node import bits, browser, from_source, samples

KEYWORDS_REFUSED = "only keyword-only parameters are given by keyword"

EVERYTHING = '''
from optlab.rules import maximum

def helper(x):
    return max(abs(x), 1, -x)

def everything(x, y=2.0, *, a=3, b=0.5):
    """A docstring is dropped."""
    p, q = helper(x), -x ** 2
    if 0 < x <= y < 10 and not x == y:
        r = (-x) ** 2 - (x - (y - a))
    else:
        if x != 1 or y >= 2:
            r = x / (y ** 2 + 1) / 3
        else:
            r = +y
    s = p if x < 0 else maximum(min(q, r), y)
    return p, q, r, s, (x > 1) * 5 - b, x - y - a, 2 ** 3 ** 0.5
'''


def test_everything_that_is_translated(tmp_path):
    helper = from_source(EVERYTHING, "helper", tmp_path)
    everything = from_source(EVERYTHING, "everything", tmp_path)
    rows = samples(2, count=2000)
    got = browser(translate(helper, everything), "everything", rows)
    for row, theirs in zip(rows, got, strict=True):
        mine = everything(*row)
        assert all(math.isclose(a, b, rel_tol=1e-15) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize(
    ("body", "construct"),
    [
        ("x += 1\n    return x", "AugAssign `x += 1`"),
        ("while x < 1:\n        x = x + 1\n    return x", "While `while x < 1:`"),
        ("for i in x:\n        x = i\n    return x", "For"),
        ("return x // 2", "BinOp `x // 2`"),
        ("return x % 2", "BinOp `x % 2`"),
        ("return [x]", "List `[x]`"),
        ("return x[0]", "Subscript `x[0]`"),
        ("return x.real", "Attribute `x.real`"),
        ("return lambda: x", "Lambda"),
        (
            "return math.sqrt(x)",
            "Call `math.sqrt(x)`: only these are called: abs, max, maximum, min",
        ),
        ("return sorted(x)", "only these are called"),
        ("return max(*x)", "a starred argument is not translated"),
        ("return max(x)", "max() needs 2 numbers"),
        ("return maximum(x)", "maximum() needs 2 numbers"),
        ("return norm()", "norm() needs 1 number"),
        ("return abs(x=x)", KEYWORDS_REFUSED),
        ("return maximum(x, b=1)", KEYWORDS_REFUSED),
        ("return refused(x=x)", KEYWORDS_REFUSED),
        ("return refused(**x)", KEYWORDS_REFUSED),
        ("return refused(x, 1)", "too many positional arguments"),
        ("return refused()", "missing a required argument: 'x'"),
        ("abs = x\n    return abs(x)", "only these are called"),
        ("return pi * x", "'pi' is no parameter and no variable assigned above"),
        ("y = z\n    z = x\n    return y", "'z' is no parameter"),
        ("return x if x else 1", "a condition must be a comparison"),
        ("return x and 1", "a condition must be a comparison"),
        ("return x in (1, 2)", "Compare `x in (1, 2)`"),
        ("return (x < 1) == True", "only numbers and strings are compared"),
        ("return None", "Constant `None`"),
        ("return 1j * x", "Constant `1j`"),
        ("return 9007199254740993 * x", "a number that a double holds"),
        ("return 1e999 * x", "a number that a double holds"),
        ("new = x\n    return new", "'new' is a reserved word of JavaScript"),
        ("x[0] = 1\n    return x", "only names are assigned to"),
        ("a = b = x\n    return a", "Assign `a = b = x`"),
        ("return", "Return `return`"),
        ("print(x)", "Expr `print(x)`"),
        ("y: float = x\n    return y", "AnnAssign"),
        ("return f'{x}'", "JoinedStr"),
        ("return ~x", "UnaryOp `~x`"),
        ("return x @ x", "BinOp `x @ x`"),
    ],
)
def test_anything_else_is_refused_by_name(body, construct, tmp_path):
    function = from_source(f"# a first line\ndef refused(x):\n    {body}\n", "refused", tmp_path)
    with pytest.raises(ValueError) as caught:
        translate(function)
    message = str(caught.value)
    assert construct in message
    assert message.startswith(f"refused(), {tmp_path / 'fresh.py'} line ")
    assert int(message.split(" line ")[1].split(":")[0]) in (3, 4)


@pytest.mark.parametrize(
    "source",
    [
        "def refused(*x):\n    return 1\n",
        "def refused(**x):\n    return 1\n",
        "import functools\n@functools.cache\ndef refused(x):\n    return 1\n",
        "def refused(with_, eval):\n    return 1\n",
        "async def refused(x):\n    return 1\n",
        "refused = lambda x: x\n",
    ],
)
def test_signatures_without_a_counterpart_are_refused(source, tmp_path):
    function = from_source(source, "refused", tmp_path)
    with pytest.raises(ValueError, match=r"refused|<lambda>"):
        translate(function)


def test_a_function_without_source_is_refused():
    with pytest.raises(ValueError, match=r"abs\(\) has no source to translate"):
        translate(abs)


def test_two_functions_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two functions to translate are named 'regime'"):
        translate(regime, regime)


def test_reserved_words_are_all_refused(tmp_path):
    for word in javascript.RESERVED - set(keyword.kwlist):
        source = f"def refused({word}):\n    return {word}\n"
        with pytest.raises(ValueError, match=f"'{word}' is a reserved word"):
            translate(from_source(source, "refused", tmp_path))


KINDS_OF_DEFAULT = 3


def repeats_a_tuple(x):
    return (x, 1) * 2


def repeats_a_text(x):
    return x * "a"


def borrows_its_default(x, y=KINDS_OF_DEFAULT):
    return x + y


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (repeats_a_tuple, "arithmetic is for numbers"),
        (repeats_a_text, "arithmetic is for numbers"),
        (borrows_its_default, "a default must be a plain number"),
    ],
)
def test_what_javascript_would_do_otherwise_is_refused(function, reason):
    with pytest.raises(ValueError, match=reason):
        translate(function)


def compares_a_truth_value(x):
    below = x < 1
    return (below == 1) * 1 + (below != 0) * 2


def test_a_truth_value_is_equal_to_one_or_zero(tmp_path):
    assert "below == 1" in translate(compares_a_truth_value)


OPTIONS = """
def helper(x, y=2.0, *, a, b=0.5):
    return x + 10 * y + 100 * a + 1000 * b

def calls(x):
    p = helper(x, a=x)
    q = helper(x, 3.0, b=x, a=1)
    return p, q, helper(x, x, a=helper(-x, a=2, b=x)), helper(x - 1, b=2.0, a=x * x)
"""


def test_options_are_given_by_keyword(tmp_path):
    helper, calls = (from_source(OPTIONS, name, tmp_path) for name in ("helper", "calls"))
    rows = samples(1, count=300)
    got = browser(translate(helper, calls), "calls", rows)
    assert bits(got) == bits([calls(*row) for row in rows])


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("helper(x, y=1.0, a=1)", KEYWORDS_REFUSED),
        ("helper(x, a=1, c=2)", KEYWORDS_REFUSED),
        ("helper(x, a=1, **x)", KEYWORDS_REFUSED),
        ("helper(x)", "missing a required"),
        ("helper(x, b=1)", "missing a required"),
        ("helper(a=1)", "missing a required argument: 'x'"),
        ("helper(x, 1, 2, a=1)", "too many positional arguments"),
        ("stranger(x, a=1)", "only these are called: abs, helper, max, maximum, min"),
    ],
)
def test_other_calls_are_refused(call, reason, tmp_path):
    source = (
        f"def helper(x, y=2.0, *, a, b=0.5):\n    return x\n\ndef calls(x):\n    return {call}\n"
    )
    helper, calls = (from_source(source, name, tmp_path) for name in ("helper", "calls"))
    with pytest.raises(ValueError) as caught:
        translate(helper, calls)
    assert str(caught.value).startswith(f"calls(), {tmp_path / 'fresh.py'} line 5: Call `{call}`: ")
    assert reason in str(caught.value)


def test_maximum_agrees_on_what_is_not_finite(tmp_path):
    source = "def larger(a, b):\n    return maximum(a, b)\n"
    odd = [math.nan, math.inf, -math.inf, 1.0, -2.0]
    rows = [[a, b] for a in odd for b in odd]
    got = browser(translate(from_source(source, "larger", tmp_path)), "larger", rows)
    for row, (theirs,) in zip(rows, got, strict=True):
        mine = rules.maximum(*row)
        assert mine == theirs or (math.isnan(mine) and math.isnan(theirs)), row


def test_a_function_of_ones_own_may_bear_a_builtins_name(tmp_path):
    source = "def maximum(x):\n    return x + 1\n\ndef calls(x):\n    return maximum(x)\n"
    own, calls = (from_source(source, name, tmp_path) for name in ("maximum", "calls"))
    assert browser(translate(own, calls), "calls", [[1.0]]) == [[2.0]]
