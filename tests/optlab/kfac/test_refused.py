"""What K-FAC refuses, by name, with nothing moved."""

import math
import warnings

import pytest
from torch import nn
from torch.nn import functional

import optlab
from optlab import KFAC
from tests.optlab.kfac.blocks import double
from tests.optlab.kfac.driving import X, Y, network, refused


def test_without_a_pass_to_learn_from():
    model = network()
    optimizer = KFAC(model, "categorical")
    refused(model, optimizer, RuntimeError, "no forward and backward pass was captured")
    model.eval()
    functional.cross_entropy(model(X), Y).backward()
    refused(model, optimizer, RuntimeError, "training mode")


def test_what_is_not_finite_names_the_factor():
    model = network()
    optimizer = KFAC(model, "categorical")
    x = X.clone()
    x[0, 0] = math.inf
    functional.cross_entropy(model(x), Y).backward()
    refused(model, optimizer, FloatingPointError, "the factor A of 0 is not finite")


def test_singular_factors_name_the_layer():
    model = network()
    optimizer = KFAC(model, "categorical", damping=0.0)
    functional.cross_entropy(model(X[:2]), Y[:2]).backward()
    refused(model, optimizer, ValueError, "curvature of 0 cannot be inverted with damping=0.0")


def test_singular_blocks_of_units_name_the_layer():
    model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)).double()
    optimizer = KFAC(model, "categorical", damping=1e-3, factor_decay=0.0)
    functional.cross_entropy(model(X[:1]), Y[:1]).backward()
    optimizer.step()
    optimizer.param_groups[0]["damping"] = 0.0
    functional.cross_entropy(model(X[:1]), Y[:1]).backward()
    refused(model, optimizer, ValueError, "curvature of 1 cannot be inverted with damping=0.0")


def test_a_second_backward_pass_has_no_empirical_fisher():
    model = network()
    optimizer = KFAC(model, "categorical", fisher="empirical")
    loss = functional.cross_entropy(model(X), Y)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match=r"^\d: a second backward pass"):
        loss.backward()
    assert optimizer.plain == {}


def test_inputs_that_are_overwritten():
    class Overwrites(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            x = x.clone()
            out = self.layer(x)
            x += 1
            return out

    model = Overwrites().double()
    optimizer = KFAC(model, "categorical")
    with pytest.raises(RuntimeError, match="layer: its input was overwritten"):
        model(X)
    assert optimizer.factors() == {}


def test_outputs_that_do_not_fit():
    model = double(nn.Linear(4, 3))
    optimizer = KFAC(model, "categorical")
    with pytest.raises(ValueError, match="classes in dimension 1"):
        model(X[0])

    class Pair(nn.Linear):
        def forward(self, x):
            return super().forward(x), x

    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            return self.layer(x), x

    holder = Holder()
    other = KFAC(holder, "categorical")
    with pytest.raises(TypeError, match="must return one tensor, got tuple"):
        holder(X.float())
    assert optimizer.factors() == other.factors() == {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert set(KFAC(Pair(4, 3), "gaussian").plain) == {"weight", "bias"}  # may do as it likes


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (dict(likelihood="categoric"), ValueError, "did you mean 'categorical'"),
        (dict(fisher="true"), ValueError, "fisher must be one of exact, sampled, empirical"),
        (dict(sharing="extend"), ValueError, "sharing must be one of expand, reduce"),
        (dict(damping_form="full"), ValueError, "damping_form must be one of factored"),
        (dict(damping=-1.0), ValueError, r"damping must be in \[0, inf\), got -1.0"),
        (dict(lr=-1.0), ValueError, r"lr must be in \[0, inf\)"),
        (dict(momentum=1.0), ValueError, r"momentum must be in \[0, 1\)"),
        (dict(factor_decay=1.0), ValueError, r"factor_decay must be in \[0, 1\)"),
        (dict(kl_clip=0.0), ValueError, r"kl_clip must be in \(0, inf\)"),
        (dict(samples=0), ValueError, "samples must be at least 1, got 0"),
        (dict(inverse_every=2.5), TypeError, "inverse_every must be a whole number, got 2.5"),
        (dict(factor_every=True), TypeError, "factor_every must be a whole number"),
        (dict(ekfac=1), TypeError, "ekfac must be True or False"),
        (dict(adaptive=True, maximize=True), ValueError, "maximize must be False"),
        (dict(dampin=1.0), TypeError, "did you mean 'damping'"),
    ],
)
def test_settings_that_are_refused(settings, error, message):
    model = network()
    with pytest.raises(error, match=message):
        KFAC(model, **{"likelihood": "categorical", **settings})
    assert not model._forward_hooks
    assert optlab.KFAC is KFAC
