"""Checkpoints: whole or not there, refused by name, and a run that goes on bit for bit."""

import copy
import errno
import os
import random
import re
import signal
import subprocess
import zipfile

import numpy as np
import pytest
import torch

import optlab
from optlab.optimizers import GaussNewton
from optlab.precision import LossScaler, MasterWeights
from optlab.training import Callback, Checkpoints, Trainer
from optlab.training.checkpoints import read
from optlab.training.randomness import go_on, random_state, set_random_state
from tests.optlab.training.runs import LOSS, data, digest, network, trainer


def contents(run):
    """All that a run is, as its checkpoint would hold it."""
    run._saved = -1
    run.save()
    return read(run.checkpoints.latest())


def kfac(**settings):
    model, own = network()
    optimizer = optlab.KFAC(model, "categorical", lr=0.05, **settings)
    batches, _ = data()
    return dict(model=model, optimizer=optimizer, batches=batches, own=own)


def run_of(kind, folder):
    checkpoints = Checkpoints(folder, every=4, keep=2)
    if kind == "kfac":
        made = kfac(adaptive=True)
        parts = made["model"], made["optimizer"], LOSS, made["batches"]
        return Trainer(*parts, keep={"own": made["own"]}, checkpoints=checkpoints)
    if kind == "gauss-newton":
        model, own = network()
        optimizer = GaussNewton(model.parameters(), "categorical", iterations=3)
        keep = {"own": own}
        return Trainer(model, optimizer, None, data()[0], keep=keep, checkpoints=checkpoints)
    if kind == "master":
        model, own = network()
        model.to(torch.bfloat16)
        master = MasterWeights(model, stochastic=True)
        optimizer = master.attach(optlab.Adam(master.parameters(), lr=1e-2))
        batches, _ = data()
        batches.x = batches.x.bfloat16()
        keep = {"own": own, "master": master}
        return Trainer(model, optimizer, LOSS, batches, keep=keep, checkpoints=checkpoints)
    makers = {
        "adam": lambda params: optlab.Adam(params, lr=1e-2),
        "compiled": lambda params: optlab.Adam(params, lr=1e-2, compile=True),
        "torch": lambda params: torch.optim.Adam(params, lr=1e-2),
        "momentum": lambda params: optlab.SGD(params, lr=1e-2, momentum=0.9),
        "radam": lambda params: optlab.RAdam(params, lr=1e-2),
    }
    return trainer(optimizer=makers[kind], checkpoints=checkpoints)


@pytest.mark.parametrize(
    "kind", ["adam", "torch", "momentum", "radam", "kfac", "gauss-newton", "master"]
)
def test_a_run_goes_on_bit_for_bit(kind, tmp_path):
    whole = run_of(kind, tmp_path / "whole")
    whole.run(steps=19)
    interrupted = run_of(kind, tmp_path / "parts")

    class EndError(Exception):
        pass

    class Fail(Callback):
        def on_step(self, trainer):
            if trainer.step == 11:
                raise EndError

    interrupted._on_step.append(Fail())
    with pytest.raises(EndError):
        interrupted.run(steps=19)
    interrupted.checkpoints.wait()
    for state in (torch.manual_seed, random.seed, np.random.seed):
        state(5)
    again = run_of(kind, tmp_path / "parts")
    assert again.resume() and again.step == 8
    again.run(steps=19)
    assert digest(contents(again)) == digest(contents(whole))
    assert again.history.rows == whole.history.rows
    other = run_of(kind, tmp_path / "other")
    assert not other.resume()
    torch.manual_seed(1)
    other.run(steps=19)
    assert digest(contents(other)) != digest(contents(whole))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_of_the_step(number, tmp_path):
    whole = run_of("adam", tmp_path / "whole")
    whole.run(steps=12)

    class Send(Callback):
        def on_step(self, trainer):
            if trainer.step == 7:
                signal.raise_signal(number)

    stopped = run_of("adam", tmp_path / "parts")
    stopped._on_step.append(Send())
    stopped.run(steps=12)
    assert [path.name for path in stopped.checkpoints.paths()] == [
        "step-000000004.pt",
        "step-000000007.pt",
    ]
    again = run_of("adam", tmp_path / "parts")
    again.resume()
    again.run(steps=12)
    assert digest(contents(again)) == digest(contents(whole))


def test_a_run_that_a_callback_has_ended_stays_ended(tmp_path):
    class Stop(Callback):
        def on_step(self, trainer):
            trainer.stop("enough")

    run = trainer(callbacks=[Stop()], checkpoints=Checkpoints(tmp_path))
    run.run(steps=9)
    again = trainer(callbacks=[Stop()], checkpoints=Checkpoints(tmp_path))
    assert again.resume()
    again.run(steps=9)
    assert again.step == 1 and again.stopped == "enough"


def test_the_last_ones_are_kept(tmp_path):
    run = run_of("adam", tmp_path)
    run.run(steps=14)
    assert [path.name for path in run.checkpoints.paths()] == [
        "step-000000012.pt",
        "step-000000014.pt",
    ]
    assert {path.suffix for path in tmp_path.iterdir()} == {".pt"}
    torch.load(run.checkpoints.latest(), weights_only=True)  # torch's own reader takes them


def test_a_folder_of_a_run_that_is_further_is_refused(tmp_path):
    run_of("adam", tmp_path).run(steps=8)
    with pytest.raises(ValueError, match=r"step-000000008.pt is from after step 0"):
        run_of("adam", tmp_path).run(steps=4)
    assert len(list(tmp_path.iterdir())) == 2


def refused(run, path, message):
    """Loading is refused with the file's name, and nothing has changed."""
    before = digest(contents(run)), random.getstate(), run.step
    with pytest.raises(ValueError, match=message) as found:
        run.load(path)
    assert str(path) in str(found.value)
    assert (digest(contents(run)), random.getstate(), run.step) == before


@pytest.fixture
def made(tmp_path):
    """A run in the midst, and a checkpoint of another point of it."""
    run = run_of("adam", tmp_path / "own")
    run.run(steps=4)
    path = run.checkpoints.latest()
    run.run(steps=6)
    return run, path


def test_truncated_files_are_refused(made, tmp_path):
    run, path = made
    content = path.read_bytes()
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        cut = tmp_path / "cut.pt"
        cut.write_bytes(content[:length])
        refused(run, cut, "is no whole checkpoint")


def test_no_altered_byte_goes_unnoticed(made, tmp_path):
    """Each either is refused, or means nothing: what is read is the same."""
    _, path = made
    content, expected = path.read_bytes(), digest(read(path))
    generator, altered, caught = random.Random(0), tmp_path / "altered.pt", 0
    for place in generator.sample(range(len(content)), 150):
        changed = bytearray(content)
        changed[place] ^= 1 << generator.randrange(8)
        altered.write_bytes(changed)
        try:
            found = digest(read(altered))
        except ValueError as error:
            assert "altered.pt is no whole checkpoint" in str(error)
            caught += 1
        else:
            assert found == expected
    assert caught > 75


class Evil:
    """Runs a command where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_no_code_is_run(made, tmp_path):
    run, _ = made
    path = tmp_path / "evil.pt"
    torch.save({"format": 1, "step": Evil(tmp_path / "ran")}, path)
    refused(run, path, "more than tensors and plain values")
    assert not (tmp_path / "ran").exists()


def altered(path, to, **changes):
    found = read(path)
    torch.save({**found, **changes}, to)
    return to


def test_foreign_files_are_refused(made, tmp_path):
    run, path = made
    to = tmp_path / "other.pt"
    refused(run, altered(path, to, format=99), "has format 99; this version reads 1")
    torch.save(run.model.state_dict(), to)
    refused(run, to, "not a checkpoint of a training run")
    with zipfile.ZipFile(to, "w") as archive:
        archive.writestr("hello", "world")
    refused(run, to, "no whole checkpoint")
    other = run_of("momentum", tmp_path / "momentum")
    other.save()
    refused(run, other.checkpoints.latest(), "the optimizer is SGD, not Adam")
    found = read(path)["identity"]
    first, *others = found
    changes = {
        f"{first[0]} is {re.escape('(1, 1)')}, not": [(first[0], "(1, 1)"), *others],
        f"{first[0]} .* is missing": others,
        "the model's 9.weight is .*, not absent": [*found, ("the model's 9.weight", "(1,)")],
    }
    for message, identity in changes.items():
        refused(run, altered(path, to, identity=identity), message)
    with pytest.raises(FileNotFoundError):
        run.load(tmp_path / "absent.pt")


def test_what_fails_on_the_way_changes_nothing(made, tmp_path):
    run, path = made
    found = read(path)
    for name in sorted(found["parts"].keys() - {"schedule"}):
        broken = copy.deepcopy(found)
        broken["parts"][name] = {}
        torch.save(broken, tmp_path / "broken.pt")
        refused(run, tmp_path / "broken.pt", "does not fit this run")
    torch.save({**found, "random": []}, tmp_path / "broken.pt")
    refused(run, tmp_path / "broken.pt", "does not fit this run")


def test_other_batches_are_refused(made):
    run, path = made
    run.batches.sampler.seed = 1
    with pytest.raises(ValueError, match="seed must be 1"):
        run.load(path)


@pytest.mark.parametrize("moment", ["write", "fsync", "replace"])
def test_an_error_in_writing_leaves_the_one_before(moment, tmp_path, monkeypatch):
    run = run_of("adam", tmp_path)
    run.run(steps=4)
    before = digest(read(run.checkpoints.latest()))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    if moment == "write":
        monkeypatch.setattr("pathlib.Path.open", lambda *_: open("/dev/full", "wb"))  # noqa: PTH123, SIM115
    elif moment == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match=r"the disk is full: .*008.pt .*step-000000004.pt is still"):
        run.run(steps=20)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000004.pt"]
    assert digest(read(run.checkpoints.latest())) == before


def test_a_disk_that_is_full(tmp_path):
    """A real one, which has room for a checkpoint and a half."""
    run_of("adam", tmp_path / "first").save()
    size = next((tmp_path / "first").iterdir()).stat().st_size
    disk = tmp_path / "disk"
    disk.mkdir()
    options = f"size={3 * size // 2 // 4096 * 4096}"
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root can mount a disk")
    try:
        run = run_of("adam", disk)
        run.save()
        before = digest(read(run.checkpoints.latest()))
        with pytest.raises(OSError, match="the disk is full") as found:
            run.run(steps=20)
        assert "step-000000000.pt is still there" in str(found.value)
        assert [path.name for path in disk.iterdir()] == ["step-000000000.pt"]
        assert digest(read(run.checkpoints.latest())) == before
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_what_cannot_be_kept_is_refused_when_it_is_saved(tmp_path):
    class Odd(Callback):
        def state_dict(self):
            return {"path": tmp_path}

    run = trainer(callbacks=[Odd()], checkpoints=Checkpoints(tmp_path / "own"))
    with pytest.raises(TypeError, match="tensors and plain values"):
        run.save()
    assert run.checkpoints.latest() is None
    with pytest.raises(TypeError, match="keep odd must have state_dict"):
        trainer(keep={"odd": 1}, checkpoints=Checkpoints(tmp_path / "own"))
    model, _ = network()
    with pytest.raises(TypeError, match="batches must have state_dict"):
        Trainer(
            model,
            optlab.SGD(model.parameters(), lr=0.1),
            LOSS,
            [*data()[0]],
            checkpoints=Checkpoints(tmp_path / "own"),
        )


def test_scalers_of_torch_are_kept_too(tmp_path):
    for scaler in (torch.amp.GradScaler("cpu", init_scale=4.0), LossScaler(init_scale=4.0)):
        folder = tmp_path / type(scaler).__name__
        run = trainer(scaler=scaler, checkpoints=Checkpoints(folder))
        run.run(steps=2)
        assert read(run.checkpoints.latest())["parts"]["scaler"]["scale"] == 4.0


def test_random_states():
    state = random_state()
    first = [random.gauss(0, 1), np.random.randn(), torch.randn(()).item()]
    set_random_state(state)
    assert first == [random.gauss(0, 1), np.random.randn(), torch.randn(()).item()]
    draws = []
    for rank in (0, 1, 2, 1):  # of a run that had one rank
        go_on([state], rank, 3)
        draws.append((random.random(), np.random.rand(), torch.rand(()).item()))
    assert len({*draws}) == 3 and draws[1] == draws[3]
    go_on([state], 0, 1)
    assert first == [random.gauss(0, 1), np.random.randn(), torch.randn(()).item()]


def test_names_and_numbers_are_checked(tmp_path):
    with pytest.raises(ValueError, match="every must be at least 1"):
        Checkpoints(tmp_path, every=0)
    with pytest.raises(ValueError, match="keep must be at least 1"):
        Checkpoints(tmp_path, keep=0)
    (tmp_path / "step-notes.txt").write_text("mine")
    assert Checkpoints(tmp_path).paths() == []
