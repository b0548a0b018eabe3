"""The first layer whose numbers are not finite, found by running a model again."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def first_offender(model: nn.Module, x: Tensor, forward: Callable[[Tensor], Any]) -> str:
    """Say where numbers cease to be finite on the way through a model.

    Layers with parameters that are not finite come first: gradients were not finite there, and as
    these go backwards, the last such layer of the forward pass had them first.  Otherwise it is
    the first layer whose output is not finite.  Random masks are drawn anew.

    Args:
        model: whose modules are watched.
        x: its inputs.
        forward: calls the model with the inputs.

    Returns:
        A clause for a message.

    >>> model = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    >>> _ = nn.init.constant_(model[0].weight, torch.inf)
    >>> first_offender(model, torch.ones(1, 1), model)
    'the weight of layer 0 (Linear) is not finite'
    """
    if not _finite([x]):
        return "the batch itself is not finite"
    order: list[tuple[str, nn.Module]] = []
    found: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            order.append((name, module))
            if not found and not _finite(_tensors(output)):
                found.append(f"the output of {_called(name, module)} is not finite")

        return hook

    hooks = [m.register_forward_hook(watch(name)) for name, m in model.named_modules()]
    try:
        forward(x)
    finally:
        for hook in hooks:
            hook.remove()
    for name, module in reversed(order):
        for own, p in module.named_parameters(recurse=False):
            if not _finite([p]):
                return f"the {own} of {_called(name, module)} is not finite"
    return found[0] if found else "all layers' outputs are finite: see the loss itself"


def _called(name: str, module: nn.Module) -> str:
    kind = type(module).__name__
    return f"layer {name} ({kind})" if name else f"the model ({kind})"


def _finite(tensors: Iterable[Tensor]) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def _tensors(output: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and dicts."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from _tensors(value)
