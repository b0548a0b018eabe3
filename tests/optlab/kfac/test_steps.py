"""K-FAC as an optimizer: what a training loop does to it, and what is refused."""

import copy
import gc
import io
import itertools
import math
import warnings
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional

import optlab
from optlab import KFAC, rules
from tests.optlab.kfac.blocks import double
from tests.optlab.kfac.test_exactness import x_of

X, Y = x_of(8, 4), torch.tensor([0, 1, 2, 0, 1, 1, 2, 0])
FORMS = [{}, {"damping_form": "eigenbasis"}, {"ekfac": True}, {"sharing": "reduce"}]


def network(seed=0):
    return double(
        nn.Linear(4, 5), nn.LayerNorm(5), nn.ReLU(inplace=True), nn.Linear(5, 3), seed=seed
    )


def step(model, optimizer, x=X, y=Y):
    optimizer.zero_grad()
    loss = functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()


def values(model):
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("fisher", ["exact", "sampled", "empirical"])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_it_learns(fisher, form):
    for seed in range(3):
        model = double(nn.Linear(4, 20), nn.LayerNorm(20), nn.Tanh(), nn.Linear(20, 3), seed=seed)
        optimizer = KFAC(model, "categorical", lr=0.3, damping=1e-2, fisher=fisher, **form)
        losses = [step(model, optimizer) for _ in range(40)]
        assert losses[-1] < 0.2 * losses[0]
        optimizer.remove_hooks()


@pytest.mark.parametrize("fisher", ["exact", "sampled", "empirical"])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_run_goes_on_bit_for_bit(fisher, form):
    settings = dict(fisher=fisher, factor_every=2, inverse_every=3, momentum=0.8, **form)
    model = network()
    optimizer = KFAC(model, "categorical", **settings)
    for _ in range(5):
        step(model, optimizer)
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = network(seed=1)
    other.load_state_dict(saved[0])
    resumed = KFAC(other, "categorical", **settings)
    resumed.load_state_dict(saved[1])
    for _ in range(5):
        assert step(model, optimizer) == step(other, resumed)
    for p, q in zip(values(model), values(other), strict=True):
        assert torch.equal(p, q)


def test_a_checkpoint_that_does_not_fit_changes_nothing():
    model, other = network(), double(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    optimizer, foreign = KFAC(model, "categorical"), KFAC(other, "categorical")
    step(model, optimizer)
    step(other, foreign)
    before = copy.deepcopy(optimizer.state_dict())
    momentum = torch.optim.SGD(model.parameters(), 0.1).state_dict()
    with pytest.raises(ValueError, match="has no curvature"):
        optimizer.load_state_dict(momentum)
    with pytest.raises(ValueError, match=r"G of 0 must have shape \(5, 5\), got \(6, 6\)"):
        optimizer.load_state_dict(foreign.state_dict())
    partial = copy.deepcopy(before)
    del partial["curvature"]["layers"]["3"]
    with pytest.raises(ValueError, match="no curvature of 3"):
        optimizer.load_state_dict(partial)
    broken = copy.deepcopy(before)
    broken["curvature"]["layers"]["0"]["averages"]["A"] = torch.zeros(2, 2)
    with pytest.raises(ValueError, match=r"A of 0 must have shape \(5, 5\), got \(2, 2\)"):
        optimizer.load_state_dict(broken)
    torch.testing.assert_close(optimizer.state_dict(), before, rtol=0, atol=0)


def test_momentum_and_decay_follow_the_rule():
    model = network()
    settings = dict(lr=0.2, momentum=0.7, weight_decay=0.03)
    optimizer = KFAC(model, "categorical", kl_clip=None, **settings)
    state = [(p.detach().clone(), torch.zeros_like(p)) for p in model.parameters()]
    for count in range(1, 4):
        optimizer.zero_grad()
        functional.cross_entropy(model(X), Y).backward()
        grads = [[p.grad.clone() for p in model.parameters()]]
        optimizer.step()
        (direction,) = optimizer.precondition(grads)
        for index, (theta, v) in enumerate(state):
            g = direction[index] + 0.03 * theta
            state[index] = rules.momentum(theta, g, v, lr=0.2, beta=0.7, step=count)
        for p, (theta, _) in zip(model.parameters(), state, strict=True):
            torch.testing.assert_close(p.detach(), theta, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_steps_are_clipped_by_the_divergence(form):
    model = network()
    free = KFAC(model, "categorical", lr=0.5, kl_clip=None, **form)
    step(model, free)
    (direction,) = free.precondition()
    found = dict(zip(model.parameters(), direction, strict=True))
    kl = sum(
        0.25 / 2 * block.quadratic(block.layer.join([found[p] for p in block.layer.params]))
        for block in free._estimate.blocks
    )
    for bound, expected in ((kl / 9, 1 / 3), (kl * 1.001, 1.0)):
        free.kl_clip = float(bound)
        (clipped,) = free.precondition()
        for d, c in zip(direction, clipped, strict=True):
            torch.testing.assert_close(c, expected * d)


def test_precondition_takes_no_step_and_leaves_gradients():
    model = network()
    optimizer = KFAC(model, "categorical")
    step(model, optimizer)
    before, grads = values(model), [p.grad.clone() for p in model.parameters()]
    factors = copy.deepcopy(optimizer.factors())
    assert optimizer.precondition()[0][0].shape == (5, 4)
    torch.testing.assert_close(optimizer.factors(), factors, rtol=0, atol=0)
    for p, old, g in zip(model.parameters(), before, grads, strict=True):
        assert torch.equal(p, old) and torch.equal(p.grad, g)


def factors_of(run):
    """Of a loop that ends in a step, from the same start."""
    model = network()
    optimizer = KFAC(model, "categorical", fisher="exact")
    run(model, optimizer)
    return optimizer.factors()


def usual(model, optimizer):
    step(model, optimizer)


def zeroed_between(model, optimizer):
    loss = functional.cross_entropy(model(X), Y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def looked_at_before(model, optimizer):
    model(2 * X)
    with torch.no_grad():
        model(3 * X)
    model.eval()
    model(4 * X)
    model.train()
    step(model, optimizer)


def dropped_before(model, optimizer):
    functional.cross_entropy(model(2 * X), Y).backward()
    optimizer.zero_grad()
    step(model, optimizer)


def dropped_by_the_model(model, optimizer):
    functional.cross_entropy(model(2 * X), Y).backward()
    model.zero_grad()
    functional.cross_entropy(model(X), Y).backward()
    optimizer.step()


def twice_backward(model, optimizer):
    loss = functional.cross_entropy(model(X), Y)
    loss.backward(retain_graph=True)
    loss.backward()
    optimizer.step()


def by_closure(model, optimizer):
    def closure():
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(X), Y)
        loss.backward()
        return loss

    optimizer.step(closure)


@pytest.mark.parametrize(
    "run",
    [
        *(zeroed_between, looked_at_before, dropped_before, dropped_by_the_model),
        *(twice_backward, by_closure),
    ],
)
def test_only_the_passes_that_lead_to_the_step_count(run):
    torch.testing.assert_close(factors_of(run), factors_of(usual), rtol=1e-14, atol=1e-15)


def test_periods():
    model = network()
    optimizer = KFAC(model, "categorical", factor_every=2, inverse_every=4)
    factors, inverses = [], []
    for _ in range(8):
        step(model, optimizer)
        block = optimizer._estimate.blocks[0]
        factors.append(block.averages["G"].clone())
        inverses.append(block.inverses["A_inverse"].clone())
    changes = [not torch.equal(*pair) for pair in itertools.pairwise(factors)]
    assert changes == [False, True] * 3 + [False]
    changes = [not torch.equal(*pair) for pair in itertools.pairwise(inverses)]
    assert changes == [False, False, False, True, False, False, False]


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


def test_groups_schedulers_and_rates():
    model = network()
    groups = [
        {"params": model[0].parameters(), "lr": 0.0},
        {"params": [*model[1].parameters(), *model[3].parameters()], "damping": 0.1},
    ]
    optimizer = KFAC(model, "categorical", torch.tensor(0.5), groups)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    before = values(model)
    for _ in range(3):
        step(model, optimizer)
        schedule.step()
    after = values(model)
    assert torch.equal(before[0], after[0]) and not torch.equal(before[4], after[4])
    assert float(optimizer.param_groups[1]["lr"]) == pytest.approx(0.5**4)
    with pytest.raises(RuntimeError, match="takes its parameters when it is made"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})


def test_maximize_goes_up():
    model = network()
    optimizer = KFAC(model, "categorical", maximize=True)
    losses = [step(model, optimizer) for _ in range(5)]
    assert losses[-1] > losses[0]


def test_damping_adapts():
    def closure_of(model, optimizer, sharper):
        def closure():
            optimizer.zero_grad()
            loss = sharper(
                functional.mse_loss(model(X), torch.ones(8, 1, dtype=torch.float64)) * 0.5
            )
            loss.backward()
            return loss

        return closure

    for sharper, up in ((lambda loss: loss, False), (lambda loss: 50 * loss, True)):
        model = double(nn.Linear(4, 1))
        settings = dict(fisher="exact", kl_clip=None, momentum=0, adaptive=True)
        optimizer = KFAC(model, "gaussian", lr=1.0, damping=0.1, **settings)
        optimizer.step(closure_of(model, optimizer, sharper))
        damping = optimizer.param_groups[0]["damping"]
        assert (damping > 0.1) if up else (damping < 0.1)
    with pytest.raises(ValueError, match=r"adaptive damping needs step\(closure\)"):
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_precisions(dtype):
    model = network().to(dtype)
    optimizer = KFAC(model, "categorical", lr=0.1)
    for _ in range(3):
        assert math.isfinite(step(model, optimizer, X.to(dtype)))
    for A, G in optimizer.factors().values():
        assert A.dtype == G.dtype == torch.float32
    assert all(p.dtype == dtype and p.isfinite().all() for p in model.parameters())


def test_autocast():
    model = network().float()
    plain, cast = copy.deepcopy(model), copy.deepcopy(model)
    factors = []
    for own, enabled in ((plain, False), (cast, True)):
        optimizer = KFAC(own, "categorical", fisher="exact")
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = functional.cross_entropy(own(X.float()), Y)
        loss.backward()
        optimizer.step()
        factors.append(optimizer.factors())
    for name, pair in factors[0].items():
        for exact, rough in zip(pair, factors[1][name], strict=True):
            assert rough.dtype == torch.float32
            assert (rough - exact).norm() < 0.03 * exact.norm()
        assert not torch.equal(pair[1], factors[1][name][1])


@pytest.mark.parametrize("fisher", ["sampled", "empirical"])
def test_gradients_that_were_scaled_and_steps_that_were_skipped(fisher):
    def run(scaled, spoilt):
        model = network().float()
        scaler = torch.amp.GradScaler("cpu", enabled=scaled, init_scale=2.0**10)
        scale = {"loss_scale": scaler.get_scale} if fisher == "empirical" else {}
        optimizer = KFAC(model, "categorical", fisher=fisher, **scale)
        for number in range(4):
            if number == 2 and spoilt:
                before = copy.deepcopy([model.state_dict(), optimizer.state_dict()])
                optimizer.zero_grad()
                scaler.scale(functional.cross_entropy(model(3 * X.float()), Y)).backward()
                model[0].weight.grad[0, 0] = math.inf
                scaler.step(optimizer)
                scaler.update()
                torch.testing.assert_close(
                    [model.state_dict(), optimizer.state_dict()], before, rtol=0, atol=0
                )
            optimizer.zero_grad()
            scaler.scale(functional.cross_entropy(model(X.float()), Y)).backward()
            scaler.step(optimizer)
            scaler.update()
        return optimizer.factors(), values(model)

    plain = run(False, False)
    torch.testing.assert_close(run(True, False), plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(run(True, True), run(True, False), rtol=1e-4, atol=1e-5)


def refused(model, optimizer, error, message):
    before = values(model)
    with pytest.raises(error, match=message):
        optimizer.step()
    for p, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, old)


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


@pytest.mark.parametrize("kind", ["categorical", "bernoulli"])
def test_a_loss_that_is_no_mean_is_noticed(kind):
    one_hot = functional.one_hot(Y, 3).double()

    def loss(outputs, reduction):
        if kind == "categorical":
            return functional.cross_entropy(outputs, Y, reduction=reduction)
        value = functional.binary_cross_entropy_with_logits(outputs, one_hot, reduction="sum")
        return value if reduction == "sum" else value / len(X)

    for reduction in ("mean", "sum"):
        model = network()
        optimizer = KFAC(model, kind)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(3):
                optimizer.zero_grad()
                loss(model(X), reduction).backward()
                optimizer.step()
        said = [str(w.message) for w in caught if "added up over the batch" in str(w.message)]
        assert len(said) == (reduction == "sum")


def test_hooks():
    model = network()
    optimizer = KFAC(model, "categorical")
    with pytest.raises(RuntimeError, match="hooks of another KFAC: call its remove_hooks"):
        KFAC(model, "categorical")
    step(model, optimizer)
    held = weakref.ref(optimizer._estimate.blocks[0].averages["A"])
    optimizer.remove_hooks()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    functional.cross_entropy(model(X), Y).backward()
    refused(model, optimizer, RuntimeError, "hooks on the model have been removed")
    del optimizer
    gc.collect()
    assert held() is None
    second = KFAC(model, "categorical")
    step(model, second)
    del second
    third = KFAC(model, "categorical")
    step(model, third)
    assert len(model[0]._forward_hooks) == 1


def test_copies_are_refused():
    optimizer = KFAC(network(), "categorical")
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        copy.deepcopy(optimizer)


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
