"""A time line: what a process computed and what it sent, and when."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import NamedTuple

from optlab.errors import check_choice

KINDS = "compute", "communication"


class Span(NamedTuple):
    """Something that lasted.

    Args:
        name: of what was done.
        kind: ``"compute"`` or ``"communication"``.
        begin: in seconds.
        end: in seconds.
    """

    name: str
    kind: str
    begin: float
    end: float


class Recorder:
    """Collects spans of one process.

    Times are of :func:`time.perf_counter`, which processes on one machine share on Linux, so that
    their lines can be drawn below each other.  On a GPU they are the host's: a call returns before
    the device is done.

    Attributes:
        spans: a :class:`Span` for all that has ended, in the order of the ends.

    >>> recorder = Recorder()
    >>> with recorder.span("forward"):
    ...     pass
    >>> [(span.name, span.kind, span.end >= span.begin) for span in recorder.spans]
    [('forward', 'compute', True)]
    """

    def __init__(self) -> None:
        self.spans: list[Span] = []

    @staticmethod
    def now() -> float:
        """The time, to begin a span with."""
        return perf_counter()

    def add(self, name: str, kind: str, begin: float) -> None:
        """Add a span that ends now.

        Raises:
            ValueError: the kind is neither of the two.
        """
        check_choice("kind", kind, KINDS)
        self.spans.append(Span(name, kind, begin, self.now()))

    @contextmanager
    def span(self, name: str, kind: str = "compute") -> Iterator[None]:
        """What is done inside, also when it raises."""
        begin = self.now()
        try:
            yield
        finally:
            self.add(name, kind, begin)
