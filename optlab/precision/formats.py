"""Number formats: a sign, an exponent and a mantissa, and what of a tensor they hold.

A number of a format is ``(-1)^sign * 1.mantissa * 2^(exponent - bias)``; those of the lowest
exponent, the subnormal ones, have a 0 in place of the 1, and so go down to zero in equal steps.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor


class Format(NamedTuple):
    """A binary format of floating-point numbers.

    Args:
        name: as it is called.
        exponent: bits of the exponent.
        mantissa: bits of the mantissa.
        infinite: whether the highest exponent is for infinities and NaNs, as IEEE 754 has it; else
            it is for numbers, with one NaN, and what is too large becomes the largest.
        dtype: of tensors in this format.

    >>> FP16.largest, FP16.smallest == 2**-24, FP16.eps == 2**-10
    (65504.0, True, True)
    >>> FP16.round(torch.tensor([2**-24, 2**-26, 65504.0, 65520.0, 1 + 2**-11])).tolist()
    [5.960464477539063e-08, 0.0, 65504.0, inf, 1.0]
    """

    name: str
    exponent: int
    mantissa: int
    infinite: bool
    dtype: torch.dtype

    @property
    def bits(self) -> int:
        """How many a number takes."""
        return 1 + self.exponent + self.mantissa

    @property
    def bias(self) -> int:
        """What is taken from the stored exponent."""
        return (1 << (self.exponent - 1)) - 1

    @property
    def lowest(self) -> int:
        """The exponent of the least normal number, and of all subnormal ones."""
        return 1 - self.bias

    @property
    def normal(self) -> float:
        """The least number with a full mantissa."""
        return math.ldexp(1.0, self.lowest)

    @property
    def smallest(self) -> float:
        """The least number above zero, a subnormal one."""
        return math.ldexp(1.0, self.lowest - self.mantissa)

    @property
    def largest(self) -> float:
        """The largest finite number."""
        if self.infinite:
            return math.ldexp(2 - math.ldexp(1.0, -self.mantissa), self.bias)
        # The highest mantissa of the highest exponent is the NaN.
        return math.ldexp(2 - math.ldexp(1.0, 1 - self.mantissa), self.bias + 1)

    @property
    def eps(self) -> float:
        """From 1 to the next number."""
        return math.ldexp(1.0, -self.mantissa)

    def spacing(self, x: Tensor) -> Tensor:
        """From each value's lower neighbour in the format to its upper one, in float64."""
        return _power_of_two(self._last_place(x))

    def round(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The values in this format, as float64: the nearest, with ties to an even mantissa.

        Args:
            x: values of any shape, in any precision up to float64.
            generator: round up or down at random, so that the mean is the value itself
                (stochastic rounding); numbers are drawn from this.
        """
        rounded = self._unbounded(x, generator)
        beyond = math.inf if self.infinite else self.largest
        limited = torch.copysign(torch.full_like(rounded, beyond), rounded)
        return torch.where(rounded.abs() > self.largest, limited, rounded)

    def pattern(self, value: float) -> str:
        """Sign, exponent and mantissa of the value rounded into this format, bit by bit.

        >>> FP16.pattern(1 + 2**-10), E4M3.pattern(-0.4375)
        ('0 01111 0000000001', '1 0101 110')
        """
        number = float(self.round(torch.tensor(value, dtype=torch.float64)))
        sign = int(math.copysign(1.0, number) < 0)
        if not math.isfinite(number):
            full = 2**self.mantissa - 1
            mantissa = 0 if math.isinf(number) else full
            stored = 2**self.exponent - 1
        else:
            place = int(self._last_place(torch.tensor(number, dtype=torch.float64)))
            whole = int(math.ldexp(abs(number), -place))
            leading, mantissa = divmod(whole, 2**self.mantissa)
            stored = place + self.mantissa + self.bias if leading else 0
        return f"{sign} {stored:0{self.exponent}b} {mantissa:0{self.mantissa}b}"

    def census(self, x: Tensor) -> dict[str, float]:
        """What becomes of the values: shares, which add up to 1.

        ``"zero"`` was zero before, ``"underflow"`` is zero now, ``"subnormal"`` has lost bits of
        its mantissa, ``"overflow"`` is beyond the largest, ``"invalid"`` was not finite before, and
        ``"normal"`` is all else.  An empty tensor has none of these.
        """
        exact = x.detach().to(torch.float64)
        rounded = self.round(exact)
        invalid, zero = ~exact.isfinite(), exact == 0
        kinds = {
            "zero": zero,
            "underflow": (rounded == 0) & ~zero,
            "subnormal": (rounded != 0) & (rounded.abs() < self.normal),
            "overflow": (self._unbounded(exact).abs() > self.largest) & ~invalid,
            "invalid": invalid,
        }
        shares = {name: float(found.sum()) / max(x.numel(), 1) for name, found in kinds.items()}
        shares["normal"] = 1.0 - sum(shares.values()) if x.numel() else 0.0
        return shares

    def _unbounded(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The values rounded as if the exponent had no upper end."""
        exact, place = x.detach().to(torch.float64), self._last_place(x)
        # Powers of two change the exponent alone: nothing is lost but by the rounding.
        scaled = exact * _power_of_two(-place)
        if generator is None:
            whole = scaled.round()
        else:
            shape, device = scaled.shape, scaled.device
            drawn = torch.rand(shape, generator=generator, dtype=torch.float64, device=device)
            whole = torch.where(scaled.isfinite(), (scaled + drawn).floor(), scaled)
        return torch.copysign(whole * _power_of_two(place), exact)

    def _last_place(self, x: Tensor) -> Tensor:
        """The exponent of the last bit of each value's mantissa."""
        _, exponent = torch.frexp(x.detach().to(torch.float64))
        # frexp has the mantissa in [1/2, 1), and 0 for the exponent of zero.
        exponent = torch.where(x == 0, self.lowest, exponent - 1)
        # Above the format all is infinite: no need to go on to where powers overflow.
        return exponent.clamp(self.lowest, self.bias + 2).long() - self.mantissa


FP32 = Format("fp32", 8, 23, True, torch.float32)
FP16 = Format("fp16", 5, 10, True, torch.float16)
BF16 = Format("bf16", 8, 7, True, torch.bfloat16)
#: The two formats of eight bits (Micikevicius et al. 2022), the first saturating, as in torch 2.13.
E4M3 = Format("fp8 e4m3", 4, 3, False, torch.float8_e4m3fn)
E5M2 = Format("fp8 e5m2", 5, 2, True, torch.float8_e5m2)
FORMATS = (FP32, FP16, BF16, E4M3, E5M2)


def _power_of_two(exponent: Tensor) -> Tensor:
    """Exact ones, in float64, which a library's power need not be."""
    return ((exponent + 1023) << 52).view(torch.float64)


def histogram(x: Tensor) -> dict[int, int]:
    """How many values there are of each exponent: of ``2^k <= |value| < 2^(k+1)`` at ``k``.

    Zeros, infinities and NaNs have none.

    >>> histogram(torch.tensor([0.0, 1.0, -1.5, 0.3]))
    {-2: 1, 0: 2}
    """
    exact = x.detach().to(torch.float64).flatten()
    _, exponents = torch.frexp(exact[exact.isfinite() & (exact != 0)])
    found, counts = (exponents - 1).unique(return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def gradients(parameters: Iterable[Tensor]) -> Tensor:
    """All gradients as one vector, for :meth:`Format.census` and :func:`histogram`."""
    found = [p.grad.flatten().float() for p in parameters if p.grad is not None]
    return torch.cat(found) if found else torch.empty(0)
