"""What all models have in common: shapes, seeds, counts, gradients, and what K-FAC sees."""

import warnings
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from optlab import KFAC
from optlab.curvature import Bernoulli, Categorical
from optlab.models import TEN_MILLION, make
from optlab.models.registry import MODELS


class Case(NamedTuple):
    """A model, the parameters that its documentation says it has, and small inputs."""

    name: str
    settings: dict[str, Any]
    count: int
    x: Tensor
    shape: tuple[int, ...]
    plain: tuple[str, ...] = ()


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


TOKENS = torch.randint(256, (4, 6), generator=torch.Generator().manual_seed(0))
IMAGES = normal(4, 1, 28, 28)
CASES = [
    Case("mlp", {}, 7_510, normal(4, 1, 8, 8), (4, 10)),
    Case("mlp", dict(widths=(3, 5, 4, 2), activation="gelu"), 54, normal(4, 3), (4, 2)),
    Case("mlp", dict(widths=[3, 5, 2], norm=True), 37, normal(4, 3), (4, 2)),
    Case("plain", {}, 204_490, normal(32, 1, 8, 8), (32, 10)),
    Case("plain", dict(norm=True), 207_626, normal(32, 1, 8, 8), (32, 10)),
    Case("autoencoder", {}, 62_968, normal(4, 1, 16, 16).sigmoid(), (4, 256)),
    Case("convnet", {}, 24_058, IMAGES, (4, 10)),
    Case("convnet", dict(width=2, norm=False), 482, normal(4, 1, 8, 8), (4, 10)),
    Case("resnet", {}, 269_434, IMAGES, (4, 10)),
    Case("resnet", dict(depth=8, width=4, classes=3), 4_815, IMAGES, (4, 3)),
    Case("rnn", {}, 4_874, normal(4, 40), (4, 10)),
    Case("rnn", dict(inputs=2, width=3, classes=4), 34, normal(4, 5, 2), (4, 4)),
    Case("gpt", {}, 875_264, TOKENS, (4, 6, 256)),
    Case("gpt", dict(layers=1, heads=2, width=8, context=6), 5_032, TOKENS, (4, 6, 256)),
    Case(
        *("gpt", dict(tied=True), 842_496, TOKENS, (4, 6, 256)),
        ("tokens.weight (2 modules share it)",),
    ),
]
EVERY = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.count}")


def made(case, seed=0):
    torch.manual_seed(seed)
    return make(case.name, **case.settings)


def loss(case, outputs):
    if case.name == "autoencoder":
        targets = case.x.flatten(1)
        return functional.binary_cross_entropy_with_logits(outputs, targets, reduction="sum") / 4
    outputs = outputs.flatten(0, -2)
    return functional.cross_entropy(outputs, torch.arange(len(outputs)) % outputs.shape[1])


def counted(model):
    return sum(p.numel() for p in model.parameters())


def test_every_model_is_here():
    assert {case.name for case in CASES} == {*MODELS}


@EVERY
def test_shapes_and_counts(case):
    model = made(case)
    assert model(case.x).shape == case.shape
    assert counted(model) == case.count


@EVERY
def test_the_documentation_has_the_count(case):
    if not case.settings:
        assert f"{case.count:,} parameters" in MODELS[case.name].__doc__


@EVERY
def test_weights_are_drawn_by_seed(case):
    first, again, other = (list(made(case, seed).parameters()) for seed in (0, 0, 1))
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))


@EVERY
def test_gradients_reach_every_parameter(case):
    """In double precision, as those of the first of 50 layers would be lost in single."""
    model = made(case).double()
    x = case.x.double() if case.x.is_floating_point() else case.x
    loss(case, model(x)).backward()
    # A shift of all keys alike changes no attention.
    still = {name for name, _ in model.named_parameters() if name.endswith("key.bias")}
    for name, p in model.named_parameters():
        if name not in still:
            assert p.grad is not None and p.grad.abs().max() > 0, name


@EVERY
@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_no_activation_overwrites_its_input(case):
    """Module backward hooks raise where one does."""
    model = made(case)
    seen = []
    for module in model.modules():
        module.register_full_backward_hook(lambda *_: seen.append(0))
        assert not getattr(module, "inplace", False)
    x = case.x.clone().requires_grad_() if case.x.is_floating_point() else case.x
    loss(case, model(x)).backward()
    assert len(seen) >= len([m for m in model.modules() if not list(m.children())])


@EVERY
def test_kfac_sees_all_layers(case):
    model = made(case)
    kind = Bernoulli() if case.name == "autoencoder" else Categorical(dim=-1)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        optimizer = KFAC(model, kind, lr=0.05)
    left = tuple(f"{name} ({reason})" for name, reason in optimizer.plain.items())
    assert left == case.plain and len(warned) == len(case.plain)
    before = [p.detach().clone() for p in model.parameters()]
    loss(case, model(case.x)).backward()
    slopes = [p.grad.clone() for p in model.parameters()]
    optimizer.step()
    kinds = nn.Linear, nn.Conv2d, nn.Embedding
    layers = {name for name, module in model.named_modules() if isinstance(module, kinds)}
    assert {*optimizer.factors()} == (layers - {"tokens", "output"} if case.plain else layers)
    # Downhill, as the preconditioner is positive.
    moved = [p.detach() - old for p, old in zip(model.parameters(), before, strict=True)]
    assert sum((g * d).sum() for g, d in zip(slopes, moved, strict=True)) < 0


def test_ten_million():
    with torch.device("meta"):
        assert counted(make("gpt", **TEN_MILLION)) == 10_942_464


@pytest.mark.parametrize(
    ("name", "given", "kind", "message"),
    [
        ("mpl", {}, ValueError, r"no model 'mpl': did you mean 'mlp'"),
        ("mlp", dict(width=(1, 2)), TypeError, "did you mean 'widths'"),
        ("mlp", dict(widths=3), TypeError, "widths must be two numbers or more, got 3"),
        ("mlp", dict(widths=(3,)), TypeError, "widths must be two numbers or more"),
        ("mlp", dict(widths=(3, 0)), ValueError, r"widths\[1\] must be at least 1, got 0"),
        ("mlp", dict(activation="rleu"), ValueError, "activation must be one of relu, gelu"),
        ("mlp", dict(norm=1), TypeError, "norm must be True or False"),
        ("plain", dict(depth=1), ValueError, "depth must be at least 2, got 1"),
        ("plain", dict(width=0), ValueError, "width must be at least 1"),
        ("autoencoder", dict(widths=(4,)), TypeError, "widths must be two"),
        ("convnet", dict(width=0), ValueError, "width must be at least 1"),
        ("convnet", dict(norm="batch"), TypeError, "norm must be True or False"),
        ("resnet", dict(depth=18), ValueError, r"depth must be 8, 14, 20 .*, got 18"),
        ("resnet", dict(depth=2), ValueError, "depth must be at least 8"),
        ("resnet", dict(widht=2), TypeError, "did you mean 'width'"),
        ("rnn", dict(gain=0.0), ValueError, r"gain must be in \(0, inf\)"),
        ("rnn", dict(inputs=1.5), TypeError, "inputs must be a whole number"),
        ("gpt", dict(heads=3), ValueError, "width must be a multiple of heads=3, got 128"),
        ("gpt", dict(tied=0), TypeError, "tied must be True or False"),
        ("gpt", dict(layer=2), TypeError, "did you mean 'layers'"),
    ],
    ids=str,
)
def test_bad_settings_are_named(name, given, kind, message):
    with pytest.raises(kind, match=message):
        make(name, **given)


@pytest.mark.parametrize("shape", [(5,), (2, 7)])
def test_gpt_refuses_what_it_cannot_hold(shape):
    model = make("gpt", context=6, layers=1, width=8)
    with pytest.raises(ValueError, match=r"a length of at most 6, got"):
        model(torch.zeros(shape, dtype=torch.int64))


def test_models_are_plain_modules():
    assert all(isinstance(make(name), nn.Module) for name in MODELS)
