"""The equations: every first-order update as a pure function, in order of complexity.

A rule takes the parameter ``theta``, its gradient ``g`` and its state, then the hyperparameters
by keyword; it returns the new parameter and the new state as a tuple.  State starts at zero, or
at the default that the rule gives it.  Rules use operators, :func:`maximum` and :func:`norm`
alone, so the same function runs on Python floats, NumPy arrays and torch tensors, compiled by
:mod:`optlab.engine`, and, translated by :mod:`optlab.widgets.javascript`, in a browser.  All but
:data:`LAYERWISE` are elementwise: what becomes of an entry does not depend on the others.

The symbols are the chapters': ``theta`` parameter, ``g`` gradient, ``lr`` the learning rate (eta),
``v`` velocity or second moment, ``m`` first moment, ``beta`` a decay, ``step`` the update's number
from 1.  Inputs of a rule share one shape; so do the outputs.  A rule changes nothing in place.
"""

from collections.abc import Callable
from typing import Any

Rule = Callable[..., tuple[Any, ...]]


def sgd(theta, g, *, lr):
    """Step against the gradient.

    Robbins and Monro (1951), *A stochastic approximation method*, with the gradient of a
    loss as the observation.

    >>> sgd(1.0, 0.5, lr=0.1)
    (0.95,)
    """
    theta = theta - lr * g
    return (theta,)


def momentum(theta, g, v, *, lr, beta, dampening=0.0, step=2):
    """Step along the velocity, an exponentially decaying sum of past gradients.

    Polyak (1964), *Some methods of speeding up the convergence of iteration methods*, in the form
    of Sutskever et al. (2013), eqs. 1-2, with the learning rate moved out of the velocity.
    ``dampening`` keeps that share of a gradient out, but of the first; ``step`` 2 is any later one.

    >>> momentum(1.0, 0.5, 0.0, lr=0.1, beta=0.9)
    (0.95, 0.5)
    >>> momentum(0.95, 0.5, 0.5, lr=0.1, beta=0.9)
    (0.855, 0.95)
    """
    # torch starts the velocity at the first gradient itself, undamped.
    v = beta * v + (1 - dampening * (step > 1)) * g
    theta = theta - lr * v
    return theta, v


def nesterov(theta, g, v, *, lr, beta):
    """Step along the velocity as it will be after one more decay.

    Nesterov (1983), in the form of Bengio et al. (2013), *Advances in optimizing recurrent
    networks*, section 3.5: ``theta`` is the position ahead, so no second gradient is needed.

    >>> nesterov(1.0, 0.5, 0.0, lr=0.1, beta=0.9)
    (0.905, 0.5)
    """
    v = beta * v + g
    theta = theta - lr * (g + beta * v)
    return theta, v


def adagrad(theta, g, s, *, lr, eps, lr_decay=0.0, step=1):
    """Divide by the root of the sum of all past squares.

    Duchi, Hazan and Singer (2011), *Adaptive subgradient methods*, section 1.1, the diagonal form.

    >>> adagrad(1.0, 0.5, 0.0, lr=0.1, eps=0.0)
    (0.9, 0.25)
    """
    s = s + g * g
    theta = theta - lr / (1 + (step - 1) * lr_decay) * g / (s**0.5 + eps)
    return theta, s


def adadelta(theta, g, v, d, *, lr, rho, eps):
    """Step by the ratio of two running root mean squares: of past steps, and of gradients.

    Zeiler (2012), *ADADELTA*, algorithm 1, with a learning rate in front.
    """
    v = average(v, g * g, rho)
    delta = (d + eps) ** 0.5 / (v + eps) ** 0.5 * g
    d = average(d, delta * delta, rho)
    theta = theta - lr * delta
    return theta, v, d


def rmsprop(theta, g, v, *, lr, alpha, eps):
    """Divide by the root of a running mean of squares.

    Tieleman and Hinton (2012), *Neural networks for machine learning*, lecture 6.5.
    """
    v = average(v, g * g, alpha)
    theta = theta - lr * g / (v**0.5 + eps)
    return theta, v


def rmsprop_momentum(theta, g, v, b, *, lr, alpha, eps, beta):
    """Heavy ball on the gradient that RMSprop has scaled; Tieleman and Hinton (2012)."""
    v = average(v, g * g, alpha)
    theta, b = momentum(theta, g / (v**0.5 + eps), b, lr=lr, beta=beta)
    return theta, v, b


def rmsprop_centered(theta, g, v, m, *, lr, alpha, eps):
    """Divide by a running standard deviation, the root of v - m^2.

    Graves (2013), *Generating sequences with recurrent neural networks*, eqs. 38-41, with eps
    outside the root, as torch has it.
    """
    m = average(m, g, alpha)
    v = average(v, g * g, alpha)
    theta = theta - lr * g / (variance(v, m) ** 0.5 + eps)
    return theta, v, m


def rmsprop_centered_momentum(theta, g, v, m, b, *, lr, alpha, eps, beta):
    """Heavy ball on the gradient that centered RMSprop has scaled; Graves (2013), eqs. 38-41."""
    m = average(m, g, alpha)
    v = average(v, g * g, alpha)
    theta, b = momentum(theta, g / (variance(v, m) ** 0.5 + eps), b, lr=lr, beta=beta)
    return theta, v, m, b


def adam(theta, g, m, v, *, lr, beta1, beta2, eps, step):
    """Step along the mean gradient, divided by the root mean square; both start unbiased.

    Kingma and Ba (2015), *Adam*, algorithm 1.
    """
    m = average(m, g, beta1)
    v = average(v, g * g, beta2)
    m_hat = m / (1 - beta1**step)
    v_hat = v / (1 - beta2**step)
    theta = theta - lr * m_hat / (v_hat**0.5 + eps)
    return theta, m, v


def adamw(theta, g, m, v, *, lr, beta1, beta2, eps, weight_decay, step):
    """Adam with the decay beside the gradient, not inside it.

    Loshchilov and Hutter (2019), *Decoupled weight decay regularization*, algorithm 2, the decay
    multiplied by the learning rate.
    """
    theta = decoupled_decay(theta, lr, weight_decay)
    return adam(theta, g, m, v, lr=lr, beta1=beta1, beta2=beta2, eps=eps, step=step)


def amsgrad(theta, g, m, v, v_max, *, lr, beta1, beta2, eps, step):
    """Adam whose second moment never falls.

    Reddi, Kale and Kumar (2018), *On the convergence of Adam and beyond*, algorithm 2, with
    Adam's corrections, as torch has it: the second one after the maximum.
    """
    m = average(m, g, beta1)
    v = average(v, g * g, beta2)
    v_max = maximum(v_max, v)
    m_hat = m / (1 - beta1**step)
    v_hat = v_max / (1 - beta2**step)
    theta = theta - lr * m_hat / (v_hat**0.5 + eps)
    return theta, m, v, v_max


def nadam(theta, g, m, v, mu_product=1.0, *, lr, beta1, beta2, eps, momentum_decay, step):
    """Adam with Nesterov's look-ahead; ``mu_product`` is the product of the momenta so far.

    Dozat (2016), *Incorporating Nesterov momentum into Adam*, with mu warmed up as torch has it.
    """
    mu = beta1 * (1 - 0.5 * 0.96 ** (step * momentum_decay))
    mu_next = beta1 * (1 - 0.5 * 0.96 ** ((step + 1) * momentum_decay))
    mu_product = mu_product * mu
    m = average(m, g, beta1)
    v = average(v, g * g, beta2)
    m_hat = mu_next / (1 - mu_product * mu_next) * m + (1 - mu) / (1 - mu_product) * g
    v_hat = v / (1 - beta2**step)
    theta = theta - lr * m_hat / (v_hat**0.5 + eps)
    return theta, m, v, mu_product


def radam(theta, g, m, v, *, lr, beta1, beta2, eps, step):
    """Adam that divides only once its second moment rests on enough steps, and then by degrees.

    Liu et al. (2020), *On the variance of the adaptive learning rate and beyond*, algorithm 2.
    """
    m = average(m, g, beta1)
    v = average(v, g * g, beta2)
    move = m / (1 - beta1**step)
    rho_max = 2 / (1 - beta2) - 1
    rho = rho_max - 2 * step * beta2**step / (1 - beta2**step)
    if rho > 5:  # the paper has 4; its authors' code and torch's are more careful
        r = (rho - 4) * (rho - 2) * rho_max / ((rho_max - 4) * (rho_max - 2) * rho)
        move = (r * (1 - beta2**step)) ** 0.5 * move / (v**0.5 + eps)
    theta = theta - lr * move
    return theta, m, v


def adamax(theta, g, m, u, *, lr, beta1, beta2, eps, step):
    """Adam with the largest recent gradient in place of the root mean square.

    Kingma and Ba (2015), *Adam*, algorithm 2, with eps to keep ``u`` above zero.
    """
    m = average(m, g, beta1)
    u = maximum(beta2 * u, abs(g) + eps)
    theta = theta - lr / (1 - beta1**step) * m / u
    return theta, m, u


def lars(theta, g, v, *, lr, beta, weight_decay, trust_coefficient, eps, trust=1):
    """Momentum in which a layer moves in proportion to its norm, whatever its gradient's is.

    You, Gitman and Ginsburg (2017), *Large batch training of convolutional networks*, algorithm 1
    and eq. 6: the learning rate is in the velocity.  The paper has no ``eps``; ``trust`` 0 leaves
    the layer's own rate at 1.

    >>> lars(2.0, 0.5, 0.0, lr=0.5, beta=0.9, weight_decay=0.0, trust_coefficient=0.25, eps=0.0)
    (1.75, 0.25)
    """
    w, d = norm(theta), norm(g)
    rate = ratio(trust_coefficient * w, d + weight_decay * w + eps, trust * w * d)
    v = beta * v + lr * rate * (g + weight_decay * theta)
    theta = theta - v
    return theta, v


def lamb(theta, g, m, v, *, lr, beta1, beta2, eps, weight_decay, step, trust=1):
    """AdamW whose step, decay and all, is brought to the norm of its layer.

    You et al. (2020), *Large batch optimization for deep learning: training BERT in 76 minutes*,
    algorithm 2, with the identity for phi.  ``trust`` 0 leaves the step as it is.
    """
    m = average(m, g, beta1)
    v = average(v, g * g, beta2)
    m_hat = m / (1 - beta1**step)
    v_hat = v / (1 - beta2**step)
    u = m_hat / (v_hat**0.5 + eps) + weight_decay * theta
    w, d = norm(theta), norm(u)
    theta = theta - lr * ratio(w, d, trust * w * d) * u
    return theta, m, v


def norm(x):
    """The Euclidean norm of a layer: of an array or tensor as a whole, of a float its size."""
    return (x * x).sum() ** 0.5 if hasattr(x, "sum") else abs(x)


def ratio(a, b, given):
    """a / b where ``given``, a product of norms, is above zero, else 1; no branch is needed.

    >>> ratio(6.0, 2.0, 1.0), ratio(6.0, 0.0, 0.0)
    (3.0, 1.0)
    """
    absent = maximum(1 - 1e36 * given, 0.0)  # 1 or 0; float32 holds this number
    return average(1.0, a / (b + absent), absent)


def average(mean, value, decay):
    """A running mean in which the past fades: after t steps it holds a share 1 - decay^t of truth.

    >>> average(0.0, 2.0, 0.75)
    0.5
    """
    return decay * mean + (1 - decay) * value


def variance(square, mean):
    """Mean square less squared mean, at least zero, below which rounding could take it."""
    return maximum(square - mean * mean, 0.0)


def maximum(a, b):
    """The larger of two floats, or entry by entry of arrays or tensors; NaN where either is."""
    if hasattr(a, "clip"):
        return a.clip(b)
    return a if a > b or a != a else b


def l2_decay(theta, g, weight_decay):
    """The gradient with that of weight_decay / 2 times the squared norm added."""
    return g + weight_decay * theta


def decoupled_decay(theta, lr, weight_decay):
    """The parameter after a decay of its own; Loshchilov and Hutter (2019), algorithm 2."""
    return (1 - lr * weight_decay) * theta


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        *(sgd, momentum, nesterov, adagrad, adadelta),
        *(rmsprop, rmsprop_momentum, rmsprop_centered, rmsprop_centered_momentum),
        *(adam, adamw, amsgrad, nadam, radam, adamax, lars, lamb),
    )
}
#: Rules that take norms: an array or tensor is one layer to them, and entries are not apart.
LAYERWISE = (lars, lamb)
#: What rules are written with; a page carries those that its rules call.
PARTS = (ratio, average, variance, l2_decay, decoupled_decay)
