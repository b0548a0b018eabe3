"""Our optimizers beside torch's: time of a step, memory, compilations, and the traffic limit.

    python benchmarks/speed.py [--device cuda] [--rounds N] [--quick FOLDER]

Writes ``benchmarks/results/speed.json``, or ``speed-cuda.json`` on a GPU, which is what runs where
there is one.  Ours and torch's take turns in one process (:mod:`paired`): a bar is the median over
the rounds of our time divided by theirs in the same round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import memory
import torch
from contenders import (
    METHODS,
    OURS,
    SHAPES,
    THREADS,
    TRAFFIC,
    TRAFFIC_OF_TWO,
    implementations,
    optimizer,
    parameters,
    training_step,
)
from paired import Times, fastest, ratios, take_turns
from record import RESULTS, row, write
from table import table

Row = dict[str, Any]
#: Compiled, against torch's fused implementation: the limits for the three shapes.
AGAINST_FUSED = dict.fromkeys(("SGD momentum", "Adagrad", "Adam", "AdamW"), (0.7, 0.3, 1.0))
#: Compiled, where torch has none that is fused on a processor.
AGAINST_FASTEST = dict.fromkeys(("RMSprop", "NAdam", "Adamax"), 0.7)
#: Elements of the tensor whose copy tells the memory's bandwidth: no cache holds it.
COPIED = 2**25


class Plan(NamedTuple):
    """How much is measured."""

    device: str
    rounds: int
    turn: float  # seconds
    warm_up: int
    processes: int
    methods: Sequence[str]

    def times(self, contenders: dict[str, Callable[[], object]]) -> Times:
        """The contenders' times on the device."""
        wait = torch.cuda.synchronize if self.device == "cuda" else lambda: None
        return take_turns(contenders, self.rounds, self.turn, wait, self.warm_up)


def bar(title: str, times: Times, ours: str, theirs: str, limit: float | None) -> Row:
    """A row of our time over theirs, with all the times and the ratio of the fastest rounds."""
    medians = {name: 1e3 * statistics.median(measured) for name, measured in times.items()}
    return row(title, ratios(times[ours], times[theirs]), limit, at_most=True) | {
        "unit": "ms",
        "ours": medians[ours],
        "torch": {name: value for name, value in medians.items() if name not in (*OURS, "copy")},
        "against": theirs,
        "of_fastest_rounds": min(times[ours]) / min(times[theirs]),
    }


def steps(plan: Plan) -> Iterator[Row]:
    """Time of a step of each method on each shape."""
    source, target = (torch.ones(COPIED, device=plan.device) for _ in range(2))
    for method in plan.methods:
        for number, (shape, shapes) in enumerate(SHAPES.items()):
            made: dict[str, Callable[[], object]] = {
                name: optimizer(method, name, parameters(shapes, plan.device)).step
                for name in implementations(method, plan.device)
            }
            if shape == "ResNet-18":
                made["copy"] = lambda: target.copy_(source)
            times, on = plan.times(made), f"{method}, {shape}"
            theirs = [name for name in made if name not in (*OURS, "copy")]
            best, limit = fastest(times, theirs), AGAINST_FASTEST.get(method)
            if method in AGAINST_FUSED and "fused" in made:
                best, limit = "fused", AGAINST_FUSED[method][number]
            title = "step, compiled, over torch's " + ("fused" if best == "fused" else "fastest")
            yield bar(f"{title}: {on}", times, "compiled", best, limit)
            best = fastest(times, ["foreach", "loop"])
            title = "step, default, over torch's foreach or loop"
            yield bar(f"{title}: {on}", times, "default", best, 1.0)
            if shape == "ResNet-18":
                yield from traffic(method, shape, times)


def traffic(method: str, shape: str, times: Times) -> Iterator[Row]:
    """How near a step comes to the time in which a copy moves as many bytes.

    It may come nearer than near: a processor also reads what a copy overwrites, which nobody asked
    for, while a step overwrites what it has read anyway.
    """
    elements = sum(torch.Size(size).numel() for size in SHAPES[shape])
    moved = TRAFFIC.get(method, TRAFFIC_OF_TWO)
    share = moved * elements / (8 * COPIED)  # of the bytes that the copy reads and writes
    reached = {
        name: [share * copy / own for copy, own in zip(times["copy"], measured, strict=True)]
        for name, measured in times.items()
    }
    bandwidth = 8e-9 * COPIED / statistics.median(times["copy"])
    theirs = {
        name: statistics.median(shares) for name, shares in reached.items() if name not in OURS
    }
    for name in OURS:
        title = f"share of the memory-traffic limit, {name}: {method}, {shape}"
        yield row(title, reached[name], None) | {
            "unit": "1 is the limit",
            "ours": statistics.median(reached[name]),
            "torch": {peer: value for peer, value in theirs.items() if peer != "copy"},
            "bytes_per_element": moved,
            "gigabytes_per_second": moved * elements * 1e-9 / statistics.median(times[name]),
            "copy_gigabytes_per_second": bandwidth,
        }


def training(plan: Plan) -> Iterator[Row]:
    """Time of forward, backward, step and zero_grad of the network."""
    for method in plan.methods:
        both = [*OURS, "torch"]
        times = plan.times({name: training_step(method, name, plan.device) for name in both})
        for name in OURS:
            title = f"training step, {name}, over torch's default: {method}, MLP"
            yield bar(title, times, name, "torch", 1.0)


def memories(plan: Plan) -> Iterator[Row]:
    """The peak of parameters, gradients, state and step."""
    for method in plan.methods:
        for shape in SHAPES:
            used = {
                name: memory.peak(method, name, shape, plan.device)
                for name in (*OURS, "foreach", "loop")
            }
            for name in OURS:
                title = f"peak memory, {name}, over torch's foreach: {method}, {shape}"
                yield row(title, [used[name] / used["foreach"]], 1.0, at_most=True) | {
                    "unit": "MB",
                    "ours": used[name] / 1e6,
                    "torch": {peer: used[peer] / 1e6 for peer in ("foreach", "loop")},
                    "against": "foreach",
                }


def compilations(plan: Plan) -> Iterator[Row]:
    """Seconds of the first step, and kernels that a schedule is the reason for."""

    def fresh(cache: str, schedule: str, methods: Sequence[str]) -> dict[str, dict[str, float]]:
        script = Path(__file__).with_name("first_step.py")
        command = [sys.executable, script, plan.device, schedule, *methods]
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        return json.loads(done.stdout)

    methods = sorted(plan.methods, key="Adam".__ne__)  # the first method imports the compiler
    first: dict[str, list[float]] = {"empty": [], "filled": []}
    counted: dict[str, tuple[float, float]] = {}
    for _ in range(plan.processes):
        with tempfile.TemporaryDirectory() as cache:
            changing = fresh(cache, "changing", methods)
            constant = fresh(cache, "constant", methods)
        first["empty"].append(changing["Adam"]["seconds"])
        first["filled"].append(constant["Adam"]["seconds"])
        for method in methods:
            counted[method] = changing[method]["kernels"], constant[method]["kernels"]
        methods = ["Adam"]
    for filled, seconds in first.items():
        title = f"first compiled step in a fresh process, {filled} cache: Adam"
        yield row(title, seconds, None) | {"unit": "s", "ours": statistics.median(seconds)}
    for method, (kernels, needed) in counted.items():
        title = f"recompilations, as a schedule changes lr in every step: {method}"
        yield row(title, [kernels - needed], 0, at_most=True) | {
            "unit": "kernels",
            "ours": kernels,
            "with_constant_lr": needed,
        }


def main() -> None:
    """Measure, write the rows, and print them as a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    here = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=["cpu", "cuda"], default=here)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--quick", type=Path, metavar="FOLDER", help="only try: write there")
    options = parser.parse_args()
    plan = Plan(options.device, options.rounds, 8e-3, 10, 3, [*METHODS])
    if options.quick:
        plan = Plan(options.device, 2, 1e-4, 1, 1, ["Adam"])
    # A machine on which tests run has no two threads that wait for each other.
    torch.set_num_threads(threads := 1 if options.quick else THREADS)
    common: Row = {"threads": threads, "torch_version": torch.__version__}
    if options.device == "cuda":
        common = {"torch_version": torch.__version__, "hardware": torch.cuda.get_device_name()}
    parts = (steps, training, memories, compilations)
    rows: list[Row] = []
    for part in parts:
        for entry in part(plan):
            rows.append(entry | common)
            print(entry["bar"], entry["value"], file=sys.stderr)
    topic = "speed-cuda" if options.device == "cuda" else "speed"
    write(topic, rows, table(rows), options.quick or RESULTS)


if __name__ == "__main__":
    main()
