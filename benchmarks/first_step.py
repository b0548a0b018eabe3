"""A compiled optimizer's first step in a fresh process, and whether it ever compiles again.

    python benchmarks/first_step.py DEVICE SCHEDULE METHOD...

Prints, for each method, the seconds of its first step, and how many kernels were compiled in all
its steps, in each of which the schedule gives a learning rate: ``changing`` or ``constant``.  A
rule may need a second kernel whatever the learning rate, as RAdam's, which is another one in its
first steps.
"""

import json
import sys
from time import perf_counter

import torch
from contenders import THREADS, optimizer, parameters
from torch.optim.lr_scheduler import LambdaLR

#: Small ones, which are packed, and one that is updated by itself: lengths differ, too.
SHAPES = [(64, 128), (128,), (128, 10), (256, 256)]
STEPS = 50


def changing(step: int) -> float:
    """Warm-up from exactly nothing, then exponential decay: another value in each step."""
    return step / 10 if step < 10 else 0.9 ** (step - 10)


def constant(step: int) -> float:
    """The learning rate stays."""
    return 1.0


FACTORS = {"changing": changing, "constant": constant}


def compilations() -> int:
    """How many graphs the compiler has been given so far."""
    from torch._dynamo.utils import counters

    found = counters["inductor"]
    return sum(found[f"fxgraph_cache_{how}"] for how in ("hit", "miss", "bypass"))


def measure(method: str, schedule: str, device: str) -> dict[str, float]:
    """The seconds and the number of kernels of one method."""
    made = optimizer(method, "compiled", parameters(SHAPES, device))
    scheduler = LambdaLR(made, FACTORS[schedule])
    # Imported by those who compile, and part of what their first step takes.
    before = compilations() if "torch._dynamo" in sys.modules else 0
    began = perf_counter()
    made.step()
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = perf_counter() - began
    for _ in range(STEPS):
        scheduler.step()
        made.step()
    return {"seconds": seconds, "kernels": compilations() - before}


def main() -> None:
    """Measure the methods in turn."""
    device, schedule, *methods = sys.argv[1:]
    torch.set_num_threads(THREADS)
    print(json.dumps({method: measure(method, schedule, device) for method in methods}))


if __name__ == "__main__":
    main()
