"""The registry of optimizers: each is put through every property in tests/optlab/optimizers."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

import optlab
from tests.optlab import layerwise


@dataclass(frozen=True)
class Entry:
    """An optimizer with a setting, and its oracle, which must give the same numbers.

    That is torch's namesake, or what :mod:`tests.optlab.layerwise` has where torch has none.
    """

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

    @property
    def makers(self):
        """Both, ours first."""
        return self.make, self.oracle

    def takes(self, name: str) -> bool:
        """Whether the class has a hyperparameter of that name."""
        return name in self.ours([torch.zeros(1)]).defaults


class ExactNAdam(torch.optim.NAdam):
    """Torch's NAdam with its product of momenta in float64, where torch has the default dtype."""

    def step(self, closure=None):
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            return super().step(closure)
        finally:
            torch.set_default_dtype(default)


#: Of classes whose oracle is not torch's own.
ORACLES = {"NAdam": ExactNAdam, "LARS": layerwise.LARS, "LAMB": layerwise.LAMB}


def entries(kind: str, shared: dict[str, Any], **variants: dict[str, Any]) -> list[Entry]:
    theirs = ORACLES[kind] if kind in ORACLES else getattr(torch.optim, kind)
    return [
        Entry(
            f"{kind.lower()}-{variant.replace('_', '-')}",
            getattr(optlab, kind),
            theirs,
            {**shared, **settings},
        )
        for variant, settings in variants.items()
    ]


DECAY = {"weight_decay": 0.1}
DECOUPLED = {"weight_decay": 0.1, "decoupled_weight_decay": True}
REGISTRY = [
    *entries(
        "SGD",
        {"lr": 0.05},
        plain={},
        decay=DECAY,
        momentum={"momentum": 0.9},
        dampened={"momentum": 0.9, "dampening": 0.3},
        momentum_decay_maximize={"momentum": 0.9, **DECAY, "maximize": True},
        nesterov={"momentum": 0.9, "nesterov": True},
        nesterov_decay={"momentum": 0.95, "nesterov": True, "weight_decay": 0.01},
    ),
    *entries(
        "Adagrad",
        {"lr": 0.05},
        plain={},
        rate_decay={"lr_decay": 0.1},
        started={"initial_accumulator_value": 0.3},
        decay=DECAY,
    ),
    *entries("Adadelta", {"lr": 0.5}, plain={}, decay={**DECAY, "rho": 0.8, "maximize": True}),
    *entries(
        "RMSprop",
        {"lr": 0.01},
        plain={},
        centered={"centered": True},
        momentum={"momentum": 0.9},
        centered_momentum={"centered": True, "momentum": 0.8, "alpha": 0.9},
        decay=DECAY,
    ),
    *entries(
        "Adam",
        {"lr": 0.02},
        plain={},
        amsgrad={"amsgrad": True},
        decay=DECAY,
        maximize={"maximize": True, "betas": (0.8, 0.95)},
        decoupled=DECOUPLED,
    ),
    *entries("AdamW", {"lr": 0.02}, plain={}, amsgrad={"amsgrad": True, **DECAY}),
    *entries("NAdam", {"lr": 0.02}, plain={}, decay=DECAY, decoupled=DECOUPLED),
    *entries("RAdam", {"lr": 0.02}, plain={}, decay=DECAY, decoupled=DECOUPLED),
    *entries("Adamax", {"lr": 0.02}, plain={}, decay=DECAY),
    *entries(
        "LARS",
        {"lr": 0.5, "trust_coefficient": 0.02},
        plain={},
        decay={**DECAY, "eps": 1e-3},
        no_momentum={"momentum": 0, "eps": 0},
        maximize={**DECAY, "maximize": True},
        untrusted={"trust": False, **DECAY},
    ),
    *entries(
        "LAMB",
        {"lr": 0.02},
        plain={"weight_decay": 0},
        decay=DECAY,
        maximize={"betas": (0.8, 0.95), "maximize": True},
        untrusted={"trust": False, **DECAY},
    ),
]
#: One setting of each class, for what does not depend on it.
CLASSES = list({entry.ours: entry for entry in reversed(REGISTRY)}.values())[::-1]
EVERY = pytest.mark.parametrize("entry", REGISTRY, ids=str)
EACH_CLASS = pytest.mark.parametrize("entry", CLASSES, ids=lambda entry: entry.ours.__name__)
