"""nautilus with a flow as prior: both functions take many points at a time.

pip install nautilus-sampler
"""

import decay
import nautilus

import npflows

flow = decay.prior()
arguments = npflows.hosts.nautilus(flow, decay.log_likelihood, vectorized=True)
sampler = nautilus.Sampler(**arguments, n_live=500, n_networks=1, seed=0)
sampler.run(n_eff=4000)
decay.compare("nautilus", sampler.log_z, sampler.n_eff**-0.5, flow)
