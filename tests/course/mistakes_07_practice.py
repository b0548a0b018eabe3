"""What the checks of chapter 7's exercises must find."""

# One mistake for each autograded exercise: the cell that it replaces, and the new cell.
WRONG = {
    # Each array by itself: the direction is lost.
    "clip": """
def clip_by_norm(gradients, bound):
    norms = [float(np.linalg.norm(g)) for g in gradients]
    short = [g * min(1.0, bound / n) if n else g for g, n in zip(gradients, norms, strict=True)]
    return short, math.sqrt(sum(n * n for n in norms))
""",
    # No subnormal numbers: what is small keeps all bits, down to nothing at once.
    "round": """
def to_format(x, exponent, mantissa):
    if x == 0 or not math.isfinite(x):
        return x
    bias = 2 ** (exponent - 1) - 1
    place = math.frexp(x)[1] - 1 - mantissa
    rounded = math.ldexp(round(math.ldexp(x, -place)), place)
    largest = (2 - 2.0**-mantissa) * 2.0**bias
    return math.copysign(math.inf, x) if abs(rounded) > largest else rounded
""",
    # Clipped while still scaled.
    "order": """
def to_be_used(scaled, scale, bound):
    if not np.isfinite(scaled).all():
        return None
    norm = float(np.linalg.norm(scaled))
    return (scaled * (bound / norm) if norm > bound else scaled) / scale
""",
    # A part without tokens makes the sum not a number: only the hidden tests notice.
    "tokens": """
def accumulated(parts):
    total = sum(count for _, count in parts)
    return sum(gradient * count for gradient, count in parts) / total
""",
    # Whole vectors go around: the sum is right, the bytes are not.
    "ring": """
def ring(vectors):
    total = sum(vectors)
    ranks = len(vectors)
    sent = (ranks - 1) * len(vectors[0])
    return [total.copy() for _ in vectors], [sent] * ranks
""",
    # Without a floor: only the hidden tests notice.
    "scale": """
def adapt(scale, clean, overflow, interval):
    if overflow:
        return scale / 2, 0
    if clean + 1 == interval:
        return scale * 2, 0
    return scale, clean + 1
""",
}
ALONE = ["clip", "tokens", "scale"]
