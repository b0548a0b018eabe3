"""Small runs that the tests of the loop share."""

import hashlib

import torch
from torch import nn

import optlab
from optlab.data import Sampler, digits
from optlab.precision import LossScaler
from optlab.regularizers import Dropout, WeightAverage
from optlab.training import Averaging, Batches, Evaluation, Trainer

LOSS = nn.functional.cross_entropy


def data(samples=96, batch=16, **settings):
    """Batches of digits, 6 in an epoch, and others to be judged by."""
    found = digits()
    sampler = Sampler(samples, batch, seed=0, **settings)
    return Batches(found.x[:samples], found.y[:samples], sampler), (found.x_test, found.y_test)


def network(seed=0):
    """Draws random numbers, of torch's generator and of its own."""
    torch.manual_seed(seed)
    own = torch.Generator().manual_seed(1)
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 12),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.Dropout(0.2),
        Dropout(0.2, generator=own),
        nn.Linear(12, 10),
    )
    return model, own


def trainer(seed=0, optimizer=lambda params: optlab.Adam(params, lr=1e-2), **settings):
    """A run with a part of every kind."""
    model, own = network(seed)
    batches, test = data()
    made = optimizer(model.parameters())
    return Trainer(
        model,
        made,
        LOSS,
        batches,
        **{
            "schedule": lambda step: 0.99**step,
            "scaler": LossScaler(init_scale=2.0**8, growth_interval=5),
            "clip": 1.0,
            "evaluate": Evaluation(*test, LOSS),
            "evaluate_every": 5,
            "callbacks": [Averaging(WeightAverage(model, 0.9))],
            "keep": {"dropout": own},
            "log_every": 2,
            "progress": False,
            **settings,
        },
    )


def digest(value):
    """A number for nested values, the same for the same to the bit."""
    found = hashlib.sha256()

    def add(part):
        if isinstance(part, torch.Tensor):
            found.update(f"{part.dtype} {tuple(part.shape)}".encode())
            found.update(part.detach().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(part, dict):
            # A flag that torch adds to groups when it loads them.
            for name in sorted(part.keys() - {"differentiable"}, key=str):
                found.update(repr(name).encode())
                add(part[name])
        elif isinstance(part, list | tuple):
            for entry in part:
                add(entry)
            found.update(b"end")
        else:
            found.update(repr(part).encode())

    add(value)
    return found.hexdigest()
