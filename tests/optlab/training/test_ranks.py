"""Several ranks: they agree, the first one writes, all go on; and wrappers get what they offer."""

import datetime
import random
import signal
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import distributed, nn

import optlab
from optlab.models import mlp
from optlab.regularizers import EarlyStopping
from optlab.training import Callback, Checkpoints, Evaluation, Stopping, Trainer
from optlab.training.checkpoints import read
from optlab.training.ranks import difference
from tests.optlab.training.runs import LOSS, data, digest, network

Parallel = nn.parallel.DistributedDataParallel


def double(rank, **settings):
    """A run in float64 without random numbers."""
    torch.manual_seed(0)
    model = Parallel(mlp((64, 12, 10)).double())
    batches, (x, y) = data(rank=rank, ranks=2)
    batches.x = batches.x.double()
    optimizer = optlab.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return Trainer(
        model,
        optimizer,
        LOSS,
        batches,
        **{"log_every": 2, "evaluate": Evaluation(x.double(), y, LOSS), "clip": 1.0, **settings},
    )


def equals_one_rank(rank, folder):
    run = double(rank, accumulate=2)
    rows = run.run(epochs=2).rows
    return rows, [p.tolist() for p in run.model.parameters()]


def goes_on(rank, folder):
    """The first run is cut off after step 5 by a signal to the second rank alone."""

    def made(name, callbacks):
        model, own = network()
        torch.manual_seed(rank)
        random.seed(rank)
        np.random.seed(rank)
        return Trainer(
            Parallel(model),
            optlab.Adam(model.parameters(), lr=0.01),
            LOSS,
            data(rank=rank, ranks=2)[0],
            log_every=2,
            checkpoints=Checkpoints(f"{folder}/{name}", every=4),
            keep={"own": own},
            callbacks=callbacks,
        )

    class Send(Callback):
        def __init__(self, sends):
            self.sends = sends

        def on_step(self, trainer):
            if self.sends and trainer.step == 5:
                signal.raise_signal(signal.SIGTERM)

    whole = made("whole", [Send(False)])
    whole.run(steps=11)
    cut = made("parts", [Send(rank == 1)])
    cut.run(steps=11)
    assert cut.step == 6 and cut.interrupted
    again = made("parts", [Send(False)])
    torch.manual_seed(99)
    assert again.resume() and again.step == 6
    again.run(steps=11)
    files = [digest(read(run.checkpoints.latest())) for run in (whole, again)]
    assert len(read(whole.checkpoints.latest())["random"]) == 2
    return files, torch.rand(()).item()


def refusals(rank, folder):
    found = []
    for settings in ({"clip": 1.0 + rank}, {"accumulate": 1 + rank}, {"log_every": 2 + rank}):
        with pytest.raises(ValueError) as error:
            double(rank, **settings)
        found.append(str(error.value))
    torch.manual_seed(0)
    model = mlp((64, 12, 10))
    make = optlab.SGD if rank == 0 else optlab.Adam
    for optimizer in (make(model.parameters(), lr=0.1), optlab.SGD(model.parameters(), lr=rank)):
        batches = data(rank=rank, ranks=2)[0]
        with pytest.raises(ValueError) as error:
            Trainer(model, optimizer, LOSS, batches, process_group=distributed.group.WORLD)
        found.append(str(error.value))
    newton = optlab.Newton(model.parameters())
    with pytest.raises(ValueError, match="Newton needs the process_group of the ranks"):
        Trainer(model, newton, LOSS, batches, process_group=distributed.group.WORLD)
    return found


def errors_are_shared(rank, folder):
    checkpoints = Checkpoints(f"{folder}/shared", every=100)
    run = double(rank, checkpoints=checkpoints)
    run.run(steps=2)
    path = checkpoints.latest()
    if rank == 1:
        path = checkpoints.folder / "absent.pt"
    with pytest.raises((FileNotFoundError, RuntimeError)) as loading:
        run.load(path)
    if rank == 0:  # the second rank has nothing to write
        checkpoints.save = lambda *_: (_ for _ in ()).throw(OSError("full"))
    with pytest.raises((OSError, RuntimeError)) as saving:
        run.run(steps=3)
    return str(loading.value), str(saving.value)


def decisions_are_shared(rank, folder):
    """Figures differ, and the first rank's count."""
    figures = iter([3.0, 4.0, 5.0] if rank == 0 else [3.0, 2.0, 1.0])
    run = double(
        rank,
        evaluate=lambda _: {"test_loss": next(figures)},
        evaluate_every=1,
        callbacks=[Stopping(EarlyStopping(patience=2))],
    )
    run.run(steps=3)
    return run.step, run.stopped


SCENES = (equals_one_rank, goes_on, refusals, errors_are_shared, decisions_are_shared)


def work(rank, folder, results):
    torch.set_num_threads(1)
    limit = datetime.timedelta(seconds=60)
    distributed.init_process_group("gloo", f"file://{folder}/meet", limit, rank=rank, world_size=2)
    results.put((rank, {scene.__name__: scene(rank, folder) for scene in SCENES}))
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(forked, tmp_path_factory):
    """For each scene what the two ranks returned."""
    results, folder = forked.SimpleQueue(), tmp_path_factory.mktemp("ranks")
    processes = [
        forked.Process(target=work, args=(rank, str(folder), results), daemon=True)
        for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
        assert process.exitcode == 0
    both = dict(results.get() for _ in processes)
    return {name: (both[0][name], both[1][name]) for name in both[0]}


def test_two_ranks_are_one(found):
    (rows, params), (other_rows, other_params) = found["equals_one_rank"]
    torch.manual_seed(0)
    model = mlp((64, 12, 10)).double()
    batches, (x, y) = data()
    batches.x = batches.x.double()
    run = Trainer(
        model,
        optlab.SGD(model.parameters(), lr=0.1, momentum=0.9),
        LOSS,
        batches,
        log_every=2,
        evaluate=Evaluation(x.double(), y, LOSS),
        clip=1.0,
    )
    expected = run.run(epochs=2).rows
    assert rows == other_rows
    for row, one in zip(rows, expected, strict=True):
        assert row == pytest.approx(one, rel=1e-10)
    for p, other, one in zip(params, other_params, model.parameters(), strict=True):
        assert p == other
        torch.testing.assert_close(one.new_tensor(p), one.detach(), rtol=1e-10, atol=1e-10)


def test_a_signal_to_one_rank_ends_all_and_they_go_on(found):
    (files, drawn), (other_files, other_drawn) = found["goes_on"]
    assert files[0] == files[1] == other_files[0] == other_files[1]
    assert drawn != other_drawn  # each has its own random numbers


def test_ranks_that_differ_are_refused_by_name(found):
    ours, theirs = found["refusals"]
    assert ours == theirs
    for text, difference_ in zip(
        ours,
        [
            "clip is 2.0, not 1.0",
            "accumulate is 2, not 1",
            "log_every is 3, not 2",
            "the optimizer is Adam, not SGD",
            "lr of parameter group 0 is 1, not 0",
        ],
        strict=True,
    ):
        assert text == f"rank 1 differs from rank 0: {difference_}"


def test_an_error_of_one_rank_is_raised_by_all(found):
    (loading, saving), (other_loading, other_saving) = found["errors_are_shared"]
    assert "absent.pt" in other_loading and "rank 1 raised FileNotFoundError" in loading
    assert saving == "full" and other_saving == "rank 0 raised OSError: full"


def test_decisions_are_the_first_ranks(found):
    assert (
        found["decisions_are_shared"] == ((3, "test_loss has not improved in 2 evaluations"),) * 2
    )


class Wrapper(nn.Module):
    """Offers what an average over ranks may offer, and writes down what is asked of it."""

    def __init__(self, module):
        super().__init__()
        self.module, self.asked, self.silent = module, [], 0

    def forward(self, x):
        self.asked.append(("forward", len(x), self.silent))
        return self.module(x)

    @contextmanager
    def no_sync(self):
        self.silent += 1
        yield
        self.silent -= 1

    @contextmanager
    def batch(self, count):
        self.asked.append(("batch", count))
        yield


def test_a_wrapper_is_told_of_samples_and_parts():
    model = Wrapper(mlp((64, 12, 10)))
    batches, _ = data(samples=21, batch=16)
    optimizer = optlab.SGD(model.parameters(), lr=0.1)
    run = Trainer(model, optimizer, LOSS, batches, accumulate=2)
    run.run(epochs=1)
    first = [("batch", 16), ("forward", 8, 1), ("forward", 8, 0)]
    assert model.asked == [*first, ("batch", 5), ("forward", 3, 1), ("forward", 2, 0)]
    assert run.model is model.module


def test_a_rank_without_samples_takes_part():
    model = Wrapper(mlp((64, 12, 10)))
    batches, _ = data(samples=17, batch=16, rank=1, ranks=2)  # the last batch has one sample
    optimizer = optlab.SGD(model.parameters(), lr=0.1)
    history = Trainer(model, optimizer, LOSS, batches, log_every=1).run(epochs=1)
    assert model.asked == [("batch", 8), ("forward", 8, 0), ("batch", 0)]
    assert "loss" in history.rows[0] and "loss" not in history.rows[1]
    plain = mlp((64, 12, 10))
    batches, _ = data(samples=17, batch=16, rank=1, ranks=2)
    with pytest.raises(ValueError, match="a batch is empty"):
        Trainer(plain, optlab.SGD(plain.parameters(), lr=0.1), LOSS, batches, accumulate=2).run(
            epochs=1
        )


def test_descriptions_that_differ():
    same = [("a", "1"), ("b", "2")]
    assert difference(same, [list(pair) for pair in same]) == ""
    assert difference(same, same[:1]) == "b (2) is missing"
    assert difference(same[:1], same) == "b is 2, not absent"
