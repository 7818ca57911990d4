"""NumPyro with a flow as prior: NUTS calls the compiled density from within XLA.

pip install numpyro
"""

import jax
import numpy as np
import numpyro
from numpyro import distributions as dist
from numpyro.infer import MCMC, NUTS

import npflows
import npflows.hosts.jax

jax.config.update("jax_enable_x64", True)  # densities are float64

rng = np.random.default_rng(0)
first = rng.normal(size=(4000, 2)) @ [[1.0, 0.8], [0.0, 0.6]]  # samples of a first experiment's posterior
flow = npflows.MAF(2, num_layers=3, hidden_dims=(32,), rng=0).fit(first, max_epochs=20, rng=0, progress=False)
log_prior = npflows.hosts.jax.log_prob(npflows.embed(flow))
observed = 1.5  # by the second experiment: the sum of both, with an error of 0.5


def model() -> None:
    x = numpyro.sample("x", dist.ImproperUniform(dist.constraints.real_vector, (), event_shape=(2,)))
    numpyro.factor("flow", log_prior(x))
    numpyro.sample("sum", dist.Normal(x.sum(), 0.5), obs=observed)


mcmc = MCMC(NUTS(model), num_warmup=500, num_samples=3000, progress_bar=False)
mcmc.run(jax.random.PRNGKey(0))
mean = np.asarray(mcmc.get_samples()["x"]).mean(axis=0)

weights = flow.importance_weights(
    200_000, lambda x: flow.log_prob(x) - 0.5 * ((x.sum(axis=1) - observed) / 0.5) ** 2, rng=1
)
reference = np.average(weights.x, axis=0, weights=weights.weights)
print("posterior mean:", mean.round(3), "by importance sampling:", reference.round(3))
if not np.allclose(mean, reference, atol=0.05):
    raise SystemExit("numpyro: the posterior is wrong")
