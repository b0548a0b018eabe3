"""Ranks are one process with the joined batch, whatever their parts of it; or all refuse."""

import math

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import optlab
from optlab.clipping import clip_grad_norm_
from optlab.distributed import DataParallel, Recorder, launch
from optlab.precision import LossScaler, MasterWeights
from tests.optlab.distributed.driving import RUNS, trained_alone, trained_by_ranks


def raised(call):
    try:
        call()
    except (RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def linear(rank, dtype=torch.float64):
    torch.manual_seed(rank)
    return nn.Linear(3, 2, dtype=dtype)


class Loud(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise FloatingPointError("amid the backward pass")


def trainings(rank, ranks):
    return [trained_by_ranks(run, rank, ranks) for run in RUNS]


def trainings_by_messages(rank, ranks):
    return [trained_by_ranks(run, rank, ranks, shared_memory=False) for run in RUNS]


def training_in_a_part_of_the_ranks(rank, ranks):
    group = distributed.new_group([1, 2]) if ranks == 3 else None
    if ranks == 3 and rank > 0:
        return trained_by_ranks(RUNS[0], rank - 1, 2, group)


def refusals(rank, ranks):
    odd = rank == 1
    frozen = linear(0).requires_grad_(False)
    pairs = [
        (nn.Sequential(linear(0), linear(0)), nn.Sequential(linear(0), nn.BatchNorm1d(2))),
        (nn.Linear(3, 2), nn.Linear(3, 4)),
        (linear(0), linear(0, torch.float32)),
        (linear(0), nn.Sequential(*linear(0).children())),
        (frozen, frozen),
    ]
    return [raised(lambda pair=pair: DataParallel(pair[odd])) for pair in pairs] + [
        raised(lambda: DataParallel(linear(0), bucket_bytes=50 if odd else 60))
    ]


def normalized(rank, ranks):
    """Batch normalization, convolution and memory formats, beside torch's."""
    found = []
    for wrap in (DataParallel, DistributedDataParallel):
        torch.manual_seed(rank)
        model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
        model = model.double().to(memory_format=torch.channels_last)
        wrapped = wrap(model)
        optimizer = optlab.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for step in range(4):
            x = torch.randn(5, 2, 4, 4, dtype=torch.float64) * (rank + 1) + step
            optimizer.zero_grad()
            wrapped(x).square().mean().backward()
            optimizer.step()
            torch.manual_seed(10 * step + rank)
        weight = model[0].weight
        found.append((model.state_dict(), weight.grad.stride() == weight.stride()))
    return found


def evaluation_of_one_rank(rank, ranks):
    model = DataParallel(nn.BatchNorm1d(2))
    x = torch.ones(4, 2)
    model(x).sum().backward()
    if rank == 0:
        model.eval()
        model(x)
        model.train()
        with torch.no_grad():
            model(x)
    model(x).sum().backward()
    return model.module.running_mean


def compressed(rank, ranks):
    """Gradients with and without compression, of very different magnitudes."""
    found = []
    for magnitude in (1e-30, 1.0, 1e30):
        own = []
        for compress in (None, "fp16"):
            torch.manual_seed(0)
            model = DataParallel(nn.Linear(50, 4, bias=False), compress=compress)
            torch.manual_seed(rank + 1)
            x = torch.randn(50) * torch.logspace(-9, 0, 50)
            model(magnitude * x).sum().backward()
            own.append(model.module.weight.grad)
        found.append((magnitude * x.expand(4, 50), *own))
    return found


def overflow_of_one_rank(rank, ranks):
    """A scaler, whose step all leave out; and the norm that all see."""
    found = []
    for compress in (None, "fp16"):
        model = DataParallel(linear(0), compress=compress)
        optimizer, scaler = optlab.SGD(model.parameters(), lr=0.1), LossScaler(2.0**10)
        for step in range(3):
            optimizer.zero_grad()
            factor = math.inf if (step, rank) == (1, ranks - 1) else rank + 1.0
            scaler.scale(factor * model(torch.ones(3, dtype=torch.float64)).sum()).backward()
            scaler.unscale_(optimizer)
            norm = clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
        found.append((norm, scaler.history, scaler.get_scale(), [*model.state_dict().values()]))
    return found


def accidents(rank, ranks):
    """What goes wrong in a backward pass, and gradients of the pass after it."""
    model = DataParallel(linear(0), bucket_bytes=1)
    x = torch.full((1, 3), rank + 1.0, dtype=torch.float64, requires_grad=True)
    with pytest.raises(FloatingPointError):  # when a bucket has been sent
        model(Loud.apply(x)).sum().backward()
    model.zero_grad()
    model(x).sum().backward()
    after = model.module.weight.grad
    model.zero_grad()
    kept = after.clone()

    def twice():
        with model.batch(1):
            model(x).sum().backward()
            model(x).sum().backward()

    said = [raised(twice)]  # and writes no gradient that somebody has kept
    half = nn.Linear(3, 2, dtype=torch.bfloat16)
    taken = DataParallel(half)
    MasterWeights(half)
    said.append(raised(lambda: taken(x.bfloat16()).sum().backward()))
    model.remove_hooks()
    model.zero_grad()
    model(x).sum().backward()
    return after.clone(), kept, said, model.module.weight.grad


def several_passes(rank, ranks):
    """Two losses passed back one after the other; and gradients that are not set to zero."""
    model = DataParallel(linear(0))
    x = torch.full((1, 3), rank + 1.0, dtype=torch.float64)
    for factor in (1.0, 10.0):
        (factor * model(x).sum()).backward()
    return model.module.weight.grad


def recorded(rank, ranks):
    recorder = Recorder()
    layers = [nn.Linear(200, 200) for _ in range(4)]
    settings = dict(bucket_bytes=200_000, recorder=recorder)
    spans = []
    for shared_memory in (True, False):
        model = DataParallel(nn.Sequential(*layers), shared_memory=shared_memory, **settings)
        model(torch.ones(300, 200)).sum().backward()
        model.remove_hooks()
        spans.append([*recorder.spans])
        recorder.spans.clear()
    return spans


CHECKS = [
    *(
        trainings,
        trainings_by_messages,
        training_in_a_part_of_the_ranks,
        refusals,
        normalized,
        evaluation_of_one_rank,
    ),
    *(compressed, overflow_of_one_rank, accidents, several_passes, recorded),
]


def work(rank, ranks):
    return {check.__name__: check(rank, ranks) for check in CHECKS}


@pytest.fixture(scope="module", params=[2, 3])
def found(request):
    """What each rank found, by the name of the check."""
    ranks = launch(work, request.param, request.param)
    return {check.__name__: [own[check.__name__] for own in ranks] for check in CHECKS}


@pytest.mark.parametrize("number", range(len(RUNS)), ids=["-".join(map(str, r)) for r in RUNS])
@pytest.mark.parametrize("way", ["trainings", "trainings_by_messages"])
def test_ranks_are_one_process(found, number, way):
    first, *others = [own[number] for own in found[way]]
    expected = trained_alone(RUNS[number][0])
    for name, p in first.items():
        assert all(torch.equal(p, other[name]) for other in others)
        torch.testing.assert_close(p, expected[name], rtol=0, atol=1e-12)


def test_a_group_is_enough(found):
    own = found["training_in_a_part_of_the_ranks"]
    if len(own) == 3:
        assert own[0] is None
        for name, p in trained_alone(RUNS[0][0]).items():
            assert torch.equal(own[1][name], own[2][name])
            torch.testing.assert_close(own[1][name], p, rtol=0, atol=1e-12)


def test_differing_models_are_refused_by_all(found):
    first, *others = found["refusals"]
    assert all(other == first for other in others)
    *differing, frozen, size = first
    for message, name in zip(
        [*differing, size],
        ["1.weight", "weight", "weight", "weight", "bucket_bytes"],
        strict=True,
    ):
        assert message.startswith("RuntimeError: the model of rank 1 differs") and name in message
    assert frozen == "ValueError: the model has no parameter that requires a gradient"


def test_buffers_and_memory_formats_are_as_torch_has_them(found):
    for (ours, alike), (theirs, _) in found["normalized"]:
        assert alike
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-12, atol=1e-12)


def test_one_rank_may_evaluate_alone(found):
    assert len(found["evaluation_of_one_rank"]) in (2, 3)


def test_compression_keeps_the_bound_that_it_states(found):
    ranks = len(found["compressed"])
    for cases in zip(*found["compressed"], strict=True):
        local = torch.stack([own.double() for own, _, _ in cases])
        bound = ranks * 2.0**-11 * local.abs().mean(0) + ranks**2 * 2.0**-39 * local.abs().max()
        for _, exact, half in cases:
            torch.testing.assert_close(exact.double(), local.mean(0), rtol=1e-6, atol=1e-37)
            assert ((half.double() - local.mean(0)).abs() <= bound).all()
            assert torch.equal(half, cases[0][2]) and not torch.equal(half, exact)


def test_all_leave_out_the_step_in_which_one_overflows(found):
    for cases in zip(*found["overflow_of_one_rank"], strict=True):
        norm, history, scale, values = cases[0]
        assert [(event.update, event.skipped) for event in history] == [(2, True)]
        assert scale == 2.0**9 and all(value.isfinite().all() for value in values)
        mean = (len(cases) + 1) / 2  # of each of the 6 weights and 2 biases
        assert norm.item() == pytest.approx(mean * math.sqrt(8), rel=1e-3)
        for other in cases[1:]:
            assert other[:3] == (norm, history, scale)
            assert all(map(torch.equal, other[3], values))


def test_a_pass_after_one_that_raised_is_right(found):
    mean = (len(found["accidents"]) + 1) / 2
    for rank, (after, kept, said, own) in enumerate(found["accidents"]):
        torch.testing.assert_close(after, torch.full_like(after, mean))
        assert torch.equal(after, kept)
        assert torch.equal(own, torch.full_like(own, rank + 1))
        assert "second backward pass in batch()" in said[0]
        assert "another hook has taken the gradient of" in said[1]


def test_passes_add_up(found):
    mean = (len(found["several_passes"]) + 1) / 2
    for grad in found["several_passes"]:
        assert torch.equal(grad, torch.full_like(grad, 11 * mean))


def test_the_time_line_shows_the_overlap(found):
    for in_memory, spans in found["recorded"]:
        assert {span.name for span in in_memory} == {span.name for span in spans}
        compute = {span.name: span for span in spans if span.kind == "compute"}
        assert [*compute] == ["forward", "backward"]
        messages = [span for span in spans if span.kind == "communication"]
        assert sorted(span.name for span in messages) == [f"bucket {i}" for i in range(4)]
        assert all(span.end > span.begin > compute["forward"].end for span in messages)
        assert compute["backward"].begin < messages[0].begin < compute["backward"].end


@pytest.mark.parametrize(
    ("settings", "error", "name"),
    [
        ({"bucket_bytes": 0}, ValueError, "bucket_bytes"),
        ({"compress": "fp8"}, ValueError, "compress"),
        ({"broadcast_buffers": 1}, TypeError, "broadcast_buffers"),
        ({}, RuntimeError, "init_process_group"),
    ],
)
def test_settings_out_of_range_are_named(settings, error, name):
    with pytest.raises(error, match=name):
        DataParallel(nn.Linear(1, 1), **settings)
