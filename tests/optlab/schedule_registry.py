"""The registry of schedules: each is put through every property in the tests of both modules."""

import torch
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from optlab.schedules import (
    constant,
    cosine,
    cosine_restarts,
    exponential,
    inverse_sqrt,
    multistep,
    one_cycle,
    one_cycle_momentum,
    polynomial,
    step_decay,
    warmup,
    wsd,
)

LR = 0.3
#: A schedule of each kind, and the most that it changes in a step, jumps aside.
CASES = [
    (constant(0.5), 0.0),
    (step_decay(period=7, gamma=0.5), 1.0),
    (multistep(milestones=[3, 40, 41], gamma=0.3), 1.0),
    (exponential(gamma=0.97), 0.03),
    (polynomial(total=60, power=2.0, end=0.1), 0.03),
    (cosine(total=60, end=0.1), 0.024),
    (cosine_restarts(period=10, t_mult=2, end=0.1), 1.0),
    (inverse_sqrt(warmup=20), 0.05),
    (warmup(20, then=cosine(total=40), start=0.1), 0.045),
    (wsd(warmup=20), 0.05),
    (wsd(warmup=20, decay_from=40, decay=25, shape="linear"), 0.05),
    (wsd(warmup=20, decay_from=40, decay=25, shape="cosine", end=0.2), 0.063),
    (wsd(warmup=20, decay_from=40, decay=25), 0.2),  # the root is steep at its start
    (one_cycle(total=60), 0.09),
    (one_cycle(total=60, three_phase=True, shape="linear"), 0.06),
]
#: Schedules of all kinds, with any hyperparameters.
shares = st.floats(0, 1)
lengths = st.integers(1, 50)
cycles = dict(
    total=lengths,
    rise=st.floats(0.01, 0.5),
    shape=st.sampled_from(["linear", "cosine"]),
    three_phase=st.booleans(),
)
ANY = st.one_of(
    st.builds(constant, shares),
    st.builds(step_decay, lengths, st.floats(0.01, 1)),
    st.builds(multistep, st.lists(lengths), st.floats(0.01, 1)),
    st.builds(exponential, st.floats(0.01, 1)),
    st.builds(polynomial, lengths, st.floats(0.01, 9), shares),
    st.builds(cosine, lengths, shares),
    st.builds(cosine_restarts, lengths, st.integers(1, 4), shares),
    st.builds(inverse_sqrt, lengths),
    st.builds(
        wsd,
        warmup=st.integers(0, 20),
        decay_from=st.none() | st.integers(20, 40),
        decay=lengths,
        shape=st.sampled_from(["linear", "cosine", "sqrt"]),
        end=shares,
    ),
    st.builds(one_cycle, start=shares, end=shares, **cycles),
    st.builds(one_cycle_momentum, **cycles),
)
ANY = ANY | st.builds(warmup, st.integers(0, 20), ANY, shares)


def training(factor):
    """An optimizer under that schedule."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=LR)
    return optimizer, lr_scheduler.LambdaLR(optimizer, factor)


def rates(optimizer, scheduler, steps):
    """The learning rates of that many updates, the current one first."""
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found
