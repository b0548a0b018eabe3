"""What training loops do to K-FAC: order, accumulation, precision, loss scaling."""

import copy
import gc
import math
import warnings
import weakref

import pytest
import torch
from torch.nn import functional

from optlab import KFAC
from optlab.clipping import clip_grad_norm_
from tests.optlab.kfac.driving import X, Y, factors_of, network, refused, step, usual, values


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


def test_clipped_gradients_leave_the_factors():
    def run(model, optimizer):
        functional.cross_entropy(model(X), Y).backward()
        clip_grad_norm_(model.parameters(), 1e-3)
        optimizer.step()

    torch.testing.assert_close(factors_of(run), factors_of(usual), rtol=1e-14, atol=1e-15)


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
