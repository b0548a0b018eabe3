"""What models K-FAC meets: weights used twice, unknown layers, attention."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from optlab import KFAC
from optlab.curvature import Categorical
from tests.optlab.kfac.driving import X, Y, values


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(torch.tanh(self.layer(x)))


def test_a_layer_that_is_called_twice():
    torch.manual_seed(0)
    model = Twice().double()
    optimizer = KFAC(model, "gaussian", fisher="exact")
    (model(X).square().sum() / 16).backward()
    optimizer.step()
    fresh = Twice().double()
    torch.manual_seed(0)
    fresh = Twice().double()
    first = torch.tanh(fresh.layer(X)).detach()
    rows = functional.pad(torch.cat([X, first]), (0, 1), value=1.0)
    A, _ = optimizer.factors()["layer"]
    torch.testing.assert_close(A, rows.T @ rows / 16)


def test_what_has_no_curvature_is_listed_and_moves_by_its_gradient():
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv1d(2, 2, 1, groups=2), nn.Flatten(), nn.Linear(4, 4), nn.PReLU()),
        *(nn.Linear(4, 3), nn.Linear(3, 3)),
    ).double()
    model[2].bias.requires_grad_(False)
    model[5].weight = model[5].weight
    with pytest.warns(UserWarning, match="leaves the gradient as it is for") as warned:
        optimizer = KFAC(model, "categorical", momentum=0, lr=0.1, kl_clip=None)
    assert len(warned) == 1
    assert optimizer.plain == {
        "0.weight": "groups=2",
        "0.bias": "groups=2",
        "2.weight": "only part of its layer is updated",
        "3.weight": "no curvature for PReLU",
    }
    before = values(model)
    functional.cross_entropy(model(X.view(8, 2, 2)), Y).backward()
    optimizer.step()
    for index in (0, 1, 2, 4):
        p = [*model.parameters()][index]
        torch.testing.assert_close(p.detach(), before[index] - 0.1 * p.grad)
    assert torch.equal(model[2].bias, before[3])


def test_tied_weights_keep_their_gradient():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 3, bias=False))
    model[1].weight = model[0].weight
    with pytest.warns(UserWarning, match=r"0\.weight \(2 modules share it\)"):
        KFAC(model, "categorical")


class Attention(nn.Module):
    """Self-attention of one head between an embedding and classes."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Embedding(6, 8), nn.LayerNorm(8)
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
        self.out, self.classes = nn.Linear(8, 8), nn.Linear(8, 6)

    def forward(self, tokens):
        x = self.norm(self.embed(tokens))
        q, k, v = self.query(x), self.key(x), self.value(x)
        x = x + self.out(functional.scaled_dot_product_attention(q, k, v, is_causal=True))
        return self.classes(x)


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
def test_projections_of_attention(sharing):
    torch.manual_seed(0)
    model, tokens = Attention().double(), torch.randint(6, (4, 7))
    optimizer = KFAC(model, Categorical(dim=-1), lr=0.3, damping=1e-2, sharing=sharing)
    assert optimizer.plain == {}
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        logits = model(tokens)
        loss = functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    assert [G.shape[0] for _, G in optimizer.factors().values()] == [8, 8, 8, 8, 8, 6]
    with pytest.warns(UserWarning, match="no curvature for MultiheadAttention"):
        assert len(KFAC(nn.MultiheadAttention(4, 2), "gaussian").plain) == 4
