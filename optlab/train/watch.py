"""Signs of life: how the processes of a run notice that one has not come, or is gone."""

import datetime
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from optlab.train.place import JoiningError, Place

#: Seconds between signs of life; without one for so many a process counts as lost, and after an
#: error for so many.
BEAT, SILENCE, AFTER_ERROR = 0.5, 12.0, 2.5


class Watch:
    """Signs of life of all ranks, in their store.

    A rank from which none has come for a time is lost.  The others say so, and end: on a GPU, or
    where a host has vanished, they would wait for it in the midst of a message.
    """

    def __init__(self, where: Place, store: Any) -> None:
        self.where, self._store = where, store
        self._keeps = where.rank == 0 and not where.agent
        self._ended, self._asked = threading.Event(), threading.Event()
        self._gone, self._looked = False, time.monotonic()  # the store; when it last answered
        self._thread: threading.Thread | None = None
        self._seen = dict.fromkeys(range(where.ranks), ("", self._looked))

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
        self._store, self._looked = store, time.monotonic()
        self._seen = dict.fromkeys(self._seen, ("", self._looked))
        self._thread = threading.Thread(target=self._look, name="look", daemon=True)
        self._thread.start()
        threading.Thread(target=self._judge, name="judge", daemon=True).start()

    def end(self, word: str) -> None:
        """Give no more signs: this rank is done, or has failed."""
        if self._thread is None or self._ended.is_set():
            return
        self._ended.set()
        self._thread.join(SILENCE)
        if not self._thread.is_alive():
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
        now = time.monotonic()
        cut_off = self._gone or now - self._looked > SILENCE
        if cut_off:  # what was known then counts
            now, silence = self._looked, AFTER_ERROR
        others = {r: seen for r, seen in self._seen.items() if r != self.where.rank}
        for rank, (word, _) in others.items():
            if word.startswith("failed"):
                return self._advice(f"rank {rank} has {word}")
        rank, (word, when) = min(
            others.items(), key=lambda item: item[1][1], default=(0, ("done", now))
        )
        if word != "done" and now - when >= silence:
            return self._advice(f"rank {rank} has died: no sign of it for {now - when:.1f} s")
        if cut_off:
            keeper = "torchrun" if self.where.agent else "rank 0"
            return self._advice(f"{keeper}, which keeps the meeting place, does not answer")
        return ""

    def _advice(self, what: str) -> str:
        return (
            f"{what}. This run ends; started again with the same folder it goes on from its last "
            "checkpoint, which torchrun does by itself with --max-restarts"
        )

    def _look(self) -> None:
        """Give signs and read those of others."""
        beats = 0
        while not self._ended.wait(BEAT):
            beats += 1
            try:
                self._store.set(f"beat {self.where.rank}", str(beats))
                for rank, (before, _) in self._seen.items():
                    word = self._store.get(f"beat {rank}").decode()
                    if word != before or word == "done":
                        self._seen[rank] = word, time.monotonic()
            except RuntimeError:
                self._gone = True
                return
            self._looked = time.monotonic()

    def _judge(self) -> None:
        """End this process when another is lost; apart, since to look may wait for a dead host."""
        while not self._ended.wait(BEAT):
            found = self._sentence(SILENCE)
            if found and not self._ended.is_set() and not self._asked.is_set():
                # The main thread may be inside a message that never ends.
                print(f"rank {self.where.rank}: {found}", file=sys.stderr, flush=True)
                os._exit(1)
