"""Which of a run's processes this is, and on which device it works."""

import os
from typing import NamedTuple

import torch


class JoiningError(RuntimeError):
    """Processes that did not come together, or did not stay so; says what to do."""


class Place(NamedTuple):
    """Which of a run's processes this is.

    Args:
        rank: of all.
        ranks: how many there are.
        local: its number on this host.
        address: of the host of rank 0.
        port: there.
        agent: whether torchrun keeps the meeting place, and not rank 0.
        attempt: how often torchrun has started anew.
    """

    rank: int
    ranks: int
    local: int
    address: str
    port: int
    agent: bool
    attempt: int


ALONE = Place(0, 1, 0, "127.0.0.1", 0, False, 0)
NEEDED = ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def place() -> Place:
    """From the variables that torchrun sets; without RANK this process is alone.

    Raises:
        ValueError: one of them is missing.
    """
    env = os.environ
    if "RANK" not in env:
        return ALONE
    missing = [name for name in NEEDED if name not in env]
    if missing:
        raise ValueError(f"RANK is set but not {', '.join(missing)}: torchrun sets all of them")
    rank = int(env["RANK"])
    return Place(
        rank,
        int(env["WORLD_SIZE"]),
        int(env.get("LOCAL_RANK", rank)),
        env["MASTER_ADDR"],
        int(env["MASTER_PORT"]),
        env.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        int(env.get("TORCHELASTIC_RESTART_COUNT", 0)),
    )


def device(wanted: str, local: int) -> torch.device:
    """The device of the process with this number on its host.

    Raises:
        JoiningError: it is to be a GPU, and there is none.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "cpu" or (wanted == "auto" and count == 0):
        return torch.device("cpu")
    if local >= count:
        raise JoiningError(
            f"device is cuda, but torch {torch.__version__} sees {count} GPUs here and process "
            f"{local} of this host needs one of its own: install a driver and a torch with CUDA, "
            "start fewer processes, or set device=cpu"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)
