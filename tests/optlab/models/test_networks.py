"""Each network beside torch's own, or beside what its paper says."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

import optlab
from optlab.curvature import Categorical
from optlab.models import GPT, RNN, autoencoder, convnet, mlp, plain, resnet
from optlab.models.convolutional import Residual
from optlab.models.transformer import Attention, Block


def count(model):
    return sum(p.numel() for p in model.parameters())


def fill(into, values):
    with torch.no_grad():
        for p, value in zip(into, values, strict=True):
            p.copy_(value)


def test_mlp_by_hand():
    model = mlp((2, 2, 1), "tanh")
    values = [[1.0, 2.0], [0.0, -1.0]], [0.5, 0.0], [[2.0, 3.0]], [-1.0]
    fill(model.parameters(), map(torch.tensor, values))
    found = model(torch.tensor([[1.0, -1.0]])).item()
    assert found == pytest.approx(2 * math.tanh(-0.5) + 3 * math.tanh(1) - 1)


def test_norm_stands_before_the_activation():
    kinds = [type(layer).__name__ for layer in mlp((3, 5, 5, 2), norm=True)]
    assert kinds == ["Flatten", *["Linear", "BatchNorm1d", "ReLU"] * 2, "Linear"]
    maps = [type(layer).__name__ for layer in convnet()][:9]
    assert maps == ["Conv2d", "BatchNorm2d", "ReLU"] * 3


@pytest.mark.parametrize("depth", [2, 50])
def test_depth_counts_layers_with_weights(depth):
    model = plain(depth=depth)
    assert sum(isinstance(layer, nn.Linear) for layer in model) == depth


def gradients(model):
    """Norms of the weights' gradients, layer by layer."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 64, generator=generator), torch.arange(64) % 10
    functional.cross_entropy(model(x), y).backward()
    return [layer.weight.grad.norm().item() for layer in model if isinstance(layer, nn.Linear)]


def test_gradients_vanish_through_fifty_layers():
    """Uniform weights have a third of the variance that keeps a rectifier's signals: 1/sqrt(6)."""
    torch.manual_seed(0)
    shallow, deep = gradients(plain(depth=3)), gradients(plain())
    assert shallow[0] > 1e-3 and deep[-1] > 1e-3
    assert deep[0] < 10 * 6 ** (-49 / 2) < 1e-17


def test_gradients_explode_through_fifty_normalized_layers():
    """Rectified normal numbers have a square of 1/2 and a variance of 1/2 - 1/(2 pi).

    A layer multiplies the gradient's square by the first, its normalization divides by the second.
    """
    torch.manual_seed(0)
    norms = gradients(plain(norm=True))
    factor = (norms[5] / norms[45]) ** (1 / 40)
    assert factor == pytest.approx(math.sqrt(math.pi / (math.pi - 1)), rel=0.03)


def test_the_autoencoders_code_and_outputs_are_linear():
    model = autoencoder((8, 5, 3), "sigmoid")
    assert [type(m).__name__ for m in model.encoder] == ["Flatten", "Linear", "Sigmoid", "Linear"]
    assert [m.out_features for m in model.decoder if isinstance(m, nn.Linear)] == [5, 8]
    x = torch.randn(2, 8)
    assert model.encoder(x).shape == (2, 3)
    torch.testing.assert_close(model(x), model.decoder(model.encoder(x)))


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)]
)
def test_resnets_have_the_papers_size(depth, millions):
    """He et al. (2016), table 6; theirs has three maps in, and so 288 weights more."""
    with torch.device("meta"):
        model = resnet(depth)
        assert (count(model) + 288) / 1e6 == pytest.approx(
            millions, abs=0.051 if depth > 99 else 0.006
        )
        weighted = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(weighted) == depth


def test_sizes_of_a_resnets_maps():
    model, x, seen = resnet(8), torch.zeros(1, 1, 28, 28), []
    for layer in model[:-3]:
        x = layer(x)
        if isinstance(layer, Residual):
            seen.append(tuple(x.shape[1:]))
    assert seen == [(16, 28, 28), (32, 14, 14), (64, 7, 7)]


@pytest.mark.parametrize("size", [6, 7])
def test_shortcuts_carry_the_input(size):
    block = Residual(2, 5, 2).eval()
    nn.init.zeros_(block.body[-1].weight)
    x = torch.randn(3, 2, size, size)
    found = block(x)
    torch.testing.assert_close(found[:, :2], x[:, :, ::2, ::2].clamp(min=0))
    assert found.shape[1] == 5 and (found[:, 2:] == 0).all()


def test_rnn_is_torchs():
    torch.manual_seed(0)
    ours, theirs = RNN(3, 8, 4, gain=0.9), nn.RNN(3, 8, batch_first=True)
    weights = [ours.input.weight, ours.recurrent.weight, ours.input.bias, torch.zeros(8)]
    fill(theirs.parameters(), weights)
    x = torch.randn(5, 11, 3)
    torch.testing.assert_close(ours(x), ours.output(theirs(x)[0][:, -1]))


@pytest.mark.parametrize("gain", [0.5, 1.0, 2.0])
def test_gradients_through_time_change_by_the_gain(gain):
    """At zero tanh is the identity, so the input ``k`` steps back counts ``gain^k`` times."""
    torch.manual_seed(0)
    model = RNN(gain=gain).double()
    nn.init.zeros_(model.input.bias)
    hidden = []
    model.recurrent.register_forward_hook(lambda _, inputs, __: hidden.append(inputs[0]))
    out = model(torch.zeros(1, 31, dtype=torch.float64))
    g = torch.autograd.grad(out[0, 0], [*hidden])
    last = model.output.weight[0].norm()
    for back, gradient in enumerate(reversed(g), 1):
        assert (gradient.norm() / last).item() == pytest.approx(gain**back)


def test_attention_is_torchs():
    torch.manual_seed(0)
    ours, theirs = Attention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    parts = ours.query, ours.key, ours.value
    stacked = [torch.cat([getattr(m, name) for m in parts]) for name in ("weight", "bias")]
    fill(theirs.parameters(), [*stacked, ours.out.weight, ours.out.bias])
    x = torch.randn(2, 7, 12)
    mask = nn.Transformer.generate_square_subsequent_mask(7)
    torch.testing.assert_close(ours(x), theirs(x, x, x, attn_mask=mask)[0])


def test_a_block_is_torchs():
    torch.manual_seed(0)
    ours = Block(12, 3)
    theirs = nn.TransformerEncoderLayer(
        *(12, 3, 48), dropout=0, activation="gelu", norm_first=True, batch_first=True
    )
    attention = ours.attention
    parts = attention.query, attention.key, attention.value
    stacked = [torch.cat([getattr(m, name) for m in parts]) for name in ("weight", "bias")]
    rest = [*ours.perceptron.parameters(), *ours.norms.parameters()]
    for p in rest:
        nn.init.normal_(p)
    fill(theirs.parameters(), [*stacked, *attention.out.parameters(), *rest])
    x = torch.randn(2, 7, 12)
    mask = nn.Transformer.generate_square_subsequent_mask(7)
    torch.testing.assert_close(ours(x), theirs(x, src_mask=mask), rtol=1e-4, atol=1e-4)


SMALL = dict(context=8, layers=2, heads=2, width=16)


def test_logits_depend_on_the_past_alone():
    torch.manual_seed(0)
    model, tokens = GPT(**SMALL), torch.randint(256, (1, 8))
    other = tokens.clone()
    other[0, 5] += 1
    same = (model(tokens) == model(other)).all(-1)[0]
    assert same.tolist() == [True] * 5 + [False] * 3


def test_places_matter_and_a_new_model_knows_nothing():
    torch.manual_seed(0)
    model = GPT(**SMALL)
    logits = model(torch.full((1, 8), 7))
    assert not torch.allclose(logits[0, 0], logits[0, 1])
    loss = functional.cross_entropy(logits[0], torch.arange(8))
    assert loss.item() == pytest.approx(math.log(256), abs=0.1)


def test_deviations_of_new_weights():
    torch.manual_seed(0)
    for name, p in GPT().named_parameters():
        if p.dim() > 1:
            into_sum = ".out." in name or "perceptron.2" in name
            expected = 0.02 / math.sqrt(8) if into_sum else 0.02
            assert p.std().item() == pytest.approx(expected, rel=0.05), name
        else:
            constant = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            assert (p == constant).all(), name


def test_kfac_counts_places_as_it_counts_tokens():
    """Both embeddings are added, so that the same gradients come back to them."""
    torch.manual_seed(0)
    model, tokens = GPT(**SMALL), torch.randint(256, (3, 8))
    optimizer = optlab.KFAC(model, Categorical(dim=-1))
    functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
    optimizer.step()
    factors = optimizer.factors()
    torch.testing.assert_close(factors["positions"][1], factors["tokens"][1])
    torch.testing.assert_close(factors["positions"][0], torch.full((8,), 1 / 8))


def test_tied_weights_are_one():
    model = GPT(**SMALL, tied=True)
    assert model.output.weight is model.tokens.weight
    assert count(GPT(**SMALL)) - count(model) == 256 * 16


def test_second_order_methods_need_attention_in_plain_operations():
    torch.manual_seed(0)
    model, tokens = GPT(**SMALL), torch.randint(256, (2, 8))
    optimizer = optlab.GaussNewton(model.parameters(), Categorical(dim=-1))
    with sdpa_kernel(SDPBackend.MATH):
        before = optimizer.step(lambda: (model(tokens), tokens))
        assert optimizer.step(lambda: (model(tokens), tokens)) < before
