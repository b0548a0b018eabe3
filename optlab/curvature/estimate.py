"""An estimate of a whole network's curvature, kept up from step to step."""

import gc
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn

from optlab.curvature import ranks
from optlab.curvature.blocks import Block, Eigenbasis
from optlab.curvature.blocks import block as block_of
from optlab.curvature.capture import Capture, Settings
from optlab.curvature.kronecker import LinAlgError
from optlab.curvature.layers import Layer, find

Setting = Callable[[Layer], float]
#: Models that have hooks, with the estimate that put them there.
_hooked: "weakref.WeakKeyDictionary[nn.Module, weakref.ref[Estimate]]" = weakref.WeakKeyDictionary()


class Estimate:
    """A block for every layer whose curvature is known, fed by hooks.

    Args:
        model: the network.
        params: its parameters that are updated.
        settings: what is captured.
        damping_form, corrected: as for :func:`~optlab.curvature.blocks.block`.
        factor_every: steps from one average to the next.
        inverse_every: steps from one inversion to the next.
        seed: of the targets drawn.
        process_group: ranks that share the batch; None: this process has all of it.

    Attributes:
        blocks: of the layers.
        plain: parameters without, by name, with the reason.
        steps: how many there have been.

    Raises:
        RuntimeError: another estimate's hooks are on the model.
    """

    def __init__(
        self,
        model: nn.Module,
        params: Sequence[Tensor],
        settings: Settings,
        damping_form: str,
        corrected: bool,
        factor_every: int,
        inverse_every: int,
        seed: int,
        process_group: Any,
    ) -> None:
        _refuse_double(model)
        layers, self.plain = find(model, params)
        self.blocks: list[Block] = [block_of(layer, damping_form, corrected) for layer in layers]
        self.factor_every, self.inverse_every, self.seed = factor_every, inverse_every, seed
        self.process_group = process_group
        grouped = process_group is not None
        self._rank = distributed.get_rank(process_group) if grouped else 0
        self._ranks = distributed.get_world_size(process_group) if grouped else 1
        self.steps = 0
        self.capture = Capture(model, layers, settings)
        self.expect()
        _hooked[model] = weakref.ref(self)
        self.hooks = weakref.finalize(self, self.capture.remove)

    def expect(self) -> None:
        """Set the hooks to the next step; what they hold is dropped."""
        bases = {
            block.layer.name: block.basis
            for block in self.blocks
            if isinstance(block, Eigenbasis) and block.corrected and block.inverses
        }
        due = self.steps % self.factor_every == 0
        self.capture.expect(due, (self.seed, self.steps, self._rank), bases)

    def update(self, damping: Setting, decay: Setting) -> None:
        """Take in what was captured, invert where that is due, and count a step.

        Args:
            damping: of a layer.
            decay: of a layer's running averages.

        Raises:
            RuntimeError: nothing was captured, or the hooks have been removed.
            FloatingPointError: a factor is not finite.
            ValueError: a block cannot be inverted.
        """
        if not self.hooks.alive:
            raise RuntimeError("the hooks on the model have been removed")
        if self.steps % self.factor_every == 0:
            self._average(decay)
        if self.steps % self.inverse_every == 0:
            self._invert(damping)
        self.steps += 1
        self.expect()

    def _average(self, decay: Setting) -> None:
        moments = self.capture.moments
        if self.process_group is not None:
            moments = ranks.reduce(moments, self.blocks, self.process_group)
        if not moments and self.blocks:
            raise RuntimeError(
                "no forward and backward pass was captured since the last step: the model itself "
                "must be called, in training mode and with gradients enabled"
            )
        sums = {
            f"{name} of {layer}": _diagonal(moment.total).sum()
            for layer, own in moments.items()
            for name, moment in own.items()
        }
        finite = torch.stack([total.double() for total in sums.values()]).isfinite()
        for name, good in zip(sums, finite.tolist(), strict=True):
            if not good:
                raise FloatingPointError(f"the factor {name} is not finite")
        for block in self.blocks:
            block.average(moments.get(block.layer.name, {}), decay(block.layer))

    def _invert(self, damping: Setting) -> None:
        """Invert the blocks, each on one rank."""
        blocks, failed = [block for block in self.blocks if block.averages], ""
        owners = ranks.assign([block.cost for block in blocks], self._ranks)
        for block, owner in zip(blocks, owners, strict=True):
            if owner == self._rank and not failed:
                value = damping(block.layer)
                try:
                    block.invert(value)
                except LinAlgError as error:
                    name = block.layer.name
                    failed = f"{name} cannot be inverted with damping={value!r}: {error}"
        if self.process_group is not None:
            failed = ranks.hand_out(blocks, owners, failed, self.process_group)
        if failed:
            raise ValueError(f"the curvature of {failed}")

    def state(self) -> dict[str, Any]:
        """For a checkpoint: steps, and every layer's block by name."""
        own = {block.layer.name: block.state() for block in self.blocks}
        return {"steps": self.steps, "layers": own}

    def check(self, state: Mapping[str, Any]) -> None:
        """Raise a ValueError where a checkpoint does not fit."""
        for block in self.blocks:
            block.check(state["layers"].get(block.layer.name))

    def load(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint that fits."""
        for block in self.blocks:
            block.load(state["layers"][block.layer.name])
        self.steps = state["steps"]
        self.expect()


def _diagonal(total: Tensor) -> Tensor:
    """Entries that are not finite where any is: a matrix of products has squares there."""
    return total.diagonal() if total.dim() == 2 and total.shape[0] == total.shape[1] else total


def _refuse_double(model: nn.Module) -> None:
    def other() -> "Estimate | None":
        estimate = _hooked[model]() if model in _hooked else None
        return estimate if estimate is not None and estimate.hooks.alive else None

    if other() is not None:
        gc.collect()  # it may be waiting to be
    if other() is not None:
        raise RuntimeError("the model has the hooks of another KFAC: call its remove_hooks() first")
