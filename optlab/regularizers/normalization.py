"""Normalization layers: each standardizes other entries, before a learned scale and shift.

Batch normalization takes a unit's mean over the batch, so that samples depend on one another; layer
and group normalization take it over units of one sample; RMS normalization leaves the mean out.

Each class is derived from torch's of the same name, which keeps the parameters, the running
statistics and their names in checkpoints; what is done with them is written here.  Operation by
operation they pass over memory more often than torch's kernels; compiled they take no longer.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from optlab.errors import check_count, check_range
from optlab.regularizers.standardize import standardize


class _BatchNorm(nn.modules.batchnorm._BatchNorm):
    """What both have in common; see :class:`BatchNorm2d`."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        process_group: Any = None,
    ) -> None:
        check_count("num_features", num_features)
        check_range("eps", eps, "(0, inf)")
        if momentum is not None:
            check_range("momentum", momentum, "[0, 1]")
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self.process_group = process_group

    def forward(self, x: Tensor) -> Tensor:
        """``x`` of shape ``(samples, num_features, ...)``."""
        self._check_input_dim(x)  # type: ignore[no-untyped-call]
        if x.shape[1] != self.num_features:
            raise ValueError(
                f"num_features is {self.num_features}: the second dimension of the input must "
                f"have as many entries, got shape {tuple(x.shape)}"
            )
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        weight, bias = _unit(self.weight, x), _unit(self.bias, x)
        if self.training or self.running_mean is None:
            return self._by_batch(exact, weight, bias).to(x.dtype)
        mean, variance = _unit(self.running_mean, x), _unit(self.running_var, x)
        r = (variance + self.eps).rsqrt()
        x_hat = (exact - mean) * r
        y = x_hat if weight is None else torch.addcmul(bias, weight, x_hat)
        return y.to(x.dtype)

    def _by_batch(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        over = [dim for dim in range(x.dim()) if dim != 1]
        group = self.process_group if self.training else None
        y, mean, variance, entries = standardize(
            x, over, self.eps, weight, bias, process_group=group
        )
        if entries <= 1:
            raise ValueError(
                "a batch normalization needs more than one value of each unit to take their "
                f"variance, got an input of shape {tuple(x.shape)}"
            )
        if self.training and self.track_running_stats:
            self._track(mean.flatten(), (variance * (entries / (entries - 1))).flatten())
        return y

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Take a batch's statistics into the running ones; the variance without bias."""
        buffers: dict[str, Any] = dict(self.named_buffers())
        batches, share = buffers["num_batches_tracked"], self.momentum
        batches.add_(1)
        if share is None:  # all batches count alike
            share = (1 / batches.double()).to(mean.dtype)
        for name, new in (("running_mean", mean), ("running_var", variance)):
            buffers[name].copy_(torch.lerp(buffers[name].to(new.dtype), new, share))


class BatchNorm1d(_BatchNorm, nn.BatchNorm1d):
    """The same for ``(samples, num_features)`` or ``(samples, num_features, length)``.

    >>> BatchNorm1d(1)(torch.tensor([[1.0], [3.0]])).squeeze().detach()
    tensor([-1.0000,  1.0000])
    """

    equivalent: ClassVar = nn.BatchNorm1d


class BatchNorm2d(_BatchNorm, nn.BatchNorm2d):
    """Batch normalization (Ioffe and Szegedy 2015) of ``(samples, num_features, height, width)``.

    In training mode with the batch's statistics, which are averaged into the running ones, in
    evaluation mode with these; as :class:`torch.nn.BatchNorm2d`, also in its checkpoints.

    Args:
        num_features: units, or channels.
        eps: added to the variance, in (0, inf).
        momentum: the share of a new batch in the running statistics, in [0, 1]; None: all batches
            count alike.
        affine: whether there are a scale and a shift.
        track_running_stats: else the batch's statistics are used in evaluation mode too.
        device, dtype: of parameters and running statistics.
        process_group: ranks over which statistics are taken in training, as by
            :class:`torch.nn.SyncBatchNorm`; they may have different numbers of samples.

    Raises:
        ValueError: from a call with other than four dimensions, another number of channels, or a
            single value for each unit where the batch's statistics are to be used.

    >>> BatchNorm2d(3)(torch.zeros(0, 3, 2, 2))
    Traceback (most recent call last):
    ValueError: a batch normalization needs more than one value of each unit to take their
    variance, got an input of shape (0, 3, 2, 2)
    """

    equivalent: ClassVar = nn.BatchNorm2d


def synchronize_batch_norm(model: nn.Module, process_group: Any) -> nn.Module:
    """Let each batch normalization take its statistics over the ranks of a group.

    The modules stay the same objects, with their parameters, statistics and hooks.

    Args:
        model: is changed, and returned; torch's :class:`~torch.nn.BatchNorm1d` and
            :class:`~torch.nn.BatchNorm2d` in it become the ones here.
        process_group: the ranks.

    Raises:
        ValueError: it has a batch normalization of another kind; nothing has been changed then.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    >>> synchronize_batch_norm(model, None)[1].process_group is None
    True
    """
    found = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for module in found:
        if not isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            raise ValueError(
                f"the model has a {type(module).__name__}: only BatchNorm1d and BatchNorm2d can be "
                "synchronized"
            )
    for module in found:
        if not isinstance(module, _BatchNorm):  # the classes here have one attribute more
            module.__class__ = BatchNorm1d if isinstance(module, nn.BatchNorm1d) else BatchNorm2d
        module.process_group = process_group
    return model


class LayerNorm(nn.LayerNorm):
    """Each sample over its last dimensions (Ba et al. 2016); as :class:`torch.nn.LayerNorm`.

    >>> LayerNorm(2)(torch.tensor([[1.0, 3.0]])).detach()
    tensor([[-1.0000,  1.0000]])
    """

    equivalent: ClassVar = nn.LayerNorm

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        check_range("eps", eps, "(0, inf)")
        shape: Any = normalized_shape
        super().__init__(shape, eps, elementwise_affine, bias, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` of shape ``(..., *normalized_shape)``."""
        return _over_last(x, self, self.eps, self.bias, centered=True)


class RMSNorm(nn.RMSNorm):
    """Layer normalization without a mean and shift (Zhang and Sennrich 2019).

    As :class:`torch.nn.RMSNorm`; an ``eps`` of None is the spacing of numbers at 1.

    >>> RMSNorm(2)(torch.tensor([[3.0, 3.0]])).detach()
    tensor([[1.0000, 1.0000]])
    """

    equivalent: ClassVar = nn.RMSNorm

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if eps is not None:
            check_range("eps", eps, "(0, inf)")
        shape: Any = normalized_shape
        super().__init__(shape, eps, elementwise_affine, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` of shape ``(..., *normalized_shape)``."""
        eps = torch.finfo(x.dtype).eps if self.eps is None else self.eps
        return _over_last(x, self, eps, None, centered=False)


class GroupNorm(nn.GroupNorm):
    """Each sample over groups of its channels (Wu and He 2018); as :class:`torch.nn.GroupNorm`.

    >>> GroupNorm(1, 2)(torch.tensor([[1.0, 3.0]])).detach()
    tensor([[-1.0000,  1.0000]])
    """

    equivalent: ClassVar = nn.GroupNorm

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        check_count("num_groups", num_groups)
        check_count("num_channels", num_channels)
        check_range("eps", eps, "(0, inf)")
        super().__init__(num_groups, num_channels, eps, affine, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` of shape ``(samples, num_channels, ...)``."""
        if x.dim() < 2 or x.shape[1] != self.num_channels:
            raise ValueError(
                f"num_channels is {self.num_channels}: the second dimension of the input must "
                f"have as many entries, got shape {tuple(x.shape)}"
            )
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        grouped = exact.unflatten(1, (self.num_groups, -1))
        parts = [
            None if p is None else _unit(p, x).unflatten(1, (self.num_groups, -1))
            for p in (self.weight, self.bias)
        ]
        y = standardize(grouped, range(2, grouped.dim()), self.eps, *parts).y
        return y.flatten(1, 2).to(x.dtype)


def _over_last(
    x: Tensor, module: Any, eps: float, bias: Tensor | None, *, centered: bool
) -> Tensor:
    shape = tuple(module.normalized_shape)
    if tuple(x.shape[-len(shape) :]) != shape:
        raise ValueError(
            f"normalized_shape is {shape}: the input's last dimensions must be, got shape "
            f"{tuple(x.shape)}"
        )
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    over = [dim - len(shape) for dim in range(len(shape))]
    return standardize(exact, over, eps, module.weight, bias, centered=centered).y.to(x.dtype)


def _unit(values: Any, like: Tensor) -> Any:
    """A value for each unit, as a tensor to be broadcast over the inputs."""
    return None if values is None else values.view(1, -1, *[1] * (like.dim() - 2))
