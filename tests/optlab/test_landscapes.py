"""Landscapes: gradients against automatic differentiation, minima, curvatures."""

import numpy as np
import pytest
import torch

from optlab.landscapes import LANDSCAPES, bend, landscape

ALL = pytest.mark.parametrize("scene", LANDSCAPES.values(), ids=LANDSCAPES)


def points(scene, count=50):
    rng = np.random.default_rng(0)
    return [[rng.uniform(low, high) for low, high in scene.view] for _ in range(count)]


@ALL
def test_gradient_is_the_derivative_of_the_value(scene):
    for point in points(scene):
        x = torch.tensor(point, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(scene.value(*x), x)
        assert list(scene.gradient(*point)) == pytest.approx(slope.tolist(), rel=1e-9, abs=1e-9)


@ALL
def test_minimum_is_stationary_and_lowest_in_view(scene):
    assert scene.gradient(*scene.minimum) == pytest.approx([0.0] * len(scene.minimum))
    lowest = scene.value(*scene.minimum)
    assert all(scene.value(*point) >= lowest for point in points(scene, 500))


@ALL
def test_curvature_is_the_hessians_at_the_minimum(scene):
    if scene is bend:  # its two curvatures are of different places
        slopes = [(scene.gradient(a + 1e-6)[0] - scene.gradient(a)[0]) / 1e-6 for a in (0, 1.5)]
        assert sorted(slopes) == pytest.approx(scene.curvature)
        return
    at = torch.tensor(scene.minimum, dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(lambda x: scene.value(*x), at)
    assert torch.linalg.eigvalsh(hessian).tolist() == pytest.approx(scene.curvature)
    assert scene.condition == scene.curvature[1] / scene.curvature[0]


@ALL
def test_floats_arrays_and_tensors_agree(scene):
    columns = np.array(points(scene)).T
    expected = [scene.gradient(*map(float, point)) for point in columns.T]
    for kind in (np.asarray, torch.tensor):
        result = scene.gradient(*map(kind, columns))
        assert [tuple(map(float, row)) for row in zip(*result, strict=True)] == expected


def test_bend_is_continuous():
    for corner in (1.0, 2.0):
        below, above = corner - 1e-12, corner + 1e-12
        assert bend.value(below) == pytest.approx(bend.value(above), rel=1e-9)
        assert bend.gradient(below) == pytest.approx(bend.gradient(above), rel=1e-9)


def test_unknown_landscape_is_named_with_the_nearest():
    with pytest.raises(ValueError, match=r"no landscape 'rosenbrok': did you mean 'rosenbrock'\?"):
        landscape("rosenbrok")
