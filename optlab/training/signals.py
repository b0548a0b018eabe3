"""Ctrl-C and its like, noted instead of obeyed, so that a step is finished first."""

import signal
import threading
from types import TracebackType
from typing import Any

NOTED = signal.SIGINT, signal.SIGTERM


class Signals:
    """Notes SIGINT and SIGTERM while the context lasts; the second one is obeyed as before.

    Outside the main thread, where Python allows no handlers, it notes nothing.

    Attributes:
        caught: the name of the signal, or nothing.

    >>> with Signals() as signals:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     signals.caught
    'SIGTERM'
    """

    def __init__(self) -> None:
        self.caught = ""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in NOTED}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _note(self, number: int, _: Any) -> None:
        self.caught = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            # None stands for a handler that is not Python's, which cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}
