"""Parallelism over data: gradients averaged over the processes that share a batch.

:mod:`~optlab.distributed.data_parallel` wraps a model, :mod:`~optlab.distributed.buckets` are its
messages, :mod:`~optlab.distributed.shared` is memory that ranks have in common,
:mod:`~optlab.distributed.ring` shows how an all-reduce works,
:mod:`~optlab.distributed.timeline` records what was done when, and
:mod:`~optlab.distributed.launching` starts the processes on one machine.
:mod:`~optlab.distributed.sharded` shares out the parameters too; it takes half a second to import,
so that is left to those who need it.
"""

from optlab.distributed.data_parallel import DataParallel
from optlab.distributed.launching import launch
from optlab.distributed.ring import ring_all_reduce
from optlab.distributed.timeline import Recorder, Span

__all__ = ["DataParallel", "Recorder", "Span", "launch", "ring_all_reduce"]
