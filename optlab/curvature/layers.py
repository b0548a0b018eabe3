"""Layers as K-FAC sees them: what goes in and comes back, as rows; weight and bias, as a matrix.

For every kind of module that has a curvature of its own a class tells how its inputs and the
gradients of its outputs are rows ``(samples, positions, size)``, and how the gradients of its
parameters are one matrix with the bias as last column.
"""

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional


class Layer(abc.ABC):
    """A module with its name in the model.

    Attributes:
        params: its parameters, the weight first.
        kind: ``"kronecker"`` or ``"units"``: what form its block has.
        diagonal: whether the factor of its inputs is.
    """

    modules: ClassVar[tuple[type[nn.Module], ...]]
    kind: ClassVar[str] = "kronecker"
    diagonal: ClassVar[bool] = False

    def __init__(self, name: str, module: Any) -> None:
        self.name = name
        self.module = module
        bias = getattr(module, "bias", None)
        self.params: list[nn.Parameter] = [module.weight] + ([] if bias is None else [bias])

    @classmethod
    def unfit(cls, module: Any) -> str:
        """Why this module is not taken; nothing when it is."""
        return ""

    @abc.abstractmethod
    def inputs(self, x: Tensor) -> Tensor:
        """The module's input as rows of shape ``(samples, positions, in)``, a one at each end."""

    @abc.abstractmethod
    def gradients(self, g: Tensor) -> Tensor:
        """The gradient of the module's output as rows of shape ``(samples, positions, out)``."""

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the parameters as one matrix."""
        weight = self.params[0]
        return weight.shape[0], weight[0].numel() + len(self.params) - 1

    def join(self, grads: Sequence[Tensor]) -> Tensor:
        """Gradients of the parameters as one matrix."""
        return torch.cat([grads[0].flatten(1), *[g.unsqueeze(1) for g in grads[1:]]], 1)

    def split(self, matrix: Tensor) -> list[Tensor]:
        """The matrix as tensors of the parameters' shapes."""
        weight = self.params[0]
        columns = weight[0].numel()
        parts = [matrix[:, :columns].reshape(weight.shape)]
        return parts + [matrix[:, columns] for _ in self.params[1:]]

    def _with_one(self, rows: Tensor) -> Tensor:
        return functional.pad(rows, (0, 1), value=1.0) if len(self.params) > 1 else rows


class Linear(Layer):
    """``nn.Linear``; all dimensions between the first and the last are positions."""

    modules = (nn.Linear,)

    def inputs(self, x: Tensor) -> Tensor:
        return self._with_one(_positions(x))

    def gradients(self, g: Tensor) -> Tensor:
        return _positions(g)


class Convolution(Layer):
    """``nn.Conv1d`` and ``nn.Conv2d``: a linear layer at every place of the kernel."""

    modules = (nn.Conv1d, nn.Conv2d)

    @classmethod
    def unfit(cls, module: Any) -> str:
        return f"groups={module.groups}" if module.groups != 1 else ""

    def inputs(self, x: Tensor) -> Tensor:
        module, lines = self.module, self.module.weight.dim() == 3
        if x.dim() == module.weight.dim() - 1:
            x = x.unsqueeze(0)
        if any(module._reversed_padding_repeated_twice):
            mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
            x = functional.pad(x, module._reversed_padding_repeated_twice, mode=mode)
        sizes = [module.kernel_size, module.dilation, module.stride]
        if lines:
            x, sizes = x.unsqueeze(2), [(1, *size) for size in sizes]
        kernel, dilation, stride = sizes
        patches = functional.unfold(x, kernel, dilation=dilation, stride=stride)
        return self._with_one(patches.transpose(1, 2))

    def gradients(self, g: Tensor) -> Tensor:
        if g.dim() == self.module.weight.dim() - 1:
            g = g.unsqueeze(0)
        return g.flatten(2).transpose(1, 2)


class Embedding(Layer):
    """``nn.Embedding``: its input is a one at the token's place, so ``A`` is diagonal."""

    modules = (nn.Embedding,)
    diagonal = True

    @classmethod
    def unfit(cls, module: Any) -> str:
        odd = [
            name for name in ("max_norm", "sparse", "scale_grad_by_freq") if getattr(module, name)
        ]
        return ", ".join(f"{name}={getattr(module, name)}" for name in odd)

    def inputs(self, x: Tensor) -> Tensor:
        return x.reshape(len(x) if x.dim() else 1, -1)  # tokens, whose frequencies are counted

    def gradients(self, g: Tensor) -> Tensor:
        return _positions(g)

    def counted(self, tokens: Tensor) -> Tensor:
        """Which tokens have a gradient: those that are no padding."""
        padding = self.module.padding_idx
        return torch.ones_like(tokens, dtype=torch.bool) if padding is None else tokens != padding

    def frequencies(self, tokens: Tensor) -> Tensor:
        """How often each token occurs, the padding never."""
        counts = tokens[self.counted(tokens)].bincount(minlength=self.module.num_embeddings)
        return counts.to(self.params[0].dtype)

    @property
    def size(self) -> tuple[int, int]:
        return self.module.embedding_dim, self.module.num_embeddings

    def join(self, grads: Sequence[Tensor]) -> Tensor:
        return grads[0].T

    def split(self, matrix: Tensor) -> list[Tensor]:
        return [matrix.T]


class Normalization(Layer):
    """Scale and shift of a normalization: a block for each unit."""

    modules = (
        *(nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
        *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
    )
    kind = "units"

    @classmethod
    def unfit(cls, module: Any) -> str:
        if getattr(module, "process_group", None) is not None:
            return "statistics over ranks"
        return "" if module.weight is not None else "no scale"

    def inputs(self, x: Tensor) -> Tensor:
        """What is scaled: the input, normalized."""
        module = self.module
        if isinstance(module, nn.LayerNorm):
            x = functional.layer_norm(x, module.normalized_shape, eps=module.eps)
        elif isinstance(module, nn.RMSNorm):
            x = functional.rms_norm(x, module.normalized_shape, eps=module.eps)
        elif isinstance(module, nn.GroupNorm):
            x = functional.group_norm(x, module.num_groups, eps=module.eps)
        elif module.training or module.running_mean is None:
            x = functional.batch_norm(x, None, None, training=True, eps=module.eps)
        else:
            x = functional.batch_norm(x, module.running_mean, module.running_var, eps=module.eps)
        return self.gradients(x)

    def gradients(self, g: Tensor) -> Tensor:
        module = self.module
        if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
            return g.reshape(len(g), -1, module.weight.numel())
        return g.flatten(2).transpose(1, 2) if g.dim() > 2 else g.unsqueeze(1)

    @property
    def size(self) -> tuple[int, int]:
        return self.params[0].numel(), len(self.params)

    def join(self, grads: Sequence[Tensor]) -> Tensor:
        return torch.stack([g.flatten() for g in grads], 1)

    def split(self, matrix: Tensor) -> list[Tensor]:
        return [column.view_as(p) for column, p in zip(matrix.unbind(1), self.params, strict=True)]


KINDS: tuple[type[Layer], ...] = (Linear, Convolution, Embedding, Normalization)


def find(model: nn.Module, params: Sequence[Tensor]) -> tuple[list[Layer], dict[str, str]]:
    """The layers of a model whose curvature is known, and what it lacks.

    Args:
        model: searched with all its modules.
        params: those that are to be updated.

    Returns:
        The layers; and for each other parameter to be updated, by name, the reason.
    """
    wanted, uses = {*params}, _uses(model)
    layers: list[Layer] = []
    for name, module in model.named_modules():
        for kind in KINDS:
            if computes(module) not in kind.modules or kind.unfit(module):
                continue
            layer = kind(name, module)
            if wanted.issuperset(layer.params) and all(len(uses[p]) == 1 for p in layer.params):
                layers.append(layer)
    covered = {p for layer in layers for p in layer.params}
    plain = {}
    for p, users in uses.items():
        if p in wanted and p not in covered:
            owner, name = users[0]
            plain[name] = _reason(owner, len(users), wanted)
    return layers, plain


def computes(module: nn.Module) -> type[nn.Module]:
    """Its class, or the one that it says it is ``equivalent`` to; a subclass may be another."""
    kind: type[nn.Module] = vars(type(module)).get("equivalent", type(module))
    return kind


def _uses(model: nn.Module) -> dict[Tensor, list[tuple[nn.Module, str]]]:
    """Where each parameter stands: modules, and its name there."""
    uses: dict[Tensor, list[tuple[nn.Module, str]]] = {}
    for prefix, module in model.named_modules():
        for name, p in module.named_parameters(recurse=False, remove_duplicate=False):
            uses.setdefault(p, []).append((module, f"{prefix}.{name}".lstrip(".")))
    return uses


def _reason(module: nn.Module, users: int, wanted: set[Tensor]) -> str:
    if users > 1:
        return f"{users} modules share it"
    for kind in KINDS:
        if computes(module) in kind.modules:
            return kind.unfit(module) or "only part of its layer is updated"
    return f"no curvature for {type(module).__name__}"


def _positions(x: Tensor) -> Tensor:
    """All dimensions between the first and the last as one."""
    if x.dim() == 1:
        x = x.unsqueeze(0)
    return x.reshape(len(x), -1, x.shape[-1])
