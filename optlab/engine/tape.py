"""A rule's arithmetic on tensors, recorded as few operations, with its numbers set apart.

An optimizer runs its rule on a :class:`Term` for each tensor and on plain floats for the rest.
What depends on floats alone, such as ``1 - beta2**step``, is so computed on the spot; what touches
a tensor becomes an operation of a :class:`Recording`.  A term carries a number in front, so that
``theta - lr * m / d`` is one operation with one number, as torch's own kernels have it.

The operations stay the same from step to step, and only the numbers change: that is why a compiled
kernel takes the numbers as an input, and never needs to be compiled again for them.
:mod:`optlab.engine.kernels` runs what is recorded here.
"""

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, NamedTuple

import torch.fx

Operation = tuple[str, tuple[int, ...], int]  # its name, its operands' places, its number's place
#: What stands for a number: in a trace, that is not known yet.
NUMBER: Any = (Real, torch.fx.Proxy)


class Program:
    """Operations on numbered tensors: ``inputs`` of them are given, each operation adds one.

    Attributes:
        inputs: how many tensors are given: the parameter, its gradient, its state.
        operations: in order.
        outputs: which tensors are the new parameter and the new state.
        layerwise: whether one of them sums over a parameter, which then must be by itself.
        kept: what :mod:`optlab.engine.kernels` has made of it.
    """

    __slots__ = ("inputs", "kept", "layerwise", "operations", "outputs")

    def __init__(
        self, inputs: int, operations: Sequence[Operation], outputs: Sequence[int]
    ) -> None:
        self.inputs = inputs
        self.operations = tuple(operations)
        self.outputs = tuple(outputs)
        self.layerwise = any(name == "sum" for name, *_ in self.operations)
        self.kept: dict[Any, Any] = {}

    def same(self, other: "Program") -> bool:
        """Whether the two do the same."""
        return (self.operations, self.outputs) == (other.operations, other.outputs)


class Recording(NamedTuple):
    """A program, the numbers that it takes in this step, and what the rule made of plain floats."""

    program: Program
    numbers: Sequence[float]
    floats: Sequence[float]


def record(rule: Callable[..., Sequence[Any]], *operands: Any) -> Recording:
    """Run a rule of ``(theta, g, *state)`` and keep what it does.

    Args:
        rule: what takes the operands, by position, and returns the new parameter and state.
        operands: None where the operand is a tensor, and the number where it is one.

    Raises:
        TypeError: the rule does what no operation stands for, or returns a number for a tensor.

    >>> record(lambda theta, g: (theta - 0.1 * g,), None, None).program.operations
    (('add', (0, 1), 0),)
    """
    return play(rule, *operands)[0]


def play(rule: Callable[..., Sequence[Any]], *operands: Any) -> tuple[Recording, Sequence[float]]:
    """As :func:`record`; with it numbers that must be above zero, else another recording is due."""
    tape = Tape(sum(operand is None for operand in operands))
    places = iter(range(tape.inputs))
    given = [Term(tape, next(places)) if number is None else number for number in operands]
    outputs, floats = [], []
    for old, new in zip((given[0], *given[2:]), rule(*given), strict=True):
        if type(old) is not Term and type(new) is not Term:
            floats.append(new)
        elif type(old) is Term and type(new) is Term:
            place = new.value()
            if place < tape.inputs and place != old.node:
                place = tape.emit("scale", (place,), 1.0)  # one state has become another
            outputs.append(place)
        else:
            raise TypeError(f"a rule must return a tensor for each tensor, got {new!r}")
    return Recording(*tape.program(outputs), floats), tape.positive


class Tape:
    """Operations and numbers as a rule makes them; the first ``inputs`` tensors are given."""

    __slots__ = ("inputs", "numbers", "operations", "positive")

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self.operations: list[Operation] = []
        self.numbers: list[float] = []
        self.positive: list[float] = []  # of which a root was taken

    def emit(self, name: str, operands: tuple[int, ...], number: float | None = None) -> int:
        """Write down an operation; returns the place of its result."""
        place = -1
        if number is not None:
            place = len(self.numbers)
            self.numbers.append(number)
        self.operations.append((name, operands, place))
        return self.inputs + len(self.operations) - 1

    def program(self, outputs: Sequence[int]) -> tuple[Program, list[float]]:
        """The operations that lead to these places, and their numbers."""
        needed = {*outputs}
        kept: list[tuple[int, Operation]] = []
        for place, operation in reversed([*enumerate(self.operations, self.inputs)]):
            if place in needed:
                kept.append((place, operation))
                needed.update(operation[1])
        places = {place: place for place in range(self.inputs)}
        operations: list[Operation] = []
        numbers: list[float] = []
        for place, (name, operands, number) in reversed(kept):
            places[place] = self.inputs + len(operations)
            if number >= 0:
                numbers.append(self.numbers[number])
                number = len(numbers) - 1
            operations.append((name, tuple(places[operand] for operand in operands), number))
        return Program(self.inputs, operations, [places[output] for output in outputs]), numbers


class Term:
    """A tensor in a rule that is being recorded: a number times a tensor.

    ``node`` is the tensor's place, or a product or quotient of two places that is not computed
    yet, since an addition may take it up.  ``scale`` is None where no number stands in front.
    """

    __slots__ = ("node", "scale", "tape")
    #: NumPy's numbers must not take a term for an array of one.
    __array_ufunc__ = None

    def __init__(self, tape: Tape, node: Any, scale: Any = None) -> None:
        self.tape = tape
        self.node = node
        self.scale = scale

    def base(self) -> int:
        """The place of the tensor, computed now where it was not."""
        if type(self.node) is tuple:
            name, *operands = self.node
            self.node = self.tape.emit(name, tuple(operands))
        return self.node  # type: ignore[no-any-return]

    def value(self) -> int:
        """The place of the number times the tensor."""
        place = self.base()
        if self.scale is not None:
            self.node = place = self.tape.emit("scale", (place,), self.scale)
            self.scale = None
        return place

    def __mul__(self, other: Any) -> "Term":
        if type(other) is not Term:
            if not isinstance(other, NUMBER):
                return NotImplemented
            return Term(self.tape, self.node, other if self.scale is None else self.scale * other)
        scale = self.scale if other.scale is None else other.scale
        if self.scale is not None and other.scale is not None:
            scale = self.scale * other.scale
        return Term(self.tape, ("mul", self.base(), other.base()), scale)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "Term":
        scale = self.scale
        if type(other) is not Term:
            if not isinstance(other, NUMBER):
                return NotImplemented
            return Term(self.tape, self.node, (1.0 if scale is None else scale) / other)
        if other.scale is not None:
            scale = (1.0 if scale is None else scale) / other.scale
        return Term(self.tape, ("div", self.base(), other.base()), scale)

    def __rtruediv__(self, other: Any) -> "Term":
        if not isinstance(other, NUMBER):
            return NotImplemented
        return Term(self.tape, self.tape.emit("reciprocal", (self.value(),)), other)

    def __pos__(self) -> "Term":
        return self

    def __neg__(self) -> "Term":
        return Term(self.tape, self.node, -1.0 if self.scale is None else -self.scale)

    def __add__(self, other: Any) -> "Term":
        tape = self.tape
        if type(other) is not Term:
            if not isinstance(other, NUMBER):
                return NotImplemented
            return Term(tape, tape.emit("shift", (self.value(),), other))
        x, y = self, other
        if type(y.node) is not tuple and (type(x.node) is tuple or y.scale is None):
            # A product or quotient that waits, or a number in front, is taken up by the addition.
            x, y = y, x
        place, number = x.value(), 1.0 if y.scale is None else y.scale
        if type(y.node) is tuple:
            name, a, b = y.node
            return Term(tape, tape.emit(f"addc{name}", (place, a, b), number))
        return Term(tape, tape.emit("add", (place, y.node), number))

    __radd__ = __add__

    def __sub__(self, other: Any) -> "Term":
        if type(other) is not Term and not isinstance(other, NUMBER):
            return NotImplemented
        difference: Term = self + -other
        return difference

    def __rsub__(self, other: Any) -> "Term":
        difference: Term = -self + other
        return difference

    def __pow__(self, exponent: Any) -> "Term":
        tape, scale = self.tape, self.scale
        if not isinstance(exponent, NUMBER):
            return NotImplemented
        if exponent == 2:
            return self * self
        if exponent != 0.5:
            return Term(tape, tape.emit("pow", (self.value(),), exponent))
        if scale is None or (not isinstance(scale, torch.fx.Proxy) and scale <= 0):
            return Term(tape, tape.emit("sqrt", (self.value(),)))
        tape.positive.append(scale)
        return Term(tape, tape.emit("sqrt", (self.base(),)), scale**0.5)

    def __abs__(self) -> "Term":
        size = self.tape.emit("abs", (self.base(),))
        return Term(self.tape, size, None if self.scale is None else abs(self.scale))

    def clip(self, low: Any) -> "Term":
        """What :func:`optlab.rules.maximum` asks of an array."""
        if type(low) is Term:
            return Term(self.tape, self.tape.emit("maximum", (self.value(), low.value())))
        if not isinstance(low, NUMBER):
            raise TypeError(f"maximum() takes tensors and numbers, got {low!r}")
        return Term(self.tape, self.tape.emit("clip", (self.value(),), low))

    def sum(self) -> "Term":
        """What :func:`optlab.rules.norm` asks of an array."""
        return Term(self.tape, self.tape.emit("sum", (self.base(),)), self.scale)

    def __bool__(self) -> bool:
        raise TypeError("a rule must not branch on the entries of a tensor: use maximum()")

    def __eq__(self, other: object) -> bool:
        return bool(self)

    __hash__ = None  # type: ignore[assignment]
