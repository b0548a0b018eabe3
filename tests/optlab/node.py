"""JavaScript run by node: the interpreter, numbers in and out, and how far a power may lead."""

import ast
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

from optlab.rules import maximum, norm

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


def module(text, folder):
    """What gives the value of a JavaScript expression in a module, there as ``m``."""
    path = folder / "view.mjs"
    path.write_text(text, encoding="utf-8")

    def run(expression):
        code = f"import * as m from {json.dumps(str(path))};"
        code += f"console.log(JSON.stringify({expression}));"
        command = [node(), "--input-type=module", "-e", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


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


def from_source(source, name, tmp_path):
    """The function of that name in a module of its own."""
    path = tmp_path / "fresh.py"
    path.write_text(source)
    return runpy.run_path(str(path))[name]


class Powers(ast.NodeTransformer):
    """Every ``a ** b`` becomes ``power(a, b)``."""

    def visit_BinOp(self, node):
        self.generic_visit(node)
        if not isinstance(node.op, ast.Pow):
            return node
        return ast.Call(ast.Name("power", ast.Load()), [node.left, node.right], [])


class Leeway:
    """What a function gives in Python, and how far JavaScript's powers may lead from it.

    The languages' mathematics libraries may round a power up or down.  So each power in turn is
    moved by four units of the last place, and what that makes of the results is what is allowed:
    nothing where no power has a part in them.
    """

    def __init__(self, *functions):
        self.scope = {"power": self.power, "maximum": maximum, "norm": norm}
        for function in functions:
            tree = Powers().visit(ast.parse(inspect.getsource(function)))
            exec(compile(ast.fix_missing_locations(tree), "nudged", "exec"), self.scope)

    def power(self, a, b):
        exact, place = a**b, self.powers
        self.powers += 1
        return exact + self.moves(place) * math.ulp(exact)

    def run(self, name, args, options, moves):
        self.powers, self.moves = 0, moves
        return as_list(self.scope[name](*args, **options))

    def results(self, name, args, options):
        """Pairs of a result and what it may be missed by."""
        exact = self.run(name, args, options, lambda place: 0)
        powers = self.powers
        far = self.run(name, args, options, lambda place: 2**32)
        spread = [math.ulp(a) if a != b else 0.0 for a, b in zip(exact, far, strict=True)]
        for chosen in range(powers):
            for move in (-4, 4):
                moved = self.run(name, args, options, lambda p, c=chosen, m=move: m * (p == c))
                spread = [s + abs(a - b) for s, a, b in zip(spread, exact, moved, strict=True)]
        return list(zip(exact, spread, strict=True))
