"""The configuration of a run: its keys, and what each may be."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator

from optlab.errors import check_count, check_range, nearest
from optlab.train.choices import (
    Choice,
    DataChoice,
    ModelChoice,
    OptimizerChoice,
    ScheduleChoice,
)


def _within(allowed: str) -> Any:
    def check(value: Any) -> Any:
        check_range("", value, allowed)
        return value

    return AfterValidator(check)


def _counted(value: int) -> int:
    check_count("", value)
    return value


def _natural(value: int) -> int:
    check_count("", value, 0)
    return value


Count = Annotated[int, AfterValidator(_counted)]
Natural = Annotated[int, AfterValidator(_natural)]
Share = Annotated[float, _within("[0, 1)")]
Strength = Annotated[float, _within("[0, inf)")]
Positive = Annotated[float, _within("(0, inf)")]


class Section(BaseModel):
    """Keys that belong together; others are refused, and so are values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True)


class Average(Section):
    """Of the weights; see :class:`~optlab.regularizers.averaging.WeightAverage`.

    Args:
        decay: of an exponential average, in [0, 1); without it all updates count alike.
        every: steps from one update to the next.
    """

    decay: Share | None = None
    every: Count = 1


class Regularizers(Section):
    """What keeps the network from fitting noise.

    Args:
        label_smoothing: the share of each target that is spread over all classes, in [0, 1).
        dropout: the share of activations that is set to zero, in [0, 1).
        l1: the factor of the sum of absolute weights, in [0, inf).
        l2: the factor of half the sum of squared weights, in [0, inf).
        decay: the share of the weights that a step takes off, in [0, 1).
        average: of the weights.
        patience: evaluations without a better loss that end the run.
    """

    label_smoothing: Share = 0.0
    dropout: Share = 0.0
    l1: Strength = 0.0
    l2: Strength = 0.0
    decay: Share = 0.0
    average: Average | None = None
    patience: Count | None = None


class Clip(Section):
    """Bounds of the gradients: one of them at most; see :mod:`optlab.clipping`.

    Args:
        norm: of all gradients together, in (0, inf).
        value: of every entry, in (0, inf).
        units: of each unit's gradient, as a share of its weights, in (0, inf).
    """

    norm: Positive | None = None
    value: Positive | None = None
    units: Positive | None = None

    @model_validator(mode="after")
    def _one(self) -> "Clip":
        given = [name for name, value in self if value is not None]
        if len(given) > 1:
            raise ValueError(f"must be one of its keys, got {' and '.join(given)}")
        return self


class Scaling(Section):
    """Of the learning rate with the batch; see :mod:`optlab.scaling`.

    Args:
        rule: what the rate is in proportion to: the batch, or its root.
        reference: the batch that the optimizer's ``lr`` was chosen for.
    """

    rule: Literal["linear", "square_root"]
    reference: Count


class Configuration(Section):
    """A run.

    Args:
        data: one of ``optlab.data``, with its settings.
        standardize: shift and scale real inputs to mean 0 and deviation 1.
        model: one of ``optlab.models``, with its settings.
        likelihood: of the outputs: of classes, or of the inputs themselves, for autoencoders.
        optimizer: one of ``optlab.optimizers`` in small letters, with its settings.
        scaling: of the optimizer's rate; see :class:`Scaling`.
        schedule: one of ``optlab.schedules``, with its settings; its ``total`` is the run's length
            by default.  All have ``warmup``, in steps.
        regularizers: see :class:`Regularizers`.
        clip: see :class:`Clip`.
        precision: of the operations; with ``"fp64"`` of parameters and data too.
        parallel: what averages gradients over processes: nothing, ``optlab.distributed``,
            torch's ``DistributedDataParallel``, or its FSDP2, which shares out the parameters too.
        compress: what gradients travel in, with ``parallel="own"``; their own format by default.
        synchronize_norm: take batch normalization's statistics over all processes.
        device: ``"auto"`` is a GPU where there is one.
        batch: samples in a step, of all processes together.
        accumulate: parts that a process computes its share of a batch in.
        drop_last: leave out the last batch of an epoch where it is not full.
        epochs: the run's length, or
        steps: the same in steps.
        seed: of weights, order and masks.
        log_every: steps from one row of the metrics to the next.
        evaluate_every: steps from one evaluation to the next; an epoch by default.
        checkpoint_every: steps from one checkpoint to the next.
        timeout: seconds that processes wait for one another, in (0, inf).
        folder: of the run; ``runs`` and the configuration's name by default.
    """

    data: DataChoice
    standardize: bool = False
    model: ModelChoice
    likelihood: Literal["categorical", "bernoulli", "gaussian"] = "categorical"
    optimizer: OptimizerChoice
    scaling: Scaling | None = None
    schedule: ScheduleChoice = Choice(name="constant")
    regularizers: Regularizers = Regularizers()
    clip: Clip = Clip()
    precision: Literal["fp64", "fp32", "bf16", "fp16"] = "fp32"
    parallel: Literal["none", "own", "ddp", "fsdp"] = "none"
    compress: Literal["fp16"] | None = None
    synchronize_norm: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch: Count
    accumulate: Count = 1
    drop_last: bool = False
    epochs: Natural | None = None
    steps: Natural | None = None
    seed: Natural = 0
    log_every: Count = 10
    evaluate_every: Count | None = None
    checkpoint_every: Count = 100
    timeout: Positive = 300.0
    folder: str

    @model_validator(mode="after")
    def _long(self) -> "Configuration":
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("one of epochs and steps must be given, and the other must be null")
        return self

    @model_validator(mode="after")
    def _compressed(self) -> "Configuration":
        if self.compress and self.parallel != "own":
            raise ValueError(f"compress needs parallel=own, and parallel is {self.parallel}")
        return self


SECTIONS = {
    "regularizers": Regularizers,
    "average": Average,
    "clip": Clip,
    "scaling": Scaling,
}


def validated(values: Any) -> Configuration:
    """The configuration that values make.

    Raises:
        ValueError: with a line for each key that is not known or out of its range.

    >>> validated({"data": "digits", "model": "mlp", "optimizer": "sgd", "batchs": 8})
    Traceback (most recent call last):
    ValueError: batchs is no key: did you mean 'batch'? Known: data, standardize, ...
    batch is missing
    folder is missing
    """
    try:
        return Configuration.model_validate(values)
    except ValidationError as error:
        problems = [_in_words(problem) for problem in error.errors()]
    # What is not known comes first: it explains what is missing.
    problems.sort(key=lambda words: "is no key" not in words)
    raise ValueError("\n".join(problems))


def _in_words(problem: Any) -> str:
    path, message = [str(part) for part in problem["loc"]], problem["msg"]
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        section: Any = Configuration
        for part in path[:-1]:
            section = SECTIONS[part]
        return f"{key} is no key: {nearest(path[-1], section.model_fields)}"
    if problem["type"] == "missing":
        return f"{key} is missing"
    if problem["type"] == "value_error":
        said = message.removeprefix("Value error, ")
        return f"{key}{said}" if said.startswith((".", " ")) else f"{key} {said}".strip()
    return f"{key} {message.replace('Input should be', 'must be')}, got {problem['input']!r}"
