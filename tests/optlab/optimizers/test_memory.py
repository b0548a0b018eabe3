"""Parameters may move in memory, but nobody who looks at one may notice."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch

import optlab
from optlab.engine import packing
from tests.optlab.driving import alike, assert_equal, copies, drive, parameters
from tests.optlab.registry import CLASSES, EACH_CLASS, EVERY


@EVERY
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "apart"])
def test_shapes_strides_and_kinds_stay(entry, packed, monkeypatch):
    if not packed:
        monkeypatch.setattr(packing, "SMALL", 0)
    params = parameters()
    same = [(p.shape, p.stride(), p.dtype, id(p), type(p), p.is_leaf) for p in params]
    optimizer = entry.make(params)
    drive(optimizer, params, 3)
    assert same == [(p.shape, p.stride(), p.dtype, id(p), type(p), p.is_leaf) for p in params]
    assert all(p.requires_grad and p.grad is not None for p in params)


#: Ways to see a parameter's memory: each gives an array or a tensor.
VIEWS = {
    "detach": lambda p: p.detach(),
    "data": lambda p: p.data,
    "numpy": lambda p: p.detach().numpy(),
    "row": lambda p: p.detach()[1],
    "flat": lambda p: p.detach().view(-1),
    "transposed": lambda p: p.detach().mT,
    "storage": lambda p: torch.tensor([], dtype=p.dtype).set_(p.untyped_storage()),
    "dlpack": lambda p: np.from_dlpack(p.detach()),
    "parameter": lambda p: torch.nn.Parameter(p.detach()).data,
    "swapped bits": lambda p: p.detach().view(torch.int64),
}


def entries_seen(view):
    return torch.as_tensor(view).view(torch.float64).clone().numpy()


@pytest.mark.parametrize("gaps", [False, True], ids=["all gradients", "some"])
@pytest.mark.parametrize("when", [0, 1, 3])
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("entry", [CLASSES[0], CLASSES[4]], ids=str)
def test_who_sees_a_parameter_sees_every_update(entry, view, when, gaps):
    params = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(5)]
    optimizer = entry.make(params)
    drive(optimizer, params, when)
    seen = [VIEWS[view](p) for p in params[:3]]
    for seed in range(4):
        drive(optimizer, params, 1, seed)
        if gaps and seed < 3:  # blocks come apart, and parameters move again
            params[seed].grad = params[4].grad = None
            optimizer.step()
        for p, each in zip(params[:3], seen, strict=True):
            now = entries_seen(VIEWS[view](p))
            assert np.array_equal(entries_seen(each), now)
            assert np.isfinite(now).all()


def test_memory_of_others_is_where_the_parameter_stays():
    array = np.ones((4, 3))
    buffer = bytearray(96)
    shared = torch.ones(12, dtype=torch.float64).share_memory_()
    base = torch.ones(5, 12, dtype=torch.float64)
    lent = {
        "numpy": (torch.from_numpy(array), lambda: array.ravel()),
        "buffer": (
            torch.frombuffer(buffer, dtype=torch.float64),
            lambda: np.frombuffer(buffer, dtype=np.float64),
        ),
        "shared": (shared, lambda: shared.detach().numpy()),
        "part of a tensor": (base[2], lambda: base[2].numpy()),
        "row, expanded once": (base[3].view(1, 12), lambda: base[3].numpy()),
    }
    params = [tensor.requires_grad_() for tensor, _ in lent.values()]
    places = [p.data_ptr() for p in params]
    params.append(torch.ones(3, dtype=torch.float64, requires_grad=True))
    optimizer = optlab.Adam(params)
    for seed in range(3):
        drive(optimizer, params, 1, seed)
        assert [p.data_ptr() for p in params[:-1]] == places
        for p, (_, look) in zip(params, lent.values(), strict=False):
            assert np.array_equal(look(), p.detach().numpy().ravel())
    assert torch.equal(base[4], torch.ones(12, dtype=torch.float64))


def test_tied_views_stay_tied():
    base = torch.arange(12.0, dtype=torch.float64)
    results = []
    for make in CLASSES[4].makers:
        memory = base.clone()
        params = [memory[:6].requires_grad_(), memory[4:].detach().view(2, 4).requires_grad_()]
        optimizer = make(params)
        drive(optimizer, params, 3)
        results += [[memory, *params]]
        assert torch.equal(memory[4:].view(2, 4), params[1])
        assert torch.equal(memory[:6], params[0])
    assert_equal(*results)


@pytest.mark.parametrize("before", [0, 2])
def test_memory_shared_between_processes_stays_shared(before):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)).double()
    straight = copy.deepcopy(model)
    for each, share in ((model, True), (straight, False)):
        params = list(each.parameters())
        optimizer = optlab.Adam(params, lr=0.1)
        drive(optimizer, params, before)
        if share:
            each.share_memory()
            places = [p.data_ptr() for p in params]
        drive(optimizer, params, 2, seed=1)
        drive(optimizer, params[:3], 2, seed=2)
    assert all(p.is_shared() for p in model.parameters())
    assert [p.data_ptr() for p in model.parameters()] == places
    assert_equal(model.parameters(), straight.parameters())


@EACH_CLASS
@pytest.mark.parametrize("save", [torch.save, pickle.dump], ids=["torch.save", "pickle"])
def test_what_is_saved_carries_no_other_bytes(entry, save):
    params = [torch.randn(n, requires_grad=True) for n in (3, 20_000, 5, 10_000)]
    optimizer = entry.make(params)
    drive(optimizer, params, 2)

    def size(value):
        file = io.BytesIO()
        save(value, file)
        return file.tell()

    for p in params:
        fresh = p.detach().clone().requires_grad_()
        assert size(p) <= size(fresh) + 64
        assert p.untyped_storage().nbytes() == p.numel() * p.element_size()
    for p in params:
        for name, value in optimizer.state.get(p, {}).items():
            assert size(value) <= size(value.clone()) + 64, name


def rebuilt(entry, change):
    """The change of the parameters in mid-run, with ours and torch's."""

    def scenario(make, params):
        optimizer = make(params)
        drive(optimizer, params, 3)
        change(optimizer, params)
        drive(optimizer, params, 3, seed=1)

    alike(entry, scenario)


@EACH_CLASS
def test_new_data_in_mid_run(entry):
    def change(optimizer, params):
        for p in params[:5]:
            p.data = p.data.clone() * 2
        params[5].data = torch.full_like(params[5], 0.5)

    rebuilt(entry, change)


@EACH_CLASS
def test_entries_written_in_place_in_mid_run(entry):
    def change(optimizer, params):
        with torch.no_grad():
            for p in params:
                p.mul_(0.5)
            params[0].copy_(torch.ones(4, 3))
            params[1].data.zero_()

    rebuilt(entry, change)


@EACH_CLASS
def test_data_transposed_in_mid_run(entry):
    """The same memory in another order: state stays with its entries' places, as in torch."""

    def scenario(make, params):
        square = [torch.arange(9.0, dtype=torch.float64).view(3, 3).requires_grad_()]
        square += [params[0], params[1]]
        optimizer = make(square)
        drive(optimizer, square, 3)
        square[0].data = square[0].data.t()
        drive(optimizer, square, 3, seed=1)
        return square

    alike(entry, scenario)


@EACH_CLASS
@pytest.mark.parametrize("assign", [True, False])
def test_a_models_state_dict_loaded_in_mid_run(entry, assign):
    results = []
    for make in entry.makers:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)).double()
        params = list(model.parameters())
        optimizer = make(params)
        drive(optimizer, params, 2)
        saved = {name: p.detach() * 2 for name, p in model.state_dict().items()}
        model.load_state_dict(saved, assign=assign)
        drive(optimizer, params, 2, seed=1)
        assert (params[0] is next(model.parameters())) != assign
        results.append([*params, *model.parameters()])
    assert_equal(*results)


@EACH_CLASS
def test_a_model_converted_in_mid_run(entry):
    """Torch refuses state of another dtype; ours is converted with its parameter."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    params = list(model.parameters())
    straight = [p.detach().double().requires_grad_() for p in params]
    optimizer, expected = entry.make(params), entry.make(straight)
    drive(optimizer, params, 2)
    model.double()
    drive(optimizer, params, 3, seed=1)
    drive(expected, straight, 2)
    drive(expected, straight, 3, seed=1)
    assert all(p.dtype == torch.float64 for p in params)
    assert_equal(params, straight, rtol=1e-3, atol=1e-4)
    for p in params:
        for name, value in optimizer.state.get(p, {}).items():
            assert value.dtype == torch.float64 or name == "step"


@EACH_CLASS
def test_a_model_copied_in_mid_run_goes_its_own_way(entry):
    model = torch.nn.Linear(3, 2)
    params = list(model.parameters())
    optimizer = entry.make(params)
    drive(optimizer, params, 2)
    twin = copy.deepcopy(model)
    before = copies(params)
    other = entry.make(twin.parameters())
    drive(other, list(twin.parameters()), 2, seed=1)
    assert_equal(params, before, rtol=0, atol=0)
    drive(optimizer, params, 2, seed=2)
    assert not torch.equal(twin.weight, model.weight)


def test_two_optimizers_may_take_turns_on_the_same_parameters():
    results = []
    for space in (optlab, torch.optim):
        params = parameters()
        first, second = space.SGD(params, lr=0.1, momentum=0.9), space.Adam(params[2:], lr=0.1)
        for seed in range(4):
            drive(first, params, 1, seed)
            drive(second, params[2:], 2, seed + 10)
            drive(first, params[:4], 1, seed + 20)
        results.append(params)
    assert_equal(*results)
