"""Parameters shared out over ranks, by torch's FSDP2, for optimizers that know tensors only."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from optlab.distributed.buckets import broadcast
from optlab.distributed.data_parallel import at_the_end, described, refuse_differing


class Sharded(nn.Module):
    """A model of whose parameters, gradients and moments each rank has a part.

    Torch's ``fully_shard`` (Zhao et al. 2023 describe its predecessor) gathers a block's parameters
    for as long as they are needed, and gives each rank its part of the averaged gradient.  These
    parts are plain tensors here, :attr:`shards`: an optimizer that treats every entry by itself can
    be any of torch's kind.  One that takes norms or other figures of whole layers cannot.

    Checkpoints have whole tensors, so another number of ranks can go on from them.

    Args:
        model: all of it on one device; the same on all ranks, which begin with the first's.
        process_group: the ranks; all of them by default.

    Attributes:
        module: the model.
        shards: this rank's part of each parameter, to be given to an optimizer, which is then
            passed to :meth:`link`.
        process_group: the ranks.
    """

    def __init__(self, model: nn.Module, *, process_group: Any = None) -> None:
        super().__init__()
        group: Any = process_group or distributed.group.WORLD
        self.process_group = group
        refuse_differing(described(model), self.process_group)
        broadcast([*model.parameters(), *model.buffers()], self.process_group)
        kind = next(model.parameters()).device.type
        mesh = DeviceMesh.from_group(group, kind)
        for block in _blocks(model):
            fully_shard(block, mesh=mesh)
        self.module: Any = fully_shard(model, mesh=mesh)
        self._whole: list[Any] = [p for p in model.parameters() if p.requires_grad]
        self.shards = [nn.Parameter(p.detach().to_local()) for p in self._whole]
        for shard, p in zip(self.shards, self._whole, strict=True):
            shard.whole = p.shape  # type: ignore[attr-defined]
        model.register_state_dict_post_hook(_gather)
        model.register_load_state_dict_pre_hook(self._scatter)

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        output = self.module(*inputs, **keywords)
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(lambda _: at_the_end(self._hand_over))
        return output

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Backward passes inside only accumulate; the first one outside averages the sums."""
        self.module.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.module.set_requires_gradient_sync(True)

    def link(self, optimizer: Optimizer) -> None:
        """Let an optimizer of the shards have whole tensors in its checkpoints."""

        def gather(_: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
            return self._changed(state_dict, self._of_shard)

        def scatter(_: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
            return self._changed(state_dict, self._of_whole)

        optimizer.register_state_dict_post_hook(gather)
        optimizer.register_load_state_dict_pre_hook(scatter)

    def _changed(self, state_dict: dict[str, Any], change: Any) -> dict[str, Any]:
        pairs = [*zip(self.shards, self._whole, strict=True)]
        state = {
            index: {name: change(value, *pairs[index]) for name, value in entry.items()}
            for index, entry in state_dict["state"].items()
        }
        return {**state_dict, "state": state}

    def _of_shard(self, value: Any, shard: Tensor, p: Any) -> Any:
        """The whole tensor of which each rank has a part, where it is one."""
        if not isinstance(value, Tensor) or value.shape != shard.shape:
            return value
        shape, stride = p.shape, p.stride()
        spread = DTensor.from_local(value, p.device_mesh, p.placements, shape=shape, stride=stride)
        return spread.full_tensor()

    def _of_whole(self, value: Any, _: Tensor, p: Any) -> Any:
        """This rank's part of a whole tensor."""
        return _spread(value, p).to_local() if _is_whole(value, p) else value

    def _scatter(self, _: Any, state_dict: dict[str, Any], prefix: str, *__: Any) -> None:
        for name, p in self.module.named_parameters():
            value = state_dict.get(prefix + name)
            if _is_whole(value, p):
                state_dict[prefix + name] = _spread(value, p)

    @torch.no_grad()
    def _hand_over(self) -> None:
        """Move the gradients, which the backward pass has left at the whole, to the shards."""
        for shard, p in zip(self.shards, self._whole, strict=True):
            if p.grad is not None:
                own = p.grad.to_local()
                shard.grad = own if shard.grad is None else shard.grad + own
                p.grad = None


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """What is gathered together: the parts of the outermost sequences."""
    for child in model.children():
        if isinstance(model, nn.Sequential):
            if any(True for _ in child.parameters()):
                yield child
        else:
            yield from _blocks(child)


def _gather(_: Any, state_dict: dict[str, Any], *__: Any) -> None:
    for name, value in state_dict.items():
        if isinstance(value, DTensor):
            state_dict[name] = value.full_tensor().detach()


def _is_whole(value: Any, p: Any) -> bool:
    plain = isinstance(value, Tensor) and not isinstance(value, DTensor)
    return plain and isinstance(p, DTensor) and value.shape == p.shape


def _spread(value: Any, p: Any) -> Any:
    value = value.to(p.device)
    return distribute_tensor(value, p.device_mesh, p.placements, src_data_rank=None)
