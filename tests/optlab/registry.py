"""The registry of optimizers: each is put through every property in test_optimizers.py."""

from dataclasses import dataclass, field
from typing import Any

import torch

import optlab


@dataclass(frozen=True)
class Entry:
    """An optimizer with a setting, and the oracle that must give the same numbers."""

    name: str
    ours: type
    theirs: type
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    def make(self, params, **changes):
        return self.ours(params, **{**self.settings, **changes})

    def oracle(self, params, **changes):
        return self.theirs(params, **{**self.settings, **changes})


def sgd(name: str, **settings: Any) -> Entry:
    return Entry(name, optlab.SGD, torch.optim.SGD, {"lr": 0.05, **settings})


REGISTRY = [
    sgd("sgd"),
    sgd("sgd-decay", weight_decay=0.1),
    sgd("momentum", momentum=0.9),
    sgd("momentum-dampened", momentum=0.9, dampening=0.3),
    sgd("momentum-decay-maximize", momentum=0.9, weight_decay=0.1, maximize=True),
    sgd("nesterov", momentum=0.9, nesterov=True),
    sgd("nesterov-decay", momentum=0.95, nesterov=True, weight_decay=0.01),
]
