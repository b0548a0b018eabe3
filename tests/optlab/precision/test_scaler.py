"""The loss scaler against torch's, step by step, and what it does where torch's refuses."""

import math

import pytest
import torch
from torch import nn

import optlab
from optlab.precision import LossScaler
from tests.optlab.registry import EVERY

TINY = 2.0**-100


def problem(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    return model, torch.randn(8, 3), torch.randn(8, 2)


def stream(length, seed):
    """What each step's gradients are multiplied by: mostly 1, some of them not finite."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(length, generator=generator)
    kinds = [(0.1, math.inf), (0.2, math.nan), (0.25, -math.inf)]
    return [next((bad for most, bad in kinds if share < most), 1.0) for share in drawn.tolist()]


def run(scaler, factors, make):
    """Scales and parameters, step by step."""
    model, x, y = problem()
    optimizer = make(model.parameters())
    seen = []
    for factor in factors:
        optimizer.zero_grad()
        scaler.scale((model(x) - y).square().mean()).backward()
        model[0].bias.grad.view(-1)[1] *= factor
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        seen.append((scaler.get_scale(), [p.detach().clone() for p in model.parameters()]))
    return seen


@pytest.mark.parametrize("growth", [2.0, 1.7])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scales_and_steps_are_torchs(seed, growth):
    settings = dict(init_scale=2.0**20, growth_factor=growth, growth_interval=3)
    factors = stream(60, seed)
    assert any(not math.isfinite(factor) for factor in factors)

    def make(params):
        return torch.optim.Adam(params, 1e-2)

    ours = run(LossScaler(**settings, min_scale=TINY), factors, make)
    theirs = run(torch.amp.GradScaler("cpu", **settings), factors, make)
    for (our_scale, our_params), (their_scale, their_params) in zip(ours, theirs, strict=True):
        assert our_scale == their_scale
        assert all(map(torch.equal, our_params, their_params))


def bits(*trees):
    """All numbers in nested dicts and lists, tensors as their bytes."""
    for tree in trees:
        if isinstance(tree, torch.Tensor):
            yield tree.detach().numpy().tobytes()
        elif isinstance(tree, dict | list | tuple):
            yield from bits(*(tree.values() if isinstance(tree, dict) else tree))
        else:
            yield tree


@EVERY
def test_a_bad_gradient_changes_nothing(entry):
    """Parameters, moments and steps of every optimizer are bit for bit as before."""
    model, x, y = problem()
    optimizer, scaler = entry.make(model.parameters()), LossScaler()

    def step(factor):
        optimizer.zero_grad()
        scaler.scale((model(x) - y).square().mean()).backward()
        model[0].weight.grad[0, 0] *= factor
        scaler.step(optimizer)
        scaler.update()

    step(1.0)
    for bad in (math.inf, math.nan):
        before = [*bits(optimizer.state_dict(), model.state_dict())]
        step(bad)
        assert [*bits(optimizer.state_dict(), model.state_dict())] == before
    step(1.0)
    assert [*bits(optimizer.state_dict(), model.state_dict())] != before
    assert [event.skipped for event in scaler.history] == [True, True]


def test_several_optimizers_step_on_their_own_and_share_a_scale():
    model, x, y = problem()
    first, second = (optlab.SGD(layer.parameters(), 0.1) for layer in (model[0], model[2]))
    scaler = LossScaler(init_scale=8.0)
    before = [p.detach().clone() for p in model.parameters()]
    scaler.scale((model(x) - y).square().mean()).backward()
    model[0].weight.grad[0, 0] = math.nan
    scaler.step(first)
    scaler.step(second)
    scaler.update()
    same = [torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True)]
    assert same == [True, True, False, False] and scaler.get_scale() == 4.0


def test_gradients_accumulate_at_one_scale():
    sums = []
    for scaler in (LossScaler(init_scale=256.0), LossScaler(enabled=False)):
        model, x, y = problem()
        for few in (slice(0, 4), slice(4, 8)):
            scaler.scale((model(x[few]) - y[few]).square().mean() / 2).backward()
        optimizer = optlab.SGD(model.parameters(), 0.1)
        scaler.unscale_(optimizer)
        sums.append([p.grad for p in model.parameters()])
    for ours, plain in zip(*sums, strict=True):
        torch.testing.assert_close(ours, plain)


def test_a_closure_is_called_again_with_a_lower_scale():
    weight = nn.Parameter(torch.ones(1))
    optimizer, scaler = optlab.SGD([weight], 1.0), LossScaler(init_scale=2.0**16)
    scales = []

    def closure():
        optimizer.zero_grad()
        loss = (1e-35 * weight).sum() * 1e35
        scales.append(scaler.get_scale())
        scaler.scale(loss).backward()
        return loss

    # The gradient passes through 1e35 times the scale, which overflows in float32 above 2^11.
    loss = scaler.step(optimizer, closure)
    assert loss.item() == pytest.approx(1.0) and weight.item() == pytest.approx(0.0, abs=1e-6)
    assert scales[0] == 2.0**16 and scales[-1] == 2.0**11
    scaler.update()
    assert scaler.get_scale() == scales[-1] and not any(e.skipped for e in scaler.history)


def test_a_closure_that_is_never_finite_is_left_out():
    weight = nn.Parameter(torch.ones(1))
    optimizer, scaler = optlab.Adam([weight], 1.0), LossScaler(init_scale=4.0)

    def closure():
        optimizer.zero_grad()
        loss = (math.inf * weight).sum()
        scaler.scale(loss).backward()
        return loss

    assert scaler.step(optimizer, closure) is None
    scaler.update()
    assert weight.item() == 1.0 and not optimizer.state
    assert scaler.history[-1].skipped and scaler.get_scale() == 1.0


def test_lbfgs_gets_unscaled_gradients_in_each_evaluation():
    found = []
    for scaler in (LossScaler(), LossScaler(enabled=False)):
        model, x, y = problem()
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5)

        def closure(optimizer=optimizer, model=model, x=x, y=y, scaler=scaler):
            optimizer.zero_grad()
            loss = (model(x) - y).square().mean()
            scaler.scale(loss).backward()
            return loss

        scaler.step(optimizer, closure)
        found.append([*model.parameters()])
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain)


def test_second_order_methods_pass_back_by_themselves():
    model, x, y = problem()
    optimizer = optlab.GaussNewton(model.parameters(), "gaussian")
    scaler = LossScaler()
    before = model[0].weight.detach().clone()
    scaler.step(optimizer, lambda: (model(x), y))
    scaler.update()
    assert not torch.equal(model[0].weight, before)


@pytest.mark.parametrize("fisher", ["sampled", "empirical"])
def test_kfac_steps_as_without_and_skips_whole(fisher):
    found = []
    for scaler in (LossScaler(init_scale=2.0**10), LossScaler(enabled=False)):
        model, x, _ = problem()
        y = torch.arange(8) % 2
        settings = dict(fisher=fisher, loss_scale=scaler.get_scale)
        optimizer = optlab.KFAC(model, "categorical", lr=0.1, **settings)
        for step in range(4):
            optimizer.zero_grad()
            scaler.scale(nn.functional.cross_entropy(model(x), y)).backward()
            if step == 2:
                if not scaler.is_enabled():
                    continue
                model[0].weight.grad[0, 0] = math.inf
            scaler.step(optimizer)
            scaler.update()
        found.append([p.detach().clone() for p in model.parameters()])
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain)


def test_a_loss_in_half_precision_does_not_overflow():
    loss = torch.tensor(2.0, dtype=torch.float16)
    assert LossScaler().scale(loss) == 2.0**17
    nested = LossScaler(init_scale=2.0).scale({"a": [loss, (loss,)]})
    assert nested["a"][0] == 4 and nested["a"][1][0] == 4


def test_the_scale_has_ends():
    weight = nn.Parameter(torch.ones(1))
    optimizer = optlab.SGD([weight], 1.0)
    scaler = LossScaler(init_scale=4.0, min_scale=3.0, growth_interval=1, growth_factor=1e30)
    for gradient, expected in ((math.inf, 3.0), (math.inf, 3.0), (1.0, 3e30), (1.0, 3e30)):
        weight.grad = torch.tensor([gradient])
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == pytest.approx(expected)
    assert [event.update for event in scaler.history] == [1, 2, 3]


def test_checkpoints_go_both_ways():
    weight = nn.Parameter(torch.ones(1))
    optimizer = optlab.SGD([weight], 1.0)
    ours = LossScaler(init_scale=64.0, growth_interval=7)
    for gradient in (math.nan, 1.0, 1.0):
        weight.grad = torch.tensor([gradient])
        ours.step(optimizer)
        ours.update()
    theirs = torch.amp.GradScaler("cpu")
    theirs.load_state_dict(ours.state_dict())
    assert theirs.get_scale() == 32.0 and theirs.get_growth_interval() == 7
    back = LossScaler()
    back.load_state_dict(theirs.state_dict())
    assert back.get_scale() == 32.0 and back.state_dict()["_growth_tracker"] == 2
    again = LossScaler()
    again.load_state_dict(ours.state_dict())
    assert again.state_dict() == ours.state_dict() and again.history == ours.history
    assert LossScaler(enabled=False).state_dict() == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": None}, "scale"),
        ({"scale": 0.5}, r"scale must be in \[1.0, inf\), got 0.5"),
        ({"backoff_factor": 2.0}, "backoff_factor"),
        ({"_growth_tracker": 5000}, "_growth_tracker"),
    ],
)
def test_a_checkpoint_of_another_version_is_refused(change, message):
    scaler = LossScaler()
    before = scaler.state_dict()
    broken = {**before, **change}
    if None in change.values():
        broken = {key: value for key, value in before.items() if key not in change}
    with pytest.raises(ValueError, match=message):
        scaler.load_state_dict(broken)
    assert scaler.state_dict() == before


@pytest.mark.parametrize(
    "settings",
    [
        {"init_scale": 0.5},
        {"growth_factor": 1.0},
        {"backoff_factor": 1.0},
        {"min_scale": 0.0},
        {"init_scale": math.nan},
        {"growth_interval": 0},
    ],
    ids=str,
)
def test_settings_out_of_range_are_named(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        LossScaler(**settings)


def test_calls_out_of_order_are_refused():
    weight = nn.Parameter(torch.ones(1))
    optimizer, scaler = optlab.SGD([weight], 1.0), LossScaler()
    with pytest.raises(RuntimeError, match="no parameter"):
        scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="before any"):
        scaler.update()
    weight.grad = torch.ones(1)
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="second time"):
        scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="closure"):
        scaler.step(optimizer, lambda: None)
    scaler.step(optimizer)
    with pytest.raises(RuntimeError, match="after step"):
        scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match="second time"):
        scaler.step(optimizer)
    scaler.update()
    weight.grad = torch.ones(1)
    scaler.step(optimizer)
    with pytest.raises(ValueError, match="new_scale"):
        scaler.update(0.0)
    scaler.update(16.0)
    assert scaler.get_scale() == 16.0
    with pytest.raises(TypeError, match="str"):
        scaler.scale("loss")


def test_gradients_in_half_precision_are_refused():
    weight = nn.Parameter(torch.ones(1, dtype=torch.float16))
    weight.grad = torch.ones(1, dtype=torch.float16)
    with pytest.raises(ValueError, match="MasterWeights"):
        LossScaler().unscale_(optlab.SGD([weight], 1.0))
