"""Oracles of LARS and LAMB, which torch lacks: the papers' algorithms, one parameter at a time."""

import torch


class Layerwise(torch.optim.Optimizer):
    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    g = -p.grad if group["maximize"] else p.grad
                    p.sub_(self.move(p, g, self.state[p], group))
        return loss


class LARS(Layerwise):
    """You, Gitman and Ginsburg (2017), algorithm 1; a zero norm leaves the local rate at 1."""

    def __init__(
        self,
        params,
        lr=1.0,
        momentum=0.9,
        weight_decay=0,
        trust_coefficient=1e-3,
        eps=1e-8,
        trust=True,
        *,
        maximize=False,
    ):
        names = "lr momentum weight_decay trust_coefficient eps trust maximize"
        given = locals()
        super().__init__(params, {name: given[name] for name in names.split()})

    def move(self, w, g, state, group):
        decay, local = float(group["weight_decay"]), 1.0
        w_norm, g_norm = (torch.linalg.vector_norm(x).item() for x in (w, g))
        if group["trust"] and w_norm > 0 and g_norm > 0:
            bottom = g_norm + decay * w_norm + group["eps"]
            local = group["trust_coefficient"] * w_norm / bottom
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(w)
        v = state["momentum_buffer"]
        v.copy_(group["momentum"] * v + float(group["lr"]) * local * (g + decay * w))
        return v


class LAMB(Layerwise):
    """You et al. (2020), algorithm 2, phi the identity; a zero norm leaves Adam's step as it is."""

    def __init__(
        self,
        params,
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-6,
        weight_decay=1e-2,
        trust=True,
        *,
        maximize=False,
    ):
        given = locals()
        names = "lr betas eps weight_decay trust maximize"
        super().__init__(params, {name: given[name] for name in names.split()})

    def move(self, x, g, state, group):
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(x), torch.zeros_like(x)
        state["step"] += 1
        t, (beta1, beta2) = state["step"].item(), map(float, group["betas"])
        # Of a complex number, both parts are numbers of their own, as in torch's Adam.
        kinds = (x, g, state["exp_avg"], state["exp_avg_sq"])
        x, g, m, v = map(torch.view_as_real, kinds) if x.is_complex() else kinds
        m.mul_(beta1).add_(g, alpha=1 - beta1)
        v.mul_(beta2).add_(g**2, alpha=1 - beta2)
        r = (m / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + group["eps"])
        step = r + float(group["weight_decay"]) * x
        x_norm, step_norm = (torch.linalg.vector_norm(each).item() for each in (x, step))
        scale = x_norm / step_norm if group["trust"] and x_norm > 0 and step_norm > 0 else 1.0
        step = float(group["lr"]) * scale * step
        return torch.view_as_complex(step.contiguous()) if kinds[0].is_complex() else step
