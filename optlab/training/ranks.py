"""Ranks of a run: what they must agree on, and what they tell each other."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

import torch
from torch import distributed

#: Names of things with a text that tells two of them apart.
Description = Sequence[Sequence[str]]


def rank_in(group: Any) -> int:
    """This process's rank; 0 without a group."""
    return 0 if group is None else distributed.get_rank(group)


def ranks_in(group: Any) -> int:
    """How many there are; 1 without a group."""
    return 1 if group is None else distributed.get_world_size(group)


def gathered(value: Any, group: Any) -> list[Any]:
    """The values of all ranks, in their order.

    >>> gathered("alone", None)
    ['alone']
    """
    if group is None:
        return [value]
    found: list[Any] = [None] * distributed.get_world_size(group)
    distributed.all_gather_object(found, value, group=group)
    return found


def added(values: Sequence[float], group: Any, device: torch.device) -> list[float]:
    """Each number's sum over ranks.

    >>> added([1.5, 2.0], None, torch.device("cpu"))
    [1.5, 2.0]
    """
    if group is None:
        return list(values)
    total = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(total, group=group)
    found: list[float] = total.tolist()
    return found


@contextmanager
def together(group: Any) -> Iterator[None]:
    """Where one rank raises inside, all do: none is left to wait for it.

    Raises:
        RuntimeError: another rank has raised; the message is its own.
    """
    problem: Exception | None = None
    try:
        yield
    except Exception as error:
        problem = error
    texts = gathered("" if problem is None else f"{type(problem).__name__}: {problem}", group)
    if problem is not None:
        raise problem
    for rank, text in enumerate(texts):
        if text:
            raise RuntimeError(f"rank {rank} raised {text}")


def difference(first: Description, second: Description) -> str:
    """The first thing in which two descriptions differ, or nothing.

    >>> difference([("lr", "0.1")], [("lr", "0.2")])
    'lr is 0.2, not 0.1'
    """
    for one, other in zip_longest(first, second):
        if one is None:
            return f"{other[0]} is {other[1]}, not absent"
        if other is None or one[0] != other[0]:
            return f"{one[0]} ({one[1]}) is missing"
        if one[1] != other[1]:
            return f"{one[0]} is {other[1]}, not {one[1]}"
    return ""


def refuse_differing(own: Description, group: Any) -> None:
    """Raise on all ranks, where the description of one differs from the first one's.

    Raises:
        ValueError: with the first difference.
    """
    first, *others = gathered(own, group)
    for rank, other in enumerate(others, 1):
        found = difference(first, other)
        if found:
            raise ValueError(f"rank {rank} differs from rank 0: {found}")
