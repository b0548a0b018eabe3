"""Curvature: the matrices P of ``theta <- theta - eta * P^-1 g``, and what is asked of them.

:mod:`~optlab.curvature.likelihoods` says how the loss curves in the outputs,
:mod:`~optlab.curvature.operators` gives products with the whole network's matrices,
:mod:`~optlab.curvature.solvers` and :mod:`~optlab.curvature.spectrum` work with products alone, and
:mod:`~optlab.curvature.kronecker` is K-FAC's approximation, layer by layer.
"""

from optlab.curvature.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood, likelihood
from optlab.curvature.operators import (
    Operator,
    fisher,
    fisher_empirical,
    fisher_sampled,
    gauss_newton,
    gradient,
    hessian,
    split,
)
from optlab.curvature.solvers import Solution, conjugate_gradients
from optlab.curvature.spectrum import (
    lanczos,
    sharpness,
    spectral_density,
    top_eigenvalues,
    trace,
)

__all__ = [
    "Bernoulli",
    "Categorical",
    "Gaussian",
    "Likelihood",
    "Operator",
    "Solution",
    "conjugate_gradients",
    "fisher",
    "fisher_empirical",
    "fisher_sampled",
    "gauss_newton",
    "gradient",
    "hessian",
    "lanczos",
    "likelihood",
    "sharpness",
    "spectral_density",
    "split",
    "top_eigenvalues",
    "trace",
]
