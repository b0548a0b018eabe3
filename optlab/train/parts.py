"""What a configuration's words stand for: data, model, loss, optimizer, schedule."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from optlab import data as datasets
from optlab.curvature.likelihoods import Categorical, Likelihood, likelihood
from optlab.data import Dataset
from optlab.distributed.sharded import Sharded
from optlab.models import make
from optlab.models.dense import ACTIVATIONS
from optlab.models.registry import MODELS
from optlab.regularizers import (
    Dropout,
    decay_independently,
    smoothed_cross_entropy,
)
from optlab.scaling import linear_scaling, square_root_scaling
from optlab.schedules import SCHEDULES, warmup
from optlab.stepwise import Schedule
from optlab.train.choices import OPTIMIZERS, Choice
from optlab.train.configuration import Configuration

#: Optimizers for which a part of a layer is not enough.
WHOLE = {"lars", "lamb", "kfac", "newton", "gaussnewton", "naturalgradient"}


def data_of(chosen: Configuration) -> Dataset:
    """The examples; where the outputs are not classes, their targets are they themselves."""
    with key("data", chosen.data):
        data = datasets.load(chosen.data.name, **_settings(chosen.data))
    if chosen.likelihood != "categorical":
        if not data.x.is_floating_point():
            raise ValueError(f"likelihood must be categorical for {chosen.data.name}")
        data = data._replace(y=data.x.flatten(1), y_test=data.x_test.flatten(1))
    if chosen.standardize:
        with key("standardize"):
            data = data.standardized()
    if chosen.precision == "fp64":
        real = {name: t.double() for name, t in data._asdict().items() if _is_real(t)}
        data = data._replace(**real)
    return data


def model_of(chosen: Configuration, data: Dataset) -> nn.Module:
    """The model, with its first weights, on the CPU.

    Raises:
        ValueError: a setting is out of range, or the model does not fit the data.
    """
    name = chosen.model.name
    found = {"classes": data.classes, "vocabulary": data.classes, "context": data.x.shape[1]}
    torch.manual_seed(chosen.seed)
    with key("model", chosen.model):
        model = make(name, **_completed(chosen.model, found, MODELS[name]))
    if chosen.regularizers.dropout and not _thin(model, chosen.regularizers.dropout):
        raise ValueError(f"regularizers.dropout has no place in {name}: it follows activations")
    if chosen.precision == "fp64":
        model.double()
    model.eval()
    try:
        with torch.no_grad():
            loss_of(chosen)(model(data.x[:2]), data.y[:2])
    except (RuntimeError, ValueError, IndexError) as error:
        raise ValueError(
            f"model: {name} does not fit {chosen.data.name}, whose examples are "
            f"{tuple(data.x.shape[1:])} with targets {tuple(data.y.shape[1:])} of {data.classes} "
            f"classes: {error}"
        ) from error
    return model.train()


def likelihood_of(chosen: Configuration) -> Likelihood:
    """Of the outputs; classes are in the last dimension."""
    return Categorical(-1) if chosen.likelihood == "categorical" else likelihood(chosen.likelihood)


def loss_of(chosen: Configuration, smoothing: float = 0.0) -> Callable[[Tensor, Tensor], Tensor]:
    """The mean over all targets, for classes; else over samples."""
    if chosen.likelihood != "categorical":
        if smoothing:
            raise ValueError("regularizers.label_smoothing needs likelihood=categorical")
        return likelihood(chosen.likelihood).loss

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        logits, labels = outputs.flatten(0, -2), targets.flatten()
        if smoothing:
            return smoothed_cross_entropy(logits, labels, smoothing)
        return functional.cross_entropy(logits, labels)

    return loss


def optimizer_of(chosen: Configuration, model: nn.Module) -> Optimizer:
    """Of the parameters of a model, which may be wrapped."""
    name = chosen.optimizer.name
    made = OPTIMIZERS[name]
    if isinstance(model, Sharded) and name in WHOLE:
        raise ValueError(f"optimizer: {name} takes whole layers: parallel must not be fsdp")
    own: dict[str, Any] = {"likelihood": likelihood_of(chosen), "model": model}
    own["process_group"] = getattr(model, "process_group", None)
    own = {key: value for key, value in own.items() if key in inspect.signature(made).parameters}
    if "model" not in own:
        own["params"] = model.shards if isinstance(model, Sharded) else model.parameters()
    with key("optimizer", chosen.optimizer):
        optimizer: Optimizer = made(**own, **{**_settings(chosen.optimizer), "lr": rate_of(chosen)})
    if isinstance(model, Sharded):
        model.link(optimizer)
    if chosen.regularizers.decay:
        with key("regularizers.decay"):
            decay_independently(optimizer, chosen.regularizers.decay)
    return optimizer


def rate_of(chosen: Configuration) -> float:
    """The optimizer's learning rate, scaled with the batch where that is asked for."""
    lr: float = chosen.optimizer.settings["lr"]
    if chosen.scaling is None:
        return lr
    rules = {"linear": linear_scaling, "square_root": square_root_scaling}
    return rules[chosen.scaling.rule](lr, chosen.batch, chosen.scaling.reference)


def schedule_of(chosen: Configuration, steps: int) -> Schedule:
    """As long as the run, where it has a length that has been left open."""
    choice = chosen.schedule
    made = SCHEDULES[choice.name]
    own = inspect.signature(made).parameters
    rise = 0 if "warmup" in own else choice.settings["warmup"]
    with key("schedule", choice):
        found: Schedule = made(**_completed(choice, {"total": max(1, steps - rise)}, made))
        return warmup(rise, then=found) if rise else found


def steps_of(chosen: Configuration, epoch: int) -> int:
    """The length of a run whose epochs have so many batches."""
    return chosen.steps if chosen.steps is not None else (chosen.epochs or 0) * epoch


def _thin(model: nn.Module, share: float) -> int:
    """Put dropout after each activation that is a module in a sequence, and count these."""
    kinds, found = tuple(ACTIVATIONS.values()), 0
    for module in [m for m in model.modules() if isinstance(m, nn.Sequential)]:
        for index, layer in enumerate(module):
            if isinstance(layer, kinds):
                module[index] = nn.Sequential(layer, Dropout(share))
                found += 1
    return found


def _settings(choice: Choice) -> dict[str, Any]:
    lists = choice.settings.items()
    return {key: tuple(value) if isinstance(value, list) else value for key, value in lists}


def _completed(choice: Choice, found: dict[str, Any], made: Any) -> dict[str, Any]:
    """The settings, with what is found for those that are left open."""
    known = inspect.signature(made).parameters
    both = {**found, **_settings(choice)}
    return {key: value for key, value in both.items() if key in known}


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


@contextmanager
def key(name: str, choice: Choice | None = None) -> Iterator[None]:
    """Errors inside name the key."""
    try:
        yield
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        first = str(error).split(maxsplit=1)[0]
        inner = choice is not None and first.partition("[")[0] in choice.settings
        raise ValueError(f"{name}{'.' if inner else ': '}{error}") from error
