"""A run that is killed again and again is the run that was left alone."""

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import torch

from optlab.training import Callback, Checkpoints, checkpoints
from optlab.training.checkpoints import read
from tests.optlab.training.runs import digest, trainer

EVERY, KILLS, LEASH = 3, 20, 30
STEPS = KILLS * LEASH
#: Moments in the writing of a checkpoint: the function that is not reached, or has just returned.
MOMENTS = ["half written", "fsync", "replace", "replaced", "unlink"]


def made(folder, callbacks=()):
    torch.set_num_threads(1)
    random.seed(0)
    np.random.seed(0)
    run = trainer(evaluate_every=60, checkpoints=Checkpoints(folder, every=EVERY, keep=2))
    run._on_step += callbacks
    return run


def undisturbed(folder, pipe):
    """The digest of each checkpoint of the run."""
    run, found = made(folder), {}

    def noted(step, state):
        found[step] = digest(state)

    run.checkpoints.save = noted
    run.run(steps=STEPS)
    pipe.send(found)


class Leash(Callback):
    """Says that the first step is made, and waits to be killed after so many more."""

    def __init__(self, pipe):
        self.pipe, self.left = pipe, LEASH

    def on_step(self, trainer):
        if self.left == LEASH:
            self.pipe.send(trainer.step)
        self.left -= 1
        if self.left == 0:
            time.sleep(60)


def kill_at(moment, after):
    """Kill this process in the writing of the checkpoint after so many."""
    counts = {"left": after}

    def now():
        counts["left"] -= 1
        if counts["left"] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(owner, name):
        own = getattr(owner, name)

        def call(*args, **keywords):
            now()
            return own(*args, **keywords)

        setattr(owner, name, call)

    if moment == "half written":
        whole = checkpoints.write_whole

        def half(path, content):
            if counts["left"] == 0:
                partial = path.with_name(f"{path.name}.partial")
                partial.write_bytes(content[: len(content) // 2])
            now()
            whole(path, content)

        checkpoints.write_whole = half
    elif moment == "replaced":
        replace = Path.replace

        def call(*args):
            replace(*args)
            now()

        Path.replace = call
    else:
        before(os if moment == "fsync" else Path, moment)


def go_on(folder, moment, pipe):
    run = made(folder, [Leash(pipe)] if pipe else [])
    run.resume()
    if moment is not None:
        kill_at(*moment)
    run.run(steps=STEPS)


def test_every_resume_is_the_undisturbed_run(forked, tmp_path):
    here, there = forked.Pipe(duplex=False)
    process = forked.Process(target=undisturbed, args=(tmp_path / "whole", there))
    process.start()
    assert here.poll(60)
    expected = here.recv()
    process.join()
    draw, folder, step, killed = random.Random(0), tmp_path / "killed", 0, 0
    moments = [(moment, draw.randrange(1, 4)) for moment in MOMENTS] + [None] * (KILLS - 5)
    draw.shuffle(moments)
    for moment in moments:
        here, there = forked.Pipe(duplex=False)
        process = forked.Process(target=go_on, args=(folder, moment, there))
        process.start()
        there.close()
        assert here.poll(60)
        assert here.recv() == step + 1  # it went on from the last checkpoint
        if moment is None:
            time.sleep(draw.uniform(0, 0.1))
            process.kill()
        process.join(60)
        killed += process.exitcode == -signal.SIGKILL
        paths = [path for path in folder.iterdir() if path.suffix == ".pt"]
        assert len(paths) <= 3
        for path in paths:  # all of them are whole
            found = read(path)
            assert digest(found) == expected[found["step"]], path
        step = max((read(path)["step"] for path in paths), default=0)
    assert killed == KILLS and step < STEPS
    process = forked.Process(target=go_on, args=(folder, None, None))
    process.start()
    process.join(60)
    assert digest(read(Checkpoints(folder).latest())) == expected[STEPS]
