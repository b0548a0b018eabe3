"""What the checks of chapter 3's exercises must find."""

# One mistake for each autograded exercise: the cell that it replaces, and the new cell.
WRONG = {
    # The gradient enters with 1 - beta: an average, not torch's sum.
    "heavy-ball": """
def heavy_ball(theta, g, v, *, lr, beta):
    v = beta * v + (1 - beta) * g
    return theta - lr * v, v
""",
    # Complex roots are taken for a double real one.
    "roots": """
def spectral_radius(lam, lr, beta):
    middle = (1 + beta - lr * lam) / 2
    return abs(middle) + max(middle**2 - beta, 0.0) ** 0.5
""",
    # The two formulas of the text instead of a search: only the hidden tests notice.
    "edge": """
def edge(rule, beta):
    if rule is rules.nesterov:
        return 2 * (1 + beta) / (1 + 2 * beta)
    return 2 * (1 + beta)
""",
    # The learning rate in units of mu: right where mu is 1.
    "pair": """
def best_pair(mu, L):
    root = (L / mu) ** 0.5
    rate = (root - 1) / (root + 1)
    return 4 / (root + 1) ** 2, rate**2, rate
""",
    # The loss is taken for the distance.
    "count": """
def steps_to(tolerance, lr, beta):
    path = descend("momentum", "ellipse", steps=2000, lr=lr, beta=beta)
    losses = [landscapes.ellipse.value(*point) for point in path]
    return next(t for t, loss in enumerate(losses) if loss <= tolerance * losses[0])
""",
    # The gradient at the point itself: heavy ball under another name.
    "nesterov": """
def look_ahead(gradient, x, v, *, lr, beta):
    v = beta * v + gradient(x)
    return x - lr * v, v


def framework(gradient, theta, v, *, lr, beta):
    g = gradient(theta)
    v = beta * v + g
    return theta - lr * (g + beta * v), v


def anticipated(x, v, *, lr, beta):
    return x - lr * beta * v
""",
    # Momentum correction, which a rate of zero destroys: only the hidden tests notice.
    "schedule": """
def train_fixed(gradient, theta, schedule, beta, steps):
    v, path = 0.0 * theta, [theta]
    for t in range(steps):
        if t > 0:
            v = v * schedule(t) / schedule(t - 1)
        v = beta * v + schedule(t) * gradient(theta)
        theta = theta - v
        path.append(theta)
    return path
""",
    # detach() gives another tensor on the same memory.
    "alias": """
class Mindful(Forgetful):
    @torch.no_grad()
    def step(self):
        for p in self.parameters:
            if p.grad is None:
                continue
            if p not in self.velocity:
                self.velocity[p] = p.grad.detach()
            else:
                self.velocity[p].mul_(self.beta).add_(p.grad)
            p.sub_(self.lr * self.velocity[p])
""",
    # The formula where it does not hold: a negative variance beyond the edge.
    "noise": """
def stationary_variance(lam, lr, beta, sigma, look_ahead=False):
    beta = beta * (1 - lr * lam) if look_ahead else beta
    room = 2 * (1 + beta) - lr * lam
    return (1 + beta) * lr * sigma**2 / ((1 - beta) * lam * room)
""",
    # Only the last value is asked whether it returns.
    "cycle": """
def period(path, longest=10, tolerance=1e-9):
    for p in range(1, longest + 1):
        if abs(path[-1] - path[-1 - p]) <= tolerance:
            return p
    return None
""",
    # Torch does not dampen the first gradient.
    "average": """
def as_torch(lr, beta):
    return {"lr": lr, "momentum": beta, "dampening": beta}
""",
}
ALONE = ["heavy-ball", "nesterov", "schedule"]
