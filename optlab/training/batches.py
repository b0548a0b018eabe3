"""What a loop is fed with: batches of a data set in memory, and examples to be judged by."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from optlab.data import Sampler
from optlab.errors import check_count


class Batches:
    """Pairs of inputs and targets, in a sampler's order: what is left of an epoch, each time.

    A :class:`~optlab.training.trainer.Trainer` takes anything else that can be iterated again and
    again and has a length; for checkpoints it needs ``state_dict`` and ``load_state_dict`` too.

    Args:
        x: inputs, of shape ``(samples, ...)``.
        y: targets, as many.
        sampler: of indices.

    Raises:
        ValueError: the numbers of samples differ.

    >>> batches = Batches(torch.arange(3), torch.arange(3) * 10, Sampler(3, 2, seed=0))
    >>> [(x.tolist(), y.tolist()) for x, y in batches]
    [([2, 0], [20, 0]), ([1], [10])]
    """

    def __init__(self, x: Tensor, y: Tensor, sampler: Sampler) -> None:
        if not len(x) == len(y) == sampler.count:
            raise ValueError(
                f"x, y and sampler must have as many samples, got {len(x)}, {len(y)} and "
                f"{sampler.count}"
            )
        self.x, self.y, self.sampler = x, y, sampler

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for indices in self.sampler:
            chosen = indices.to(self.x.device)
            yield self.x[chosen], self.y[chosen]

    def state_dict(self) -> dict[str, Any]:
        """The sampler's position."""
        return self.sampler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a position."""
        self.sampler.load_state_dict(state_dict)


class Evaluation:
    """The mean loss over examples, and the share of right answers where targets are classes.

    Args:
        x: inputs, of shape ``(samples, ...)``.
        y: targets, as many.
        loss: of outputs and targets, a mean over samples.
        batch: how many samples are tried together.
        name: before the names of the figures.

    >>> x, y = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1])
    >>> Evaluation(x, y, nn.functional.cross_entropy)(nn.Identity())
    {'test_loss': 0.813..., 'test_accuracy': 0.5}
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        loss: Callable[[Tensor, Tensor], Tensor],
        batch: int = 512,
        name: str = "test",
    ) -> None:
        check_count("batch", batch)
        if len(x) != len(y) or not len(x):
            raise ValueError(
                f"x and y must have as many samples, at least one, got {len(x)} and {len(y)}"
            )
        self.x, self.y, self.loss, self.batch, self.name = x, y, loss, batch, name

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Figures by name; the model is used in the modes that it is in."""
        losses, right = [], []
        classes = not self.y.is_floating_point()
        for x, y in zip(self.x.split(self.batch), self.y.split(self.batch), strict=True):
            outputs = model(x)
            losses.append(self.loss(outputs, y) * len(x))
            if classes:
                right.append((outputs.argmax(-1) == y).sum())
        found = {f"{self.name}_loss": float(torch.stack(losses).sum()) / len(self.x)}
        if classes:
            found[f"{self.name}_accuracy"] = float(torch.stack(right).sum()) / self.y.numel()
        return found
