"""Densities for `fit_variational` to find, and short runs toward them."""

import numpy as np

import npflows

MATRIX = np.array([[1.0, 0.0, 0.0], [1.2, 0.6, 0.0], [-0.5, 0.3, 0.8]])
LOC = np.array([0.5, -1.0, 0.3])


class Gaussian:
    """A correlated normal density in d dimensions, and how often it was asked."""

    def __init__(self, d=2, constant=3.0):
        covariance = (MATRIX @ MATRIX.T)[:d, :d]
        self.loc, self.precision, self.constant, self.calls = LOC[:d], np.linalg.inv(covariance), constant, 0
        self.covariance, self.evidence = covariance, constant + 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]

    def __call__(self, x):
        self.calls += 1
        pull = (x - self.loc) @ self.precision
        return self.constant - 0.5 * (pull * (x - self.loc)).sum(axis=1), -pull


def banana(x):
    """A bent density that no flow here represents exactly."""
    u, v = x[:, 0] / 2, x[:, 1] - 0.5 * x[:, 0] ** 2
    return -0.5 * (u**2 + v**2), np.column_stack([v * x[:, 0] - u / 2, -v])


def realnvp(dim=2, **options):
    return npflows.RealNVP(dim, 2, (8,), rng=1, **options)


SHORT = {"max_steps": 60, "batch_size": 64, "steps_per_round": 10, "validation_size": 128, "learning_rate": 1e-2,
         "rng": 2, "progress": False}  # fmt: skip


def short_run(flow=None, target=banana, **options):
    """A small flow after a short run, silent and with a seed."""
    return (flow or realnvp()).fit_variational(target, **{**SHORT, **options})


def elbo(flow, target=banana, n=4000, rng=9):
    return flow.importance_weights(n, target, rng).elbo


MODELS = {
    "RealNVP": lambda d, **o: npflows.RealNVP(d, 4, (16,), rng=0, **o),
    "MAF": lambda d, **o: npflows.MAF(d, 3, (16,), rng=0, **o),
    "IAF": lambda d, **o: npflows.IAF(d, 3, (16,), rng=0, **o),
    "NSF": lambda d, **o: npflows.NeuralSplineFlow(d, 2, (16,), 5, rng=0, **o),
    "NSF, ActNorm": lambda d, **o: npflows.NeuralSplineFlow(d, 2, (16,), 5, actnorm=True, rng=0, **o),
}


def two_modes(x):
    """A mixture with 0.3 of its mass at (-3, 0) and 0.7 at (3, 0): log-density and gradient."""
    away = np.stack([x - [-3.0, 0.0], x - [3.0, 0.0]])
    terms = np.log([[0.3], [0.7]]) - 0.5 * (away**2).sum(axis=2) / 0.5**2
    log_p = np.logaddexp(*terms)
    return log_p, -(np.exp(terms - log_p)[:, :, None] * away).sum(axis=0) / 0.5**2


WILD = {"learning_rate": 0.2, "schedule": "constant", "max_steps": 3000}
X = np.random.default_rng(0).normal(5, 3, (100, 2))
FIT = {"max_epochs": 3, "rng": 2, "progress": False}


def value(x):
    return banana(x)[0]


def slope(x):
    return banana(x)[1]
