"""What a run takes: its parameters, and the memory of a process, before it begins."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from optlab.data import Dataset
from optlab.precision import Policy
from optlab.train.configuration import Configuration
from optlab.train.parts import loss_of, model_of, optimizer_of

#: Samples with which activations are measured: what grows is theirs, what does not is weights'.
FEW, MORE = 2, 4


class Estimate(NamedTuple):
    """Memory of one process, in bytes.

    Args:
        parameters: how many there are, of all processes together.
        weights: with buffers.
        gradients: of the weights.
        moments: what the optimizer keeps from one step to the next.
        activations: what a forward pass keeps for its backward pass.
    """

    parameters: int
    weights: int
    gradients: int
    moments: int
    activations: int

    def __str__(self) -> str:
        parts = [(name, getattr(self, name)) for name in self._fields[1:]]
        lines = [f"{name:<12}{size / 2**20:10.2f} MiB" for name, size in parts]
        total = sum(size for _, size in parts)
        return "\n".join(
            [f"parameters  {self.parameters:10,}", *lines, f"together    {total / 2**20:10.2f} MiB"]
        )


def estimate(chosen: Configuration, data: Dataset, ranks: int = 1) -> Estimate:
    """Measured with a few samples, and scaled to a process's share of the batch.

    What operations need for a moment is not in it, nor are copies of gradients on their way.

    Args:
        chosen: the configuration.
        data: its data.
        ranks: processes that share the batch, and with FSDP the parameters.
    """
    model = model_of(chosen, data)
    params = [*model.parameters()]
    few, more = (_saved(chosen, model, data, count) for count in (FEW, MORE))
    each, share = (more - few) / (MORE - FEW), -(-chosen.batch // (ranks * chosen.accumulate))
    parts = ranks if chosen.parallel == "fsdp" else 1
    return Estimate(
        sum(p.numel() for p in params),
        sum(t.nbytes for t in [*params, *model.buffers()]) // parts,
        sum(p.nbytes for p in params) // parts,
        _moments(chosen, model, data) // parts,
        int(few + (share - FEW) * each),
    )


def _loss(chosen: Configuration, model: nn.Module, data: Dataset, count: int) -> Tensor:
    policy = Policy("fp32" if chosen.precision == "fp64" else chosen.precision)
    with policy.autocast():
        # Copies, as a batch is one.
        return loss_of(chosen)(model(data.x[:count].clone()), data.y[:count].clone())


def _saved(chosen: Configuration, model: nn.Module, data: Dataset, count: int) -> int:
    """Bytes kept for the backward pass, of tensors that would not be there otherwise."""
    there = {tensor.untyped_storage().data_ptr() for tensor in model.parameters()}
    sizes: dict[int, int] = {}
    kept = []

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in there:
            sizes[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)  # so that no other gets its place
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        _loss(chosen, model, data, count)
    return sum(sizes.values())


def _moments(chosen: Configuration, model: nn.Module, data: Dataset) -> int:
    optimizer: Any = optimizer_of(chosen, model)
    if getattr(optimizer, "closure", "none") in ("loss", "outputs"):
        return 0  # these keep numbers only

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = _loss(chosen, model, data, FEW)
        loss.backward()
        return loss.detach()

    optimizer.step(closure)
    return sum(tensor.nbytes for tensor in _tensors(optimizer.state_dict()))


def _tensors(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for value in state.values() if isinstance(state, dict) else state:
            yield from _tensors(value)
