"""PyMC with a flow as prior: nutpie compiles the density into the gradient of the model.

pip install pymc nutpie
"""

import numpy as np
import nutpie
import pymc

import npflows
import npflows.hosts.pytensor

rng = np.random.default_rng(0)
first = rng.normal(size=(4000, 2)) @ [[1.0, 0.8], [0.0, 0.6]]  # samples of a first experiment's posterior
flow = npflows.MAF(2, num_layers=3, hidden_dims=(32,), rng=0).fit(first, max_epochs=20, rng=0, progress=False)
log_prior = npflows.hosts.pytensor.log_prob(npflows.embed(flow))
observed = 1.5  # by the second experiment: the sum of both, with an error of 0.5

with pymc.Model() as model:
    x = pymc.Flat("x", shape=2)
    pymc.Potential("flow", log_prior(x))
    pymc.Normal("sum", x.sum(), 0.5, observed=observed)

trace = nutpie.sample(nutpie.compile_pymc_model(model), draws=2000, tune=500, chains=2, seed=1, progress_bar=False)
mean = trace.posterior["x"].mean(("chain", "draw")).values

weights = flow.importance_weights(
    200_000, lambda x: flow.log_prob(x) - 0.5 * ((x.sum(axis=1) - observed) / 0.5) ** 2, rng=1
)
reference = np.average(weights.x, axis=0, weights=weights.weights)
print("posterior mean:", mean.round(3), "by importance sampling:", reference.round(3))
if not np.allclose(mean, reference, atol=0.05):
    raise SystemExit("pymc: the posterior is wrong")
