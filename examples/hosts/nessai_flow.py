"""nessai with flows of npflows, by the name under which they are entered.

pip install nessai     (brings PyTorch)
"""

import tempfile

import decay
import numpy as np
from nessai.flowsampler import FlowSampler
from nessai.livepoint import numpy_array_to_live_points
from nessai.model import Model


class SecondExperiment(Model):
    """The second experiment, with a flow as prior."""

    names = decay.NAMES
    bounds = {"a": [0.0, 5000.0], "k": [0.0, 20.0]}
    flow = decay.prior()

    def log_prior(self, x: np.ndarray) -> np.ndarray:
        return np.log(self.in_bounds(x), dtype=float) + self.flow.log_prob(self.unstructured_view(x))

    def log_likelihood(self, x: np.ndarray) -> np.ndarray:
        return decay.log_likelihood(self.unstructured_view(x))

    def new_point(self, N: int = 1) -> np.ndarray:
        return numpy_array_to_live_points(self.flow.sample(N, self.rng), self.names)

    def new_point_log_prob(self, x: np.ndarray) -> np.ndarray:
        return self.log_prior(x)


with tempfile.TemporaryDirectory() as folder, np.errstate(divide="ignore"):
    sampler = FlowSampler(SecondExperiment(), output=folder, nlive=1000, seed=0, plot=False, resume=False,
                          flow_proposal_class="npflows")  # fmt: skip
    sampler.run(plot=False, save=False)
decay.compare("nessai", float(sampler.log_evidence), float(sampler.log_evidence_error), SecondExperiment.flow)
