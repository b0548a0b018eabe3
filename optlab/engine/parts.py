"""Parts: what an operation works on at once, a parameter where it lies or small ones packed."""

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from optlab.engine import kernels
from optlab.engine.packing import Gatherer, dense, line, pack, real, sole

State = MutableMapping[Tensor, dict[str, Any]]


class Part:
    """Parameters with their state, each kind as one tensor.

    Args:
        place: where the parameters stand in their block.
        params: one parameter, or packable ones of one dtype and device.
        state: the optimizer's state.
        memory: state of a parameter's shape: name, and entries where there is none yet.
        pool: where packed parameters' gradients are gathered; parts share it.

    Attributes:
        theta: the parameters' entries as real numbers.
        memory: the same of their state, by name.
        pieces: the state of each parameter, by name.
        flat: whether these tensors have one dimension.
        packed: whether the gradients are gathered, in memory that a rule may then overwrite.
    """

    def __init__(
        self,
        place: slice,
        params: Sequence[Tensor],
        state: State,
        memory: Mapping[str, float],
        pool: MutableMapping[Any, Tensor],
    ) -> None:
        self.place = place
        self.params = params
        self.packed, self.flat = len(params) > 1, dense(params[0])
        self.plain = type(params[0].detach()) is Tensor
        first = params[0]
        self.strides, self.size, self.dtype = first.stride(), first.numel(), first.dtype
        dtype = kernels.working(first.dtype)
        theta = first.detach()
        if self.packed:
            theta, pieces = pack(params, first.dtype)
            for p, piece in zip(params, pieces, strict=True):
                p.data = piece
        self.places = list(map(Tensor.data_ptr, params))
        self.theta = self._seen(theta)
        self.memory: dict[str, Tensor] = {}
        self.pieces: dict[str, list[Tensor]] = {}
        for name, entry in memory.items():
            start = complex(entry, entry) if dtype.is_complex else entry
            values = [state[p].get(name) for p in params]
            if self.packed and all(value is None for value in values):
                whole, pieces = pack(params, dtype, start)
            else:
                pairs = zip(params, values, strict=True)
                pieces = [_laid_out(p, value, dtype, start) for p, value in pairs]
                whole, pieces = pack(pieces, dtype) if self.packed else (pieces[0], pieces)
            self.memory[name], self.pieces[name] = self._seen(whole), pieces
        if self.packed:
            key, size = (theta.device, theta.dtype), theta.numel()
            if key not in pool or pool[key].numel() < size:
                pool[key] = torch.empty_like(theta)
            self._gather = Gatherer(pool[key][:size], params)
            self._gathered = line(pool[key][:size])

    def _seen(self, tensor: Tensor) -> Tensor:
        return line(tensor) if self.flat else real(tensor)

    def gradient(self, grads: tuple[Tensor, ...]) -> Tensor:
        """The gradients of the block's parameters that are this part's, laid out like them."""
        if self.packed:
            self._gather(grads[self.place])
            return self._gathered
        g = grads[self.place.start]
        if not self.flat:
            return real(g)
        alike = g.stride() == self.strides and g.dtype is self.dtype and type(g) is Tensor
        if not alike or g.is_neg():
            g = torch.empty_like(self.params[0]).copy_(g)
        return line(g) if self.dtype.is_complex else g.as_strided((self.size,), (1,))

    def release(self) -> None:
        """Give the parameters memory of their own again, but where somebody has a view of it."""
        if self.packed:
            for p, place in zip(self.params, self.places, strict=True):
                if p.data_ptr() == place and sole(p):
                    p.data = p.data.clone()


def _laid_out(p: Tensor, value: Tensor | None, dtype: torch.dtype, start: complex) -> Tensor:
    """State in its parameter's layout and device; where there is none, filled."""
    if value is None:
        return torch.full_like(p, start, dtype=dtype, requires_grad=False)
    if (value.dtype, value.device, value.stride()) == (dtype, p.device, p.stride()):
        return value
    return torch.empty_like(p, dtype=dtype, requires_grad=False).copy_(value)
