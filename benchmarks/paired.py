"""Paired timing: contenders take turns in one process, so that a disturbance meets all alike."""

import gc
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

Times = dict[str, list[float]]


def take_turns(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    target: float,
    wait: Callable[[], object],
    warm_up: int = 10,
) -> Times:
    """Seconds that a call takes, for each contender, round by round.

    Args:
        contenders: what to call.
        rounds: how often each has its turn; within a round the order is random.
        target: about how many seconds a turn lasts, with as many calls as that takes.
        wait: returns when the device has done what it was asked for.
        warm_up: calls before the first that counts: what is compiled or allocated once is there,
            and a rule's special first steps are over.
    """
    repeats = {}
    for name, call in contenders.items():
        seconds(call, warm_up, wait)
        repeats[name] = max(1, round(target / min(seconds(call, 1, wait) for _ in range(3))))
    order, shuffle = [*contenders], random.Random(0).shuffle
    times: Times = {name: [] for name in contenders}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                times[name].append(seconds(contenders[name], repeats[name], wait))
    finally:
        gc.enable()
    return times


def seconds(call: Callable[[], object], repeats: int, wait: Callable[[], object]) -> float:
    """How long a call takes, of so many."""
    wait()
    began = perf_counter()
    for _ in range(repeats):
        call()
    wait()
    return (perf_counter() - began) / repeats


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Our time over theirs, round by round."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def fastest(times: Times, names: Sequence[str]) -> str:
    """Whose median is the least."""
    return min(names, key=lambda name: statistics.median(times[name]))
