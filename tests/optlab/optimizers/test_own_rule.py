"""An optimizer of the user's own: a class that names a rule, its state and its ranges."""

from typing import ClassVar

import pytest
import torch

from optlab.engine import Engine
from optlab.rules import adamw, norm


def sign_with_memory(theta, g, m, *, lr):
    m = 0.5 * m + g
    return theta - lr * m / abs(m), m


def branching(theta, g, *, lr):
    return (theta - (lr if lr < 0.2 else 0.2) * g,)


def forgetful(theta, g, m, *, lr):
    return theta - lr * (g + m), 0.0


def to_unit_length(theta, g, *, lr):
    return (theta - lr * g / norm(g),)


class Own(Engine):
    ranges: ClassVar = {"lr": "[0, inf)"}
    memory: ClassVar = {"m": "average"}
    rule = None

    def __init__(self, params, lr=0.1, compile=False):
        super().__init__(params, {"lr": lr, "weight_decay": 0.0, "maximize": False}, compile)

    def bind(self, group):
        return type(self).rule, {"lr": group["lr"]}


def own(rule, **attributes):
    return type("Own", (Own,), {"rule": staticmethod(rule), **attributes})


@pytest.mark.parametrize("compile", [False, True])
def test_a_rule_with_state(compile):
    p = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
    optimizer = own(sign_with_memory)([p], compile=compile)
    p.grad = torch.tensor([3.0, -0.2])
    optimizer.step()
    optimizer.step()
    torch.testing.assert_close(p.detach(), torch.tensor([0.8, -0.8]))
    assert optimizer.state_dict()["state"][0]["average"].tolist() == pytest.approx([4.5, -0.3])


def test_a_rule_that_asks_for_a_hyperparameter():
    p = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = own(branching)([p])
    p.grad = torch.tensor([1.0])
    for lr in (0.1, 0.5, 0.05):
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
    torch.testing.assert_close(p.detach(), torch.tensor([1 - 0.1 - 0.2 - 0.05]))


def test_a_rule_that_returns_a_number_for_a_tensor_is_refused_and_nothing_moves():
    p = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = own(forgetful)([p])
    p.grad = torch.tensor([1.0])
    with pytest.raises(TypeError, match="must return a tensor for each tensor"):
        optimizer.step()
    assert p.item() == 1.0


@pytest.mark.parametrize("compile", [False, True])
def test_a_rule_that_takes_norms(compile):
    p, q = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    optimizer = own(to_unit_length, layerwise=True)([p, q], compile=compile)
    p.grad, q.grad = torch.tensor([3.0, 4.0]), torch.tensor([0.0, -2.0])
    optimizer.step()
    torch.testing.assert_close(torch.stack([p, q]), torch.tensor([[-0.06, -0.08], [0.0, 0.1]]))


def test_norms_over_several_parameters_in_one_are_refused_and_nothing_moves():
    params = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = own(to_unit_length)(params)
    for p in params:
        p.grad = torch.ones(2)
    with pytest.raises(TypeError, match="takes norms needs layerwise = True"):
        optimizer.step()
    assert all(torch.equal(p, torch.ones(2)) for p in params)


def test_a_rule_that_takes_the_decay_has_it_once():
    class Decayed(Own):
        def bind(self, group):
            decay = group["weight_decay"]
            betas = dict(lr=0.1, beta1=0.9, beta2=0.9, eps=1e-8)
            return adamw, {**betas, "weight_decay": decay}

        memory: ClassVar = {"m": "m", "v": "v"}
        numbers: ClassVar = ("step",)

    p = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = Decayed([p])
    optimizer.param_groups[0]["weight_decay"] = 0.5
    p.grad = torch.tensor([1.0])
    optimizer.step()
    torch.testing.assert_close(p.detach(), torch.tensor([0.95 - 0.1]))
