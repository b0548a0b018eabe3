"""Capture: hooks that see a network's layers while it runs, and sum moments of what they see.

No mathematics stands here: what is summed is in :mod:`optlab.curvature.kronecker`, what the rows
are in :mod:`optlab.curvature.layers`.

For the Fisher information the model's own targets are passed back, at the end of the forward pass
and before the user's loss is known: so neither a scale of the loss nor clipping reaches the
factors.  They count when the user's backward pass comes; the empirical Fisher alone is made of it.
"""

import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from optlab.curvature import kronecker
from optlab.curvature.kronecker import Basis, Moment
from optlab.curvature.layers import Embedding, Layer
from optlab.curvature.likelihoods import Bernoulli, Categorical, Likelihood

#: A layer's moments by name: its factors ``A`` and ``G``, its ``values`` in an eigenbasis, or the
#: blocks of its ``units``.
Moments = dict[str, Moment]


class Call(NamedTuple):
    """One use of a layer in a forward pass: what went in, and where gradients come back."""

    x: Tensor
    version: int
    edge: GradientEdge


class Settings(NamedTuple):
    """What is captured, and how; see :class:`~optlab.optimizers.kfac.KFAC`."""

    likelihood: Likelihood
    fisher: str
    samples: int
    sharing: str
    loss_scale: Callable[[], float]


class Capture:
    """Hooks on a model and its layers.

    Attributes:
        due: whether a forward pass is to be captured.
        moments: what has been captured since :meth:`forget`, by layer.
    """

    def __init__(self, model: nn.Module, layers: Sequence[Layer], settings: Settings) -> None:
        self.settings = settings
        self.layers = layers
        self.moments: dict[str, Moments] = {}
        self._judged = False
        self.expect(True, (), {})
        self._calls: dict[Layer, list[Call]] | None = None
        watched = [layer.module.register_forward_hook(self._watch(layer)) for layer in layers]
        # The end comes last: the model may itself be a layer.
        ends = model.register_forward_pre_hook(self._begin), model.register_forward_hook(self._end)
        self._handles = [*watched, *ends]

    def expect(self, due: bool, seed: Sequence[int], bases: dict[str, Basis]) -> None:
        """Drop what has been captured, and set what the next passes bring.

        Args:
            due: whether they are captured.
            seed: numbers that their targets are drawn by.
            bases: of the layers whose eigenvalues are corrected, by name.
        """
        self.due, self._seed, self._bases = due, seed, bases
        self.forget()

    def remove(self) -> None:
        """Take the hooks away, and what they hold."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._calls = [], None
        self.expect(False, (), {})

    def forget(self) -> None:
        """Drop what has been captured."""
        self.moments, self._passes = {}, 0

    def _begin(self, model: nn.Module, _: Any) -> None:
        if all(p.grad is None for layer in self.layers for p in layer.params):
            self.forget()  # what came before was dropped
        seen = self.due and model.training and torch.is_grad_enabled()
        self._calls = defaultdict(list) if seen else None

    def _watch(self, layer: Layer) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if self._calls is not None and output.requires_grad:
                x = inputs[0].detach()
                # Not the output itself, which an activation may overwrite.
                self._calls[layer].append(Call(x, x._version, get_gradient_edge(output)))

        return hook

    def _end(self, _: nn.Module, __: Any, outputs: Any) -> None:
        calls, self._calls = self._calls, None
        if not calls or (isinstance(outputs, Tensor) and not outputs.requires_grad):
            return
        if not isinstance(outputs, Tensor):
            raise TypeError(f"the model must return one tensor, got {type(outputs).__name__}")
        self.settings.likelihood.check(outputs)
        self._passes += 1
        if self.settings.fisher == "empirical":
            self._wait(calls, len(outputs))
        else:
            waiting = [self._pass_back(calls, outputs)]

            def count(_: Tensor) -> None:
                if waiting:  # else a second backward pass
                    for name, own in waiting.pop().items():
                        _add(self.moments.setdefault(name, {}), own)

            outputs.register_hook(count)
        if not self._judged and len(outputs) > 1:
            self._judged, seen = True, outputs.detach()
            outputs.register_hook(lambda g: self._judge(seen, g))

    def _judge(self, outputs: Tensor, g: Tensor) -> None:
        """Warn where the first gradient is that of the losses' sum.

        A target is what the model expects less the gradient of its loss: with a sum these are zeros
        and ones, with a mean they are not.
        """
        kind = self.settings.likelihood
        if isinstance(kind, Categorical):
            expected = outputs.softmax(kind.dim)
        elif isinstance(kind, Bernoulli):
            expected = outputs.sigmoid()
        else:
            return
        targets = expected - g
        odd = (targets - targets.round()).abs().max()
        if self.settings.loss_scale() == 1 and odd < 1e-3 and g.abs().max() > 0.1:
            warnings.warn(
                "the gradient of the outputs is that of a loss added up over the batch: "
                "K-FAC takes the mean, and any other factor for a learning rate",
                stacklevel=2,
            )

    def _pass_back(self, calls: dict[Layer, list[Call]], outputs: Tensor) -> dict[str, Moments]:
        """Pass vectors of the Fisher information back, and sum what comes to each layer."""
        # A function of its numbers: a run that goes on from a checkpoint draws the same.
        numbers = numpy.random.SeedSequence([*self._seed, self._passes]).generate_state(1, "uint32")
        generator = torch.Generator(outputs.device).manual_seed(int(numbers[0]))
        exact = torch.promote_types(outputs.dtype, torch.float32)
        given, moments = self.settings, {layer.name: Moments() for layer in calls}
        with torch.autocast(outputs.device.type, enabled=False):
            vectors = given.likelihood.vectors(
                outputs.detach().to(exact), given.fisher, None, given.samples, generator
            )
            edges = [call.edge for own in calls.values() for call in own]
            for number, u in enumerate(vectors):
                u = u.to(outputs.dtype)
                found = torch.autograd.grad(outputs, edges, u, retain_graph=True, allow_unused=True)
                place = 0
                for layer, own in calls.items():
                    gradients = found[place : place + len(own)]
                    place += len(own)
                    count = len(outputs) if number == 0 else 0
                    _add(moments[layer.name], self._moments(layer, own, gradients, count))
        return moments

    def _wait(self, calls: dict[Layer, list[Call]], samples: int) -> None:
        """Sum the gradients of the user's own loss when they come."""
        for layer, own in calls.items():
            gradients: list[Tensor | None] = [None] * len(own)
            for index, call in enumerate(own):
                call.edge.node.register_prehook(
                    self._arrival(layer, own, gradients, index, call.edge.output_nr, samples)
                )

    def _arrival(
        self,
        layer: Layer,
        calls: list[Call],
        gradients: list[Tensor | None],
        index: int,
        number: int,
        samples: int,
    ) -> Callable[[tuple[Tensor, ...]], None]:
        def hook(found: tuple[Tensor, ...]) -> None:
            if not calls:
                raise RuntimeError(
                    f"{layer.name}: a second backward pass through one forward pass; "
                    "the empirical Fisher takes one"
                )
            gradients[index] = found[number]
            if all(g is not None for g in gradients):
                with torch.autocast(found[number].device.type, enabled=False):
                    own = self._moments(layer, calls, gradients, samples)
                # Of one sample's loss, where the user's is a mean and may be scaled.
                share = samples / self.settings.loss_scale()
                for name in own.keys() - {"A"}:
                    own[name].total.mul_(share**2)
                _add(self.moments.setdefault(layer.name, {}), own)
                calls.clear()
                gradients.clear()

        return hook

    @torch.no_grad()
    def _moments(
        self,
        layer: Layer,
        calls: Sequence[Call],
        gradients: Sequence[Tensor | None],
        samples: int,
    ) -> Moments:
        """One vector's share; that of the inputs is with the first, which brings the samples."""
        dtype = torch.promote_types(layer.params[0].dtype, torch.float32)
        for call in calls:
            if call.x._version != call.version:
                raise RuntimeError(f"{layer.name}: its input was overwritten in the forward pass")
        arrived = [layer.gradients(g.to(dtype)) for g in gradients if g is not None]
        if len(arrived) < len(calls):
            return {}  # the outputs do not depend on it
        g, sharing, basis = (
            _joined(arrived),
            self.settings.sharing,
            self._bases.get(layer.name),
        )
        inputs = [layer.inputs(call.x if layer.diagonal else call.x.to(dtype)) for call in calls]
        rows = _joined(inputs)
        if layer.kind == "units":
            with_bias = len(layer.params) > 1
            return {"units": kronecker.unit_moment(rows, g, samples, bias=with_bias)}
        moments: Moments = {}
        if isinstance(layer, Embedding):
            sharing, g = "expand", g * layer.counted(rows).unsqueeze(-1)
            if samples:
                moments["A"] = Moment(layer.frequencies(rows), rows.numel())
            if basis is not None:
                moments["values"] = kronecker.corrected_lookup_moment(rows, g, basis, samples)
        else:
            if samples:
                moments["A"] = kronecker.input_moment(rows, sharing)
            if basis is not None:
                moments["values"] = kronecker.corrected_moment(rows, g, basis, samples)
        return {**moments, "G": kronecker.gradient_moment(g, sharing, samples)}


def _joined(rows: Sequence[Tensor]) -> Tensor:
    """The rows of several calls, as more positions."""
    return torch.cat(list(rows), 1) if len(rows) > 1 else rows[0]


def _add(total: Moments, more: Moments) -> None:
    for name, moment in more.items():
        total[name] = total[name] + moment if name in total else moment
