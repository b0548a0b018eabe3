"""An optimizer of the user's own: a class that names a rule, its state and its ranges."""

from typing import ClassVar

import pytest
import torch

from optlab.engine import Engine


def sign_with_memory(theta, g, m, *, lr):
    m = 0.5 * m + g
    return theta - lr * m / abs(m), m


def branching(theta, g, *, lr):
    return (theta - (lr if lr < 0.2 else 0.2) * g,)


def forgetful(theta, g, m, *, lr):
    return theta - lr * (g + m), 0.0


class Own(Engine):
    ranges: ClassVar = {"lr": "[0, inf)"}
    memory: ClassVar = {"m": "average"}
    rule = None

    def __init__(self, params, lr=0.1, compile=False):
        super().__init__(params, {"lr": lr, "weight_decay": 0.0, "maximize": False}, compile)

    def bind(self, group):
        return type(self).rule, {"lr": group["lr"]}


def own(rule):
    return type("Own", (Own,), {"rule": staticmethod(rule)})


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
