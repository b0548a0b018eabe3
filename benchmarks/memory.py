"""The most memory that is in use at once while an optimizer is made and makes two steps."""

import gc
import itertools
import os
from collections.abc import Callable

# Read when the profiler starts for the first time: else it writes a line each time.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import torch
from contenders import SHAPES, optimizer
from torch import nn

STEPS = 2


def peak(method: str, implementation: str, shape: str, device: str) -> int:
    """Bytes of parameters, gradients, state and the step's own, when they are the most.

    Every allocation of torch's counts, whoever asks for it.  Memory seen through NumPy counts
    too: it was torch that allocated it.  What the compiler needs to make a kernel does not count:
    a step is made before.
    """

    def run() -> None:
        params = [nn.Parameter(torch.ones(size, device=device)) for size in SHAPES[shape]]
        for p in params:
            p.grad = torch.ones_like(p)
        made = optimizer(method, implementation, params)
        for _ in range(STEPS):
            made.step()

    run()
    gc.collect()  # nothing that was there before may go in between
    return (peak_of_gpu if device == "cuda" else peak_of_processor)(run)


def peak_of_processor(run: Callable[[], None]) -> int:
    """From the allocator's own events, in the order of time."""
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        run()
    events = [e for e in profile.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(itertools.accumulate(event.nbytes() for event in events))


def peak_of_gpu(run: Callable[[], None]) -> int:
    """From the allocator's statistics."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return torch.cuda.max_memory_allocated() - before
