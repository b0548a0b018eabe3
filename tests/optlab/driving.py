"""What the optimizers' tests drive them with: parameters, gradients, comparisons."""

import io

import torch


def wide_gradient(p, generator):
    """Entries over eleven orders of magnitude: they tell eps inside a root from eps outside."""
    size = 10.0 ** torch.randint(-9, 3, p.shape, generator=generator)
    kind = torch.complex128 if p.is_complex() else torch.float64
    return (torch.randn(p.shape, generator=generator, dtype=kind) * size).to(p.dtype)


def drive(optimizer, params, steps, seed=0, gradient=wide_gradient):
    """Make steps with gradients that depend on the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for p in params:
            p.grad = gradient(p, generator)
        optimizer.step()


def drive_gaps(optimizer, params, steps, seed=0, share=0.4):
    """The same, where each gradient is absent with a chance of its own."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for p in params:
            g = wide_gradient(p, generator)
            p.grad = None if torch.rand((), generator=generator) < share else g
        optimizer.step()


def parameters(dtype=torch.float64, seed=1):
    """Of many shapes: matrices, vectors, 0-dim, empty, channels_last, with gaps between rows."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.complex128 if dtype.is_complex else torch.float64
    shapes = [(4, 3), (7,), (), (0,), (5, 3), (6, 3), (2, 3), (2, 3, 2, 2)]
    made = [torch.randn(s, generator=generator, dtype=kind).to(dtype) for s in shapes]
    made[-1] = made[-1].contiguous(memory_format=torch.channels_last)
    made.append(torch.randn(6, 5, generator=generator, dtype=kind).to(dtype).t()[::2])
    return [p.requires_grad_() for p in made]


def assert_equal(ours, theirs, **tolerance):
    """Equal to float64's rounding, unless another tolerance is given."""
    tolerance = tolerance or {"rtol": 1e-12, "atol": 1e-12}
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


def assert_same(ours, theirs):
    """Equal to the bit."""
    assert_equal(ours, theirs, rtol=0, atol=0)


def saved_and_loaded(value):
    """Through a file, as a careful user reads it."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def copies(params):
    """New parameters with the same entries and strides."""
    return [p.detach().clone().requires_grad_() for p in params]


def alike(entry, scenario, **changes):
    """The same scenario with ours and torch's; it may return tensors that must agree besides."""
    results = []
    for make in entry.makers:
        params = parameters()
        extra = scenario(make, params, **changes)
        results.append([*params, *(extra or [])])
    assert_equal(*results)


def steps_of(optimizer):
    """The count of steps of each parameter that has one."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    states = [optimizer.state.get(p, {}) for p in params]
    return [torch.tensor(float(state["step"])) for state in states if "step" in state]
