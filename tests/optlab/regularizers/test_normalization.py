"""Normalization layers against torch's, finite differences, ranks, K-FAC, and bad input."""

import copy
import math

import pytest
import torch
from torch import distributed, nn
from torch.nn.functional import cross_entropy

from optlab import KFAC
from optlab.distributed import launch
from optlab.regularizers import (
    BatchNorm1d,
    BatchNorm2d,
    GroupNorm,
    LayerNorm,
    RMSNorm,
    standardize,
    synchronize_batch_norm,
)

#: Ours, torch's, arguments, shape of the input.
CASES = {
    "batch-1d": (BatchNorm1d, nn.BatchNorm1d, (5,), {}, (7, 5)),
    "batch-1d-lines": (BatchNorm1d, nn.BatchNorm1d, (5,), {"eps": 0.1}, (3, 5, 4)),
    "batch-2d": (BatchNorm2d, nn.BatchNorm2d, (4,), {}, (3, 4, 5, 2)),
    "batch-2d-plain": (BatchNorm2d, nn.BatchNorm2d, (4,), {"affine": False}, (3, 4, 5, 2)),
    "batch-2d-cumulative": (BatchNorm2d, nn.BatchNorm2d, (4,), {"momentum": None}, (3, 4, 5, 2)),
    "batch-2d-untracked": (
        *(BatchNorm2d, nn.BatchNorm2d, (4,)),
        *({"track_running_stats": False}, (3, 4, 5, 2)),
    ),
    "layer": (LayerNorm, nn.LayerNorm, (6,), {}, (3, 4, 6)),
    "layer-two": (LayerNorm, nn.LayerNorm, ([4, 6],), {"bias": False}, (3, 4, 6)),
    "layer-plain": (LayerNorm, nn.LayerNorm, (6,), {"elementwise_affine": False}, (3, 6)),
    "layer-empty": (LayerNorm, nn.LayerNorm, (6,), {}, (0, 6)),
    "group": (GroupNorm, nn.GroupNorm, (2, 4), {}, (3, 4, 5, 2)),
    "group-plain": (GroupNorm, nn.GroupNorm, (4, 4), {"affine": False}, (3, 4, 5)),
    "rms": (RMSNorm, nn.RMSNorm, (6,), {}, (3, 4, 6)),
    "rms-eps": (RMSNorm, nn.RMSNorm, ([4, 6],), {"eps": 0.1}, (3, 4, 6)),
}
EVERY = pytest.mark.parametrize("case", CASES.values(), ids=[*CASES])
#: One of each class.
CLASSES = [CASES[name] for name in ("batch-1d", "batch-2d", "layer", "group", "rms")]
EACH_CLASS = pytest.mark.parametrize("case", CLASSES, ids=[case[0].__name__ for case in CLASSES])


def pair(case, dtype=torch.float64):
    """Both modules with the same parameters, none of them at its start."""
    ours, theirs, arguments, settings, _ = case
    modules = [kind(*arguments, **settings, dtype=dtype) for kind in (ours, theirs)]
    torch.manual_seed(0)
    for p, q in zip(modules[0].parameters(), modules[1].parameters(), strict=True):
        nn.init.normal_(p, 1.0)
        q.data.copy_(p)
    return modules


def batch(case, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (3 + 2 * torch.randn(case[-1], generator=generator, dtype=torch.float64)).to(dtype)


def results(module, x):
    """Output, gradients of input and parameters, and the state after it."""
    x = x.clone().requires_grad_()
    y = module(x)
    weight = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)
    grads = torch.autograd.grad((y * weight).sum(), [x, *module.parameters()])
    return [y.detach(), *grads], module.state_dict()


@EVERY
def test_torchs_numbers(case):
    ours, theirs = pair(case)
    for seed in range(4):
        for module in (ours, theirs):
            module.train(seed != 3)
        (found, state), (expected, known) = (results(m, batch(case, seed)) for m in (ours, theirs))
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
        assert state.keys() == known.keys()
        for name, value in state.items():
            torch.testing.assert_close(value, known[name], rtol=1e-12, atol=1e-12)


@EVERY
def test_checkpoints_both_ways(case):
    ours, theirs = pair(case)
    if len(batch(case)):
        ours(batch(case))
    theirs.load_state_dict(ours.state_dict())
    back = pair(case)[0]
    back.load_state_dict(theirs.state_dict())
    assert all(torch.equal(value, back.state_dict()[k]) for k, value in ours.state_dict().items())
    assert ours.state_dict()._metadata == theirs.state_dict()._metadata


@EACH_CLASS
def test_single_and_half_precision(case):
    """As near to the exact result as torch's own, to two units of the format."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        ours, theirs = pair(case, torch.float32)
        if dtype is not torch.float32 and case[0] in (LayerNorm, GroupNorm, RMSNorm):
            ours, theirs = ours.to(dtype), theirs.to(dtype)
        exact = copy.deepcopy(ours).double()
        x = batch(case, dtype=dtype)
        found, expected = ours(x), theirs(x)
        assert found.dtype is expected.dtype is dtype
        reference = exact(x.double())
        error = (found.double() - reference).abs().max()
        assert error <= 2 * max(
            (expected.double() - reference).abs().max(),
            torch.finfo(dtype).eps * reference.abs().max(),
        )


@EACH_CLASS
def test_far_from_zero(case):
    """A mean of 1000 deviations costs float32 three digits, not all."""
    ours, theirs = pair(case, torch.float32)
    x = batch(case, dtype=torch.float32) + 2_000
    if case[0] is not RMSNorm:
        exact = copy.deepcopy(ours).double()
        torch.testing.assert_close(ours(x).double(), exact(x.double()), rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(ours(x), theirs(x), rtol=4e-3, atol=4e-3)


@EACH_CLASS
def test_autocast(case):
    ours, theirs = pair(case, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        for dtype in (torch.float32, torch.bfloat16):
            x = batch(case, dtype=dtype)
            assert ours(x).dtype is theirs(x).dtype
            torch.testing.assert_close(ours(x), theirs(x), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("case", [CASES["batch-2d"], CASES["group"]], ids=["batch", "group"])
def test_memory_formats(case):
    ours, theirs = pair(case)
    x = batch(case)
    y = ours(x.contiguous(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last) and not y.is_contiguous()
    torch.testing.assert_close(y, theirs(x))
    sliced = batch((*case[:-1], (6, *case[-1][1:])))[::2]
    torch.testing.assert_close(ours(sliced), theirs(sliced))


@EACH_CLASS
def test_derived_gradients_are_finite_differences(case):
    module, x = pair(case)[0], batch(case).requires_grad_()
    inputs = (x, *(p.detach().clone().requires_grad_() for p in module.parameters()))
    names = [name for name, _ in module.named_parameters()]

    def call(x, *params):
        fresh = copy.deepcopy(module)
        return torch.func.functional_call(fresh, dict(zip(names, params, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


@EACH_CLASS
def test_one_graph_under_compile(case):
    ours, theirs = pair(case)
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    for seed, training in ((0, True), (1, True), (2, False)):
        x = batch(case, seed).requires_grad_()
        grads = []
        for module in (compiled, theirs):
            module.train(training)
            y = module(x)
            grads.append([y, *torch.autograd.grad(y.square().sum(), [x, *module.parameters()])])
        torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-11)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)


def test_compiled_to_a_kernel():
    ours, theirs = pair(CASES["batch-2d"], torch.float32)
    x = batch(CASES["batch-2d"], dtype=torch.float32)
    (found, state), (expected, known) = results(torch.compile(ours), x), results(theirs, x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for name, value in known.items():
        torch.testing.assert_close(state[f"_orig_mod.{name}"], value)


@pytest.mark.parametrize("kind", [BatchNorm1d, BatchNorm2d])
@pytest.mark.parametrize("samples", [0, 1])
def test_a_batch_without_a_variance_is_refused(kind, samples):
    module = kind(3)
    before = copy.deepcopy(module.state_dict())
    shape = (samples, 3) if kind is BatchNorm1d else (samples, 3, 1, 1)
    with pytest.raises(ValueError, match=rf"more than one value .*\({samples}, 3"):
        module(torch.ones(shape))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert module.eval()(torch.ones(shape)).shape == shape
    with pytest.raises(ValueError, match="more than one value"):
        kind(3, track_running_stats=False).eval()(torch.ones(shape))


def test_one_sample_with_many_places_has_a_variance():
    ours, theirs = BatchNorm2d(3), nn.BatchNorm2d(3)
    x = torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BatchNorm2d(3, eps=0.0), r"eps must be in \(0, inf\), got 0.0"),
        (lambda: BatchNorm2d(3, eps=math.nan), "eps must be in"),
        (lambda: BatchNorm1d(3, momentum=1.5), r"momentum must be in \[0, 1\], got 1.5"),
        (lambda: BatchNorm1d(0), "num_features must be at least 1"),
        (lambda: LayerNorm(3, eps=-1.0), "eps must be in"),
        (lambda: RMSNorm(3, eps=0.0), "eps must be in"),
        (lambda: GroupNorm(2, 4, eps=0.0), "eps must be in"),
        (lambda: GroupNorm(2, 3), "divisible"),
        (lambda: BatchNorm2d(3)(torch.ones(2, 4, 2, 2)), r"num_features is 3: .*\(2, 4, 2, 2\)"),
        (lambda: BatchNorm2d(3)(torch.ones(2, 3)), "4D"),
        (lambda: BatchNorm1d(3)(torch.ones(3)), "2D or 3D"),
        (lambda: GroupNorm(2, 4)(torch.ones(2, 3)), r"num_channels is 4: .*\(2, 3\)"),
        (lambda: LayerNorm(3)(torch.ones(2, 4)), r"normalized_shape is \(3,\): .*\(2, 4\)"),
        (lambda: RMSNorm(3)(torch.ones(2, 4)), r"normalized_shape is \(3,\): .*\(2, 4\)"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_momentum_that_is_no_number():
    for value in ("much", True, [0.1]):
        with pytest.raises(TypeError, match="momentum must be a number"):
            BatchNorm2d(3, momentum=value)


def trained(kind, others):
    """Weights after steps of K-FAC on a network with this normalization."""
    torch.manual_seed(0)
    layers = [nn.Linear(6, 8), kind(8), nn.Tanh(), nn.Linear(8, 6), others(6), nn.Linear(6, 3)]
    model = nn.Sequential(*layers).double()
    x, y = torch.randn(12, 6, dtype=torch.float64), torch.arange(12) % 3
    optimizer = KFAC(model, "categorical", fisher="exact", lr=0.1)
    assert optimizer.plain == {}
    for _ in range(4):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
    return list(model.parameters())


@pytest.mark.parametrize(
    ("ours", "theirs"), [(LayerNorm, nn.LayerNorm), (RMSNorm, nn.RMSNorm)], ids=["layer", "rms"]
)
def test_kfac_knows_them(ours, theirs):
    found, expected = trained(BatchNorm1d, ours), trained(nn.BatchNorm1d, theirs)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


class Doubled(BatchNorm1d):
    """A subclass that computes something else."""

    def forward(self, x):
        return 2 * super().forward(x)


def test_kfac_does_not_know_what_a_subclass_does():
    with pytest.warns(UserWarning, match="no curvature for Doubled"):
        optimizer = KFAC(nn.Sequential(nn.Linear(3, 4), Doubled(4)), "gaussian")
    assert set(optimizer.plain) == {"1.weight", "1.bias"}


#: Rows of the batch on each rank; one has a single row, which has no variance by itself.
SPREAD = {2: [8, 1], 3: [4, 1, 4]}


def synchronized(rank, ranks):
    module = BatchNorm1d(5, dtype=torch.float64, process_group=distributed.group.WORLD)
    x = batch((None, (9, 5))).split(SPREAD[ranks])[rank].clone().requires_grad_()
    y = module(x)
    module(x.detach() + 1)
    weight = torch.arange(45.0, dtype=torch.float64).view(9, 5).sin().split(SPREAD[ranks])[rank]
    grads = torch.autograd.grad((y * weight).sum(), [x, *module.parameters()], retain_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad((y * weight).sum(), x, create_graph=True)
    for p in grads[1:]:
        distributed.all_reduce(p)  # as data parallelism adds them
    alone = module.eval()(x)  # each rank by itself: no waiting for others
    empty = BatchNorm1d(5, process_group=distributed.group.WORLD)
    with pytest.raises(ValueError, match="more than one value"):
        empty(torch.ones(0, 5))
    return [y.detach(), alone.detach(), *grads], dict(module.state_dict())


@pytest.mark.parametrize("ranks", SPREAD)
def test_ranks_are_one_process(ranks):
    found = launch(synchronized, ranks, ranks)
    module = nn.BatchNorm1d(5, dtype=torch.float64)
    x = batch((None, (9, 5))).requires_grad_()
    y = module(x)
    module(x.detach() + 1)
    weight = torch.arange(45.0, dtype=torch.float64).view(9, 5).sin()
    grads = torch.autograd.grad((y * weight).sum(), [x, *module.parameters()])
    whole = [y.detach(), module.eval()(x).detach(), grads[0]]
    for rank, (tensors, state) in enumerate(found):
        for joined, own in zip(whole, tensors[:3], strict=True):
            expected = joined.split(SPREAD[ranks])[rank]
            torch.testing.assert_close(own, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(tensors[3:], list(grads[1:]), rtol=1e-12, atol=1e-12)
        for name, value in module.state_dict().items():
            torch.testing.assert_close(state[name], value, rtol=1e-12, atol=1e-12)


def test_standardize_alone():
    x = torch.tensor([[1.0, 3.0], [2.0, 6.0]], dtype=torch.float64)
    found = standardize(x, [0, 1], 1e-9)
    assert found.mean.item() == 3 and found.variance.item() == 3.5 and found.entries == 4
    assert found.y.mean().abs() < 1e-12
    assert found.y.var(correction=0) == pytest.approx(1, abs=1e-8)


def test_a_model_is_synchronized_in_place():
    model = nn.Sequential(nn.BatchNorm1d(3), BatchNorm2d(2), nn.Linear(3, 3))
    before, weight = [*model], model[0].weight
    assert synchronize_batch_norm(model, "ranks") is model
    assert [*model] == before and model[0].weight is weight
    assert type(model[0]) is BatchNorm1d and model[0].process_group == "ranks"
    assert model[1].process_group == "ranks"


def test_what_cannot_be_synchronized_is_named():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm3d(3))
    with pytest.raises(ValueError, match="the model has a BatchNorm3d: only"):
        synchronize_batch_norm(model, "ranks")
    assert type(model[0]) is nn.BatchNorm1d
