"""Curvature matrices made by torch.func, sample by sample: what products are held against."""

import itertools

import torch
from torch import nn
from torch.func import functional_call, hessian, jacrev, vmap

from optlab.curvature import Bernoulli, Categorical, Gaussian

#: Likelihood, shape of the outputs.
CASES = {
    "categorical": (Categorical(), (7, 4)),
    "categorical, positions": (Categorical(), (3, 4, 2)),
    "categorical, image": (Categorical(), (2, 3, 2, 2)),
    "categorical, last": (Categorical(dim=-1), (3, 2, 4)),
    "bernoulli": (Bernoulli(), (5, 3)),
    "bernoulli, mean": (Bernoulli("mean"), (5, 3)),
    "bernoulli, one": (Bernoulli(), (5,)),
    "gaussian": (Gaussian(), (5, 3)),
    "gaussian, mean": (Gaussian(0.5, "mean"), (5, 3)),
    "gaussian, image": (Gaussian(2.0, "mean"), (2, 3, 2)),
}


def outputs_and_targets(name, seed=0):
    likelihood, shape = CASES[name]
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(shape, generator=generator, dtype=torch.float64)
    if isinstance(likelihood, Categorical):
        classes = shape[likelihood.dim]
        size = outputs.movedim(likelihood.dim, -1).shape[:-1]
        targets = torch.randint(classes, size, generator=generator)
    elif isinstance(likelihood, Bernoulli):
        targets = torch.rand(shape, generator=generator, dtype=torch.float64)
    else:
        targets = torch.randn(shape, generator=generator, dtype=torch.float64)
    return likelihood, outputs, targets


def output_hessian(likelihood, outputs, targets):
    """Of every sample's loss in its outputs, as ``(samples, outputs, outputs)``."""
    found = [
        hessian(lambda f, y=y: likelihood.loss(f[None], y[None]))(f)
        for f, y in zip(outputs, targets, strict=True)
    ]
    size = max(1, outputs[0].numel())
    return torch.stack([h.reshape(size, size) for h in found])


def network(seed=0, sizes=(3, 4, 3)):
    torch.manual_seed(seed)
    layers = []
    for into, out in itertools.pairwise(sizes):
        layers += [nn.Linear(into, out), nn.Tanh()]
    return nn.Sequential(*layers[:-1]).double()


def jacobian(model, x):
    """Of every sample's outputs in all parameters, as ``(samples, outputs, parameters)``."""
    params = {name: p.detach() for name, p in model.named_parameters()}

    def one(given, sample):
        return functional_call(model, given, (sample[None],))[0].flatten()

    found = vmap(jacrev(one), (None, 0))(params, x)
    return torch.cat([found[name].flatten(2) for name in params], 2)


def loss_hessian(model, loss, x):
    """Of ``loss(outputs)`` in all parameters."""
    names = [name for name, _ in model.named_parameters()]
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    sizes = [p.numel() for p in model.parameters()]
    shapes = [p.shape for p in model.parameters()]

    def of(vector):
        pieces = zip(names, vector.split(sizes), shapes, strict=True)
        return loss(functional_call(model, {n: v.view(s) for n, v, s in pieces}, (x,)))

    return hessian(of)(flat)
