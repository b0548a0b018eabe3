"""The command by several processes: one run whatever their number, and none is left waiting."""

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from optlab.train.command import main
from optlab.train.folder import Metrics
from optlab.training.checkpoints import read as read_checkpoint

ROOT = Path(__file__).parents[3]
SMALL = [
    *("model.widths=[64,8,10]", "epochs=null", "steps=12", "precision=fp64", "batch=64"),
    *("log_every=1", "checkpoint_every=5", "clip.norm=0.5", "accumulate=2"),
]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["optlab.train.command", "sklearn.datasets"])
PATIENCE = 60

#: Its system is well-conditioned: else the last digits of a sum grow by its condition.
STEADY = "{name: gaussnewton, damping: 1.0, adaptive: false, progress: null}"
SECOND_ORDER = "accumulate=1", "clip.norm=null", "drop_last=true", "steps=6"
ONE_PART = "accumulate=1", "optimizer=sgd"
#: Runs of the test of engines: 1500 examples, of which a batch of 61 leaves parts that differ.
RUNS = {
    "own": ["parallel=own", "batch=61", "steps=26"],
    "ddp": ["parallel=ddp"],
    "fsdp": ["parallel=fsdp"],
    "kfac": ["parallel=own", "optimizer={name: kfac, fisher: exact}"],
    "compressed": ["parallel=own", "compress=fp16", "optimizer=sgd"],
    "synchronized": ["parallel=own", "model.norm=true", "synchronize_norm=true", *ONE_PART],
    "lamb": ["parallel=ddp", "optimizer=lamb"],
    "fsdp and lamb": ["parallel=fsdp", "optimizer=lamb"],
    "gauss-newton": ["parallel=own", f"optimizer={STEADY}", *SECOND_ORDER],
    "uneven ddp": ["parallel=ddp", "batch=61"],
    "newton and ddp": ["parallel=ddp", "optimizer=newton", *SECOND_ORDER],
}
REFUSED = "fsdp and lamb", "uneven ddp", "newton and ddp"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def at_step(step, action):
    """Do something amid a run, after a step."""
    own = Metrics.on_step

    def on_step(self, trainer):
        if trainer.step == step:
            action()
        own(self, trainer)

    Metrics.on_step = on_step


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def fail():
    raise OSError("amid a step")


def interrupt():
    signal.raise_signal(signal.SIGINT)


def work(env, runs, output, event):
    """What a process does: the command, for each run, with all it says in a file."""
    torch.set_num_threads(1)
    os.environ.update(env)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    if event is not None:
        at_step(*event)
    codes = []
    for port, arguments in runs:
        os.environ["MASTER_PORT"] = str(port)
        codes.append(main(["digits-mlp", *arguments]))
        sys.stdout.flush()
    sys.exit(max(codes))


def start(folder, ranks, runs, present=None, events=None, own=None):
    """Processes of a run, with what they say in files."""
    runs = [(free_port(), arguments) for arguments in runs]
    processes = {}
    for rank in range(ranks) if present is None else present:
        env = dict(RANK=str(rank), WORLD_SIZE=str(ranks), MASTER_ADDR="127.0.0.1")
        these = [(port, [*arguments, *(own or {}).get(rank, [])]) for port, arguments in runs]
        args = (env, these, str(folder / f"rank {rank}"), (events or {}).get(rank))
        processes[rank] = CONTEXT.Process(target=work, args=args)
        processes[rank].start()
    return processes


def ended(folder, processes):
    """Exit code and text of each process."""
    deadline = time.monotonic() + PATIENCE
    for process in processes.values():
        process.join(max(0, deadline - time.monotonic()))
    late = [rank for rank, process in processes.items() if process.is_alive()]
    for process in processes.values():
        process.kill()
        process.join()
    texts = {rank: (folder / f"rank {rank}").read_text() for rank in processes}
    assert not late, texts
    return {rank: (process.exitcode, texts[rank]) for rank, process in processes.items()}


def changes(folder, *more):
    return [*SMALL, *more, f"folder={folder}"]


def last(folder):
    *_, path = sorted((folder / "checkpoints").glob("*.pt"))
    return read_checkpoint(path)


def same(first, second, tolerance):
    one, other = (last(folder)["parts"] for folder in (first, second))
    torch.testing.assert_close(one["model"], other["model"], rtol=0, atol=tolerance)
    states = one["optimizer"]["state"], other["optimizer"]["state"]
    torch.testing.assert_close(*states, rtol=0, atol=tolerance)
    rows = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (first, second)
    ]
    assert len(rows[0]) == len(rows[1]) > 0
    for one, other in zip(*rows, strict=True):
        assert one == pytest.approx(other, rel=max(tolerance, 1e-12))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The runs by one process."""
    folder = tmp_path_factory.mktemp("alone")
    for name, more in RUNS.items():
        if name not in REFUSED:
            more = [*more, "parallel=none", "compress=null"]
            assert main(["digits-mlp", *changes(folder / name, *more)]) == 0
    return folder


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The same by two, without a pause between; those that are refused too."""
    folder = tmp_path_factory.mktemp("together")
    runs = [changes(folder / name, *more) for name, more in RUNS.items()]
    return folder, ended(folder, start(folder, 2, runs))


@pytest.mark.parametrize("name", [name for name in RUNS if name not in {*REFUSED, "compressed"}])
def test_two_processes_are_one(name, alone, together):
    same(together[0] / name, alone / name, 1e-12)


def test_compressed_gradients_lose_digits_only(alone, together):
    name = "compressed"
    same(together[0] / name, alone / name, 1e-5)
    with pytest.raises(AssertionError):
        same(together[0] / name, alone / name, 1e-9)


def test_what_an_engine_cannot_do_is_refused_by_all(together):
    _, found = together
    for code, text in found.values():
        assert code == 1
        assert "optimizer: newton needs parallel=own, or one process" in text
        assert "optimizer: lamb takes whole layers: parallel must not be fsdp" in text
        assert "parallel=ddp with adamw needs batches of which each of 2 ranks has as much" in text
        assert "Traceback" not in text


def test_four_go_on_where_two_were_interrupted(tmp_path, alone):
    """Interrupted is the second rank; the first writes the checkpoint."""
    runs = [changes(tmp_path / name, *RUNS[name]) for name in ("own", "fsdp")]
    processes = start(tmp_path, 2, runs, events={1: (4, interrupt)})
    for code, text in ended(tmp_path, processes).values():
        assert code in (128 + signal.SIGINT, 128 + signal.SIGTERM), text
    for name in ("own", "fsdp"):
        assert [path.name for path in (tmp_path / name / "checkpoints").iterdir()] == [
            "step-000000004.pt"
        ]
    for code, text in ended(tmp_path, start(tmp_path, 4, runs)).values():
        assert code == 0, text
    for name in ("own", "fsdp"):
        same(tmp_path / name, alone / name, 1e-12)


def test_differing_configurations_are_refused_by_all(tmp_path):
    own = {1: ["optimizer.lr=1", "seed=3"]}
    processes = start(tmp_path, 2, [changes(tmp_path / "run", "parallel=own")], own=own)
    for code, text in ended(tmp_path, processes).values():
        assert code == 1
        assert "rank 1 differs from rank 0: optimizer.lr is 1, not 0.002" in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("present", "message"),
    [
        ([0, 2], "of 4 ranks these have not joined within 1.5 s: 1, 3. Start all of them, with"),
        ([1], "nobody answers at port"),
    ],
)
def test_a_rank_that_does_not_come_is_named(tmp_path, present, message):
    runs = [changes(tmp_path / "run", "parallel=own", "timeout=1.5")]
    for code, text in ended(tmp_path, start(tmp_path, 4, runs, present)).values():
        assert code == 1
        assert message in text and "timeout=SECONDS" in text


def test_a_port_in_use_is_named(tmp_path, capsys, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        env = dict(RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        assert main(["digits-mlp", *changes(tmp_path, "parallel=own")]) == 1
    said = capsys.readouterr().err
    assert f"port {port} of 127.0.0.1 cannot be had" in said and "choose another by" in said


@pytest.mark.parametrize(
    ("ranks", "victim", "action", "message"),
    [
        (3, 1, die, "rank 1 has died"),
        (2, 0, die, "rank 0"),
        (3, 2, fail, "rank 2 has failed: OSError: amid a step"),
    ],
)
def test_the_others_of_a_rank_that_is_gone_name_it_and_end(
    tmp_path, ranks, victim, action, message
):
    runs = [changes(tmp_path / "run", "parallel=own")]
    began = time.monotonic()
    found = ended(tmp_path, start(tmp_path, ranks, runs, events={victim: (7, action)}))
    assert time.monotonic() - began < 30
    code, text = found.pop(victim)
    assert code == (-signal.SIGKILL if action is die else 1)
    for code, text in found.values():
        assert code == 1
        assert message in text and "torchrun does by itself with --max-restarts" in text


KILLED_ONCE = """
import os, signal, sys
from optlab.train.command import main
from optlab.train.folder import Metrics

own = Metrics.on_step

def on_step(self, trainer):
    if trainer.step == 8 and os.environ["RANK"] == "1":
        if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)
    own(self, trainer)

Metrics.on_step = on_step
sys.exit(main())
"""


def python(*arguments, host=None, **env):
    before = ["ip", "netns", "exec", host] if host else []
    return subprocess.Popen(
        [*before, sys.executable, "-m", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def torchrun(*arguments, host=None):
    return python("torch.distributed.run", *arguments, host=host)


def said(processes):
    """What processes say until they end."""
    try:
        return [process.communicate(timeout=2 * PATIENCE)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()


def test_torchrun_starts_anew_and_nothing_is_lost(tmp_path, alone):
    script = tmp_path / "killed_once.py"
    script.write_text(KILLED_ONCE)
    how = ["--standalone", "--nproc-per-node", 2, "--max-restarts", 1]
    run = changes(tmp_path / "run", *RUNS["own"])
    process = torchrun(*how, script, "digits-mlp", *run)
    (text,) = said([process])
    assert process.returncode == 0, text
    assert "rank 0: rank 1 has died" in text
    starts = (tmp_path / "run" / "versions.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in starts] == [0, 5]
    same(tmp_path / "run", alone / "own", 1e-12)


@contextlib.contextmanager
def hosts():
    """Two network namespaces, each with an address of its own, and a cable between them."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and iproute2")
    names = [f"optlab-{os.getpid()}-{number}" for number in range(2)]
    cables = [f"ol{os.getpid() % 10**6}{end}" for end in "ab"]

    def ip(*arguments):
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"ip {' '.join(arguments)}: {done.stderr.strip()}")

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
        for number, (name, cable) in enumerate(zip(names, cables, strict=True)):
            ip("link", "set", cable, "netns", name)
            ip("-n", name, "address", "add", f"10.83.7.{number + 1}/24", "dev", cable)
            ip("-n", name, "link", "set", cable, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield list(zip(names, cables, strict=True))
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def test_two_hosts_are_one_process(tmp_path, alone):
    run = changes(tmp_path / "run", *RUNS["own"])
    with hosts() as both:
        meeting = ["--nnodes", 2, "--master-addr", "10.83.7.1", "--master-port", 29533]
        processes = [
            torchrun(
                *meeting, "--node-rank", rank, "-m", "optlab.train", "digits-mlp", *run, host=host
            )
            for rank, (host, _) in enumerate(both)
        ]
        texts = said(processes)
    assert [process.returncode for process in processes] == [0, 0], texts
    same(tmp_path / "run", alone / "own", 1e-12)


def test_hosts_that_are_cut_off_end(tmp_path):
    """No message says so: what was sent is waited for."""
    run = changes(tmp_path / "run", "parallel=own", "steps=100000")
    env = dict(WORLD_SIZE="2", MASTER_ADDR="10.83.7.1", MASTER_PORT="29533")
    with hosts() as both:
        processes = [
            python("optlab.train", "digits-mlp", *run, host=host, RANK=str(rank), **env)
            for rank, (host, _) in enumerate(both)
        ]
        deadline = time.monotonic() + PATIENCE
        while not [*tmp_path.glob("run/checkpoints/*.pt")] and time.monotonic() < deadline:
            time.sleep(0.1)
        host, cable = both[1]
        subprocess.run(["ip", "-n", host, "link", "set", cable, "down"], check=True)
        began = time.monotonic()
        texts = said(processes)
    assert time.monotonic() - began < 30
    assert [process.returncode for process in processes] == [1, 1], texts
    assert "rank 1 has died: no sign of it for" in texts[0]
    assert "rank 0, which keeps the meeting place, does not answer" in texts[1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("parallel", ["own", "ddp", "fsdp"])
def test_a_gpu_has_the_same_numbers(tmp_path, parallel):
    """NCCL with one rank, beside the same device without it."""
    for name in ("none", parallel):
        run = changes(tmp_path / name, "device=cuda", f"parallel={name}")
        assert main(["digits-mlp", *run]) == 0
    same(tmp_path / parallel, tmp_path / "none", 1e-12)
