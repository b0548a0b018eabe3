"""The benchmarks of what K-FAC gains run, tune all methods alike, and have their tasks right."""

import math

import pytest
import torch


@pytest.mark.parametrize(
    ("topic", "limits"),
    [("autoencoders", [1 / 8, 1 / 4, 1 / 4, 0.3, 0.6, 1.0]), ("epochs", [0.6])],
)
def test_every_bar_has_its_row(quick, topic, limits):
    rows = quick(topic)
    found = [entry["limit"] for entry in rows if entry["limit"] is not None]
    assert sorted(found) == sorted(limits)
    tuned = [entry for entry in rows if "space" in entry]
    assert len({len(entry["tried"]) for entry in tuned}) == 1
    for entry in tuned:
        for *_, settings in entry["tried"]:
            assert settings.keys() == entry["space"].keys()
            for name, (low, high) in entry["space"].items():
                assert low <= settings[name] <= high


def test_settings_fill_the_space(importable):
    from tuning import Method

    points = list(Method("", None, {"lr": (1e-3, 1.0), "damping": (1.0, 10.0)}).settings(8))
    for name, low, high in (("lr", 1e-3, 1.0), ("damping", 1.0, 10.0)):
        eighths = [math.log(p[name] / low) / math.log(high / low) * 8 for p in points]
        assert sorted(map(math.floor, eighths)) == list(range(8))


def test_curves_are_curves(importable):
    import autoencoders

    drawn = autoencoders.curves(40)
    assert drawn.shape == (40, 256) and drawn.min() >= 0 and drawn.max() <= 1
    assert 0.02 < drawn.mean() < 0.3  # a line on an empty ground
    assert torch.equal(drawn, autoencoders.curves(40))
    assert (drawn.amax(1) > 0.5).all() and len(drawn.unique(dim=0)) == 40


def test_an_autoencoder_is_linear_at_its_code_and_at_its_end(importable):
    import autoencoders

    kinds = [type(layer).__name__ for layer in autoencoders.network((8, 6, 2, 6, 8), 0)]
    assert kinds == ["Linear", "Tanh", "Linear", "Linear", "Tanh", "Linear"]


def test_a_run_that_misses_its_target_has_no_steps(importable):
    from autoencoders import EVERY, Run

    run = Run([3.0, 2.0, 1.0], [0.1, 0.2, 0.3])
    assert run.steps_to(2.5) == 2 * EVERY and run.steps_to(0.5) is None


def test_epochs_rank_by_arrival_and_then_by_error(importable):
    from epochs import Run

    late, early, never, worse = (
        Run([0.2, 0.09], [1.0, 2.0], [1.0, 2.0]),
        Run([0.08], [1.0], [1.0]),
        Run([0.1, 0.095], [1.0, 2.0], [1.0, 2.0]),
        Run([0.3], [1.0], [1.0]),
    )
    ranked = sorted([worse, never, late, early], key=Run.rank)
    assert ranked == [early, late, never, worse]
    assert never.reached() is None and late.reached() == 1
