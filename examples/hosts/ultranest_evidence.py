"""UltraNest with a flow as prior: both functions take many points at a time.

pip install ultranest
"""

import decay
import numpy as np
import ultranest

import npflows

np.random.seed(0)  # noqa: NPY002 UltraNest draws from NumPy's global generator
flow = decay.prior()
sampler = ultranest.ReactiveNestedSampler(**npflows.hosts.ultranest(flow, decay.log_likelihood, vectorized=True))
result = sampler.run(show_status=False, viz_callback=False)
decay.compare("UltraNest", result["logz"], result["logzerr"], flow)
