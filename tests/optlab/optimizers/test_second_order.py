"""Newton, Gauss-Newton and natural gradient against dense solutions made by torch.func."""

import copy
import io
import itertools
import math
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional

from optlab import GaussNewton, NaturalGradient, Newton
from optlab.curvature import Bernoulli, Categorical, Gaussian
from tests.optlab.curvature.dense import jacobian, loss_hessian, network, output_hessian

EXACT = {"rtol": 1e-9, "atol": 1e-10}


def x_of(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X, CLASSES = x_of(9, 3), torch.tensor([0, 1, 2, 0, 1, 1, 2, 0, 2])


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def quadratic(n=6, seed=0):
    rows = x_of(2 * n, n, seed=seed)
    A, b = rows.T @ rows / n, x_of(n, seed=seed + 1)
    theta = nn.Parameter(x_of(n, seed=seed + 2))
    return theta, lambda: theta @ A @ theta / 2 - b @ theta, torch.linalg.solve(A, b)


def at(point, function):
    """A parameter at a point, and a closure of the function there."""
    theta = nn.Parameter(torch.tensor(point, dtype=torch.float64))
    return theta, lambda: function(theta)


def saddle(theta):
    """A saddle at zero; minima at (0, 1) and (0, -1)."""
    return theta[0] ** 2 + theta[1] ** 4 / 4 - theta[1] ** 2 / 2


def rosenbrock(theta):
    return (1 - theta[0]) ** 2 + 100 * (theta[1] - theta[0] ** 2) ** 2


FORMS = [
    {},
    {"solver": "cg"},
    {"globalization": "line_search"},
    {"globalization": "line_search", "solver": "cg"},
    {"globalization": "trust_region", "radius": 1e3},
    {"globalization": "trust_region", "radius": 1e3, "solver": "cg"},
    {"saddle_free": True},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_newton_solves_a_quadratic_in_one_step(form):
    theta, closure, solution = quadratic()
    before = closure().item()
    optimizer = Newton([theta], **form)
    assert optimizer.step(closure).item() == before
    torch.testing.assert_close(theta.detach(), solution, rtol=0, atol=1e-10)
    assert optimizer.report.foretold == pytest.approx(before - closure().item())
    assert theta.grad is None


@pytest.mark.parametrize("damping", [0.05, 2.0])
def test_newtons_step_on_a_network(damping):
    model = network()
    loss = lambda outputs: functional.cross_entropy(outputs, CLASSES)  # noqa: E731
    H = loss_hessian(model, loss, X)
    g = torch.cat([g.flatten() for g in torch.autograd.grad(loss(model(X)), model.parameters())])
    damped = H + damping * torch.eye(len(H), dtype=torch.float64)
    expected = flat(model) - 0.7 * torch.linalg.solve(damped, g)
    optimizer = Newton(model.parameters(), lr=0.7, damping=damping)
    optimizer.step(lambda: loss(model(X)))
    torch.testing.assert_close(flat(model), expected, **EXACT)
    assert optimizer.report.lowest == pytest.approx(torch.linalg.eigvalsh(H)[0].item())


def test_correct_digits_double():
    theta, closure = at([0.3, 1.4], saddle)
    optimizer, errors = Newton([theta]), []
    for _ in range(6):
        optimizer.step(closure)
        errors.append((theta.detach() - torch.tensor([0.0, 1.0])).norm().item())
    for before, after in itertools.pairwise(errors):
        assert after <= 3 * before**2 + 1e-15
    assert errors[-1] < 1e-14


def test_newton_goes_to_saddles_and_saddle_free_leaves_them():
    theta, closure = at([0.4, 0.3], saddle)
    optimizer = Newton([theta])
    optimizer.step(closure)
    assert optimizer.report.action == "negative curvature: the step goes up along it"
    assert optimizer.report.lowest == pytest.approx(3 * 0.3**2 - 1)
    for _ in range(8):
        optimizer.step(closure)
    assert theta.detach().norm() < 1e-8
    for form in (
        {"saddle_free": True},
        {"globalization": "line_search"},
        {"globalization": "trust_region"},
        {"globalization": "line_search", "solver": "cg"},
        {"globalization": "trust_region", "solver": "cg"},
    ):
        theta, closure = at([0.4, 0.3], saddle)
        optimizer, said = Newton([theta], **form), []
        for _ in range(20):
            optimizer.step(closure)
            said.append(optimizer.report.action)
        assert theta.detach().abs().tolist() == pytest.approx([0, 1], abs=1e-6)
        assert said[0].startswith("negative curvature")


@pytest.mark.parametrize("solver", ["dense", "cg"])
@pytest.mark.parametrize("globalization", ["line_search", "trust_region"])
def test_losses_never_rise(solver, globalization):
    theta, closure = at([-1.2, 1.0], rosenbrock)
    optimizer = Newton([theta], solver=solver, globalization=globalization)
    losses = [optimizer.step(closure).item() for _ in range(60)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 1e-12
    assert theta.detach().tolist() == pytest.approx([1, 1], abs=1e-6)


def test_a_trust_region_shrinks_and_grows():
    theta, closure = at([3.0], lambda theta: (1 + theta[0] ** 2).sqrt())
    optimizer = Newton([theta], globalization="trust_region", radius=100.0)
    optimizer.step(closure)  # Newton's step leads from x to -x^3
    assert theta.item() == 3 and optimizer.report.action == "Newton step, step refused"
    assert optimizer.param_groups[0]["radius"] == pytest.approx(30 / 4)
    theta, closure, _ = quadratic()
    optimizer = Newton([theta], globalization="trust_region", radius=1e-3)
    for number in range(1, 4):
        old = theta.detach().clone()
        optimizer.step(closure)
        assert (theta.detach() - old).norm().item() == pytest.approx(1e-3 * 2 ** (number - 1))
        assert optimizer.param_groups[0]["radius"] == pytest.approx(1e-3 * 2**number)


def test_a_singular_hessian_is_said():
    theta, closure = at([1.0, 1.0], lambda theta: (theta[0] + theta[1]) ** 2)
    with pytest.raises(ValueError, match=r"singular with damping=0\.0.*more damping is needed"):
        Newton([theta]).step(closure)
    assert theta.tolist() == [1, 1]
    Newton([theta], damping=1e-6).step(closure)
    assert abs(theta.sum().item()) < 1e-5


def targets_of(likelihood):
    return likelihood.draw(network()(X).detach(), torch.Generator().manual_seed(5))


LIKELIHOODS = [Categorical(), Bernoulli("mean"), Gaussian(2.0)]
EACH = pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=lambda kind: kind.name)


def dense_step(model, likelihood, targets, damping, middle=None):
    """``(J^T middle J / N + damping I)^-1 g``, by default with the Hessian in the outputs."""
    J, outputs = jacobian(model, X), model(X)
    if middle is None:
        middle = output_hessian(likelihood, outputs.detach(), targets)
    G = torch.einsum("nip,nij,njq->pq", J, middle, J) / len(X)
    loss = likelihood.loss(outputs, targets)
    g = torch.cat([g.flatten() for g in torch.autograd.grad(loss, model.parameters())])
    return torch.linalg.solve(G + damping * torch.eye(len(G), dtype=torch.float64), g)


@EACH
def test_gauss_newton_and_natural_gradient_are_their_formula(likelihood):
    targets = targets_of(likelihood)
    for kind, more in (
        (GaussNewton, dict(adaptive=False, progress=None)),
        (NaturalGradient, dict(fisher="exact")),
    ):
        model = network()
        expected = flat(model) - 0.5 * dense_step(model, likelihood, targets, 0.1)
        optimizer = kind(model.parameters(), likelihood, lr=0.5, damping=0.1, **more)
        loss = optimizer.step(lambda m=model: (m(X), targets))
        assert loss.item() == pytest.approx(likelihood.loss(network()(X), targets).item())
        torch.testing.assert_close(flat(model), expected, rtol=1e-7, atol=1e-8)


@EACH
def test_empirical_fisher_is_named_and_another(likelihood):
    targets = targets_of(likelihood)
    model = network()
    scores = likelihood.score(model(X).detach(), targets)
    middle = scores.unsqueeze(2) * scores.unsqueeze(1)
    expected = flat(model) - 0.5 * dense_step(model, likelihood, targets, 0.1, middle)
    settings = dict(lr=0.5, damping=0.1, fisher="empirical")
    NaturalGradient(model.parameters(), likelihood, **settings).step(lambda: (model(X), targets))
    torch.testing.assert_close(flat(model), expected, rtol=1e-7, atol=1e-8)


def test_sampled_fisher_comes_near_with_many_samples():
    likelihood, targets = Categorical(), CLASSES
    expected = flat(network()) - 0.5 * dense_step(network(), likelihood, targets, 0.1)
    distance = []
    for samples in (1, 400):
        model = network()
        generator = torch.Generator().manual_seed(0)
        settings = dict(lr=0.5, damping=0.1, fisher="sampled", samples=samples)
        optimizer = NaturalGradient(model.parameters(), likelihood, generator=generator, **settings)
        optimizer.step(lambda m=model: (m(X), targets))
        distance.append((flat(model) - expected).norm().item())
    assert distance[1] < 0.3 * distance[0]


def test_gauss_newton_is_least_squares():
    model = nn.Linear(3, 2).double()
    y = x_of(9, 2, seed=3)
    settings = dict(damping=0.0, adaptive=False, progress=None)
    GaussNewton(model.parameters(), "gaussian", **settings).step(lambda: (model(X), y))
    rows = torch.cat([X, torch.ones(9, 1, dtype=torch.float64)], 1)
    expected = torch.linalg.lstsq(rows, y).solution
    torch.testing.assert_close(model.weight.detach(), expected[:3].T, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(model.bias.detach(), expected[3], rtol=1e-7, atol=1e-8)


def test_levenberg_and_marquardt_fit_a_curve():
    """Decay with two rates (Osborne's first problem without its constant), from far away."""
    t = torch.linspace(0, 4, 30, dtype=torch.float64).unsqueeze(1)
    truth = torch.tensor([2.0, 1.0, 0.5, 3.0], dtype=torch.float64)

    def curve(theta):
        return theta[0] * torch.exp(-theta[1] * t) + theta[2] * torch.exp(-theta[3] * t)

    theta = nn.Parameter(torch.tensor([1.0, 0.3, 1.0, 6.0], dtype=torch.float64))
    optimizer = GaussNewton([theta], "gaussian", damping=1.0)
    losses, dampings = [], []
    for _ in range(60):
        losses.append(optimizer.step(lambda: (curve(theta), curve(truth))).item())
        dampings.append(optimizer.param_groups[0]["damping"])
    assert losses == sorted(losses, reverse=True)
    torch.testing.assert_close(theta.detach(), truth, rtol=1e-4, atol=1e-4)
    assert dampings[-1] < 1e-3


def test_steps_that_raise_the_loss_are_refused():
    theta = nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    zero = torch.zeros(1, 1, dtype=torch.float64)
    # The linear model is far too steep at 3.
    optimizer = GaussNewton([theta], "gaussian", damping=0.0)
    optimizer.step(lambda: (torch.atan(theta).view(1, 1), zero))
    assert theta.item() == 3 and optimizer.report.action == "step refused"
    assert optimizer.param_groups[0]["damping"] == 0  # none to grow
    optimizer.param_groups[0]["damping"] = 1e-3
    for _ in range(40):
        optimizer.step(lambda: (torch.atan(theta).view(1, 1), zero))
    assert abs(theta.item()) < 1e-6


def test_paths_do_not_depend_on_parameters_as_steps_shrink():
    """The same model in logits and in their cubes: natural gradients end at one place."""
    y = torch.tensor([[1.0], [0.0], [1.0], [1.0]], dtype=torch.float64)

    def end(kind, form, steps):
        theta = nn.Parameter(torch.tensor([0.5 if form == "plain" else 0.5 ** (1 / 3)]).double())
        outputs = (lambda: theta) if form == "plain" else (lambda: theta**3)
        if kind is NaturalGradient:
            optimizer = kind([theta], "bernoulli", lr=1 / steps, damping=0.0)
            for _ in range(steps):
                optimizer.step(lambda: (outputs().expand(4, 1), y))
        else:
            optimizer = kind([theta], lr=1 / steps)
            for _ in range(steps):
                optimizer.zero_grad()
                Bernoulli().loss(outputs().expand(4, 1), y).backward()
                optimizer.step()
        return outputs().item()

    apart = [
        abs(end(NaturalGradient, "plain", steps) - end(NaturalGradient, "cube", steps))
        for steps in (10, 20, 40)
    ]
    for coarse, fine in itertools.pairwise(apart):
        assert fine == pytest.approx(coarse / 2, rel=0.15)  # linear in the step
    gradient = [
        abs(end(torch.optim.SGD, "plain", steps) - end(torch.optim.SGD, "cube", steps))
        for steps in (10, 40)
    ]
    assert gradient[1] > 0.8 * gradient[0] > 10 * apart[2]


def test_bounded_steps_have_that_divergence():
    model = network()
    before = model(X).detach()
    for bound in (1e-4, 1e-6):
        own = copy.deepcopy(model)
        settings = dict(lr=1.0, damping=1e-3, kl_bound=bound)
        optimizer = NaturalGradient(own.parameters(), "categorical", **settings)
        optimizer.step(lambda m=own: (m(X), CLASSES))
        after = own(X).detach()
        kl = functional.kl_div(
            after.log_softmax(1), before.log_softmax(1), reduction="batchmean", log_target=True
        )
        assert kl.item() == pytest.approx(bound, rel=30 * math.sqrt(bound))
        assert optimizer.report.action == "natural gradient, shortened to the bound"


def made(kind, model, **settings):
    if kind is Newton:
        optimizer = Newton(model.parameters(), **{"damping": 1.0, **settings})
        return optimizer, lambda: functional.cross_entropy(model(X), CLASSES)
    optimizer = kind(model.parameters(), "categorical", **{"damping": 1.0, **settings})
    return optimizer, lambda: (model(X), CLASSES)


KINDS = pytest.mark.parametrize("kind", [Newton, GaussNewton, NaturalGradient])


@KINDS
def test_a_run_goes_on_bit_for_bit(kind):
    settings = dict(globalization="trust_region") if kind is Newton else {}
    model = network()
    optimizer, closure = made(kind, model, **settings)
    for _ in range(3):
        optimizer.step(closure)
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    saved, other = torch.load(file, weights_only=True), network(seed=3)
    other.load_state_dict(saved[0])
    resumed, again = made(kind, other, **settings)
    resumed.load_state_dict(saved[1])
    for _ in range(3):
        assert optimizer.step(closure).item() == resumed.step(again).item()
    assert torch.equal(flat(model), flat(other))


@KINDS
def test_copies(kind):
    model = network()
    optimizer, _ = made(kind, model)
    for copied in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        params = copied.param_groups[0]["params"]
        with torch.no_grad():
            copied.param_groups[0]["lr"] = 0.5
        assert all(torch.equal(p, q) for p, q in zip(params, model.parameters(), strict=True))
        for name in kind.kept:
            assert vars(copied)[name] == vars(optimizer)[name] or name == "likelihood"
        assert copied.report is None


@KINDS
def test_groups_have_their_own_rate_and_one_damping(kind):
    model, whole = network(), network()
    one, _ = made(kind, whole)
    for group in (one.param_groups[0],):
        assert group["damping"] == 1.0
    first, second = [*model[0].parameters()], [*model[2].parameters()]
    groups = [{"params": first, "lr": 0.0}, {"params": second, "lr": 0.5}]
    more = {} if kind is Newton else {"likelihood": "categorical"}
    if kind is GaussNewton:
        more["adaptive"] = False
    optimizer = kind(groups, damping=1.0, **more)
    closure = made(kind, model)[1]
    before = flat(model)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.step(closure)
    schedule.step()
    moved = flat(model) - before
    size = sum(p.numel() for p in first)
    assert not moved[:size].any() and moved[size:].all()
    assert optimizer.param_groups[1]["lr"] == 0.25
    optimizer.param_groups[1]["damping"] = 2.0
    with pytest.raises(ValueError, match=f"{kind.__name__} has one damping for all groups"):
        optimizer.step(closure)


@KINDS
def test_frozen_parameters_stay(kind):
    model = network()
    model[0].bias.requires_grad_(False)
    before = model[0].bias.clone()
    optimizer, closure = made(kind, model)
    optimizer.step(closure)
    assert torch.equal(model[0].bias, before)


@KINDS
def test_closures_that_do_what_they_must_not(kind):
    model = network()
    optimizer, closure = made(kind, model)
    before = flat(model)

    def backward():
        functional.cross_entropy(model(X), CLASSES).backward()
        return closure()

    def detached():
        found = closure()
        return found.detach() if kind is Newton else (found[0].detach(), found[1])

    def spoilt():
        found = closure()
        return found * math.nan if kind is Newton else (found[0] * math.nan, found[1])

    for bad, error, message in (
        (None, ValueError, "needs a closure"),
        (backward, RuntimeError, r"must not call backward\(\)"),
        (detached, ValueError, "has no graph"),
        (spoilt, FloatingPointError, "the loss is nan"),
        (lambda: "loss", TypeError, "must return"),
    ):
        with pytest.raises(error, match=message):
            optimizer.step(bad)
        model.zero_grad()
        assert torch.equal(flat(model), before)
    optimizer.step(lambda: (optimizer.zero_grad(), closure())[1])
    assert not torch.equal(flat(model), before)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: Newton(p, damping=-1.0), ValueError, r"damping must be in \[0, inf\)"),
        (lambda p: Newton(p, radius=0.0), ValueError, r"radius must be in \(0, inf\)"),
        (lambda p: Newton(p, solver="lu"), ValueError, "solver must be one of dense, cg"),
        (lambda p: Newton(p, globalization="armijo"), ValueError, "globalization must be None"),
        (lambda p: Newton(p, solver="cg", saddle_free=True), ValueError, "needs solver='dense'"),
        (lambda p: Newton(p, dampin=1.0), TypeError, "did you mean 'damping'"),
        (lambda p: GaussNewton(p, "normal"), ValueError, "no likelihood 'normal'"),
        (lambda p: GaussNewton(p, "gaussian", iterations=0), ValueError, "iterations must be at"),
        (lambda p: GaussNewton(p, "gaussian", progress=1.0), ValueError, "progress must be in"),
        (lambda p: NaturalGradient(p, "gaussian", fisher="x"), ValueError, "fisher must be one of"),
        (lambda p: NaturalGradient(p, "gaussian", kl_bound=0), ValueError, "kl_bound must be in"),
        (lambda p: NaturalGradient(p, "gaussian", samples=0), ValueError, "samples must be at"),
        (
            lambda p: Newton([{"params": p, "weight_decay": 0.1}]),
            ValueError,
            r"weight_decay must be in \[0, 0\]",
        ),
        (lambda p: Newton([{"params": p, "maximize": True}]), ValueError, "Newton minimizes"),
    ],
)
def test_settings_that_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make([nn.Parameter(torch.zeros(2))])
