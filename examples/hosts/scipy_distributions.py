"""A flow wherever SciPy takes a distribution: quantiles, a test, and a mean by quadrature."""

import decay
import numpy as np
import scipy.stats

import npflows

wait = np.random.default_rng(0).gamma(3.0, 1.0, size=(4000, 1))
column = npflows.NeuralSplineFlow(1, num_layers=2, support=[npflows.support.positive()], rng=0)
column.fit(wait, max_epochs=20, rng=0, progress=False)
frozen = npflows.hosts.frozen(column, rng=1)
print(f"median {frozen.median():.3f}, mean {frozen.mean():.3f}, 90 % between", np.round(frozen.interval(0.9), 3))
test = scipy.stats.kstest(np.random.default_rng(1).gamma(3.0, 1.0, 2000), frozen.cdf)
print("Kolmogorov-Smirnov test of new data: p =", round(float(test.pvalue), 3))

several = npflows.hosts.frozen(decay.prior(), rng=2)
print("density of two samples of a and k:", several.pdf(several.rvs(2)))
if test.pvalue < 1e-4:
    raise SystemExit("SciPy: the distribution is wrong")
