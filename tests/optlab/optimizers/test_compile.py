"""With compile=True time alone changes: same numbers, same state, no compilation without need."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch

import optlab
from optlab.engine import kernels
from tests.optlab.driving import assert_equal, drive, drive_gaps, parameters
from tests.optlab.optimizers.test_state import WAYS, assert_resumes
from tests.optlab.registry import CLASSES, EACH_CLASS, EVERY

ADAM = next(entry for entry in CLASSES if entry.ours is optlab.Adam)
DTYPES = {
    torch.float64: {"rtol": 1e-10, "atol": 1e-12},
    torch.float32: {"rtol": 2e-4, "atol": 2e-5},
}


def plain(p, generator):
    kind = torch.complex128 if p.is_complex() else torch.float64
    return torch.randn(p.shape, generator=generator, dtype=kind).to(p.dtype)


def both(entry, params, run, **settings):
    """The same run with a compiled optimizer and with one that is not."""
    results = []
    for compile in (True, False):
        own = params()
        optimizer = entry.make(own, compile=compile, **settings)
        run(optimizer, own)
        states = [value for p in own for value in optimizer.state.get(p, {}).values()]
        results.append([*own, *states])
    return results


@EVERY
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_compiled_numbers_are_the_same(entry, dtype):
    def run(optimizer, params):
        if dtype == torch.float64:
            drive(optimizer, params, 30)
        else:
            drive(optimizer, params, 30, gradient=plain)

    results = both(entry, lambda: parameters(dtype), run)
    assert_equal(*results, **DTYPES[dtype])


def test_a_compiled_rule_is_the_rule_of_the_book(monkeypatch):
    """Not a copy of it: what changes there changes here."""

    def halved(theta, g, *, lr):
        return (theta - 0.5 * lr * g,)

    monkeypatch.setattr(optlab.optimizers.sgd.rules, "sgd", halved)
    p = torch.ones(2, requires_grad=True)
    optimizer = optlab.SGD([p], lr=0.5, compile=True)
    p.grad = torch.ones(2)
    optimizer.step()
    assert p.tolist() == [0.75, 0.75]


@EVERY
@pytest.mark.parametrize("way", WAYS)
def test_a_compiled_run_is_resumed_bitwise(entry, way):
    assert_resumes(entry, way, torch.float32, compile=True)


@pytest.mark.parametrize("way", ["state_dict", "pickle", "deepcopy"])
def test_a_compiled_run_with_absent_gradients_is_resumed_bitwise(way):
    assert_resumes(ADAM, way, torch.float32, driver=drive_gaps, compile=True)


@EACH_CLASS
def test_absent_gradients_and_groups(entry):
    def run(optimizer, params):
        optimizer.param_groups[0]["lr"] = 0.03
        drive_gaps(optimizer, params, 12)

    results = both(entry, parameters, run)
    assert_equal(*results, **DTYPES[torch.float64])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.complex64], ids=str)
def test_half_precision_and_complex_parameters(dtype):
    results = both(ADAM, lambda: parameters(dtype), lambda o, ps: drive(o, ps, 10, gradient=plain))
    assert [value.dtype for value in results[0]] == [value.dtype for value in results[1]]
    # A rounding may go the other way: half precision has eight bits.
    loose = 2e-2 if dtype != torch.complex64 else 1e-4
    assert_equal(*results, rtol=loose, atol=loose)


LAYOUTS = {
    "expanded": lambda g: g.sum().expand(g.shape),
    "with gaps": lambda g: torch.stack([g, g], dim=-1)[..., 0],
    "negated lazily": lambda g: torch._neg_view(g),
    "row of a matrix": lambda g: torch.stack([g, g])[1],
}


@pytest.mark.parametrize("size", [kernels.GRAIN + 1, 5], ids=["apart", "packed"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_may_lie_otherwise_than_their_parameters(layout, size):
    def gradient(p, generator):
        return LAYOUTS[layout](plain(p, generator))

    results = both(
        ADAM,
        lambda: [torch.ones(size, dtype=torch.float64, requires_grad=True) for _ in range(2)],
        lambda optimizer, params: drive(optimizer, params, 3, gradient=gradient),
    )
    assert_equal(*results, **DTYPES[torch.float64])


@pytest.mark.parametrize("compile", [True, False])
def test_gradients_of_another_dtype_than_their_parameter(compile):
    """Torch allows them where grad_dtype says so."""
    p = torch.ones(7, dtype=torch.bfloat16, requires_grad=True)
    q = torch.ones(7, requires_grad=True)
    p.grad_dtype, q.grad_dtype = torch.float32, torch.bfloat16
    p.grad, q.grad = torch.full((7,), 0.5), torch.full((7,), 0.5, dtype=torch.bfloat16)
    optlab.SGD([p, q], lr=1.0, compile=compile).step()
    assert p.tolist() == q.tolist() == [0.5] * 7


def test_one_kernel_serves_every_length_with_several_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        lengths = [1, 7, kernels.GRAIN, kernels.GRAIN + 1, 3 * kernels.GRAIN + 5]
        results = both(
            ADAM,
            lambda: [torch.ones(n, dtype=torch.float64, requires_grad=True) for n in lengths],
            lambda optimizer, params: drive(optimizer, params, 3),
        )
    finally:
        torch.set_num_threads(before)
    assert_equal(*results, **DTYPES[torch.float64])


@pytest.fixture
def compilations(monkeypatch):
    """Programs that went to the compiler; what it would make of them is run as it stands."""
    from torch._inductor import compile_fx

    seen = []

    class Made:
        def __init__(self, graph):
            self.current_callable = lambda inputs: graph(*inputs)

    def count(graph, examples, *args, **kwargs):
        seen.append(graph)
        return Made(graph)

    monkeypatch.setattr(compile_fx, "compile_fx_inner", count)
    kernels._compile.cache_clear()
    yield seen
    kernels._compile.cache_clear()


def small():
    return [torch.ones(n, dtype=torch.float64, requires_grad=True) for n in (3, 5)]


@EVERY
def test_no_change_of_a_number_compiles_anew(entry, compilations):
    params = small()
    optimizer = entry.make(params, weight_decay=0.1, compile=True)
    drive(optimizer, params, 2)
    assert len(compilations) == 1
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5)
    for seed in range(4):
        drive(optimizer, params, 1, seed)
        schedule.step()
    group = optimizer.param_groups[0]
    for name, default in optimizer.defaults.items():
        if type(default) in (int, float) and (name != "momentum" or group[name]):
            group[name] = 0.25
            drive(optimizer, params, 1)
    if "betas" in group:
        group["betas"] = (0.5, 0.7)
    drive(optimizer, params, 10)
    group["lr"] = torch.tensor(0.3)
    drive(optimizer, params, 2)
    # RAdam takes another rule once it has seen enough steps.
    assert len(compilations) == (2 if entry.ours is optlab.RAdam else 1)


@EVERY
def test_a_change_of_the_rule_compiles_anew_and_going_back_does_not(entry, compilations):
    params = small()
    optimizer = entry.make(params, weight_decay=0.0, compile=True)
    drive(optimizer, params, 1)
    assert len(compilations) == 1
    group = optimizer.param_groups[0]
    group["weight_decay"] = 0.1
    drive(optimizer, params, 1)
    # LARS and LAMB take the decay themselves, as a number like others.
    assert len(compilations) == (1 if entry.ours in (optlab.LARS, optlab.LAMB) else 2)
    group["maximize"] = not group["maximize"]
    drive(optimizer, params, 1)
    count = len(compilations)
    for decay in (0.0, 0.3):
        group["weight_decay"] = decay
        group["maximize"] = entry.settings.get("maximize", False)
        drive(optimizer, params, 1)
    assert len(compilations) == count


def test_groups_and_optimizers_share_a_kernel(compilations):
    params = small()
    groups = [{"params": params[:1]}, {"params": params[1:], "lr": 0.5}]
    drive(optlab.Adam(groups, compile=True), params, 2)
    drive(optlab.AdamW(params, weight_decay=0.0, eps=0.1, compile=True), params, 2)
    assert len(compilations) == 1


def test_nothing_is_compiled_unless_asked_for(compilations):
    params = small()
    for entry in CLASSES:
        drive(entry.make(params), params, 1)
    assert compilations == []


WITHOUT_COMPILER = """
    import torch, optlab

    torch.manual_seed(0)
    gaps = torch.randn(6, 4).t()[::2].detach().requires_grad_()
    params = [gaps, torch.zeros(0, requires_grad=True), torch.randn(5, requires_grad=True)]
    optimizer = optlab.Adam(params, compile=True)
    before = [p.detach().clone() for p in params]
    for p in params:
        p.grad = torch.ones_like(p)
    try:
        optimizer.step()
    except Exception as error:
        print(error)
    assert all(map(torch.equal, params, before)), "parameters have changed"
    for state in optimizer.state.values():
        assert not any(value.any() for value in state.values()), "state has changed"
"""


def test_without_a_compiler_an_error_says_so_and_nothing_has_changed(tmp_path):
    (tmp_path / "cache").mkdir()
    environment = os.environ | {
        "CXX": "/nonexistent",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WITHOUT_COMPILER)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert "No working C++ compiler found" in done.stdout
    assert done.returncode == 0, done.stderr
