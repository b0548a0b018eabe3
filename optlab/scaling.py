"""Scaling: the learning rate for a batch, from one that suits a batch of another size.

A batch k times as large takes a kth of the steps in an epoch, and its gradient has a kth of the
variance.  With the larger rate Goyal et al. (2017, section 2.2) warm up gradually, from the
reference's own rate and in 5 epochs, by :func:`optlab.schedules.warmup`:

>>> from optlab.schedules import cosine, warmup
>>> batch, reference, samples, epochs = 8192, 256, 1_280_000, 90
>>> lr = linear_scaling(0.1, batch, reference)
>>> epoch = samples // batch
>>> fall = cosine(total=(epochs - 5) * epoch)
>>> schedule = warmup(5 * epoch, then=fall, start=reference / batch)
>>> [round(lr * schedule(step), 2) for step in (0, 5 * epoch, epochs * epoch)]
[0.1, 3.2, 0.0]

The optimizer has ``lr``, and torch's ``LambdaLR`` the schedule.
"""

from optlab.errors import check_count, check_range


def linear_scaling(lr: float, batch: int, reference: int) -> float:
    """The rate times batch / reference, so that an epoch goes as far: for SGD with momentum.

    Krizhevsky (2014), *One weird trick for parallelizing convolutional neural networks*, used it;
    Goyal et al. (2017), *Accurate, large minibatch SGD*, section 2.1, up to 8192 images, beyond
    which accuracy fell.

    Args:
        lr: what suits the reference, in [0, inf).
        batch: samples in a step, of all processes together, at least 1.
        reference: the same of the batch that ``lr`` was chosen for.

    Raises:
        ValueError: an argument out of its range.
        TypeError: one that is no number, or a batch that is no whole number.

    >>> linear_scaling(0.1, batch=1024, reference=256)
    0.4
    """
    return lr * _growth(lr, batch, reference)


def square_root_scaling(lr: float, batch: int, reference: int) -> float:
    """The rate times the root of batch / reference, so that steps keep their variance.

    Krizhevsky (2014) and Hoffer et al. (2017), *Train longer, generalize better*, for SGD; Malladi
    et al. (2022), *On the SDEs and scaling rules for adaptive gradient algorithms*, for Adam and
    RMSprop, with k times each 1 - beta and eps / sqrt(k) beside it, where k is batch / reference.

    Args and errors are those of :func:`linear_scaling`.

    >>> square_root_scaling(0.001, batch=1024, reference=256)
    0.002
    """
    return float(lr * _growth(lr, batch, reference) ** 0.5)


def _growth(lr: float, batch: int, reference: int) -> float:
    check_range("lr", lr, "[0, inf)")
    check_count("batch", batch)
    check_count("reference", reference)
    return batch / reference
