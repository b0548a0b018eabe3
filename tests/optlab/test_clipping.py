"""Clipping against torch's, and adaptive clipping against its equation."""

import functools
import math

import pytest
import torch
from torch import distributed, multiprocessing

from optlab.clipping import clip_grad_norm_, clip_grad_unitwise_, clip_grad_value_

SHAPES = [(3, 4), (5,), (), (2, 3, 2, 2), (0,), (1, 7)]


def made(dtype=torch.float64, scale=1.0, shapes=SHAPES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    params = []
    for shape in shapes:
        p = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        p.requires_grad_()
        p.grad = (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)
        params.append(p)
    params[1].grad = None
    return params


def grads(params):
    return [p.grad for p in params]


@pytest.mark.parametrize("norm_type", [2, 1, 3.5, 0.5, math.inf, "inf"])
@pytest.mark.parametrize("max_norm", [1e-3, 1.0, 100.0, math.inf])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.complex64])
def test_norm_equals_torchs(norm_type, max_norm, dtype):
    ours, theirs = made(dtype, 3.0), made(dtype, 3.0)
    if norm_type == "inf" or norm_type == math.inf:
        # Torch has no largest entry of an empty tensor.
        ours, theirs = ([p for p in params if p.numel()] for params in (ours, theirs))
    total = clip_grad_norm_(ours, max_norm, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    tolerance = {"rtol": 1e-12 if dtype == torch.float64 else 1e-6, "atol": 0}
    torch.testing.assert_close(total, expected, **tolerance)
    for mine, other in zip(grads(ours), grads(theirs), strict=True):
        assert (mine is None) == (other is None)
        if mine is not None:
            torch.testing.assert_close(mine, other, **tolerance)


def test_norm_of_mixed_kinds_of_numbers():
    def mixed():
        return made(torch.float64) + made(torch.float32, seed=1) + made(torch.bfloat16, seed=2)

    ours, theirs = mixed(), mixed()
    total = clip_grad_norm_(ours, 0.5)
    torch.testing.assert_close(
        total.double(), torch.nn.utils.clip_grad_norm_(theirs, 0.5).double(), rtol=1e-2, atol=0
    )
    after = torch.cat([g.double().flatten() for g in grads(ours) if g is not None])
    assert after.norm().item() == pytest.approx(0.5, rel=1e-3)
    assert [p.grad.dtype for p in ours if p.grad is not None] == [
        p.grad.dtype for p in theirs if p.grad is not None
    ]


def test_half_precision_does_not_overflow():
    """Torch's norm of these is infinite, and the gradients become zero."""
    p = torch.zeros(10_000, dtype=torch.float16, requires_grad=True)
    p.grad = torch.full_like(p, 1000.0)
    assert clip_grad_norm_(p, 100.0).item() == pytest.approx(1e5, rel=1e-4)
    torch.testing.assert_close(p.grad, torch.ones_like(p), rtol=1e-3, atol=0)


def test_gradients_that_are_short_enough_stay_bit_for_bit():
    params = made()
    before = [None if g is None else g.clone() for g in grads(params)]
    clip_grad_norm_(params, 1e6)
    for g, old in zip(grads(params), before, strict=True):
        assert (g is None and old is None) or torch.equal(g, old)


def test_a_generator_a_tensor_and_nothing():
    params = made()
    clip_grad_norm_((p for p in params), 1e-3)
    flat = torch.cat([g.flatten() for g in grads(params) if g is not None])
    assert flat.norm().item() == pytest.approx(1e-3, rel=1e-3)
    single = made()[0]
    assert clip_grad_norm_(single, 0.1).item() > 0.1 > single.grad.norm().item() - 1e-9
    assert clip_grad_norm_([], 1.0).item() == clip_grad_norm_([torch.zeros(1)], 1.0).item() == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite(bad):
    params, theirs = made(), made()
    for own in (params, theirs):
        own[0].grad[1, 2] = bad
    before = [None if g is None else g.clone() for g in grads(params)]
    with pytest.raises(RuntimeError, match=f"norm of the gradients is {bad}"):
        clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    for g, old in zip(grads(params), before, strict=True):
        assert g is None or torch.allclose(g, old, rtol=0, atol=0, equal_nan=True)
    clip_grad_norm_(params, 1.0)
    torch.nn.utils.clip_grad_norm_(theirs, 1.0)
    for g, other in zip(grads(params), grads(theirs), strict=True):
        assert g is None or torch.allclose(g, other, equal_nan=True)


@pytest.mark.parametrize("threshold", [0.0, -1.0, math.nan])
def test_thresholds_that_are_refused(threshold):
    params = made()
    for clip, name in (
        (clip_grad_norm_, "max_norm"),
        (clip_grad_value_, "clip_value"),
        (clip_grad_unitwise_, "clipping"),
        (functools.partial(clip_grad_unitwise_, clipping=0.1), "eps"),
    ):
        given = {"eps": threshold} if name == "eps" else {name: threshold}
        with pytest.raises(ValueError, match=f"{name} must be above 0, got"):
            clip(params, **given)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_value_equals_torchs(dtype):
    ours, theirs = made(dtype, 3.0), made(dtype, 3.0)
    clip_grad_value_(ours, 0.7)
    torch.nn.utils.clip_grad_value_(theirs, 0.7)
    for mine, other in zip(grads(ours), grads(theirs), strict=True):
        assert (mine is None and other is None) or torch.equal(mine, other)


def test_unitwise_is_its_equation():
    params = made(scale=3.0)
    before = [None if p.grad is None else p.grad.clone() for p in params]
    clip_grad_unitwise_(params, 0.1, eps=0.5)
    touched = 0
    for p, old in zip(params, before, strict=True):
        if old is None:
            assert p.grad is None
            continue
        # By hand: unit by unit where there are several dimensions, else as one.
        apart = p.dim() > 1 and min(p.shape[0], p[0].numel()) > 0 and p.squeeze().dim() > 1
        rows = zip(p, p.grad, old, strict=True) if apart else [(p, p.grad, old)]
        for weight, new, g in rows:
            most = 0.1 * max(weight.detach().norm().item(), 0.5)
            share = min(1.0, most / g.norm().item()) if g.norm() > 0 else 1.0
            touched += share < 1
            torch.testing.assert_close(new, share * g)
    assert touched > 3


def _share(rank, path, results):
    distributed.init_process_group("gloo", f"file://{path}", rank=rank, world_size=2)
    params = [p for p in made(scale=3.0) if p.numel()]
    mine = params[rank::2]
    for norm_type in (2.0, math.inf):
        own = [p.detach().clone().requires_grad_() for p in mine]
        for p, q in zip(own, mine, strict=True):
            p.grad = None if q.grad is None else q.grad.clone()
        total = clip_grad_norm_(own, 0.5, norm_type, process_group=distributed.group.WORLD)
        results.put((rank, norm_type, total.item(), [p.grad for p in own]))
    distributed.barrier()
    distributed.destroy_process_group()


def test_gradients_in_parts_have_the_norm_of_the_whole(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    ranks = [
        context.Process(target=_share, args=(rank, str(tmp_path / "meet"), results))
        for rank in (0, 1)
    ]
    for process in ranks:
        process.start()
    found = [results.get() for _ in range(4)]
    for rank, norm_type, total, own in found:
        params = [p for p in made(scale=3.0) if p.numel()]
        expected = torch.nn.utils.clip_grad_norm_(params, 0.5, norm_type)
        assert total == pytest.approx(expected.item())
        for mine, p in zip(own, params[rank::2], strict=True):
            assert mine is None or torch.allclose(mine, p.grad)
    for process in ranks:
        process.join(20)
        assert process.exitcode == 0


@pytest.mark.parametrize("clip", [clip_grad_norm_, clip_grad_value_, clip_grad_unitwise_])
def test_one_graph_under_compile(clip):
    found = []
    for call in (clip, torch.compile(clip, backend="aot_eager", fullgraph=True)):
        torch.manual_seed(0)
        params = [torch.nn.Parameter(torch.ones(4, 3)), torch.nn.Parameter(torch.ones(3))]
        for p in params:
            p.grad = torch.randn_like(p)
        norm = call(params, 0.1)
        found.append([p.grad for p in params] + ([] if norm is None else [norm]))
    torch.testing.assert_close(*found)
    assert found[0][0].abs().max() < 0.18  # a row of ones has a norm of 1.73
