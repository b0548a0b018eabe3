"""How the processes of a run find one another, and how they notice that one is gone."""

import datetime
import fcntl
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import torch
from torch import distributed

#: Seconds between signs of life; without one for so many a process counts as lost, and after an
#: error for so many.
BEAT, SILENCE, AFTER_ERROR = 0.5, 12.0, 2.5
#: Its stores are there, but not in its list of names.
c10d: Any = distributed
#: Of Linux: the address of an interface.
SIOCGIFADDR = 0x8915


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


class Watch:
    """Signs of life of all ranks, in their store.

    A rank from which none has come for a time is lost.  The others say so, and end: on a GPU, or
    where a host has vanished, they would wait for it in the midst of a message.
    """

    def __init__(self, where: Place, store: Any) -> None:
        self.where, self._store = where, store
        self._keeps = where.rank == 0 and not where.agent
        self._ended, self._asked = threading.Event(), threading.Event()
        self._gone = 0.0  # when the store was
        self._thread: threading.Thread | None = None
        self._seen = dict.fromkeys(range(where.ranks), ("", time.monotonic()))

    def meet(self, timeout: float) -> None:
        """Wait until all ranks are there."""
        ranks = range(self.where.ranks)
        self._store.set(f"beat {self.where.rank}", "0")
        self._store.set(f"host {self.where.rank}", socket.gethostname())
        keys = [f"host {rank}" for rank in ranks]
        try:
            self._store.wait(keys, datetime.timedelta(seconds=timeout))
            return
        except RuntimeError:
            pass
        at = f"MASTER_ADDR={self.where.address} MASTER_PORT={self.where.port}"
        try:
            missing = [str(rank) for rank in ranks if not self._store.check([keys[rank]])]
        except RuntimeError:
            raise JoiningError(
                f"rank 0 has ended before all had joined: see what it says, at {at}"
            ) from None
        if self._keeps:
            time.sleep(AFTER_ERROR)  # others have still to ask
        raise JoiningError(
            f"of {len(ranks)} ranks these have not joined within {timeout:g} s: "
            f"{', '.join(missing)}. Start all of them, with {at} and WORLD_SIZE={len(ranks)}; see "
            "that no firewall is between their hosts; or wait longer, with timeout=SECONDS"
        )

    def start(self, store: Any) -> None:
        """Begin to give signs, and to look for others', over a connection of its own."""
        self._store = store
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def end(self, word: str) -> None:
        """Give no more signs: this rank is done, or has failed."""
        if self._thread is None or self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        with suppress(RuntimeError):  # the store may be gone
            self._store.set(f"beat {self.where.rank}", word)

    def lost(self) -> str:
        """After an error: a sentence on the rank from which no sign comes any more, or nothing."""
        if self._thread is None:
            return ""
        # What ends the others must not end this one before it has said why.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._asked.set()
        deadline = time.monotonic() + AFTER_ERROR + 4 * BEAT
        while time.monotonic() < deadline:
            found = self._sentence(AFTER_ERROR)
            if found:
                if self._keeps:
                    time.sleep(AFTER_ERROR)  # others have still to find out the same
                return found
            time.sleep(BEAT / 2)
        return ""

    def _sentence(self, silence: float) -> str:
        """On the rank that has failed, or has been silent for so long, or nothing."""
        now = self._gone or time.monotonic()
        others = {r: seen for r, seen in self._seen.items() if r != self.where.rank}
        for rank, (word, _) in others.items():
            if word.startswith("failed"):
                return self._advice(f"rank {rank} has {word}")
        rank, (word, when) = min(
            others.items(), key=lambda item: item[1][1], default=(0, ("done", now))
        )
        if word != "done" and now - when >= silence:
            return self._advice(f"rank {rank} has died: no sign of it for {now - when:.1f} s")
        if self._gone:
            keeper = "torchrun" if self.where.agent else "rank 0"
            return self._advice(f"{keeper}, which keeps the meeting place, has died")
        return ""

    def _advice(self, what: str) -> str:
        return (
            f"{what}. This run ends; started again with the same folder it goes on from its last "
            "checkpoint, which torchrun does by itself with --max-restarts"
        )

    def _run(self) -> None:
        beats = 0
        while not self._ended.wait(BEAT) and not self._gone:
            beats += 1
            try:
                self._store.set(f"beat {self.where.rank}", str(beats))
                for rank, (before, _) in self._seen.items():
                    word = self._store.get(f"beat {rank}").decode()
                    if word != before or word == "done":
                        self._seen[rank] = word, time.monotonic()
            except RuntimeError:
                self._gone = time.monotonic()
            found = self._sentence(AFTER_ERROR if self._gone else SILENCE)
            if found and not self._ended.is_set() and not self._asked.is_set():
                # The main thread may be inside a message that never ends.
                print(f"rank {self.where.rank}: {found}", file=sys.stderr, flush=True)
                os._exit(1)


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
