"""The translated equations compute Python's numbers, and nothing else slips through."""

import base64
import inspect
import json
import math
import random
import runpy
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from optlab.landscapes import LANDSCAPES
from optlab.modes import radius, regime
from optlab.rules import RULES
from optlab.widgets import javascript
from optlab.widgets.javascript import translate

#: Runs FUNCTION on every row of numbers; doubles travel as bytes, so no digit is lost.
RUNNER = """
const request = JSON.parse(require("fs").readFileSync(0, "utf8"));
const doubles = (text) => {
  const bytes = Buffer.from(text, "base64");
  return new Float64Array(bytes.buffer, bytes.byteOffset, bytes.length / 8);
};
const target = new Function(request.code + `; return ${request.call};`)();
const rows = request.rows.map((row) => target(...doubles(row)));
const packed = (value) => Buffer.from(new Float64Array([value]).buffer).toString("base64");
const written = (value) => (typeof value === "string" ? value : packed(value));
console.log(JSON.stringify(rows.map((row) => [row].flat().map(written))));
"""


def node():
    """The interpreter that comes with the environment, or the machine's own."""
    found = shutil.which("node", path=str(Path(sys.executable).parent)) or shutil.which("node")
    assert found, "node is missing: `make env` installs it"
    return found


def packed(*numbers):
    return base64.b64encode(struct.pack(f"<{len(numbers)}d", *numbers)).decode()


def browser(code, call, rows):
    """What the JavaScript expression ``call`` gives on each row: a list of numbers or strings."""
    request = json.dumps({"code": code, "call": call, "rows": [packed(*row) for row in rows]})
    done = subprocess.run(
        [node(), "-e", RUNNER], input=request, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    texts = {"diverges", "ripples", "alternates", "monotone"}
    return [
        [v if v in texts else struct.unpack("<d", base64.b64decode(v))[0] for v in row]
        for row in json.loads(done.stdout)
    ]


def samples(width, count=3000, seed=0):
    """Rows of numbers over many magnitudes, both signs, and the places where branches meet."""
    draw = random.Random(seed)
    edges = [0.0, -0.0, 1.0, 2.0, -1.0, 0.5]
    rows = [[draw.choice(edges) for _ in range(width)] for _ in range(count // 10)]
    rows += [[draw.uniform(-4, 4) for _ in range(width)] for _ in range(count // 2)]
    while len(rows) < count:
        rows.append([draw.choice([-1, 1]) * 10 ** draw.uniform(-12, 6) for _ in range(width)])
    return rows


def as_list(value):
    return list(value) if isinstance(value, tuple) else [value]


def bits(rows):
    return [[v if isinstance(v, str) else packed(v) for v in row] for row in rows]


@pytest.mark.parametrize("name", RULES)
def test_every_rule_gives_the_same_bits(name):
    rule = RULES[name]
    parameters = inspect.signature(rule).parameters.values()
    plain = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    options = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    rows = samples(len(plain) + len(options))
    call = f"({', '.join(plain + options)}) => {name}({', '.join(plain)}, {{{', '.join(options)}}})"
    expected = [
        as_list(rule(*row[: len(plain)], **dict(zip(options, row[len(plain) :], strict=True))))
        for row in rows
    ]
    assert bits(browser(translate(rule), call, rows)) == bits(expected)


@pytest.mark.parametrize("name", RULES)
def test_defaults_are_carried_over(name):
    rule = RULES[name]
    parameters = inspect.signature(rule).parameters.values()
    plain = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    needed = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    rows = samples(len(plain) + len(needed), count=200)
    call = f"({', '.join(plain + needed)}) => {name}({', '.join(plain)}, {{{', '.join(needed)}}})"
    expected = [
        as_list(rule(*row[: len(plain)], **dict(zip(needed, row[len(plain) :], strict=True))))
        for row in rows
    ]
    assert bits(browser(translate(rule), call, rows)) == bits(expected)


@pytest.mark.parametrize("part", ["value", "gradient"])
@pytest.mark.parametrize("name", LANDSCAPES)
def test_every_landscape_gives_the_same_numbers(name, part):
    function = getattr(LANDSCAPES[name], part)
    rows = samples(len(LANDSCAPES[name].start))
    expected = [as_list(function(*row)) for row in rows]
    got = browser(translate(function), function.__name__, rows)
    if "**" not in inspect.getsource(function):
        assert bits(got) == bits(expected)
    # A power may differ by its last bit, which a subtraction after it can lift: so the last bit
    # of the largest term, 400 * |x|^3 or 100 * (|y| + x^2)^2, is what is allowed.
    for row, mine, theirs in zip(rows, expected, got, strict=True):
        size = max(abs(v) for v in row)
        scale = 100 * max(size, size**2) ** 2 if part == "value" else 400 * max(size, size**3)
        for a, b in zip(mine, theirs, strict=True):
            assert abs(a - b) <= 4 * math.ulp(scale), (row, mine, theirs)


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


def from_source(source, name, tmp_path):
    """The function of that name in a module of its own."""
    path = tmp_path / "fresh.py"
    path.write_text(source)
    return runpy.run_path(str(path))[name]


@pytest.mark.parametrize("name", RULES)
def test_one_character_of_a_rule_changes_the_javascript(name, tmp_path):
    source = inspect.getsource(RULES[name])
    changed = source.replace("theta - lr", "theta + lr")
    assert sum(a != b for a, b in zip(source, changed, strict=True)) == 1
    fresh = translate(from_source(changed, name, tmp_path))
    assert fresh != translate(RULES[name])
    assert fresh.replace("theta + (lr", "theta - (lr") == translate(RULES[name])


EVERYTHING = '''
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
    s = p if x < 0 else min(q, r)
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
        ("return math.sqrt(x)", "Call `math.sqrt(x)`: only these are called: abs, max, min"),
        ("return sorted(x)", "only these are called"),
        ("return max(*x)", "positional arguments alone"),
        ("return max(x)", "max() needs 2 numbers"),
        ("return abs(x=x)", "positional arguments alone"),
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
    import keyword

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
