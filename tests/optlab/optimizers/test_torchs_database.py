"""Torch's own database of optimizers: its valid inputs give its numbers, its errors are errors."""

import sys
import types
import unittest
import warnings

import pytest
import torch

import optlab
from tests.optlab.driving import assert_equal, drive, parameters
from tests.optlab.registry import CLASSES, ExactNAdam


def database():
    """Torch's module asks for ``expecttest``, whose test case alone it uses, as a base."""
    stand_in = types.ModuleType("expecttest")
    stand_in.TestCase = unittest.TestCase
    before = sys.modules.get("expecttest")
    sys.modules["expecttest"] = before or stand_in
    try:
        from torch.testing._internal.common_optimizers import optim_db
    finally:
        if before is None:
            del sys.modules["expecttest"]
    return {info.optim_cls.__name__: info for info in optim_db}


DATABASE = database()
KINDS = [name for entry in CLASSES if hasattr(torch.optim, name := entry.ours.__name__)]
#: Torch's optimizers that are not elementwise first-order methods of this package.
OTHERS = {"ASGD", "Adafactor", "LBFGS", "Muon", "Rprop", "SparseAdam"}
#: What torch offers besides and ours refuses by name: inputs that need one are left out.
NOT_OFFERED = {"foreach", "fused", "capturable", "differentiable"}
#: Errors that torch alone has: its kernels cannot mix numbers and tensors, ours can.
MIXED = "betas must be either both floats or both Tensors"


def valid():
    for kind in KINDS:
        for number, given in enumerate(DATABASE[kind].optim_inputs_func(device="cpu")):
            yield pytest.param(kind, given.kwargs, id=f"{kind}-{number}-{given.desc}")


def errors():
    for kind in KINDS:
        info = DATABASE[kind]
        for case in info.optim_error_inputs_func(device="cpu", dtype=torch.float32):
            given = case.optimizer_error_input
            name = given.desc or case.error_regex
            yield pytest.param(kind, case, id=f"{kind}-{name}".replace("\\", "")[:70])


def test_every_optimizer_of_torchs_is_ours_or_named_as_left_out():
    assert set(DATABASE) >= set(KINDS)
    assert set(DATABASE) - set(KINDS) <= OTHERS
    assert len(list(valid())) >= 50
    assert len(list(errors())) >= 50


def test_on_a_cpu_no_valid_input_is_left_out():
    """Those for other devices ask for ``capturable``, which is not offered."""
    for case in valid():
        assert not NOT_OFFERED & set(case.values[1])
    for kind in KINDS:
        for given in DATABASE[kind].optim_inputs_func(device="cuda"):
            ours = {name for name in given.kwargs if name not in NOT_OFFERED}
            assert ours <= set(CLASSES[KINDS.index(kind)].ours([torch.ones(1)]).defaults)


@pytest.mark.parametrize(("kind", "settings"), list(valid()))
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_valid_inputs_give_torchs_numbers(kind, settings, dtype):
    theirs = ExactNAdam if kind == "NAdam" else getattr(torch.optim, kind)
    results = []
    for make in (getattr(optlab, kind), theirs):
        params = parameters(dtype)
        optimizer = make([{"params": params[:4]}, {"params": params[4:], "lr": 0.03}], **settings)
        drive(optimizer, params, 10)
        results.append(params)
    assert_equal(*results)


@pytest.mark.parametrize(("kind", "case"), list(errors()))
def test_what_is_an_error_in_torch_is_an_error(kind, case):
    given = case.optimizer_error_input
    params = parameters()[:2] if given.params is None else given.params
    make = getattr(optlab, kind)
    assert case.error_on.name == "CONSTRUCTION_ERROR"
    if case.error_regex == MIXED:
        make(params, **given.kwargs)
    elif issubclass(case.error_type, Warning):
        with pytest.warns(case.error_type, match=case.error_regex):
            make(params, **given.kwargs)
    else:
        with pytest.raises((ValueError, TypeError)) as raised, warnings.catch_warnings():
            warnings.simplefilter("error")
            make(params, **given.kwargs)
        refused = NOT_OFFERED & set(given.kwargs)
        if refused:
            assert any(f"no argument {name!r}" in str(raised.value) for name in refused)


@pytest.mark.parametrize("numbers", [(0.8, 0.9), (0.5, 0.99)])
@pytest.mark.parametrize("tensor", [0, 1])
def test_one_beta_may_be_a_tensor(numbers, tensor):
    results = []
    for mixed in (True, False):
        betas = list(numbers)
        if mixed:
            betas[tensor] = torch.tensor(betas[tensor], dtype=torch.float64)
        params = parameters()
        drive(optlab.Adam(params, betas=tuple(betas)), params, 3)
        results.append(params)
    assert_equal(*results)
