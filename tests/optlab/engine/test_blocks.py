"""Blocks: what is packed together, what is left where it is, and when that is done anew."""

import pytest
import torch

import optlab
from optlab.engine import blocks, packing
from optlab.engine.packing import Gatherer, dense, line, pack, packable, partition, sole
from tests.optlab.driving import alike, assert_equal, drive, drive_gaps
from tests.optlab.registry import CLASSES, EACH_CLASS

ADAM = CLASSES[4]


@pytest.fixture
def made(monkeypatch):
    """Every block that is made, as the numbers of its parameters, part by part."""
    seen = []
    original = blocks.Block.__init__

    def note(self, parts, *args, **kwargs):
        seen.append([len(part) for part in parts])
        original(self, parts, *args, **kwargs)

    monkeypatch.setattr(blocks.Block, "__init__", note)
    return seen


def small(count=6, size=3):
    return [torch.ones(size, requires_grad=True) for _ in range(count)]


@EACH_CLASS
def test_small_parameters_are_packed_once_for_all_steps(entry, made):
    params = small()
    optimizer = entry.make(params)
    for step in range(5):
        drive(optimizer, params, 1)
        optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
        optimizer.state_dict()
        optimizer.zero_grad()
        optimizer.step()
    assert made == [[1] * 6 if entry.ours.layerwise else [6]]


@EACH_CLASS
def test_gradients_that_come_and_go_stop_making_blocks(entry, made):
    params = small(12)
    optimizer = entry.make(params)
    drive_gaps(optimizer, params, 30)
    count = len(made)
    drive_gaps(optimizer, params, 10, seed=1)
    assert len(made) <= count + len(params)
    drive(optimizer, params, 10)
    count = len(made)
    drive(optimizer, params, 10)
    assert len(made) == count


def test_what_is_packed_and_what_is_not(made):
    memory = torch.zeros(8)
    params = [
        *small(3),
        torch.ones(packing.SMALL, requires_grad=True),  # the largest that is packed
        torch.ones(packing.SMALL + 1, requires_grad=True),
        torch.ones(6, 4).t()[::2].detach().requires_grad_(),  # gaps between its rows
        torch.ones(0, requires_grad=True),
        memory[:4].requires_grad_(),  # others see its memory
        memory[4:].requires_grad_(),
        torch.ones(3, dtype=torch.float64, requires_grad=True),
        torch.ones(4, dtype=torch.float64, requires_grad=True),
    ]
    drive(optlab.Adam(params), params, 2)
    assert sorted(map(sorted, made)) == [[1, 1, 1, 1, 1, 4], [2]]


def test_a_part_is_full_at_some_size(made, monkeypatch):
    monkeypatch.setattr(packing, "FULL", 10)
    params = small(8)
    drive(optlab.Adam(params), params, 1)
    assert made == [[3, 3, 2]]


@pytest.mark.parametrize("full", [3, 7, 10, 10**6])
@pytest.mark.parametrize("limit", [0, 3, 12, 10**6])
@EACH_CLASS
def test_numbers_do_not_depend_on_what_is_packed(entry, full, limit, monkeypatch):
    monkeypatch.setattr(packing, "FULL", full)
    monkeypatch.setattr(packing, "SMALL", limit)

    def scenario(make, params):
        optimizer = make(params)
        drive(optimizer, params, 2)
        drive_gaps(optimizer, params, 4)
        drive(optimizer, params, 2, seed=1)

    alike(entry, scenario)


@EACH_CLASS
def test_parts_share_the_memory_where_gradients_are_gathered(entry):
    """The same memory for parts of different sizes and groups, one after the other."""

    def scenario(make, params):
        second = [torch.full((n,), 0.5, dtype=torch.float64).requires_grad_() for n in (9, 1, 30)]
        optimizer = make([{"params": params}, {"params": second, "lr": 0.2}])
        drive(optimizer, [*params, *second], 4)
        return second

    alike(entry, scenario)


def test_many_equal_rows_are_gathered_as_few():
    """Rows of one shape are joined, the others copied; either way in their order."""
    shapes = [(2, 3)] * 5 + [(4, 3)] * 3 + [(7,)] * 2 + [()] + [(2, 3, 2)]
    like = [torch.randn(shape) for shape in shapes]
    like.append(torch.empty_strided((5, 3), (1, 5)).normal_())
    order = partition(like, range(len(like)), lambda p: None)
    assert len(order) == 1
    assert len(order[0]) == 1
    assert sorted(order[0][0]) == list(range(len(like)))
    chosen = [like[i] for i in order[0][0]]
    flat = torch.full((sum(tensor.numel() for tensor in like),), torch.nan)
    gather = Gatherer(flat, chosen)
    assert len(gather.runs) >= 1
    expected = torch.cat([line(tensor) for tensor in chosen])
    for lay in (lambda g: g, lambda g: torch.stack([g, g], -1)[..., 0], lambda g: g.mT.clone().mT):
        flat.fill_(torch.nan)
        gather(tuple(lay(g) if g.dim() > 1 else g for g in chosen))
        assert torch.equal(flat, expected)


def test_packed_pieces_are_one_memory_and_each_a_tensor_of_its_own():
    like = [torch.randn(2, 3), torch.randn(3, 2).t(), torch.randn(()), torch.randn(4)]
    flat, pieces = pack(like, torch.float64)
    assert flat.numel() == 17
    for piece, tensor in zip(pieces, like, strict=True):
        assert piece.stride() == tensor.stride()
        assert torch.equal(piece, tensor.double())
        assert piece.untyped_storage().nbytes() == 8 * tensor.numel()
    assert torch.equal(flat, torch.cat([line(piece) for piece in pieces]))
    flat.fill_(7.0)
    assert all((piece == 7).all() for piece in pieces)
    pieces[1].zero_()
    assert flat[6:12].eq(0).all()
    assert flat[12:].eq(7).all()
    flat, pieces = pack(like, torch.float32, value=0.5)
    assert flat.eq(0.5).all()
    assert all(piece.eq(0.5).all() for piece in pieces)


def test_packed_memory_outlives_everything_but_one_piece():
    like = [torch.full((1000,), float(i)) for i in range(50)]
    piece = pack(like, torch.float32)[1][30]
    del like
    other = [torch.full((1000,), -1.0) for _ in range(200)]
    assert piece.eq(30).all()
    assert len(other) == 200


@pytest.mark.parametrize(
    ("tensor", "fills"),
    [
        (torch.ones(2, 3), True),
        (torch.ones(2, 3).t(), True),
        (torch.ones(2, 3, 4).permute(2, 0, 1), True),
        (torch.ones(1, 2, 3, 4).contiguous(memory_format=torch.channels_last), True),
        (torch.ones(()), True),
        (torch.ones(0), False),
        (torch.ones(4)[::2], False),
        (torch.ones(3, 4)[:, :2], False),
        (torch.ones(1).expand(3), False),
        (torch.ones(3)[1:], True),
    ],
)
def test_what_fills_its_memory(tensor, fills):
    assert dense(tensor) is fills
    if fills:
        assert torch.equal(line(tensor).sort().values, tensor.reshape(-1).sort().values)


def test_who_else_sees_a_tensor():
    tensor = torch.ones(3)
    assert sole(tensor)
    assert packable(tensor)
    view = tensor[:2]
    assert not sole(tensor)
    del view
    assert sole(tensor)
    array = tensor.numpy()
    storage = tensor.untyped_storage()
    assert not (sole(tensor) and array is not None)
    del array
    assert storage.nbytes() == 12
    assert not sole(torch.ones(4)[:2])
    assert not packable(torch.frombuffer(bytearray(8), dtype=torch.float32))
    assert not packable(torch.ones(3).share_memory_())


@pytest.mark.parametrize("compile", [False, True])
def test_parameters_of_another_librarys_kind(compile):
    """Such as sharded ones: they are updated out of place, by operations that they define."""
    from tests.optlab.optimizers.test_torchs_database import DATABASE  # its stand-in is needed

    assert DATABASE
    from torch.testing._internal.two_tensor import TwoTensor

    start, g = torch.linspace(-1, 1, 5), torch.linspace(0.5, 3, 5)
    both = torch.nn.Parameter(TwoTensor(start.clone(), start.clone()))
    plain = torch.nn.Parameter(start.clone())
    optimizer = optlab.Adam([both, plain], lr=0.1, compile=compile)
    for _ in range(3):
        both.grad, plain.grad = TwoTensor(g.clone(), g.clone()), g.clone()
        optimizer.step()
    assert type(both.data) is TwoTensor
    assert_equal([both.a, both.b], [plain.data, plain.data], rtol=1e-6, atol=1e-6)


def test_a_step_makes_no_lasting_copy_of_large_parameters():
    params = [torch.zeros(packing.SMALL + 1, requires_grad=True)]
    places = [p.data_ptr() for p in params]
    optimizer = ADAM.make(params)
    drive(optimizer, params, 2)
    assert [p.data_ptr() for p in params] == places
    moments = {name: v.data_ptr() for name, v in optimizer.state[params[0]].items()}
    drive(optimizer, params, 2)
    assert moments == {name: v.data_ptr() for name, v in optimizer.state[params[0]].items()}
