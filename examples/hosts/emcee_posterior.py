"""emcee with a flow as prior: positive parameters, in coordinates without bounds.

pip install emcee
"""

import decay
import emcee
import numpy as np

import npflows

flow = decay.prior()
arguments = npflows.hosts.emcee(flow, decay.log_likelihood, vectorized=True, unconstrained=True)
posterior = arguments["log_prob_fn"]
print("walkers walk in", posterior.transforms)

np.random.seed(0)  # noqa: NPY002 emcee draws from NumPy's global generator
sampler = emcee.EnsembleSampler(32, **arguments)
sampler.run_mcmc(posterior.start(32, rng=0), 1500)
chain = posterior.from_walkers(sampler.get_chain(discard=300, flat=True))

weights = flow.importance_weights(200_000, lambda x: flow.log_prob(x) + decay.log_likelihood(x), rng=2)
reference = np.average(weights.x, axis=0, weights=weights.weights)
print("mean of a and k:", chain.mean(axis=0).round(3), "by importance sampling:", reference.round(3))
if not np.allclose(chain.mean(axis=0), reference, rtol=0.05):
    raise SystemExit("emcee: the posterior is wrong")
