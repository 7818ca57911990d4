"""dynesty with a flow as prior, and two processes.

pip install dynesty
"""

import decay
import dynesty
import numpy as np

import npflows

if __name__ == "__main__":
    flow = decay.prior()
    arguments = npflows.hosts.dynesty(flow, decay.log_likelihood)
    with dynesty.pool.Pool(2, arguments["loglikelihood"], arguments["prior_transform"]) as pool:
        arguments.update(loglikelihood=pool.loglike, prior_transform=pool.prior_transform)
        sampler = dynesty.NestedSampler(**arguments, nlive=250, pool=pool, rstate=np.random.default_rng(0))
        sampler.run_nested(print_progress=False)
    results = sampler.results
    decay.compare("dynesty", results.logz[-1], results.logzerr[-1], flow)
