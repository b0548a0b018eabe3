"""Blocks of the Fisher information made sample by sample: what K-FAC's are held against."""

import copy

import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap

from optlab import KFAC
from optlab.curvature.likelihoods import likelihood


def fisher_blocks(model, x, kind):
    """Of every module with parameters: ``(parameters, parameters)``, weight row by row, then bias.

    The matrix of a Kronecker product ``G (x) A`` has the bias as last column of each row, so
    :func:`as_columns` brings K-FAC's order into this one.
    """
    model = copy.deepcopy(model)
    for module in model.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    kind = likelihood(kind)
    params = {name: p.detach() for name, p in model.named_parameters()}

    def one(given, sample):
        return functional_call(model, given, (sample[None],))[0]

    J = vmap(jacrev(one), (None, 0))(params, x)
    outputs = model(x).detach()
    u = torch.stack([*kind.vectors(outputs, "exact")])
    dims = "abcd"[: outputs.dim() - 1]
    blocks = {}
    for name, module in model.named_modules():
        own = [f"{name}.{p}".lstrip(".") for p, _ in module.named_parameters(recurse=False)]
        if own:
            g = torch.cat(
                [
                    torch.einsum(f"rn{dims},n{dims}p->rnp", u, J[key].flatten(outputs.dim()))
                    for key in own
                ],
                2,
            )
            blocks[name] = torch.einsum("rnp,rnq->pq", g, g) / len(x)
    return blocks


def as_columns(A, G, bias=True):
    """``G (x) A`` with the bias behind the weight."""
    A = torch.diag(A) if A.dim() == 1 else A
    F = torch.kron(G, A)
    if not bias:
        return F
    out, into = len(G), len(A)
    places = torch.arange(out * into).view(out, into)
    order = torch.cat([places[:, :-1].flatten(), places[:, -1]])
    return F[order][:, order]


def observed(model, x, kind, passes=1, **settings):
    """A K-FAC that has seen a batch, with nothing moved."""
    given = {"fisher": "exact", "kl_clip": None, "lr": 0.0, "damping": 1e-3, **settings}
    optimizer = KFAC(model, kind, **given)
    for _ in range(passes):
        optimizer.zero_grad()
        outputs = model(x)
        target = likelihood(kind).draw(outputs.detach(), torch.Generator().manual_seed(0))
        likelihood(kind).loss(outputs, target).backward()
        optimizer.step()
    return optimizer


def double(*layers, seed=0):
    """A network in float64, with entries that the seed tells."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(*layers).double()
    for p in model.parameters():
        with torch.no_grad():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype) / 2)
    return model


def x_of(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
