"""Terms that are added to a loss."""

from collections.abc import Iterable

import torch
from torch import Tensor

from optlab.errors import check_range


def l2_penalty(parameters: Tensor | Iterable[Tensor], weight_decay: float) -> Tensor:
    """``weight_decay / 2 * sum theta^2``, whose gradient is ``weight_decay * theta``.

    So it is a decay inside the gradient, as that of :class:`~optlab.optimizers.sgd.SGD`.

    Args:
        parameters: of any shapes; at least one.
        weight_decay: in [0, inf).

    Returns:
        A number with its graph.

    >>> l2_penalty(torch.tensor([3.0, 4.0]), 0.1)
    tensor(1.2500)
    """
    check_range("weight_decay", weight_decay, "[0, inf)")
    return 0.5 * weight_decay * _total(p.square().sum() for p in _listed(parameters))


def l1_penalty(parameters: Tensor | Iterable[Tensor], weight_decay: float) -> Tensor:
    """``weight_decay * sum |theta|``, whose gradient does not fade as theta does (Tibshirani 1996).

    Args:
        parameters: of any shapes; at least one.
        weight_decay: in [0, inf).

    Returns:
        A number with its graph.

    >>> l1_penalty(torch.tensor([3.0, -4.0]), 0.1)
    tensor(0.7000)
    """
    check_range("weight_decay", weight_decay, "[0, inf)")
    return weight_decay * _total(p.abs().sum() for p in _listed(parameters))


def smoothed_cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.1) -> Tensor:
    """Cross-entropy with targets of which a share is spread over all classes.

    Label smoothing of Szegedy et al. (2016, section 7); as
    :func:`torch.nn.functional.cross_entropy` with ``label_smoothing``.

    Args:
        logits: of shape ``(samples, classes)``.
        targets: classes, of shape ``(samples,)``.
        smoothing: the share, in [0, 1].

    Returns:
        The mean over samples.

    Raises:
        ValueError: the shapes do not fit, or there is no sample.

    >>> smoothed_cross_entropy(torch.zeros(3, 4), torch.tensor([0, 1, 2]))
    tensor(1.3863)
    """
    check_range("smoothing", smoothing, "[0, 1]")
    if logits.dim() != 2 or targets.shape != logits.shape[:1]:
        shapes = f"{tuple(logits.shape)} and {tuple(targets.shape)}"
        raise ValueError(
            f"logits and targets must be (samples, classes) and (samples,), got {shapes}"
        )
    if not len(logits):
        raise ValueError("there is no sample: the mean over an empty batch is not defined")
    log_p = logits.log_softmax(1)
    right = log_p.gather(1, targets.unsqueeze(1)).mean()
    return -((1 - smoothing) * right + smoothing * log_p.mean())


def _listed(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    listed = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    if not listed:
        raise ValueError("there are no parameters: was the iterator used before?")
    return listed


def _total(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum()
