"""What the checks of chapter 1's exercises must find."""

# One mistake for each autograded exercise: the cell that it replaces, and the new cell.
WRONG = {
    # The start is changed in place.
    "descent": """
def gradient_descent(gradient, theta, lr, steps, tolerance=0.0):
    path = [theta]
    for _ in range(steps):
        theta -= lr * gradient(theta)
        path.append(theta)
    return path
""",
    # Half of everything, the decay too: only the hidden tests notice.
    "smooth": """
def smoothness(X, loss, bias=True, decay=0.0):
    if bias:
        X = np.column_stack([X, np.ones(len(X))])
    largest = np.linalg.norm(X, 2) ** 2 / len(X) + decay
    return largest if loss == "squared" else largest / 2
""",
    # The logarithm of a probability that may be 0: only the hidden tests notice.
    "twice": """
def step_fixed(network, x, y, lr):
    network.zero_grad()
    loss = torch.nn.functional.nll_loss(torch.log(network(x)), y)
    loss.backward()
    with torch.no_grad():
        for p in network.parameters():
            p -= lr * p.grad
    return loss.item()


def least(classes):
    return math.log(math.e + classes - 1) - 1
""",
    # The zeros of T are taken for plus and minus one half.
    "young": """
def two_rates(mu, L):
    m, r = (L + mu) / 2, (L - mu) / 2
    return 1 / (m - r / 2), 1 / (m + r / 2), (1 / (2 * (m / r) ** 2 - 1)) ** 0.5
""",
    # Leaving to the left is not noticed: only the hidden tests notice.
    "leave": """
def steps_to_leave(slope, start, lr, edge=1.0, limit=100_000):
    x = start
    for t in range(limit + 1):
        if x >= edge:
            return t
        x = x - lr * slope(x)
    return None
""",
    # Each layer to the length of the model's layer.
    "scale": """
def normalise_fixed(direction, model):
    return [
        part * (own.norm() / part.norm()) if own.dim() > 1 else torch.zeros_like(own)
        for part, own in zip(direction, model, strict=True)
    ]
""",
    # First components, but not squared.
    "weights": """
def density_fixed(matrix, grid, width, steps, starts):
    total = torch.zeros_like(grid)
    for start in starts:
        values, vectors = lanczos(matrix, start, steps).eigen()
        weights = vectors[0].abs() / vectors[0].abs().sum()
        bumps = torch.exp(-(((grid.unsqueeze(1) - values) / width) ** 2) / 2)
        total += bumps @ weights / (width * math.sqrt(2 * math.pi) * len(starts))
    return total
""",
}
ALONE = ["smooth", "twice", "leave"]
