"""A rule's arithmetic on tensors, recorded as few operations, with its numbers set apart.

An optimizer runs its rule on a :class:`Term` for each tensor and on plain floats for the rest.
What depends on floats alone, such as ``1 - beta2**step``, is so computed on the spot; what touches
a tensor becomes an operation of a :class:`Recording`.  A term carries a number in front, so that
``theta - lr * m / d`` is one operation with one number, as torch's own kernels have it.

The operations stay the same from step to step, and only the numbers change: that is why a compiled
kernel takes the numbers as an input, and never needs to be compiled again for them.
:mod:`optlab.kernels` runs what is recorded here.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Operation = tuple[str, tuple[int, ...], int]  # its name, its operands' places, its number's place


class Program(NamedTuple):
    """Operations on numbered tensors: first ``inputs`` of them are given, each operation adds one.

    Attributes:
        inputs: how many tensors are given: the parameter, its gradient, its state.
        operations: in order.
        outputs: which tensors are the new parameter and the new state.
    """

    inputs: int
    operations: tuple[Operation, ...]
    outputs: tuple[int, ...]


class Recording(NamedTuple):
    """A program, the numbers that it takes in this step, and what the rule made of plain floats."""

    program: Program
    numbers: tuple[float, ...]
    floats: tuple[float, ...]


def record(rule: Callable[..., Sequence[Any]], *operands: float | None) -> Recording:
    """Run a rule of ``(theta, g, *state)`` and keep what it does.

    Args:
        rule: what takes the operands, by position, and returns the new parameter and state.
        operands: None where the operand is a tensor, and the number where it is one.

    Raises:
        TypeError: the rule does what no operation stands for, or returns a number for a tensor.

    >>> record(lambda theta, g: (theta - 0.1 * g,), None, None).program.operations
    (('add', (0, 1), 0),)
    """
    tape = _Tape()
    given: list[Any] = []
    for operand in operands:
        if operand is None:
            given.append(Term(tape, tape.count))
            tape.count += 1
        else:
            given.append(operand)
    inputs = tape.count
    results = rule(*given)
    wanted = [given[0], *given[2:]]
    outputs, floats = [], []
    for place, (old, new) in enumerate(zip(wanted, results, strict=True)):
        if isinstance(old, Term) is not isinstance(new, Term):
            raise TypeError(
                f"the rule must return a tensor for a tensor, result {place} is {new!r}"
            )
        if not isinstance(new, Term):
            floats.append(float(new))
        elif new.node is not old.node and new.scale is None and new.node in range(inputs):
            outputs.append(tape.emit("scale", new.value(), number=1.0))  # one state into another
        else:
            outputs.append(new.value())
    program = Program(inputs, tuple(tape.operations), tuple(outputs))
    return Recording(program, tuple(tape.numbers), tuple(floats))


class _Tape:
    def __init__(self) -> None:
        self.count = 0
        self.operations: list[Operation] = []
        self.numbers: list[float] = []

    def emit(self, name: str, *operands: int, number: float | None = None) -> int:
        place = -1
        if number is not None:
            place = len(self.numbers)
            self.numbers.append(float(number))
        self.operations.append((name, operands, place))
        self.count += 1
        return self.count - 1


class Term:
    """A tensor in a rule that is being recorded: a number times a tensor.

    ``node`` is the tensor's place, or a product or quotient of two places that is not computed
    yet, since an addition may take it up.  ``scale`` is None where no number stands in front.
    """

    __slots__ = ("node", "scale", "tape")
    #: NumPy's numbers must not take a term for an array of one.
    __array_ufunc__ = None

    def __init__(self, tape: _Tape, node: Any, scale: float | None = None) -> None:
        self.tape = tape
        self.node = node
        self.scale = scale

    def base(self) -> int:
        """The place of the tensor, computed now where it was not."""
        if isinstance(self.node, tuple):
            name, a, b = self.node
            self.node = self.tape.emit(name, a, b)
        return int(self.node)

    def value(self) -> int:
        """The place of the number times the tensor."""
        place = self.base()
        if self.scale is not None:
            self.node = place = self.tape.emit("scale", place, number=self.scale)
            self.scale = None
        return place

    def _new(self, name: str, *operands: int, number: float | None = None) -> "Term":
        return Term(self.tape, self.tape.emit(name, *operands, number=number))

    def _scaled(self, factor: float) -> "Term":
        return Term(self.tape, self.node, factor if self.scale is None else self.scale * factor)

    def __mul__(self, other: Any) -> "Term":
        if not isinstance(other, Term):
            return self._scaled(other)
        scales = [scale for scale in (self.scale, other.scale) if scale is not None]
        scale = functools.reduce(lambda a, b: a * b, scales) if scales else None
        return Term(self.tape, ("mul", self.base(), other.base()), scale)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "Term":
        if not isinstance(other, Term):
            return Term(self.tape, self.node, (1.0 if self.scale is None else self.scale) / other)
        if other.scale == 0:
            other.value()
        scale = self.scale
        if other.scale is not None:
            scale = (1.0 if scale is None else scale) / other.scale
        return Term(self.tape, ("div", self.base(), other.base()), scale)

    def __rtruediv__(self, other: float) -> "Term":
        return self._new("reciprocal", self.value())._scaled(other)

    def __neg__(self) -> "Term":
        return self._scaled(-1.0)

    def __add__(self, other: Any) -> "Term":
        if not isinstance(other, Term):
            return self._new("shift", self.value(), number=other)
        x, y = self, other
        if isinstance(x.node, tuple) and not isinstance(y.node, tuple):
            x, y = y, x  # a product or quotient that waits is added in one operation
        elif y.scale is None and not isinstance(y.node, tuple):
            x, y = y, x  # so is one with a number in front
        place, number = x.value(), 1.0 if y.scale is None else y.scale
        if isinstance(y.node, tuple):
            name, a, b = y.node
            return self._new(f"addc{name}", place, a, b, number=number)
        return self._new("add", place, y.node, number=number)

    __radd__ = __add__

    def __sub__(self, other: Any) -> "Term":
        return self + -other

    def __rsub__(self, other: float) -> "Term":
        return -self + other

    def __pow__(self, exponent: float) -> "Term":
        if exponent == 2:
            return self * self
        if exponent != 0.5:
            return self._new("pow", self.value(), number=exponent)
        if self.scale is not None and not self.scale > 0:
            self.value()
        root = self._new("sqrt", self.base())
        return root if self.scale is None else root._scaled(self.scale**0.5)

    def __abs__(self) -> "Term":
        size = self._new("abs", self.base())
        return size if self.scale is None else size._scaled(abs(self.scale))

    def clip(self, low: Any) -> "Term":
        """What :func:`optlab.rules.maximum` asks of an array."""
        if isinstance(low, Term):
            return self._new("maximum", self.value(), low.value())
        return self._new("clip", self.value(), number=low)

    def __bool__(self) -> bool:
        raise TypeError("a rule must not branch on the entries of a tensor: use maximum()")
