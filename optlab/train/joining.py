"""How the processes of a run find one another."""

import datetime
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed

from optlab.train.place import ALONE, JoiningError, Place
from optlab.train.watch import Watch

#: Its stores are there, but not in its list of names.
c10d: Any = distributed
#: Of Linux: the address of an interface.
SIOCGIFADDR = 0x8915


@contextmanager
def joined(where: Place, on: torch.device, timeout: float) -> Iterator["Watch"]:
    """One process group of all, that lasts as long as the block.

    An error inside, which comes from another process being gone, becomes one that names it.

    Raises:
        JoiningError: not all have come within ``timeout`` seconds, or one has gone.
    """
    limit = datetime.timedelta(seconds=timeout)
    store: Any = c10d.HashStore() if where is ALONE else _store(where, limit, timeout)
    if where is not ALONE and on.type == "cpu":
        _choose_interface(where)
    watch = Watch(where, c10d.PrefixStore(f"optlab/{where.attempt}/watch", store))
    watch.meet(timeout)
    distributed.init_process_group(
        "nccl" if on.type == "cuda" else "gloo",
        store=c10d.PrefixStore(f"optlab/{where.attempt}/group", store),
        rank=where.rank,
        world_size=where.ranks,
        timeout=limit,
    )
    if where is not ALONE:
        own = _store(where, limit, timeout, client=True)
        watch.start(c10d.PrefixStore(f"optlab/{where.attempt}/watch", own))
    try:
        yield watch
    except Exception as error:
        lost = watch.lost() if isinstance(error, RuntimeError) else ""
        if lost:
            raise JoiningError(lost) from error
        watch.end(f"failed: {type(error).__name__}: {error}")
        raise
    else:
        distributed.barrier()  # none leaves while others are still busy
        watch.end("done")
    finally:
        if on.type == "cpu":  # a GPU may still wait for a message
            distributed.destroy_process_group()


def _store(where: Place, limit: datetime.timedelta, timeout: float, client: bool = False) -> Any:
    keeps = where.rank == 0 and not where.agent and not client
    try:
        return c10d.TCPStore(where.address, where.port, None, keeps, limit, wait_for_workers=False)
    except RuntimeError as error:
        at = f"port {where.port} of {where.address}"
        if keeps:
            problem = (
                f"{at} cannot be had ({_first_line(error)}): if another program has it, choose "
                "another by MASTER_PORT or torchrun's --master-port"
            )
        else:
            problem = (
                f"nobody answers at {at} within {timeout:g} s: start rank 0 there, see that no "
                "firewall is between, or wait longer, with timeout=SECONDS"
            )
        raise JoiningError(problem) from None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _choose_interface(where: Place) -> None:
    """Have gloo use the interface over which rank 0 is reached, unless one has been named.

    Its own choice is by the host's name, which may stand for an address that others cannot reach.
    """
    if "GLOO_SOCKET_IFNAME" in os.environ or sys.platform != "linux":
        return
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((where.address, where.port or 1))  # sends nothing
            own = probe.getsockname()[0]
            for _, name in socket.if_nameindex():
                if _address_of(name, probe) == own:
                    os.environ["GLOO_SOCKET_IFNAME"] = name
                    return
    except OSError:
        return  # gloo has reasons of its own then


def _address_of(interface: str, probe: socket.socket) -> str:
    try:
        found = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", interface.encode()))
    except OSError:
        return ""
    return socket.inet_ntoa(found[20:24])
