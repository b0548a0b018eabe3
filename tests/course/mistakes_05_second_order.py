"""Mistakes in the exercises on second-order methods; see ``test_exercises.py``."""

# One mistake for each autograded exercise: the cell that it replaces, and the new cell.
WRONG = {
    # The Hessian of the start for ever: right on a quadratic, so only the hidden tests notice.
    "newton": """
def newton(gradient, hessian, start, steps):
    points = [np.array(start, dtype=float)]
    H = hessian(points[0])
    for _ in range(steps):
        points.append(points[-1] - np.linalg.solve(H, gradient(points[-1])))
    return np.array(points)
""",
    # The Newton step cut to the radius.
    "trust": """
def trust_step(H, g, radius):
    step = -np.linalg.solve(H, g)
    return step * min(1, radius / np.linalg.norm(step))
""",
    # Each tensor's block alone.
    "product": """
def hessian_product(loss, params, vector):
    leaves = [p.detach().requires_grad_() for p in params]
    grads = torch.autograd.grad(loss(leaves), leaves, create_graph=True)
    pieces = zip(grads, leaves, vector, strict=True)
    return [torch.autograd.grad((g * v).sum(), p, retain_graph=True)[0] for g, p, v in pieces]
""",
    # The square of the mean, times the number of samples.
    "square": """
def diagonal(model, x, labels):
    return len(x) * diagonal_buggy(model, x, labels)
""",
    # One of the two divisions by the batch is undone.
    "batch": """
def factors(a, s_grad):
    return a.T @ a / len(a), s_grad.T @ s_grad


def layer_step(a, s_grad, damping):
    A, G = factors(a, s_grad)
    A = A + damping * torch.eye(len(A), dtype=A.dtype)
    G = G + damping * torch.eye(len(G), dtype=G.dtype)
    return torch.linalg.inv(G) @ (s_grad.T @ a) @ torch.linalg.inv(A)
""",
    # The step in z that is the gradient, not the natural one.
    "coin": """
def coin_path(name, p, target, lr, steps):
    path = [p]
    for _ in range(steps):
        if name == "p":
            p = p - lr * (p - target)
        else:
            p = 1 / (1 + math.exp(-math.log(p / (1 - p)) + lr * (p - target)))
        path.append(p)
    return path
""",
    # Damping shared out between the factors.
    "kron": """
def solve_damped(A, G, V, damping):
    A = A + damping**0.5 * torch.eye(len(A), dtype=A.dtype)
    G = G + damping**0.5 * torch.eye(len(G), dtype=G.dtype)
    return torch.linalg.inv(G) @ V @ torch.linalg.inv(A)
""",
}
ALONE = ["newton"]
