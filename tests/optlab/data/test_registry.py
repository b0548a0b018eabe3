"""Data by name, and what a wrong name is told."""

import pytest
import torch

from optlab.data import load
from optlab.data.registry import LOADERS

LOCAL = {
    "digits": {},
    "mnist1d": dict(train=50, test=20),
    "python_source": dict(context=8, size=2000),
}


def test_all_but_fashion_mnist_need_no_file():
    assert {*LOADERS} == {*LOCAL, "fashion_mnist"}


@pytest.mark.parametrize("name", LOCAL)
def test_all_are_of_one_shape(name):
    data = load(name, **LOCAL[name])
    for x, y in ((data.x, data.y), (data.x_test, data.y_test)):
        assert len(x) == len(y) > 0 and y.dtype == torch.int64
        assert y.min() >= 0 and y.max() < data.classes
        assert x.isfinite().all()
    assert data.x.shape[1:] == data.x_test.shape[1:]
    again = load(name, **LOCAL[name])
    assert all(map(torch.equal, data[:4], again[:4]))


def test_wrong_names_are_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"no data set 'mnist': did you mean .*'mnist1d'"):
        load("mnist")
    with pytest.raises(TypeError, match=r"digits\(\) has no argument 'sed': did you mean 'seed'"):
        load("digits", sed=1)
    with pytest.raises(TypeError, match=r"fashion_mnist\(\) has no argument 'seed'"):
        load("fashion_mnist", seed=1)
