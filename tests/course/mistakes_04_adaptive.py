"""Mistakes in the exercises on adaptive learning rates; see ``test_exercises.py``."""

# One mistake for each autograded exercise: the cell that it replaces, and the new cell.
WRONG = {
    # eps under the root: only the hidden tests, whose eps is large, notice.
    "adagrad": """
def adagrad(theta, g, s, *, lr, eps):
    total = s + g * g
    return theta - lr * g / (total + eps) ** 0.5, total
""",
    # eps joins the root before correction: only the hidden tests notice.
    "adam": """
def adam(theta, g, m, v, *, lr, beta1, beta2, eps, step):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    rate = lr * (1 - beta2**step) ** 0.5 / (1 - beta1**step)
    return theta - rate * m / (v**0.5 + eps), m, v
""",
    # The formula instead of a search.
    "longest": """
def longest_step(rule, beta1, beta2):
    t = np.arange(1, 3001)
    h = (1 - beta1**t) / np.sqrt(1 - beta2**t)
    if rule is rules.adam:
        h = np.ones(3000)
    return int(h.argmax()) + 1, float(h.max())
""",
    # eps stays under the root.
    "eps-fix": """
def fixed(theta, g, m, v, *, lr, beta1, beta2, eps, step):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    root = ((v + eps) / (1 - beta2**step)) ** 0.5
    return theta - lr * m / (1 - beta1**step) / root, m, v


def equal_eps(eps, beta2):
    return eps**0.5
""",
    # One step and the parameter alone are looked at: only the hidden tests notice.
    "decoupled": """
def is_decoupled(rule):
    settings = dict(lr=0.1, beta1=0.8, beta2=0.9, eps=1e-8, step=1)
    free, *_ = rule(2.0, 1.0, 0.0, 0.0, **settings, weight_decay=0.0)
    held, *_ = rule(2.0, 1.0, 0.0, 0.0, **settings, weight_decay=0.3)
    return bool(abs(free - held - 0.06) < 1e-9)
""",
}
ALONE = ["adam"]
