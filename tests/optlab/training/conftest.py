"""How the tests of the loop get other processes."""

import multiprocessing

import pytest

#: Imported once, by the process that all others are forked from.
PRELOADED = ["tests.optlab.training.runs", "sklearn.datasets", "torch._dynamo"]


@pytest.fixture(scope="session")
def forked():
    """A context whose processes have their imports from the start."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context
