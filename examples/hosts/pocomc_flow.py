"""pocoMC with a flow of npflows in the place of its own, stopped and resumed from a state file.

pip install pocomc     (brings PyTorch)
"""

import tempfile
from pathlib import Path

import decay
import pocomc

import npflows

flow = decay.prior()


def sampler(folder: str) -> pocomc.Sampler:
    """A sampler whose prior and whose flow are both of npflows."""
    made = pocomc.Sampler(npflows.hosts.PocomcPrior(flow, rng=3), decay.log_likelihood, n_dim=2, vectorize=True,
                          output_dir=folder, random_state=0)  # fmt: skip
    made.flow = npflows.hosts.pocomc(2, rng=0)
    return made


with tempfile.TemporaryDirectory() as folder:
    sampler(folder).run(n_total=2048, progress=False, save_every=4)
    state = sorted(Path(folder).glob("pmc_*.state"), key=lambda path: path.stat().st_mtime)[1]
    again = sampler(folder)
    again.run(n_total=2048, progress=False, resume_state_path=state)
    log_z, error = again.evidence()
decay.compare(f"pocoMC, resumed from {state.name}", log_z, error, flow)
