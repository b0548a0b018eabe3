"""Plain arithmetic in the reader's browser: a Python function translated to JavaScript.

The widgets of the book run with no kernel, yet an equation must have one home.  So the functions
of :mod:`optlab.rules`, :mod:`optlab.landscapes` and :mod:`optlab.modes` are read as source,
parsed, and written again in JavaScript, operation by operation and in the same order.  Both
languages compute in IEEE double precision, so the numbers are the same to the last bit, but for
``**``, which may differ by one unit in the last place where the two mathematics libraries do, and
for the sign of a zero that Python computes in whole numbers or that a ``max`` or ``min`` chooses.

What is translated: positional and keyword-only parameters (the latter become one object),
assignments, ``if``, ``return``, tuples, ``+ - * / **``, comparisons, conditional expressions,
``and``, ``or`` and ``not`` between comparisons, ``abs``, ``max``, ``maximum``, ``min``, ``norm``,
and calls to functions translated beside this one, whose keyword-only parameters, and no others, are
given by keyword.  Anything else is refused with function, line and construct named.

Where Python raises, such as on a division by zero or an overflow, JavaScript goes on with
``Infinity`` or ``NaN``.  A power that is complex in Python is ``NaN`` there.  With a ``NaN`` among
their numbers, ``max`` and ``min`` are ``NaN`` there, while Python's depend on the order;
``maximum`` is ``NaN`` in both.
"""

import ast
import inspect
import json
import math
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

ARITHMETIC = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}
SIGNS = {ast.UAdd: "+", ast.USub: "-", ast.Not: "!"}
COMPARISONS = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",  # like Python's, it holds between a truth value and 1 or 0
    ast.NotEq: "!=",
}
#: ``maximum`` and ``norm`` are those of :mod:`optlab.rules`, written there for arrays too.
BUILTINS = {
    "abs": "Math.abs",
    "max": "Math.max",
    "maximum": "Math.max",
    "min": "Math.min",
    "norm": "Math.abs",
}
LEAST_ARGUMENTS = {"abs": 1, "max": 2, "maximum": 2, "min": 2, "norm": 1}
#: Words that JavaScript keeps for itself: no variable may bear one.
_WORDS = """
    arguments await break case catch class const continue debugger default delete do else enum
    eval export extends false finally for function if implements import in instanceof interface
    let new null package private protected public return static super switch this throw true try
    typeof undefined var void while with yield Math NaN Infinity
"""
RESERVED = frozenset(_WORDS.split())


def translate(*functions: Callable[..., Any]) -> str:
    """JavaScript functions of the same names, parameters and results.

    Args:
        functions: written with ``def``; they may call each other.

    Raises:
        ValueError: a function has no source, two have one name, or one uses a construct that
            is not translated; the message names function, file, line and construct.

    >>> def step(theta, g, *, lr, decay=0.0):
    ...     theta = theta - lr * (g + decay * theta)
    ...     return (theta,)
    >>> print(translate(step))
    function step(theta, g, {lr, decay = 0.0} = {}) {
      theta = theta - (lr * (g + (decay * theta)));
      return [theta];
    }
    """
    names = [function.__name__ for function in functions]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"two functions to translate are named {min(twice)!r}")
    known = {function.__name__: inspect.signature(function) for function in functions}
    return "\n\n".join(_Translator(function, known).function() for function in functions)


class _Translator:
    """One function on its way; ``names`` are those that it may call, with their signatures."""

    def __init__(
        self, function: Callable[..., Any], names: Mapping[str, inspect.Signature]
    ) -> None:
        self.name = function.__name__
        self.names = names
        try:
            lines, first = inspect.getsourcelines(function)
            self.file = inspect.getsourcefile(function)
            self.offset = max(first, 1) - 1
            tree = ast.parse(textwrap.dedent("".join(lines)))
        except (OSError, TypeError, SyntaxError) as error:
            raise ValueError(f"{self.name}() has no source to translate: {error}") from None
        definition = tree.body[0]
        if not isinstance(definition, ast.FunctionDef):
            self.refuse(definition, "only a function written with def is translated")
        self.definition = definition
        self.locals: set[str] = set()

    def refuse(
        self, node: ast.AST, reason: str = "it has no translation to JavaScript"
    ) -> NoReturn:
        line = self.offset + getattr(node, "lineno", 1)
        source = ast.unparse(node).splitlines()[0]
        raise ValueError(
            f"{self.name}(), {self.file} line {line}: {type(node).__name__} `{source}`: {reason}"
        )

    def function(self) -> str:
        if self.definition.decorator_list:
            self.refuse(self.definition.decorator_list[0], "decorators are not translated")
        head = self.parameters(self.definition.args)
        parameters = set(self.locals)
        body = self.block(self.definition.body, "  ")
        own = sorted(self.locals - parameters)
        declared = [f"  let {', '.join(own)};"] if own else []
        return "\n".join([f"function {self.name}({head}) {{", *declared, *body, "}"])

    def parameters(self, args: ast.arguments) -> str:
        if args.vararg or args.kwarg:
            self.refuse(self.definition, "* and ** parameters are not translated")
        positional = args.posonlyargs + args.args
        missing: list[ast.expr | None] = [None] * (len(positional) - len(args.defaults))
        head = self.with_defaults(positional, missing + list(args.defaults))
        if args.kwonlyargs:
            options = self.with_defaults(args.kwonlyargs, args.kw_defaults)
            head.append(f"{{{', '.join(options)}}} = {{}}")
        return ", ".join(head)

    def with_defaults(self, args: list[ast.arg], defaults: list[ast.expr | None]) -> list[str]:
        written = []
        for arg, default in zip(args, defaults, strict=True):
            if default is not None and not isinstance(default, (ast.Constant, ast.UnaryOp)):
                self.refuse(default, "a default must be a plain number")
            end = "" if default is None else f" = {self.expression(default)}"
            written.append(self.local(arg, arg.arg) + end)
        return written

    def local(self, node: ast.AST, name: str) -> str:
        if name in RESERVED:
            self.refuse(node, f"{name!r} is a reserved word of JavaScript")
        self.locals.add(name)
        return name

    def block(self, body: list[ast.stmt], indent: str) -> list[str]:
        if ast.get_docstring(self.definition) is not None and body is self.definition.body:
            body = body[1:]
        return [line for statement in body for line in self.statement(statement, indent)]

    def statement(self, node: ast.stmt, indent: str) -> list[str]:
        if isinstance(node, ast.Return) and node.value is not None:
            return [f"{indent}return {self.expression(node.value)};"]
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            value = self.expression(node.value)
            return [f"{indent}{self.target(node.targets[0])} = {value};"]
        if isinstance(node, ast.If):
            lines = [f"{indent}if ({self.condition(node.test)}) {{"]
            lines += self.block(node.body, indent + "  ")
            if node.orelse:
                lines += [f"{indent}}} else {{", *self.block(node.orelse, indent + "  ")]
            return [*lines, f"{indent}}}"]
        self.refuse(node)

    def target(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return self.local(node, node.id)
        if isinstance(node, ast.Tuple) and all(isinstance(e, ast.Name) for e in node.elts):
            return f"[{', '.join(self.target(element) for element in node.elts)}]"
        self.refuse(node, "only names are assigned to")

    def expression(self, node: ast.expr) -> str:
        if isinstance(node, ast.Constant):
            return self.constant(node)
        if isinstance(node, ast.Name):
            if node.id not in self.locals:
                self.refuse(node, f"{node.id!r} is no parameter and no variable assigned above")
            return node.id
        if isinstance(node, ast.Tuple):
            return f"[{', '.join(self.expression(element) for element in node.elts)}]"
        if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
            left, right = self.number(node.left), self.number(node.right)
            return f"{left} {ARITHMETIC[type(node.op)]} {right}"
        if isinstance(node, ast.UnaryOp) and type(node.op) in SIGNS:
            negated = isinstance(node.op, ast.Not)
            operand = f"({self.condition(node.operand)})" if negated else self.number(node.operand)
            return f"{SIGNS[type(node.op)]}{operand}"
        if isinstance(node, ast.Compare):
            return self.comparison(node)
        if isinstance(node, ast.BoolOp):
            sign = " && " if isinstance(node.op, ast.And) else " || "
            return sign.join(f"({self.condition(value)})" for value in node.values)
        if isinstance(node, ast.IfExp):
            branches = f"{self.operand(node.body)} : {self.operand(node.orelse)}"
            return f"({self.condition(node.test)}) ? {branches}"
        if isinstance(node, ast.Call):
            return self.call(node)
        self.refuse(node)

    def number(self, node: ast.expr) -> str:
        """An operand of arithmetic, which JavaScript would do to lists and texts in its own way."""
        text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if text or isinstance(node, ast.Tuple):
            self.refuse(node, "arithmetic is for numbers")
        return self.operand(node)

    def operand(self, node: ast.expr) -> str:
        """An expression as part of a greater one: parentheses fix Python's order."""
        written = self.expression(node)
        plain = isinstance(node, (ast.Constant, ast.Name, ast.Tuple, ast.Call))
        return written if plain else f"({written})"

    def constant(self, node: ast.Constant) -> str:
        value = node.value
        if isinstance(value, (bool, str)):
            return json.dumps(value)
        if isinstance(value, int) and abs(value) <= 2**53:
            return str(value)
        if isinstance(value, float) and math.isfinite(value):
            return repr(value)
        self.refuse(node, "a number that a double holds, a string or a truth value is needed")

    def condition(self, node: ast.expr) -> str:
        """A test: the languages disagree on which other values are true (NaN, an empty list)."""
        negation = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
        if not (negation or isinstance(node, (ast.Compare, ast.BoolOp))):
            self.refuse(node, "a condition must be a comparison, such as x > 0")
        return self.expression(node)

    def comparison(self, node: ast.Compare) -> str:
        sides = [node.left, *node.comparators]
        for side in sides:
            if isinstance(side, (ast.Tuple, ast.Compare, ast.BoolOp)):
                self.refuse(node, "only numbers and strings are compared")
        for op in node.ops:
            if type(op) not in COMPARISONS:
                self.refuse(node)
        written = [self.operand(side) for side in sides]
        pairs = zip(written, node.ops, written[1:], strict=False)
        parts = [f"{left} {COMPARISONS[type(op)]} {right}" for left, op, right in pairs]
        return parts[0] if len(parts) == 1 else " && ".join(f"({part})" for part in parts)

    def call(self, node: ast.Call) -> str:
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if name is None or name in self.locals or name not in {*BUILTINS, *self.names}:
            known = ", ".join(sorted({*BUILTINS, *self.names} - {self.name}))
            self.refuse(node, f"only these are called: {known}")
        if any(isinstance(arg, ast.Starred) for arg in node.args):
            self.refuse(node, "a starred argument is not translated")
        parameters = self.names[name].parameters.values() if name in self.names else ()
        keyword_only = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
        options = {str(word.arg): word.value for word in node.keywords}
        if not options.keys() <= keyword_only:
            self.refuse(node, "only keyword-only parameters are given by keyword")
        arguments = [self.expression(arg) for arg in node.args]
        if name not in self.names:
            if len(arguments) < LEAST_ARGUMENTS[name]:
                self.refuse(node, f"{name}() needs {LEAST_ARGUMENTS[name]} numbers")
            return f"{BUILTINS[name]}({', '.join(arguments)})"
        try:
            self.names[name].bind(*node.args, **options)
        except TypeError as error:
            self.refuse(node, str(error))
        if options:  # they come last, after what is left to defaults
            arguments += ["undefined"] * (len(parameters) - len(keyword_only) - len(arguments))
            pairs = [f"{key}: {self.expression(value)}" for key, value in options.items()]
            arguments.append(f"{{{', '.join(pairs)}}}")
        return f"{name}({', '.join(arguments)})"
