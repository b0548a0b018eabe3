"""Oracles of the rules: each step from the whole history of gradients, with no state carried on.

An oracle takes the gradients and the hyperparameters, and gives the steps, one for each gradient.
Only Adadelta's looks back at its own steps, since the paper defines it so.  Those of rules that
take norms give the path, on which these depend.
"""

import math


def sgd(gs, *, lr):
    return [-lr * g for g in gs]


def momentum(gs, *, lr, beta, dampening=0.0):
    """The first gradient enters whole, the later ones damped."""
    damped = [g * (1 - dampening * (k > 0)) for k, g in enumerate(gs)]
    return [-lr * fading_sum(beta, damped[:t]) for t in times(gs)]


def nesterov(gs, *, lr, beta):
    """Each gradient once for now and once for the next velocity."""
    return [-lr * (gs[t - 1] + beta * fading_sum(beta, gs[:t])) for t in times(gs)]


def adagrad(gs, *, lr, eps, lr_decay=0.0):
    return [
        -lr / (1 + (t - 1) * lr_decay) * gs[t - 1] / (math.hypot(*gs[:t]) + eps) for t in times(gs)
    ]


def adadelta(gs, *, lr, rho, eps):
    deltas = []
    for t in times(gs):
        past = mean(rho, squares(deltas)) + eps
        deltas.append(math.sqrt(past / (mean(rho, squares(gs[:t])) + eps)) * gs[t - 1])
    return [-lr * delta for delta in deltas]


def rmsprop(gs, *, lr, alpha, eps):
    return [-lr * g for g in scaled(gs, alpha, eps, mean_square)]


def rmsprop_momentum(gs, *, lr, alpha, eps, beta):
    return momentum(scaled(gs, alpha, eps, mean_square), lr=lr, beta=beta)


def rmsprop_centered(gs, *, lr, alpha, eps):
    return [-lr * g for g in scaled(gs, alpha, eps, spread)]


def rmsprop_centered_momentum(gs, *, lr, alpha, eps, beta):
    return momentum(scaled(gs, alpha, eps, spread), lr=lr, beta=beta)


def adam(gs, *, lr, beta1, beta2, eps):
    """Bias-corrected means are weighted means whose weights add up to one."""
    return [
        -lr * share(beta1, gs[:t]) / (math.sqrt(share(beta2, squares(gs[:t]))) + eps)
        for t in times(gs)
    ]


def adamw(gs, *, weight_decay, **settings):
    """The steps alone: the decay is in the path."""
    return adam(gs, **settings)


def amsgrad(gs, *, lr, beta1, beta2, eps):
    steps = []
    for t in times(gs):
        largest = max(mean(beta2, squares(gs[:k])) for k in range(1, t + 1))
        root = math.sqrt(largest / (1 - beta2**t))
        steps.append(-lr * share(beta1, gs[:t]) / (root + eps))
    return steps


def warmed(t, beta1, momentum_decay):
    """NAdam's momentum of step t."""
    return beta1 * (1 - math.exp(t * momentum_decay * math.log(0.96)) / 2)


def nadam(gs, *, lr, beta1, beta2, eps, momentum_decay):
    steps = []
    for t in times(gs):
        mus = [warmed(k, beta1, momentum_decay) for k in range(1, t + 2)]
        now = (1 - mus[-2]) * gs[t - 1] / (1 - math.prod(mus[:-1]))
        ahead = mus[-1] * mean(beta1, gs[:t]) / (1 - math.prod(mus))
        root = math.sqrt(share(beta2, squares(gs[:t])))
        steps.append(-lr * (ahead + now) / (root + eps))
    return steps


def length(beta2, t):
    """RAdam's rho: the simple average whose steps are as old, on the mean, as the fading one's."""
    ages = [t - k for k in range(t)]
    return 2 * share(beta2, ages) - 1


def radam(gs, *, lr, beta1, beta2, eps):
    most = (1 + beta2) / (1 - beta2)
    steps = []
    for t in times(gs):
        rho, move = length(beta2, t), share(beta1, gs[:t])
        if rho > 5:
            known = (rho - 4) * (rho - 2) / rho
            whole = (most - 4) * (most - 2) / most
            root = math.sqrt(mean(beta2, squares(gs[:t]))) + eps
            move *= math.sqrt(known / whole) * math.sqrt(1 - beta2**t) / root
        steps.append(-lr * move)
    return steps


def adamax(gs, *, lr, beta1, beta2, eps):
    return [
        -lr
        * share(beta1, gs[:t])
        / max(beta2 ** (t - k) * (abs(g) + eps) for k, g in enumerate(gs[:t], 1))
        for t in times(gs)
    ]


def lars(gs, theta, *, lr, beta, weight_decay, trust_coefficient, eps):
    """The path of a layer of several numbers: each gradient has one for each of them."""
    path, pulls = [theta], []
    for g in gs:
        w, d = math.hypot(*path[-1]), math.hypot(*g)
        rate = trust_coefficient * w / (d + weight_decay * w + eps) if w and d else 1.0
        pulls.append([rate * (a + weight_decay * b) for a, b in zip(g, path[-1], strict=True)])
        steps = [lr * fading_sum(beta, column) for column in zip(*pulls, strict=True)]
        path.append([a - step for a, step in zip(path[-1], steps, strict=True)])
    return path


def lamb(gs, theta, *, lr, beta1, beta2, eps, weight_decay):
    """The path of a layer of several numbers: each gradient has one for each of them."""
    path = [theta]
    for t in times(gs):
        columns = [*zip(*gs[:t], strict=True)]
        roots = [math.sqrt(share(beta2, squares(column))) + eps for column in columns]
        u = [share(beta1, column) / root for column, root in zip(columns, roots, strict=True)]
        u = [a + weight_decay * b for a, b in zip(u, path[-1], strict=True)]
        w, d = math.hypot(*path[-1]), math.hypot(*u)
        rate = w / d if w and d else 1.0
        path.append([b - lr * rate * a for a, b in zip(u, path[-1], strict=True)])
    return path


def times(gs):
    return range(1, len(gs) + 1)


def squares(values):
    return [value**2 for value in values]


def fading_sum(decay, values):
    """The newest value whole, the one before times decay, and so on."""
    newest = len(values) - 1
    return math.fsum(decay ** (newest - k) * value for k, value in enumerate(values))


def mean(decay, values):
    return (1 - decay) * fading_sum(decay, values)


def share(decay, values):
    return fading_sum(decay, values) / fading_sum(decay, [1] * len(values))


def mean_square(decay, values):
    return mean(decay, squares(values))


def spread(decay, values):
    """Mean square less squared mean, from terms that are none of them negative."""
    centre = mean(decay, values)
    missing = decay ** len(values)  # what the weights lack of one
    return mean(decay, [(value - centre) ** 2 for value in values]) + missing * centre**2


def scaled(gs, alpha, eps, second):
    return [gs[t - 1] / (math.sqrt(second(alpha, gs[:t])) + eps) for t in times(gs)]


def path(start, steps, lr=0.0, weight_decay=0.0):
    """Where the steps lead, each point shrunk by the decay before the next step."""
    kept = 1 - lr * weight_decay
    return [
        math.fsum([kept**t * start, *(kept ** (t - k) * s for k, s in enumerate(steps[:t], 1))])
        for t in range(len(steps) + 1)
    ]
