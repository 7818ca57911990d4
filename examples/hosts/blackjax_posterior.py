"""BlackJAX on a flow: window adaptation and NUTS, all of it in one compiled loop.

pip install blackjax
"""

import blackjax
import jax
import numpy as np

import npflows
import npflows.hosts.jax

jax.config.update("jax_enable_x64", True)  # densities are float64

rng = np.random.default_rng(0)
rows = rng.normal(size=(4000, 3)) @ [[1.0, 0.8, 0.0], [0.0, 0.6, 0.3], [0.0, 0.0, 0.5]] + [1.0, 2.0, 3.0]
flow = npflows.MAF(3, num_layers=3, hidden_dims=(32,), rng=0).fit(rows, max_epochs=20, rng=0, progress=False)
log_prob = npflows.hosts.jax.log_prob(npflows.embed(flow))

key, warm, run = jax.random.split(jax.random.PRNGKey(0), 3)
adapted, _ = blackjax.window_adaptation(blackjax.nuts, log_prob).run(warm, rows[0], num_steps=500)
step = blackjax.nuts(log_prob, **adapted.parameters).step


@jax.jit
def chain(state: object, keys: jax.Array) -> jax.Array:
    def one(state: object, key: jax.Array) -> tuple:
        state, _ = step(key, state)
        return state, state.position

    return jax.lax.scan(one, state, keys)[1]


samples = np.asarray(chain(adapted.state, jax.random.split(run, 4000)))
exact = flow.sample(100_000, rng=1)
print("mean:", samples.mean(axis=0).round(3), "of the flow itself:", exact.mean(axis=0).round(3))
print("deviation:", samples.std(axis=0).round(3), "of the flow itself:", exact.std(axis=0).round(3))
if not np.allclose(samples.mean(axis=0), exact.mean(axis=0), atol=0.1):
    raise SystemExit("blackjax: the samples are wrong")
