"""Every optimizer through every property that a user of torch.optim relies on."""

import copy
import inspect
import io
import pickle
from typing import ClassVar

import pytest
import torch
from torch.nn.functional import cross_entropy

import optlab
from optlab.engine import Engine
from tests.optlab.registry import REGISTRY

EVERY = pytest.mark.parametrize("entry", REGISTRY, ids=str)
WITH_STATE = pytest.mark.parametrize(
    "entry", [e for e in REGISTRY if e.settings.get("momentum")], ids=str
)


def wide_gradient(p, generator):
    """Entries over eleven orders of magnitude."""
    size = 10.0 ** torch.randint(-9, 3, p.shape, generator=generator)
    return torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype) * size


def drive(optimizer, params, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for p in params:
            p.grad = wide_gradient(p, generator).to(p.dtype)
        optimizer.step()


def parameters(dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(4, 3), (7,), (), (0,), (2, 3, 2, 2)]
    made = [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes]
    made[-1] = made[-1].contiguous(memory_format=torch.channels_last)
    made.append(torch.randn(6, 5, generator=generator, dtype=torch.float64).to(dtype).t()[::2])
    return [p.requires_grad_() for p in made]


def assert_equal(ours, theirs, **tolerance):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


@EVERY
def test_numbers_are_torchs(entry):
    ours, theirs = parameters(), parameters()
    drive(entry.make(ours), ours, 50)
    drive(entry.oracle(theirs), theirs, 50)
    assert_equal(ours, theirs, rtol=1e-12, atol=1e-12)


@EVERY
def test_names_and_defaults_are_torchs(entry):
    ours = inspect.signature(entry.ours).parameters
    theirs = inspect.signature(entry.theirs).parameters
    for name, parameter in ours.items():
        assert name in theirs, f"torch has no {name}"
        assert parameter.default == theirs[name].default, name
    missing = set(theirs) - set(ours) - {"foreach", "fused", "differentiable", "capturable"}
    assert not missing


@EVERY
def test_gradients_are_not_modified(entry):
    params = parameters()
    optimizer = entry.make(params, weight_decay=0.1)
    for p in params:
        p.grad = torch.randn_like(p)
    before = [p.grad.clone() for p in params]
    optimizer.step()
    assert all(torch.equal(p.grad, g) for p, g in zip(params, before, strict=True))


@EVERY
def test_memory_format_and_strides_stay(entry):
    params = parameters()
    strides, places = [p.stride() for p in params], [p.data_ptr() for p in params]
    drive(entry.make(params), params, 3)
    assert [p.stride() for p in params] == strides
    assert [p.data_ptr() for p in params] == places


@EVERY
def test_absent_gradients_are_skipped_with_steps_of_their_own(entry):
    ours, theirs = parameters()[:2], parameters()[:2]
    for params, optimizer in ((ours, entry.make(ours)), (theirs, entry.oracle(theirs))):
        drive(optimizer, params, 1)
        for _ in range(3):
            params[0].grad = None
            optimizer.step()
        drive(optimizer, params, 2, seed=5)
    assert_equal(ours, theirs, rtol=1e-12, atol=1e-12)


@EVERY
@pytest.mark.parametrize("way", ["state_dict", "torch.save", "pickle", "deepcopy"])
def test_a_resumed_run_is_bitwise_the_same(entry, way):
    straight = parameters()
    whole = entry.make(straight)
    drive(whole, straight, 5, seed=0)
    drive(whole, straight, 5, seed=9)

    params = parameters()
    first = entry.make(params)
    drive(first, params, 5, seed=0)
    if way == "deepcopy":
        params, second = copy.deepcopy((params, first))
    elif way == "pickle":
        params, second = pickle.loads(pickle.dumps((params, first)))
    else:
        state = first.state_dict()
        if way == "torch.save":
            file = io.BytesIO()
            torch.save(state, file)
            file.seek(0)
            state = torch.load(file, weights_only=True)
        second = entry.make(params)
        second.load_state_dict(state)
    drive(second, params, 5, seed=9)
    assert all(torch.equal(a, b) for a, b in zip(params, straight, strict=True))


@EVERY
def test_checkpoints_pass_between_torch_and_ours(entry):
    ours, theirs = parameters(), parameters()
    our_optimizer, their_optimizer = entry.make(ours), entry.oracle(theirs)
    drive(our_optimizer, ours, 4)
    drive(their_optimizer, theirs, 4)
    from_torch, from_ours = entry.make(ours), entry.oracle(theirs)
    from_torch.load_state_dict(copy.deepcopy(their_optimizer.state_dict()))
    from_ours.load_state_dict(copy.deepcopy(our_optimizer.state_dict()))
    drive(from_torch, ours, 4, seed=3)
    drive(from_ours, theirs, 4, seed=3)
    assert_equal(ours, theirs, rtol=1e-12, atol=1e-12)


@WITH_STATE
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_state_in_float32(entry, dtype):
    params = [p for p in parameters(dtype) if p.numel()]
    optimizer = entry.make(params)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator).to(dtype)
        optimizer.step()
    buffer = optimizer.state[params[0]]["momentum_buffer"]
    assert buffer.dtype == torch.float32
    loaded = entry.make(params)
    loaded.load_state_dict(optimizer.state_dict())
    assert torch.equal(loaded.state[params[0]]["momentum_buffer"], buffer)
    assert all(p.dtype == dtype and p.isfinite().all() for p in params)


@EVERY
def test_groups_have_hyperparameters_of_their_own(entry):
    ours, theirs = parameters(), parameters()
    results = []
    for params, make in ((ours, entry.make), (theirs, entry.oracle)):
        optimizer = make([{"params": params[:2]}, {"params": params[2:4], "lr": 0.2}])
        drive(optimizer, params[:4], 3)
        optimizer.add_param_group({"params": params[4:], "lr": 0.01})
        drive(optimizer, params, 3)
        optimizer.param_groups[0]["lr"] = 0.001  # as schedulers do
        drive(optimizer, params, 3)
        results.append(params)
    assert_equal(*results, rtol=1e-12, atol=1e-12)


@EVERY
def test_schedulers_hooks_and_tensor_rates(entry):
    results = []
    for make in (entry.make, entry.oracle):
        params = parameters()
        optimizer = make(params, lr=torch.tensor(0.05, dtype=torch.float64))
        calls = []
        optimizer.register_step_post_hook(lambda *_, calls=calls: calls.append(1))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6)
        for seed in range(6):
            drive(optimizer, params, 1, seed)
            schedule.step()
        assert len(calls) == 6
        results.append(params)
    assert_equal(*results, rtol=1e-12, atol=1e-12)


@EVERY
def test_a_schedule_that_moves_the_momentum_too(entry):
    results = []
    for make in (entry.make, entry.oracle):
        params = parameters()
        optimizer = make(params)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=8)
        for seed in range(7):
            drive(optimizer, params, 1, seed)
            schedule.step()
        results.append(params)
    assert_equal(*results, rtol=1e-12, atol=1e-12)


@EVERY
def test_a_closure_is_called_once_with_gradients_on(entry):
    theta = torch.nn.Parameter(torch.tensor([10.0, 1.0]))
    optimizer = entry.make([theta], lr=0.001)
    calls = []

    def closure():
        optimizer.zero_grad()
        loss = 0.5 * (theta[0] ** 2 + 100 * theta[1] ** 2)
        loss.backward()
        calls.append(loss.item())
        return loss

    assert optimizer.step(closure).item() == calls[0] == 100.0
    assert len(calls) == 1


@EVERY
def test_a_skipped_scaler_step_leaves_everything_untouched(entry):
    model = torch.nn.Linear(3, 2)
    optimizer = entry.make(model.parameters())
    drive(optimizer, list(model.parameters()), 2)
    before = copy.deepcopy((list(model.parameters()), optimizer.state_dict()["state"]))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    optimizer.zero_grad()
    loss = model(torch.full((1, 3), torch.inf)).sum()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    after = (list(model.parameters()), optimizer.state_dict()["state"])
    torch.testing.assert_close(after, before, rtol=0, atol=0)


@EVERY
def test_a_small_network_learns(entry):
    torch.manual_seed(0)
    X = torch.randn(64, 5)
    y = (X.sum(dim=1) > 0).long()
    model = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
    sign = -1 if entry.settings.get("maximize") else 1
    optimizer = entry.make(model.parameters(), weight_decay=0)
    for _ in range(200):
        optimizer.zero_grad()
        (sign * cross_entropy(model(X), y)).backward()
        optimizer.step()
    assert cross_entropy(model(X), y).item() < 0.3


BAD = [
    ({"lr": -0.1}, ValueError, r"lr must be in \[0, inf\), got -0.1"),
    ({"lr": float("inf")}, ValueError, r"lr must be in \[0, inf\), got inf"),
    ({"lr": float("nan")}, ValueError, r"lr must be in \[0, inf\), got nan"),
    ({"lr": "fast"}, TypeError, r"lr must be a number in \[0, inf\), got 'fast'"),
    ({"momentum": 1.0}, ValueError, r"momentum must be in \[0, 1\), got 1.0"),
    ({"momentum": -0.5}, ValueError, r"momentum must be in \[0, 1\), got -0.5"),
    ({"dampening": 2}, ValueError, r"dampening must be in \[0, 1\], got 2"),
    ({"weight_decay": -1}, ValueError, r"weight_decay must be in \[0, inf\), got -1"),
    ({"nesterov": True, "momentum": 0}, ValueError, r"nesterov=True needs momentum in \(0, 1\)"),
    ({"nesterov": True, "momentum": 0.9, "dampening": 0.1}, ValueError, r"dampening=0.1"),
    ({"lr": "0.1"}, TypeError, r"lr must be a number in \[0, inf\), got '0.1'"),
    ({"dampening": True}, TypeError, r"dampening must be a number in \[0, 1\], got True"),
    ({"nesterov": "False"}, TypeError, r"nesterov must be True or False, got 'False'"),
    ({"maximize": 1}, TypeError, r"maximize must be True or False, got 1"),
    ({"momentun": 0.9}, TypeError, r"no argument 'momentun': did you mean 'momentum'\?"),
]


@pytest.mark.parametrize(("settings", "error", "message"), BAD)
def test_bad_settings_are_named(settings, error, message):
    with pytest.raises(error, match=message):
        optlab.SGD(parameters(), **settings)


@pytest.mark.parametrize(("settings", "error", "message"), BAD[:-1])
def test_a_bad_group_changes_nothing(settings, error, message):
    first, second = parameters()[:2]
    optimizer = optlab.SGD([first], lr=0.1)
    with pytest.raises(error, match=message + r".*\(parameter group 1\)"):
        optimizer.add_param_group({"params": [second], **settings})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("key", ["momentun", "weight_deacy", "LR", "lr_"])
def test_a_slip_in_a_group_is_named(key):
    with pytest.raises(TypeError, match=f"no hyperparameter '{key}'.*did you mean"):
        optlab.SGD([{"params": parameters()[:1], key: 0.9}])


@pytest.mark.parametrize("key", ["name", "initial_lr", "max_lr", "base_momentum", "lr_scale"])
def test_a_users_own_key_is_kept(key):
    optimizer = optlab.SGD([{"params": parameters()[:1], key: 0.9}])
    assert optimizer.param_groups[0][key] == 0.9


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda saved: saved["param_groups"][0].update(lr=-1.0), r"lr must be in .*group 0"),
        (lambda saved: saved["param_groups"][0]["params"].pop(), "size of optimizer's group"),
        (lambda saved: saved["state"].update({0: []}), r"state of parameter 0 must be a dict"),
        (
            lambda saved: saved["state"][1].update(momentum_buffer=torch.zeros(5)),
            r"momentum_buffer of parameter 1 must have shape \(7,\), got \(5,\)",
        ),
    ],
)
def test_a_bad_checkpoint_changes_nothing(spoil, message):
    params = parameters()
    optimizer = optlab.SGD(params, lr=0.1, momentum=0.9)
    drive(optimizer, params, 2)
    before = copy.deepcopy(optimizer.state_dict())
    bad = copy.deepcopy(before)
    spoil(bad)
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(bad)
    torch.testing.assert_close(optimizer.state_dict(), before, rtol=0, atol=0)


def test_hooks_of_the_user_run_before_a_checkpoint_is_checked_and_after_it_is_loaded():
    params = parameters()
    optimizer = optlab.SGD(params, lr=0.1, momentum=0.9)
    drive(optimizer, params, 2)
    broken = copy.deepcopy(optimizer.state_dict())
    broken["param_groups"][0]["lr"] = -1.0
    seen = []

    def repair(_, saved):
        groups = [{**group, "lr": 0.2} for group in saved["param_groups"]]
        return {**saved, "param_groups": groups}

    optimizer.register_load_state_dict_pre_hook(repair)
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append(o.param_groups[0]["lr"]))
    optimizer.load_state_dict(broken)
    assert seen == [0.2]


@pytest.mark.parametrize("saved", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("loaded", [torch.float32, torch.float64])
def test_state_takes_the_dtype_of_its_parameter_as_in_torch(saved, loaded):
    results = []
    for make in (optlab.SGD, torch.optim.SGD):
        old = [torch.ones(3, dtype=saved, requires_grad=True)]
        first = make(old, lr=0.1, momentum=0.9)
        old[0].grad = torch.full((3,), 0.3, dtype=saved)
        first.step()
        new = [torch.ones(3, dtype=loaded, requires_grad=True)]
        second = make(new, lr=0.1, momentum=0.9)
        second.load_state_dict(first.state_dict())
        new[0].grad = torch.full((3,), 0.3, dtype=loaded)
        second.step()
        results.append(new[0].detach())
        assert second.state[new[0]]["momentum_buffer"].dtype == loaded
    torch.testing.assert_close(*results, rtol=1e-6 if loaded == torch.float32 else 1e-12, atol=0)


@EVERY
def test_a_momentum_switched_on_and_off_in_mid_run(entry):
    results = []
    for make in (entry.make, entry.oracle):
        params = parameters()
        optimizer = make(params, nesterov=False)
        for seed, momentum in enumerate([0.0, 0.9, 0.0, 0.5]):
            optimizer.param_groups[0]["momentum"] = momentum
            drive(optimizer, params, 2, seed)
        results.append(params)
    assert_equal(*results, rtol=1e-12, atol=1e-12)


@EVERY
def test_a_rate_that_is_a_tensor_of_one_element(entry):
    results = []
    for make in (entry.make, entry.oracle):
        params = parameters()
        drive(make(params, lr=torch.tensor([0.05], dtype=torch.float64)), params, 3)
        results.append(params)
    assert_equal(*results, rtol=1e-12, atol=1e-12)


@EVERY
def test_a_compiled_step_has_the_same_numbers(entry):
    compiled, eager = parameters(torch.float32)[:2], parameters(torch.float32)[:2]
    optimizer = entry.make(compiled)
    optimizer.step = torch.compile(optimizer.step, backend="eager")
    drive(optimizer, compiled, 3)
    drive(entry.make(eager), eager, 3)
    assert_equal(compiled, eager, rtol=1e-6, atol=1e-6)


def test_no_parameters_is_an_error():
    with pytest.raises(ValueError, match="params must hold at least one parameter"):
        optlab.SGD([])


def test_sparse_gradients_are_refused_by_name_and_nothing_moves():
    table, dense = torch.nn.Embedding(5, 2, sparse=True), torch.nn.Linear(2, 1)
    named = [("dense.weight", dense.weight), ("table.weight", table.weight)]
    optimizer = optlab.SGD(named, lr=0.1)
    before = [p.detach().clone() for _, p in named]
    dense(table(torch.tensor([1, 3]))).sum().backward()
    with pytest.raises(ValueError, match=r"dense gradients; parameter table\.weight of group 0"):
        optimizer.step()
    assert all(torch.equal(p, b) for (_, p), b in zip(named, before, strict=True))


def test_complex_parameters_are_torchs():
    start = torch.randn(4, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    ours, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    for p, make in ((ours, optlab.SGD), (theirs, torch.optim.SGD)):
        optimizer = make([p], lr=0.1, momentum=0.9)
        for _ in range(5):
            optimizer.zero_grad()
            (p.abs() ** 2).sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_an_optimizer_with_a_rule_of_the_users_own():
    def sign_with_memory(theta, g, m, *, lr):
        m = 0.5 * m + g
        return theta - lr * m / abs(m), m

    class Signed(Engine):
        ranges: ClassVar = {"lr": "[0, inf)"}
        memory: ClassVar = {"m": "average"}

        def __init__(self, params, lr=0.1):
            super().__init__(params, {"lr": lr, "weight_decay": 0.0, "maximize": False})

        def bind(self, group):
            return sign_with_memory, {"lr": group["lr"]}

    p = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
    optimizer = Signed([p])
    p.grad = torch.tensor([3.0, -0.2])
    optimizer.step()
    optimizer.step()
    torch.testing.assert_close(p.detach(), torch.tensor([0.8, -0.8]))
    assert optimizer.state_dict()["state"][0]["average"].tolist() == pytest.approx([4.5, -0.3])
