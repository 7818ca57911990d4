"""Tables of known distribution, and a classifier that needs no scikit-learn, for the tests of the diagnostics."""

import numpy as np

LOC, SCALE = np.array([1.0, -2.0, 10.0]), np.array([0.5, 2.0, 0.01])


def normal(n, seed=0, loc=LOC, scale=SCALE):
    return loc + scale * np.random.default_rng([seed, 77]).standard_normal((n, 3))


def linear(n, seed=0, noise=1.0, offset=0.0):
    """x (n, 2) and its condition c (n, 1), x = (2 c, -c) + noise."""
    rng = np.random.default_rng([seed, 78])
    c = rng.standard_normal((n, 1))
    return c * [2.0, -1.0] + offset + noise * rng.standard_normal((n, 2)), c


class Logistic:
    """A linear classifier, so that the tests need no scikit-learn."""

    def fit(self, x, y, sample_weight):
        self.loc, self.scale = x.mean(0), x.std(0)
        x, w = self.features(x), sample_weight / sample_weight.sum()
        self.coefficients = np.zeros(x.shape[1])
        for _ in range(8):
            p = 1 / (1 + np.exp(-x @ self.coefficients))
            hessian = (x * (w * p * (1 - p))[:, None]).T @ x + 1e-9 * np.eye(x.shape[1])
            self.coefficients += np.linalg.solve(hessian, x.T @ (w * (y - p)))

    def features(self, x):
        x = (x - self.loc) / self.scale
        return np.concatenate([np.ones((len(x), 1)), x, x**2], axis=1)

    def predict_proba(self, x):
        p = 1 / (1 + np.exp(-self.features(x) @ self.coefficients))
        return np.stack([1 - p, p], axis=1)
