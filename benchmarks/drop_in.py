"""Whether a training script gives the same losses when only its import line is changed.

    python benchmarks/drop_in.py [SEEDS]

Writes ``benchmarks/results/drop_in.json``.  Each script of ``benchmarks/scripts`` runs as it is,
and with the line ``import torch.optim as optim`` changed into ``import optlab as optim``, with
the same seed, on one thread.  Their curves differ by the largest relative difference of a step's
loss.  In float64 that must stay below 1e-9.  In float32 it must stay below what PyTorch calls
close, or below what torch's own plain and fused implementations differ, if that is more: where
training is chaotic, as with ReLU or a high learning rate, it makes much of the smallest rounding.
(Torch's foreach implementation gives the plain one's numbers, bit for bit, on a processor.)
"""

import functools
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from record import row, write

SCRIPTS = Path(__file__).parent / "scripts"
TORCH = "import torch.optim as optim"
OURS = "import optlab as optim"
FUSED = "import fused as optim"
#: The module ``fused``: torch's optimizers, each asked for its fused implementation.
FUSED_SOURCE = """
import functools, torch.optim
def __getattr__(name): return functools.partial(getattr(torch.optim, name), fused=True)
"""
NAMES = ["SGD", "Adagrad", "Adadelta", "RMSprop", "Adam", "AdamW", "NAdam", "RAdam", "Adamax"]
#: The relative tolerance of ``torch.testing.assert_close`` for float32.
CLOSE = 1.3e-6
BAR = "{}: largest relative difference between optlab's losses and torch's"
#: What is trained: a title, the script and its options.
TRAININGS: list[tuple[str, str, list[str]]] = [
    ("convnet, SGD with Nesterov momentum", "convnet", []),
    ("convnet with ReLU, SGD with Nesterov momentum", "convnet", ["--activation", "ReLU"]),
    ("GPT, AdamW", "gpt", []),
    ("GPT, AdamW at three times the learning rate", "gpt", ["--lr", "3e-3"]),
]


def losses(script: str, line: str, *options: str) -> list[float]:
    """The losses that a script prints when its import line is replaced, in a process of its own.

    Raises:
        ValueError: the script does not have the line to replace.
        RuntimeError: the script failed; the message has what it wrote.
    """
    text = (SCRIPTS / f"{script}.py").read_text("utf-8")
    if text.splitlines().count(TORCH) != 1:
        raise ValueError(f"{script}.py must have the line {TORCH!r} once")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"{script}.py"
        copy.write_text(text.replace(f"\n{TORCH}\n", f"\n{line}\n"), "utf-8")
        copy.with_name("fused.py").write_text(FUSED_SOURCE, "utf-8")
        command = [sys.executable, copy, *options]
        one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=one_thread)
    if done.returncode:
        raise RuntimeError(f"{script}.py with {line!r}: {done.stderr.strip()}")
    return [float(loss) for loss in re.findall(r"^step \d+ loss (\S+)$", done.stdout, re.M)]


def difference(curve: Sequence[float], other: Sequence[float]) -> float:
    """The largest relative difference of a step's loss; infinite where one is not finite."""
    if not curve or len(curve) != len(other):
        raise ValueError(f"curves must be equally long, got {len(curve)} and {len(other)} steps")
    if not all(map(math.isfinite, [*curve, *other])):
        return math.inf
    return max(abs(a - b) / abs(b) for a, b in zip(curve, other, strict=True))


def compare(script: str, line: str, *options: str) -> float:
    """How far a script's curve departs when its import line is replaced."""
    return difference(losses(script, line, *options), unchanged(script, *options))


@functools.cache
def unchanged(script: str, *options: str) -> list[float]:
    """The losses of a script as it is."""
    return losses(script, TORCH, *options)


def in_float32(pool: Executor, title: str, script: str, runs: list[list[str]]) -> dict[str, Any]:
    """The row of a training in float32: over the seeds, ours against torch's own."""
    theirs = list(pool.map(lambda options: compare(script, FUSED, *options), runs))
    ours = list(pool.map(lambda options: compare(script, OURS, *options), runs))
    entry = row(BAR.format(f"{title}, float32"), ours, max(*theirs, CLOSE))
    return entry | {"measured": ours, "torch_fused_and_plain": theirs}


def in_float64(pool: Executor, title: str, runs: list[list[str]]) -> dict[str, Any]:
    """The row of some trainings in float64: the largest difference among them."""
    ours = list(pool.map(lambda run: compare(run[0], OURS, *run[1:], "--dtype", "float64"), runs))
    title = f"{title}, float64, the most of {len(runs)} runs"
    return row(BAR.format(title), [max(ours)], 1e-9) | {"measured": ours}


def main() -> None:
    """Measure, write the rows, and say them."""
    seeds = [["--seed", str(seed)] for seed in range(int(sys.argv[1]) if sys.argv[1:] else 5)]
    rows = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for title, script, options in TRAININGS:
            if not options:
                rows.append(in_float64(pool, title, [[script, *seed] for seed in seeds]))
            rows.append(in_float32(pool, title, script, [[*options, *seed] for seed in seeds]))
        for name in NAMES:
            options = ["--optimizer", name, "--steps", "60"]
            runs = [["convnet", *options], ["gpt", *options]]
            rows.append(in_float64(pool, f"{name}, convnet and GPT", runs))
    write("drop_in", rows)


if __name__ == "__main__":
    main()
