"""What the checks of chapter 6's exercises must find."""

# One mistake for each autograded exercise: the cell that it replaces, and the new cell.
WRONG = {
    # The decay is added to the sum over examples, not to the mean.
    "ridge": """
def ridge(X, y, decay):
    return np.linalg.solve(X.T @ X + decay * np.eye(X.shape[1]), X.T @ y)


def effective(X, decay):
    lam = np.linalg.eigvalsh(X.T @ X)
    return float(np.sum(lam / (lam + decay)))
""",
    # The customary partner, right for no set of curvatures in particular.
    "steps": """
def best_steps(lam, lr, decay):
    return max(1, round(1 / (lr * decay)))
""",
    # To first order only: the hidden tests have a large product.
    "equilibrium": """
def equilibrium(lr, decay, size):
    return (lr * size**2 / (2 * decay)) ** 0.25, (2 * lr * decay) ** 0.5
""",
    # Divides by zero at p = 1: only the hidden tests notice.
    "dropout": """
def dropout(x, p, coins, training=True):
    if not training:
        return x
    return x * (coins >= p) / (1 - p)


def dropout_gradient(d, p, coins, training=True):
    return dropout(d, p, coins, training)
""",
    # The repaired layer is right, the detector takes one that never drops for one that forgets.
    "forever": """
class Repaired:
    def __init__(self, p):
        self.p = p
        self.training = True

    def __call__(self, x, random):
        p = self.p if self.training else 0.0
        return x * (random.random(x.shape) >= p) / (1 - p)


def forgets(kind):
    layer = kind(0.5)
    layer.training = False
    layer(np.ones(4000), np.random.default_rng(0))
    layer.training = True
    return bool((layer(np.ones(4000), np.random.default_rng(1)) == 0).mean() < 0.1)
""",
    # One less than the number of examples, not of values to a channel.
    "running": """
def track(mean, variance, x, momentum):
    over = (0, 2, 3)
    new = x.var(axis=over) * len(x) / (len(x) - 1)
    mean = (1 - momentum) * mean + momentum * x.mean(axis=over)
    return mean, (1 - momentum) * variance + momentum * new
""",
    # Mean and variance are taken for constants.
    "bn": """
def forward(x, gamma, beta, eps):
    return gamma * (x - x.mean(0)) / np.sqrt(x.var(0) + eps) + beta


def backward(d, x, gamma, beta, eps):
    r = 1 / np.sqrt(x.var(0) + eps)
    x_hat = (x - x.mean(0)) * r
    return r * gamma * d, (d * x_hat).sum(0), d.sum(0)
""",
}
ALONE = ["ridge", "dropout", "bn"]
