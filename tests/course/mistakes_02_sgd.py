"""What the checks of chapter 2's exercises must find."""

# One mistake for each autograded exercise: the cell that it replaces, and the new cell.
WRONG = {
    # One generator for all passes: a run that begins later takes other orders.
    "batches": """
def batches(count, size, seed, passes, first=0):
    rng = np.random.default_rng(seed)
    for _ in range(passes):
        order = rng.permutation(count)
        for begin in range(0, count, size):
            yield order[begin : begin + size]
""",
    # The noise enters with the rate and not with its square.
    "course": """
def expected_losses(start, lam, sigma, B, lrs):
    mean, variance = float(start), 0.0
    losses = [lam / 2 * mean**2]
    for lr in lrs:
        shrink = 1 - lr * lam
        mean, variance = shrink * mean, shrink**2 * variance + lr * sigma**2 / B
        losses.append(lam / 2 * (mean**2 + variance))
    return losses
""",
    # The eigenvalue of the largest modulus, whatever its sign: only the hidden tests notice.
    "edge": """
def edge(product, size, calls=600, seed=0):
    v = np.random.default_rng(seed).standard_normal(size)
    for _ in range(calls):
        w = product(v)
        value, v = np.linalg.norm(w) / np.linalg.norm(v), w / np.linalg.norm(w)
    return 2 / value
""",
    # The cosine is counted from step 0: right at its ends, wrong between.
    "cosine": """
def rate(step, peak, warm, total, end=0.0):
    if step < warm:
        return peak * (step + 1) / (warm + 1)
    return end + (peak - end) * (1 + math.cos(math.pi * min(step / total, 1.0))) / 2
""",
    # Weighted by size, but over the number of parts.
    "instalments": """
def accumulated_fixed(gradient, parts):
    largest = max(len(part) for part in parts)
    total = 0.0
    for part in parts:
        if len(part):
            total = total + gradient(part) * len(part) / largest / len(parts)
    return total
""",
    # Twins moved by a pass: only the hidden tests notice.
    "twins": """
def shifts_fixed(seed, worker, epoch, count):
    return np.random.default_rng(seed + worker + 100 * epoch).integers(-3, 4, size=count)
""",
    # Absolute errors: right on exact data.
    "critical": """
def fit(sizes, steps):
    sizes = np.asarray(sizes, float)
    rows = np.stack([np.ones(len(sizes)), 1 / sizes], axis=1)
    return tuple(np.linalg.lstsq(rows, np.asarray(steps, float), rcond=None)[0])
""",
}
ALONE = ["batches", "edge", "twins"]
