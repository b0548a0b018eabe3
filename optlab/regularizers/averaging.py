"""Averages of weights over training, and what a network needs to run with them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from optlab.errors import check_range

Normalization = nn.modules.batchnorm._NormBase


class WeightAverage:
    """An average of a model's parameters, kept beside them.

    With a ``decay`` it is an exponential moving average (Polyak and Juditsky 1992 have the equal
    weights; the exponential ones are customary), without it all updates count alike: stochastic
    weight averaging (Izmailov et al. 2018, algorithm 1), which is updated once in an epoch.  The
    first update copies, so that neither has a bias towards zero.  Averages are in float32 at least.

    Args:
        model: buffers are its own; see :func:`refresh_batch_norm`.
        decay: in [0, 1), or None.

    Attributes:
        updates: how many there have been.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> average = WeightAverage(model)
    >>> for value in (1.0, 2.0, 6.0):
    ...     _ = nn.init.constant_(model.weight, value)
    ...     average.update()
    >>> with average.applied():
    ...     print(model.weight.item())
    3.0
    >>> model.weight.item()
    6.0
    """

    def __init__(self, model: nn.Module, decay: float | None = None) -> None:
        if decay is not None:
            check_range("decay", decay, "[0, 1)")
        self.decay, self.updates = decay, 0
        self._params = dict(model.named_parameters())
        self._means: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters as they are now."""
        for name, p in self._params.items():
            exact = torch.promote_types(p.dtype, torch.float32)
            if self.updates == 0:
                self._means[name] = p.detach().to(exact, copy=True)
            else:
                share = 1 / (self.updates + 1) if self.decay is None else 1 - self.decay
                self._means[name].lerp_(p.detach().to(exact), share)
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model with the average for its parameters; as before in the end, also on errors.

        Raises:
            RuntimeError: there has been no update.
        """
        if not self.updates:
            raise RuntimeError("there is no average before the first update()")
        own = {name: p.detach().clone() for name, p in self._params.items()}
        try:
            self._write(self._means)
            yield
        finally:
            self._write(own)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"updates": self.updates, "means": dict(self._means)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint.

        Raises:
            ValueError: it is of another model; nothing has been changed then.
        """
        if not {"updates", "means"} <= state_dict.keys():
            raise ValueError("the state dict must have updates and means")
        updates, means = state_dict["updates"], state_dict["means"]
        expected = {name: p.shape for name, p in self._params.items()} if updates else {}
        found = {name: mean.shape for name, mean in means.items()}
        if found != expected:
            odd = sorted(
                name for name in {*found, *expected} if found.get(name) != expected.get(name)
            )
            raise ValueError(f"the averages are of another model: see {', '.join(odd)}")
        self.updates = updates
        for name, mean in means.items():
            p = self._params[name]
            exact = torch.promote_types(p.dtype, torch.float32)
            self._means[name] = mean.to(p.device, exact, copy=True)

    @torch.no_grad()
    def _write(self, values: dict[str, Tensor]) -> None:
        for name, p in self._params.items():
            p.copy_(values[name])


@torch.no_grad()
def refresh_batch_norm(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Compute the running statistics of batch normalization anew, for weights that are an average.

    They become plain means over the batches (Izmailov et al. 2018, section 3.2).

    Args:
        model: whose modes and momenta are as before in the end.
        batches: inputs; at least one, where the model has such statistics.

    Raises:
        ValueError: there is no batch; the statistics are as before then.
    """
    layers = [m for m in model.modules() if isinstance(m, Normalization) and m.track_running_stats]
    if not layers:
        return
    modes = [(module, module.training) for module in model.modules()]
    momenta = [layer.momentum for layer in layers]
    old = [{name: b.clone() for name, b in layer.named_buffers()} for layer in layers]
    count = 0
    try:
        model.train()
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a cumulative average
        for batch in batches:
            model(batch)
            count += 1
    finally:
        for module, mode in modes:
            module.training = mode
        for layer, momentum, buffers in zip(layers, momenta, old, strict=True):
            layer.momentum = momentum
            if count == 0:
                layer.load_state_dict(buffers, strict=False)
    if count == 0:
        raise ValueError("refresh_batch_norm() needs at least one batch")
