"""Master weights: parameters in single precision behind a model in half precision."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from optlab.precision.formats import BF16, FP16

FORMATS = {kind.dtype: kind for kind in (FP16, BF16)}


class MasterWeights:
    """Copies of a model's parameters in float32, which the optimizer updates in their stead.

    Micikevicius et al. (2018, section 3.1): an update that is less than half the spacing of a
    weight's format would be rounded away.  A gradient is moved to its copy as soon as it is there,
    in float32, so that accumulation, unscaling, clipping and moments are in single precision, and
    none is left on the model.  After each step of an attached optimizer the model gets the copies,
    rounded.

    Args:
        model: in ``float16`` or ``bfloat16``; parameters of other types are used themselves.
        stochastic: round at random, so that the model's weights have the copies' mean.
        seed: of that.

    Raises:
        ValueError: no parameter is in half precision.

    >>> model = nn.Linear(1, 1, bias=False, dtype=torch.bfloat16)
    >>> master = MasterWeights(model)
    >>> optimizer = master.attach(torch.optim.SGD(master.parameters(), lr=1.0))
    >>> model(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()
    >>> optimizer.step()
    >>> model.weight.dtype, next(master.parameters()).dtype
    (torch.bfloat16, torch.float32)
    """

    def __init__(self, model: nn.Module, *, stochastic: bool = False, seed: int = 0) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self._half = {name: p for name, p in named if p.dtype in FORMATS}
        if not self._half:
            raise ValueError("the model has no parameter in float16 or bfloat16: it needs no copy")
        self._own = {
            name: nn.Parameter(p.detach().float()) if name in self._half else p for name, p in named
        }
        self._stochastic, self._seed, self._rounded = stochastic, seed, 0
        self._hooks: list[RemovableHandle] = []
        for name, p in self._half.items():
            self._hooks.append(p.register_post_accumulate_grad_hook(self._take(self._own[name])))

    def parameters(self) -> Iterator[nn.Parameter]:
        """What the optimizer is made with: the copies, in the model's order."""
        return iter(self._own.values())

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The same with the model's names, for parameter groups."""
        return iter(self._own.items())

    def attach(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """Let the model follow after each step of an optimizer of the copies.

        Raises:
            ValueError: it has a parameter that is not among the copies.
        """
        known = {*self._own.values()}
        if not all(p in known for group in optimizer.param_groups for p in group["params"]):
            raise ValueError("the optimizer must be made with master.parameters()")
        self._hooks.append(optimizer.register_step_post_hook(lambda *_: self.write()))
        return optimizer

    @torch.no_grad()
    def write(self) -> None:
        """Round the copies into the model."""
        for place, (name, p) in enumerate(self._half.items()):
            if self._stochastic:
                # A function of its numbers: a run that goes on from a checkpoint draws the same.
                generator = torch.Generator(p.device)
                generator.manual_seed(hash((self._seed, self._rounded, place)) % 2**63)
                p.copy_(FORMATS[p.dtype].round(self._own[name], generator))
            else:
                p.copy_(self._own[name])
        self._rounded += 1

    def state_dict(self) -> dict[str, Any]:
        """The copies by the model's names, and how often they were rounded."""
        return {
            "weights": {name: self._own[name].detach() for name in self._half},
            "rounded": self._rounded,
        }

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load copies that :meth:`state_dict` gave; the model's own come with its own checkpoint.

        Raises:
            ValueError: names or shapes are not this model's; nothing has been changed then.
        """
        missing = {"weights", "rounded"} - state_dict.keys()
        if missing:
            raise ValueError(f"the state dict has no {_list(missing)}: it is not of master weights")
        weights = state_dict["weights"]
        if weights.keys() != self._half.keys():
            odd = weights.keys() ^ self._half.keys()
            raise ValueError(
                f"the weights in the state dict are of another model: see {_list(odd)}"
            )
        for name, value in weights.items():
            if value.shape != self._own[name].shape:
                expected, got = tuple(self._own[name].shape), tuple(value.shape)
                raise ValueError(f"the copy of {name} must have shape {expected}, got {got}")
        for name, value in weights.items():
            self._own[name].copy_(value)
        self._rounded = state_dict["rounded"]

    def remove_hooks(self) -> None:
        """Let gradients stay on the model again, and optimizers step without it."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    @staticmethod
    def _take(own: nn.Parameter) -> Any:
        def hook(p: Tensor) -> None:
            if p.grad is None:
                return
            grad = p.grad.float()
            own.grad = grad if own.grad is None else own.grad.add_(grad)
            p.grad = None

        return hook


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
