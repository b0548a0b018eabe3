"""Rounding into a format against torch's own types, number by number."""

import math

import pytest
import torch

from optlab.precision import BF16, E4M3, E5M2, FORMATS, FP16, FP32, formats

NARROW = [FP16, BF16, E4M3, E5M2]


def every_number(kind):
    """All that the format has but NaN, from its bits."""
    integers = {16: torch.int16, 8: torch.int8}[kind.bits]
    bits = torch.arange(2**kind.bits) - 2 ** (kind.bits - 1)
    numbers = bits.to(integers).view(kind.dtype).double()
    return numbers[~numbers.isnan()]


def hard_values(kind):
    """Numbers of the format, ties between them, and what is next to ties."""
    numbers = every_number(kind)
    finite = numbers[numbers.isfinite()].sort().values
    ties = (finite[1:] + finite[:-1]) / 2
    edge = kind.largest + kind.spacing(torch.tensor(kind.largest)) / 2
    values = torch.cat([finite, ties, edge.view(1), -edge.view(1)]).float()
    infinity = torch.tensor(math.inf)
    around = [torch.nextafter(values, infinity), torch.nextafter(values, -infinity)]
    return torch.cat([values, *around, torch.tensor([math.inf, -math.inf, math.nan])])


@pytest.mark.parametrize("kind", NARROW, ids=lambda kind: kind.name)
def test_rounding_is_torchs(kind):
    values = hard_values(kind)
    expected, found = values.to(kind.dtype).double(), kind.round(values)
    assert torch.equal(found.nan_to_num(7e5), expected.nan_to_num(7e5))
    # Zeros keep their sign, infinities theirs.
    numbers = ~expected.isnan()
    assert torch.equal(found.signbit()[numbers], expected.signbit()[numbers])


def test_rounding_to_single_precision_is_torchs():
    generator = torch.Generator().manual_seed(0)
    exponents = torch.randint(-160, 135, (20_000,), generator=generator)
    mantissas = torch.rand(20_000, generator=generator, dtype=torch.float64) + 1
    values = mantissas * torch.pow(torch.tensor(2.0, dtype=torch.float64), exponents)
    assert torch.equal(FP32.round(values), values.float().double())
    huge = torch.tensor([1e308, -1e308, 5e-324, 3.5e38], dtype=torch.float64)
    assert FP32.round(huge).tolist() == [math.inf, -math.inf, 0.0, math.inf]


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)
def test_limits_are_torchs(kind):
    limits = torch.finfo(kind.dtype)
    assert (kind.bits, kind.largest) == (limits.bits, limits.max)
    assert (kind.normal, kind.eps) == (limits.tiny, limits.eps)
    assert kind.smallest == limits.smallest_normal * limits.eps


def test_figures_of_the_course():
    """2^-24 is 6e-8, 2^-25 is 0, 65504 is the end, and 1 + 2^-11 is 1."""
    found = FP16.round(torch.tensor([2.0**-24, 2.0**-25, 1 + 2.0**-11, 65519.0, 65520.0]))
    assert found.tolist() == [2.0**-24, 0.0, 1.0, 65504.0, math.inf]
    assert f"{2.0**-24:.0e}" == "6e-08"


@pytest.mark.parametrize("kind", NARROW, ids=lambda kind: kind.name)
def test_spacing_is_the_distance_of_neighbours(kind):
    numbers = every_number(kind)
    numbers = numbers[numbers.isfinite() & (numbers >= 0)].unique()
    assert torch.equal(kind.spacing(numbers[:-1]), numbers.diff())


@pytest.mark.parametrize("kind", NARROW, ids=lambda kind: kind.name)
def test_patterns_are_the_bits(kind):
    integers = {16: torch.int16, 8: torch.int8}[kind.bits]
    numbers = every_number(kind)
    for value in numbers[:: max(1, len(numbers) // 500)].tolist():
        bits = torch.tensor(value).to(kind.dtype).view(integers).item() % 2**kind.bits
        assert kind.pattern(value).replace(" ", "") == f"{bits:0{kind.bits}b}"
    digits = kind.pattern(math.nan).replace(" ", "")
    bits = torch.tensor([int(digits, 2)])
    assert bits.to(integers).view(kind.dtype).float().isnan()


@pytest.mark.parametrize("kind", NARROW, ids=lambda kind: kind.name)
def test_stochastic_rounding_is_unbiased(kind):
    for value in (1 + kind.eps / 4, -(1 + 0.9 * kind.eps), 0.3 * kind.smallest, 1.0):
        many = torch.full((40_000,), value, dtype=torch.float64)
        found = kind.round(many, torch.Generator().manual_seed(0))
        below, above = found.min(), found.max()
        assert above - below <= kind.spacing(torch.tensor(value))
        assert below <= value <= above
        deviation = float(found.std()) / 200
        assert abs(float(found.mean()) - value) <= 5 * deviation


def test_stochastic_rounding_keeps_what_is_exact_or_not_finite():
    generator = torch.Generator().manual_seed(0)
    numbers = torch.cat([every_number(E5M2), torch.tensor([math.nan], dtype=torch.float64)])
    found = E5M2.round(numbers, generator)
    assert torch.equal(found.nan_to_num(7e5), numbers.nan_to_num(7e5))


def test_a_census_counts_each_value_once():
    x = torch.tensor([0.0, 1e-9, 2.0**-20, 1.0, -3.0, 1e6, math.inf, math.nan])
    shares = {name: 8 * share for name, share in FP16.census(x).items()}
    assert shares == {
        "zero": 1,
        "underflow": 1,
        "subnormal": 1,
        "overflow": 1,
        "invalid": 2,
        "normal": 2,
    }
    assert sum(E4M3.census(torch.empty(0)).values()) == 0


def test_a_histogram_of_a_models_gradients():
    weight = torch.zeros(3, requires_grad=True)
    (weight * torch.tensor([0.26, -2.0, 0.0])).sum().backward()
    unused = torch.zeros(2, requires_grad=True)
    assert formats.histogram(formats.gradients([weight, unused])) == {-2: 1, 1: 1}
    assert formats.gradients([unused]).numel() == 0
