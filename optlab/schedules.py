"""Schedules: the factor by which the learning rate is multiplied at each step.

Calling :func:`cosine` or another function of this module with its hyperparameters gives a
:class:`~optlab.stepwise.Schedule`, a pure function of the step, counted from 0.  It has no state:
to go on at step k is to ask for step k.  Torch takes it as it is:

    ``torch.optim.lr_scheduler.LambdaLR(optimizer, warmup(100, cosine(total=900)))``

What stands under a name is the equation, whose first argument is the step; the call takes those
after it.  ``gamma`` lies in (0, 1], ``rise`` in (0, 1), ``power`` above 0; other values that are
not lengths lie in [0, 1], and so do all factors, the optimizer's own rate being the greatest.
Lengths are whole numbers of steps.  Past its end a schedule stays where it is.  What is out of
range raises a ``ValueError``, what is of the wrong kind a ``TypeError``, when the call is made.
"""

from itertools import pairwise
from math import cos, pi

from optlab.errors import check_range
from optlab.stepwise import COUNT, LENGTH, SHARE, flag, function, lengths, schedule


@schedule(factor=SHARE)
def constant(step, factor=1.0):
    """The same factor at every step.

    >>> constant()(1000)
    1.0
    """
    return factor


@schedule(period=LENGTH, gamma="(0, 1]")
def step_decay(step, period, gamma=0.1):
    """Multiply by ``gamma`` after every ``period`` steps; torch's ``StepLR``.

    Ge et al. (2019), *The step decay schedule*, algorithm 1, where gamma is 1/2.

    >>> [step_decay(period=2, gamma=0.5)(step) for step in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    return gamma ** (step // period)


@schedule(milestones=lengths, gamma="(0, 1]")
def multistep(step, milestones, gamma=0.1):
    """Multiply by ``gamma`` at each milestone, of a list of steps; torch's ``MultiStepLR``.

    He et al. (2016), *Deep residual learning*, section 4.2, with milestones 32000 and 48000.

    >>> [multistep(milestones=[1, 3], gamma=0.5)(step) for step in range(5)]
    [1.0, 0.5, 0.5, 0.25, 0.25]
    """
    return gamma ** sum(step >= milestone for milestone in milestones)


@schedule(gamma="(0, 1]")
def exponential(step, gamma):
    """Multiply by ``gamma`` at every step; torch's ``ExponentialLR``.

    Senior et al. (2013), *An empirical study of learning rates in deep neural networks for
    speech recognition*, where gamma is 10^(-1/r).

    >>> exponential(gamma=0.5)(3)
    0.125
    """
    return gamma**step


@schedule(total=LENGTH, power="(0, inf)", end=SHARE)
def polynomial(step, total, power=1.0, end=0.0):
    """Fall as a power of what is left of ``total`` steps; torch's ``PolynomialLR`` if ``end`` is 0.

    Chen et al. (2017), *Rethinking atrous convolution*, section 4.1, with power 0.9.

    >>> polynomial(total=10, power=2)(5)
    0.25
    """
    return end + (1 - end) * (1 - min(step / total, 1)) ** power


@schedule(total=LENGTH, end=SHARE)
def cosine(step, total, end=0.0):
    """Fall along half a wave of the cosine, to ``end`` after ``total`` steps.

    Loshchilov and Hutter (2017), *SGDR*, eq. 5, one run.  Torch's ``CosineAnnealingLR`` is the
    same up to ``total``, but rises again after it.

    >>> cosine(total=10, end=0.5)(5)
    0.75
    """
    return end + (1 - end) * (1 + cos(pi * min(step / total, 1))) / 2


@schedule(period=LENGTH, t_mult=LENGTH, end=SHARE)
def cosine_restarts(step, period, t_mult=1, end=0.0):
    """Fall along half a wave again and again, each ``t_mult`` times as long as the last.

    Loshchilov and Hutter (2017), *SGDR*, eq. 5; torch's ``CosineAnnealingWarmRestarts``.

    >>> [cosine_restarts(period=2, t_mult=2)(step) for step in (0, 1, 2, 4, 6)]
    [1.0, 0.5, 1.0, 0.5, 1.0]
    """
    if t_mult == 1:
        step = step % period
    while step >= period:
        step, period = step - period, period * t_mult
    return end + (1 - end) * (1 + cos(pi * step / period)) / 2


@schedule(warmup=LENGTH)
def inverse_sqrt(step, warmup):
    """Rise in a line for ``warmup`` updates, then fall as 1 / sqrt(update), without an end.

    Vaswani et al. (2017), *Attention is all you need*, eq. 3, divided by its peak: their rate is
    this factor times ``(d_model * warmup) ** -0.5``.

    >>> [inverse_sqrt(warmup=4)(step) for step in (0, 3, 15)]
    [0.25, 1.0, 0.5]
    """
    t = step + 1  # the paper counts updates from 1
    return min(t / warmup, (warmup / t) ** 0.5)


@schedule(steps=COUNT, then=function, start=SHARE)
def warmup(step, steps, then, start=0.0):
    """Rise in a line from ``start`` for some steps, then go on as ``then`` does from its step 0.

    Goyal et al. (2017), *Accurate, large minibatch SGD*, section 2.2, gradual warm-up.  ``then``
    is any function of the step; where it begins with 1, this is torch's ``LinearLR`` and then its
    own scheduler in a ``SequentialLR``.  From a start of 0 the first update changes nothing.

    >>> [warmup(2, then=cosine(total=4))(step) for step in (0, 1, 2, 4, 6)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if step >= steps:
        return then(step - steps)
    return (start + (1 - start) * step / steps) * then(0)


def _decays_after_warmup(settings):
    if settings["decay_from"] is not None:
        check_range("decay_from", settings["decay_from"], f"[{settings['warmup']}, inf)")
        if settings["decay"] is None:
            raise TypeError("wsd() needs decay, a whole number of steps, beside decay_from")


SHAPES = ("linear", "cosine", "sqrt")


@schedule(
    _decays_after_warmup, warmup=COUNT, decay_from=COUNT, decay=LENGTH, shape=SHAPES, end=SHARE
)
def wsd(step, warmup, decay_from=None, decay=None, shape="sqrt", end=0.0):
    """Warm up, stay, and decay to ``end`` within ``decay`` steps, once it is known from where.

    Hu et al. (2024), *MiniCPM*, section 4.2; the shape ``sqrt`` is that of Hägele et al. (2024),
    *Scaling laws and compute-optimal training beyond fixed training durations*, section 3.  Until
    ``decay_from`` is given the rate stays, and a later one changes no factor before the earlier.

    >>> [wsd(warmup=2)(step) for step in (0, 1, 2, 1000)]
    [0.0, 0.5, 1.0, 1.0]
    >>> [wsd(warmup=2, decay_from=1000, decay=4)(step) for step in (1000, 1001, 1004)]
    [1.0, 0.5, 0.0]
    """
    if step < warmup:
        return step / warmup
    if decay_from is None or step < decay_from:
        return 1.0
    return end + (1 - end) * fall(min((step - decay_from) / decay, 1), shape)


CYCLE = dict(total=LENGTH, rise="(0, 1)", shape=SHAPES[:2], three_phase=flag)


def _rises_early(settings):
    if settings["three_phase"]:
        check_range("rise with three_phase", settings["rise"], "(0, 0.5]")


@schedule(_rises_early, start=SHARE, end=SHARE, **CYCLE)
def one_cycle(step, total, rise=0.3, start=0.04, end=4e-6, shape="cosine", three_phase=False):
    """Rise to 1 in a share of ``total`` updates, and fall; torch's ``OneCycleLR``.

    Smith (2018), *A disciplined approach to neural network hyper-parameters*, whose three phases
    are a line up, the same line down, and one on to almost nothing.  Torch's names: ``rise`` is
    ``pct_start``, ``start`` is 1 / ``div_factor``, ``end`` is that over ``final_div_factor``.
    The top is at step ``rise * total - 1``, which may lie between two steps.

    >>> cycle = one_cycle(total=20, rise=0.3, start=0.0, end=0.0, shape="linear")
    >>> [cycle(step) for step in (0, 5, 12, 19)]
    [0.0, 1.0, 0.5, 0.0]
    """
    top, last = rise * total - 1, total - 1
    back = [(2 * top, start)] if three_phase else []
    return through(step, [(0, start), (top, 1.0), *back, (last, end)], shape)


def _low_below_high(settings):
    check_range("low", settings["low"], f"[0, {settings['high']}]")
    _rises_early(settings)


@schedule(_low_below_high, low="[0, 1)", high="[0, 1)", **CYCLE)
def one_cycle_momentum(
    step, total, low=0.85, high=0.95, rise=0.3, shape="cosine", three_phase=False
):
    """Momentum for :func:`one_cycle`, falling to ``low`` while the rate rises: no factor of it.

    Smith (2018), *A disciplined approach to neural network hyper-parameters*; what ``OneCycleLR``
    does with ``base_momentum`` and ``max_momentum``.  Set it at each step by
    ``group["momentum"] = momentum(step)``.

    >>> momentum = one_cycle_momentum(total=20, rise=0.3)
    >>> momentum(0), momentum(5), momentum(19)
    (0.95, 0.85, 0.95)
    """
    top, last = rise * total - 1, total - 1
    back = [(2 * top, high)] if three_phase else []
    return through(step, [(0, high), (top, low), *back, (last, high)], shape)


def through(step, knots, shape):
    """The value at ``step`` on the way through ``knots``, pairs of step and value in order.

    >>> through(15, [(0, 1.0), (10, 0.0), (20, 0.5)], "linear")
    0.25
    """
    for (first, before), (last, after) in pairwise(knots):
        if step < last:
            return after + (before - after) * fall((step - first) / (last - first), shape)
    return knots[-1][1]


def fall(s, shape):
    """From 1 at s = 0 to 0 at s = 1: in a line, half a wave of the cosine, or 1 less a root.

    >>> [fall(0.25, shape) for shape in SHAPES]
    [0.75, 0.8535533905932737, 0.5]
    """
    if shape == "linear":
        return 1 - s
    return 1 - s**0.5 if shape == "sqrt" else (1 + cos(pi * s)) / 2


SCHEDULES = {
    factory.__name__: factory
    for factory in (
        *(constant, step_decay, multistep, exponential, polynomial, cosine, cosine_restarts),
        *(inverse_sqrt, warmup, wsd, one_cycle),
    )
}
