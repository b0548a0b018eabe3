"""What can be chosen by a word: data, models, optimizers, schedules, each with its settings."""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from optlab import optimizers
from optlab.data.registry import LOADERS
from optlab.errors import nearest
from optlab.models.registry import MODELS
from optlab.schedules import SCHEDULES

OPTIMIZERS = {name.lower(): getattr(optimizers, name) for name in optimizers.__all__}
#: Arguments that are no settings: a run has them itself.
OWN = {"params", "model", "likelihood", "process_group", "loss_scale", "generator", "maximize"}


def keys_of(target: Callable[..., Any]) -> dict[str, Any]:
    """The settings of what makes a thing, with their defaults.

    >>> keys_of(OPTIMIZERS["lars"])["trust_coefficient"]
    0.001
    """
    parameters = inspect.signature(target).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in OWN}


class Choice(BaseModel):
    """A word, and the settings of what it names.

    Args:
        name: the word.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    name: str

    @property
    def settings(self) -> dict[str, Any]:
        """All but the word."""
        return dict(self.model_extra or {})


def _spelled(value: Any) -> Any:
    """A word alone stands for a choice without settings."""
    return {"name": value} if isinstance(value, str) else value


def _one_of(
    known: Mapping[str, Callable[..., Any]],
    derived: Collection[str] = (),
    more: Mapping[str, Any] | None = None,
) -> Callable[[Choice], Choice]:
    """What checks a choice and completes it by defaults.

    Args:
        known: what can be chosen.
        derived: settings that may be left open, to be found from the data.
        more: settings that all have, with defaults.
    """

    def completed(choice: Choice) -> Choice:
        name = choice.name.lower()
        if name not in known:
            raise ValueError(f"must be one of these, not {name!r}: {nearest(name, known)}")
        keys = {**(more or {}), **keys_of(known[name])}
        for key in choice.settings:
            if key not in keys:
                raise ValueError(f".{key} is no key: {nearest(key, keys)}")
        default = {key: value for key, value in keys.items() if key not in derived}
        found = {"name": name, **default, **choice.settings}
        for key, value in found.items():
            if value is inspect.Parameter.empty:
                raise ValueError(f".{key} is missing: {name} has no default for it")
            if isinstance(value, tuple):
                found[key] = list(value)
        return Choice(**found)

    return completed


_SCHEDULES = {name: made for name, made in SCHEDULES.items() if name != "warmup"}
DataChoice = Annotated[Choice, BeforeValidator(_spelled), AfterValidator(_one_of(LOADERS))]
ModelChoice = Annotated[
    Choice,
    BeforeValidator(_spelled),
    AfterValidator(_one_of(MODELS, ("classes", "vocabulary", "context"))),
]
OptimizerChoice = Annotated[Choice, BeforeValidator(_spelled), AfterValidator(_one_of(OPTIMIZERS))]
ScheduleChoice = Annotated[
    Choice,
    BeforeValidator(_spelled),
    AfterValidator(_one_of(_SCHEDULES, ("total",), {"warmup": 0})),
]
