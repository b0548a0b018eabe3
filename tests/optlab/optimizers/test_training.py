"""What a training script does around a step: closures, hooks, scaling, autograd, processes."""

import copy
import warnings

import pytest
import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy, mse_loss
from torch.nn.parallel import DistributedDataParallel
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

import optlab
from tests.optlab.driving import assert_equal, assert_same, copies, drive, parameters
from tests.optlab.registry import EACH_CLASS, EVERY


def network(seed=0):
    torch.manual_seed(seed)
    layers = torch.nn.Linear(5, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2)
    return torch.nn.Sequential(*layers).double()


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(64, 5, generator=generator, dtype=torch.float64)
    return X, (X.sum(dim=1) > 0).long()


@EVERY
def test_a_closure_is_called_once_with_gradients_on(entry):
    results = []
    for make in entry.makers:
        theta = torch.nn.Parameter(torch.tensor([10.0, 1.0], dtype=torch.float64))
        optimizer = make([theta], lr=0.001)
        calls = []

        def closure(optimizer=optimizer, theta=theta, calls=calls):
            assert torch.is_grad_enabled()
            optimizer.zero_grad()
            loss = 0.5 * (theta[0] ** 2 + 100 * theta[1] ** 2)
            loss.backward()
            calls.append(loss.item())
            return loss

        with torch.no_grad():
            assert optimizer.step(closure).item() == calls[0] == 100.0
            assert not torch.is_grad_enabled()
        assert optimizer.step(closure=closure).item() == calls[1]
        assert torch.is_grad_enabled()
        assert len(calls) == 2
        results.append([theta])
    assert_equal(*results)


@EACH_CLASS
def test_an_error_in_a_closure_leaves_everything_as_it_was(entry):
    params = parameters()
    optimizer = entry.make(params)
    drive(optimizer, params, 1)
    before, state = copies(params), copy.deepcopy(optimizer.state_dict())

    def closure():
        raise RuntimeError("no data")

    with torch.no_grad(), pytest.raises(RuntimeError, match="no data"):
        optimizer.step(closure)
    assert torch.is_grad_enabled()
    assert_same(params, before)
    torch.testing.assert_close(optimizer.state_dict(), state, rtol=0, atol=0)


@EACH_CLASS
def test_hooks_run_around_a_step_in_torchs_order(entry):
    orders = []
    for make in entry.makers:
        params, order = parameters(), []
        optimizer = make(params)
        first = params[0].detach().clone()

        def note(word, order=order, p=params[0], first=first):
            return lambda opt, args, kwargs: order.append((word, torch.equal(p, first), len(args)))

        handles = [
            register_optimizer_step_pre_hook(note("global before")),
            register_optimizer_step_post_hook(note("global after")),
            optimizer.register_step_pre_hook(note("before")),
            optimizer.register_step_post_hook(note("after")),
        ]
        drive(optimizer, params, 1)
        optimizer.step(lambda: None)
        for handle in handles:
            handle.remove()
        drive(optimizer, params, 1)
        orders.append(order)
    assert orders[0] == orders[1]
    assert len(orders[0]) == 8


def test_a_hook_may_change_the_closure_as_in_torch():
    results = []
    for make in (optlab.SGD, torch.optim.SGD):
        p = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        optimizer = make([p], lr=0.5)

        def closure(p=p):
            p.grad = torch.ones_like(p)
            return 7.0

        optimizer.register_step_pre_hook(lambda opt, args, kwargs, c=closure: ((opt, c), {}))
        assert optimizer.step() == 7.0
        results.append([p])
    assert_equal(*results)


@EACH_CLASS
def test_the_profiler_shows_a_step_by_torchs_name(entry):
    params = parameters()
    optimizer = entry.make(params)
    drive(optimizer, params, 1)
    with torch.profiler.profile() as profile:
        optimizer.step()
    names = {event.key for event in profile.key_averages()}
    assert f"Optimizer.step#{entry.ours.__name__}.step" in names


@EACH_CLASS
@pytest.mark.parametrize("to_none", [True, False])
def test_zero_grad(entry, to_none):
    params = parameters()
    optimizer = entry.make(params)
    drive(optimizer, params, 1)
    optimizer.zero_grad(set_to_none=to_none)
    assert all((p.grad is None) is to_none for p in params)
    assert to_none or all(not p.grad.any() for p in params)


@EVERY
def test_a_skipped_scaler_step_leaves_everything_untouched(entry):
    model = network()
    params = list(model.parameters())
    optimizer = entry.make(params)
    drive(optimizer, params, 2)
    before = copies(params), copy.deepcopy(optimizer.state_dict())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    optimizer.zero_grad()
    scaler.scale(model(torch.full((1, 5), torch.inf, dtype=torch.float64)).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 1.0
    assert_same(params, before[0])
    torch.testing.assert_close(optimizer.state_dict(), before[1], rtol=0, atol=0)


@EVERY
def test_scaled_training_is_torchs(entry):
    results = []
    for make in entry.makers:
        model, (X, y) = network(), batch()
        optimizer = make(model.parameters())
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
        for seed in range(6):
            optimizer.zero_grad()
            loss = cross_entropy(model(X if seed != 3 else X / 0), y)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
        results.append([*model.parameters(), torch.tensor(scaler.get_scale())])
    assert_equal(*results)


@EACH_CLASS
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_backward_through_a_graph_from_before_the_step_raises_as_in_torch(entry, steps):
    for make in entry.makers:
        model, (X, y) = network(), batch()
        params = list(model.parameters())
        optimizer = make(params)
        drive(optimizer, params, steps)
        loss = cross_entropy(model(X), y)
        loss.backward(retain_graph=True)
        versions = [p._version for p in params]
        optimizer.step()
        assert all(p._version > version for p, version in zip(params, versions, strict=True))
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


@EACH_CLASS
def test_a_graph_that_saved_the_parameter_itself_raises_too(entry):
    for make in entry.makers:
        p = torch.full((3,), 2.0, requires_grad=True)
        optimizer = make([p])
        loss = (p**3).sum()
        loss.backward(retain_graph=True)
        optimizer.step()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


@EACH_CLASS
def test_a_parameter_without_a_gradient_keeps_its_graphs(entry):
    p, q = (torch.full((3,), 2.0, requires_grad=True) for _ in range(2))
    optimizer = entry.make([p, q])
    drive(optimizer, [p, q], 2)
    loss = (q**3).sum()
    p.grad, q.grad = torch.ones(3), None
    optimizer.step()
    value = q.detach().clone()
    loss.backward()
    assert torch.equal(q.grad, 3 * value**2)


@EVERY
@pytest.mark.parametrize("whole", [False, True], ids=["step", "train step"])
def test_under_torch_compile(entry, whole):
    torch.compiler.reset()
    results = []
    for compiled in (True, False):
        model, (X, y) = network(), batch()
        optimizer = entry.make(model.parameters())

        def train(optimizer=optimizer, model=model, X=X, y=y):
            optimizer.zero_grad()
            loss = cross_entropy(model(X), y)
            loss.backward()
            optimizer.step()
            return loss

        if compiled and whole:
            train = torch.compile(train, backend="eager")
        elif compiled:
            optimizer.step = torch.compile(optimizer.step, backend="eager")
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            losses = [train().detach() for _ in range(3)]
        assert [str(each.message) for each in told if "jit" not in str(each.message)] == []
        results.append([*model.parameters(), *losses])
    assert_equal(*results)


def replica(rank, folder):
    """One process of two: each sees half of the batch."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    X, y = batch()
    X, y = X[rank::2], y[rank::2].double()
    for in_buckets in (False, True):
        model = DistributedDataParallel(network(rank), gradient_as_bucket_view=in_buckets)
        optimizer = optlab.Adam(model.parameters(), lr=0.05)
        for _ in range(4):
            optimizer.zero_grad()
            mse_loss(model(X)[:, 0], y).backward()
            optimizer.step()
        torch.save([p.detach() for p in model.parameters()], f"{folder}/{rank}-{in_buckets}")
    dist.destroy_process_group()


def test_two_processes_train_as_one_on_all_data(tmp_path):
    torch.multiprocessing.spawn(replica, (str(tmp_path),), nprocs=2)
    model, (X, y) = network(0), batch()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(4):
        optimizer.zero_grad()
        mse_loss(model(X)[:, 0], y.double()).backward()
        optimizer.step()
    for in_buckets in (False, True):
        first, second = (torch.load(tmp_path / f"{rank}-{in_buckets}") for rank in range(2))
        assert_same(first, second)
        assert_equal(first, model.parameters(), rtol=1e-9, atol=1e-9)
