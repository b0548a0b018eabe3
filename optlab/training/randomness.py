"""The states of all random number generators, as what a checkpoint may hold."""

import hashlib
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

State = dict[str, Any]


def random_state() -> State:
    """Of Python, NumPy, torch and, where it is in use, of each GPU.

    >>> state = random_state()
    >>> drawn = random.random(), np.random.rand(), torch.rand(()).item()
    >>> set_random_state(state)
    >>> drawn == (random.random(), np.random.rand(), torch.rand(()).item())
    True
    """
    version, words, gauss = random.getstate()
    found: Any = np.random.get_state()
    name, keys, position, has_gauss, cached = found
    return {
        "python": (version, torch.from_numpy(np.array(words, dtype="int64")), gauss),
        "numpy": (name, torch.from_numpy(keys.astype("int64")), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def set_random_state(state: State) -> None:
    """Go on with a state; that of GPUs as far as there are as many."""
    version, words, gauss = state["python"]
    name, keys, position, has_gauss, cached = state["numpy"]
    random.setstate((version, tuple(words.tolist()), gauss))
    np.random.set_state((name, keys.numpy().astype("uint32"), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def go_on(states: Sequence[State], rank: int, ranks: int) -> None:
    """Set the state of a rank from those of all ranks of a run.

    With another number of ranks each begins anew, from a number that is derived from the first
    one's state and its rank.
    """
    if ranks == len(states):
        set_random_state(states[rank])
        return
    content = states[0]["torch"].numpy().tobytes() + f"{rank} of {ranks}".encode()
    seed = int.from_bytes(hashlib.sha256(content).digest()[:4])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
