"""The trainer that a configuration stands for."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from optlab.clipping import clip_grad_norm_, clip_grad_unitwise_, clip_grad_value_
from optlab.data import Dataset, Sampler
from optlab.distributed import DataParallel
from optlab.distributed.sharded import Sharded
from optlab.precision import Policy
from optlab.regularizers import (
    EarlyStopping,
    WeightAverage,
    l1_penalty,
    l2_penalty,
    synchronize_batch_norm,
)
from optlab.train.choices import OPTIMIZERS
from optlab.train.configuration import Configuration
from optlab.train.parts import key, loss_of, model_of, optimizer_of, schedule_of, steps_of
from optlab.training import Averaging, Batches, Callback, Checkpoints, Evaluation, Stopping, Trainer


def wrapped(chosen: Configuration, model: nn.Module, group: Any) -> nn.Module:
    """The model in what averages its gradients over ranks."""
    if chosen.synchronize_norm and group is not None:
        with key("synchronize_norm"):
            synchronize_batch_norm(model, group)
    if chosen.parallel == "own":
        return DataParallel(model, process_group=group, compress=chosen.compress)
    if chosen.parallel == "ddp":
        return DistributedDataParallel(model, process_group=group)
    return Sharded(model, process_group=group) if chosen.parallel == "fsdp" else model


def trainer_of(
    chosen: Configuration,
    data: Dataset,
    group: Any,
    device: torch.device,
    checkpoints: Checkpoints,
    callbacks: Sequence[Callback],
) -> tuple[Trainer, int]:
    """What trains, and the number of steps that it is to make."""
    rank, ranks = (0, 1) if group is None else (group.rank(), group.size())
    with key("batch"):
        sampler = Sampler(
            len(data.x),
            chosen.batch,
            seed=chosen.seed,
            rank=rank,
            ranks=ranks,
            drop_last=chosen.drop_last,
        )
    closure = getattr(OPTIMIZERS[chosen.optimizer.name], "closure", "none")
    if closure != "none" and chosen.parallel == "ddp":
        raise ValueError(f"optimizer: {chosen.optimizer.name} needs parallel=own, or one process")
    if chosen.parallel in ("ddp", "fsdp") or closure != "none":
        _check_even(chosen, len(data.x), ranks)
    bare = model_of(chosen, data).to(device)
    model, regular = wrapped(chosen, bare, group), chosen.regularizers
    optimizer = optimizer_of(chosen, model)
    data = data.to(device)
    batches = Batches(data.x, data.y, sampler)
    steps = steps_of(chosen, len(batches))
    by_outputs = closure == "outputs"
    if by_outputs and regular.label_smoothing:
        raise ValueError(f"regularizers.label_smoothing does not go with {chosen.optimizer.name}")
    policy = Policy("fp32" if chosen.precision == "fp64" else chosen.precision, device.type)
    parts = group if chosen.parallel == "fsdp" else None
    torch.manual_seed(chosen.seed + rank)  # masks differ between ranks
    trainer = Trainer(
        model,
        optimizer,
        None if by_outputs else loss_of(chosen, regular.label_smoothing),
        batches,
        schedule=schedule_of(chosen, steps),
        precision=policy,
        scaler=policy.scaler(process_group=parts),
        clip=_clip(chosen, parts),
        accumulate=chosen.accumulate,
        penalty=_penalty(chosen, bare),
        evaluate=Evaluation(data.x_test, data.y_test, loss_of(chosen)),
        evaluate_every=chosen.evaluate_every,
        callbacks=[*_regularizing(chosen, bare), *callbacks],
        checkpoints=checkpoints,
        log_every=chosen.log_every,
        process_group=group,
    )
    return trainer, steps


def _regularizing(chosen: Configuration, model: nn.Module) -> Iterator[Callback]:
    regular = chosen.regularizers
    if regular.average is not None:
        if chosen.parallel == "fsdp":
            raise ValueError("regularizers.average is not there for parallel=fsdp")
        yield Averaging(WeightAverage(model, regular.average.decay), regular.average.every)
    if regular.patience is not None:
        yield Stopping(EarlyStopping(regular.patience))


def _penalty(chosen: Configuration, model: nn.Module) -> Callable[[], Tensor] | None:
    l1, l2 = chosen.regularizers.l1, chosen.regularizers.l2
    if not l1 and not l2:
        return None
    if chosen.parallel == "fsdp":
        raise ValueError("regularizers.l1 and l2 are not there for parallel=fsdp: use a decay")
    params = [*model.parameters()]
    return lambda: l1_penalty(params, l1) + l2_penalty(params, l2)


def _clip(chosen: Configuration, parts: Any) -> Callable[[list[Tensor]], Any] | None:
    norm, value, units = chosen.clip.norm, chosen.clip.value, chosen.clip.units
    if norm is not None:
        return lambda params: clip_grad_norm_(params, norm, process_group=parts)
    if value is not None:
        return lambda params: clip_grad_value_(params, value)
    if units is not None:
        if parts is not None:
            raise ValueError("clip.units takes whole units: parallel must not be fsdp")
        return lambda params: clip_grad_unitwise_(params, units)
    return None


def _check_even(chosen: Configuration, count: int, ranks: int) -> None:
    last = 0 if chosen.drop_last else count % chosen.batch
    if chosen.batch % ranks or last % ranks:
        raise ValueError(
            f"parallel={chosen.parallel} with {chosen.optimizer.name} needs batches of which each "
            f"of {ranks} ranks has as much: batch is {chosen.batch}, the last one "
            f"{last or chosen.batch}; set drop_last=true or another batch"
        )
