"""Losses against torch.nn's, their slopes and curvature against autograd's, samples by counting."""

import pytest
import torch
from torch import nn

from optlab.curvature import Bernoulli, Categorical, Gaussian, likelihood
from optlab.curvature.likelihoods import FISHERS
from tests.optlab.curvature.dense import CASES, output_hessian, outputs_and_targets

EXACT = {"rtol": 1e-12, "atol": 1e-13}
EACH = pytest.mark.parametrize("name", CASES)


def torchs(likelihood, outputs, targets):
    if isinstance(likelihood, Categorical):
        return nn.CrossEntropyLoss()(outputs.movedim(likelihood.dim, 1), targets)
    summed = likelihood.reduction == "sum"
    divisor = len(outputs) if summed else outputs.numel()
    if isinstance(likelihood, Bernoulli):
        return nn.BCEWithLogitsLoss(reduction="sum")(outputs, targets) / divisor
    squares = nn.MSELoss(reduction="sum")(outputs, targets)
    return squares / (2 * likelihood.variance * divisor)


@EACH
def test_loss_is_torchs(name):
    given = outputs_and_targets(name)
    torch.testing.assert_close(given[0].loss(*given[1:]), torchs(*given), **EXACT)


def test_the_losses_that_torch_has_by_default():
    _, outputs, targets = outputs_and_targets("gaussian")
    pairs = [(Gaussian(0.5, "mean"), nn.MSELoss()), (Bernoulli("mean"), nn.BCEWithLogitsLoss())]
    for ours, theirs in pairs:
        torch.testing.assert_close(
            ours.loss(outputs, targets.sigmoid()), theirs(outputs, targets.sigmoid()), **EXACT
        )


@EACH
def test_score_is_the_gradient_of_each_samples_loss(name):
    likelihood, outputs, targets = outputs_and_targets(name)
    for n in range(len(outputs)):
        f = outputs[n : n + 1].clone().requires_grad_()
        likelihood.loss(f, targets[n : n + 1]).backward()
        torch.testing.assert_close(likelihood.score(outputs, targets)[n], f.grad[0], **EXACT)


def products(vectors):
    """The vectors' products with themselves added up, sample by sample."""
    total = 0.0
    for u in vectors:
        rows = u.reshape(len(u), -1)
        total = total + rows.unsqueeze(2) * rows.unsqueeze(1)
    return total


@EACH
def test_exact_vectors_add_up_to_the_hessian(name):
    likelihood, outputs, targets = outputs_and_targets(name)
    found = products(likelihood.vectors(outputs, "exact"))
    torch.testing.assert_close(found, output_hessian(likelihood, outputs, targets), **EXACT)


@EACH
def test_empirical_vectors_are_the_score(name):
    likelihood, outputs, targets = outputs_and_targets(name)
    (vector,) = likelihood.vectors(outputs, "empirical", targets)
    assert torch.equal(vector, likelihood.score(outputs, targets))
    with pytest.raises(ValueError, match="empirical Fisher needs targets"):
        list(likelihood.vectors(outputs, "empirical"))


@EACH
@pytest.mark.parametrize("samples", [1, 4])
def test_sampled_vectors_are_unbiased(name, samples):
    likelihood, outputs, targets = outputs_and_targets(name)
    generator = torch.Generator().manual_seed(1)
    found = torch.stack(
        [
            products(likelihood.vectors(outputs, "sampled", None, samples, generator))
            for _ in range(2000 // samples)
        ]
    )
    error = found.std(0) / len(found) ** 0.5
    expected = output_hessian(likelihood, outputs, targets)
    # Five standard errors, of some thousand numbers over all cases.
    assert ((found.mean(0) - expected).abs() <= 5 * error + 1e-12).all()
    assert error.max() < 0.2 * expected.abs().max()


def test_drawn_targets_have_the_models_distribution():
    logits = torch.tensor([[2.0, 0.0, -1.0]]).expand(30_000, 3)
    generator = torch.Generator().manual_seed(2)
    drawn = Categorical().draw(logits, generator).bincount(minlength=3) / 30_000
    p = logits[0].softmax(0)
    assert ((drawn - p).abs() < 5 * (p * (1 - p) / 30_000).sqrt()).all()
    yes = Bernoulli().draw(logits, generator).mean(0)
    p = logits[0].sigmoid()
    assert ((yes - p).abs() < 5 * (p * (1 - p) / 30_000).sqrt()).all()
    noise = Gaussian(4.0).draw(logits, generator) - logits
    assert abs(noise.mean()) < 5 * 2 / 90_000**0.5
    assert abs(noise.std() - 2) < 5 * 2 / 180_000**0.5


def test_generators_make_it_repeatable():
    for kind, shape in CASES.values():
        outputs = torch.randn(shape)
        first, second = (kind.draw(outputs, torch.Generator().manual_seed(3)) for _ in range(2))
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("outputs", "targets", "message"),
    [
        (torch.zeros(3, 4, dtype=torch.long), None, "takes real outputs"),
        (torch.zeros(()), None, "takes real outputs"),
        (torch.zeros(0, 4), None, "must hold samples"),
        (torch.zeros(3), None, "classes in dimension 1"),
        (torch.zeros(3, 4), torch.zeros(3), r"classes' numbers of shape \(3,\), got \(3,\)"),
        (torch.zeros(3, 4), torch.zeros(2, dtype=torch.long), r"shape \(3,\), got \(2,\)"),
        (torch.zeros(3, 4), torch.tensor([0, 4, 1]), r"targets must be in 0\.\.3"),
        (torch.zeros(3, 4), torch.tensor([0, -1, 1]), r"targets must be in 0\.\.3"),
    ],
)
def test_outputs_that_do_not_fit(outputs, targets, message):
    with pytest.raises(ValueError, match=message):
        Categorical().loss(outputs, targets)


def test_classes_are_not_in_the_batch():
    with pytest.raises(ValueError, match="dimension 0, behind the batch"):
        Categorical(dim=0).loss(torch.zeros(3, 4), torch.zeros(4, dtype=torch.long))


def test_targets_need_the_outputs_shape():
    for kind in (Bernoulli(), Gaussian()):
        with pytest.raises(ValueError, match=r"outputs' shape \(3, 2\), got \(3,\)"):
            kind.loss(torch.zeros(3, 2), torch.zeros(3))


def test_names():
    assert isinstance(likelihood("bernoulli"), Bernoulli)
    own = Gaussian(3.0)
    assert likelihood(own) is own
    with pytest.raises(ValueError, match="did you mean 'categorical'"):
        likelihood("categoric")
    with pytest.raises(ValueError, match=f"fisher must be one of {', '.join(FISHERS)}, got 'true'"):
        list(own.vectors(torch.zeros(2, 1), "true"))
    for settings in ({"variance": 0.0}, {"variance": -1.0}, {"reduction": "none"}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            Gaussian(**settings)
