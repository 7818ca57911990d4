"""flowjax in a process of its own; see protocol.py.

Its splines have free slopes at both ends; here they are fixed at 1, as the others' are, so that the counts agree.  Between
its layers are random permutations.  Every call is compiled before it is timed and waited for with block_until_ready.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import optax
import paramax
from flowjax.bijections import MaskedAutoregressive, RationalQuadraticSpline
from flowjax.distributions import Normal
from flowjax.flows import coupling_flow, masked_autoregressive_flow

from benchmarks.peers import protocol, tasks
from benchmarks.peers.layers_file import save_layers

N_BATCHES = 16
LEAST = 1e-3
LEAST_SCALE = 1e-2


def with_fixed_ends() -> RationalQuadraticSpline:
    """Its spline with slopes of 1 at both ends."""
    spline = RationalQuadraticSpline(knots=tasks.BINS - 1, interval=tasks.BOUND, min_derivative=LEAST, min_width=LEAST)
    start = math.log(math.expm1(1 - LEAST))

    def slopes(raw: jax.Array) -> jax.Array:
        room = [(0, 0)] * (raw.ndim - 1) + [(1, 1)]  # it is called with the layers' axis before the knots'
        return jnp.pad(jax.nn.softplus(raw) + LEAST, room, constant_values=1.0)

    inner = paramax.Parameterize(slopes, jnp.full(tasks.BINS - 1, start))
    return equinox.tree_at(lambda s: s.derivatives, spline, inner)


class Flowjax:
    """The commands."""

    name = "flowjax"

    def build(self, model: str, size: str, dtype: str, threads: int, seed: int, spread: float = 0.0) -> dict[str, Any]:
        jax.config.update("jax_enable_x64", dtype == "float64")
        dim, hidden = tasks.SIZES[size]
        key = jax.random.key(seed)
        self.model, self.dim, self.key, self.ready = model, dim, key, {}
        make = masked_autoregressive_flow if model in (tasks.MAF, tasks.AUTOREGRESSIVE) else coupling_flow
        transformer = with_fixed_ends() if model in tasks.SPLINES else None
        flow = make(
            key,
            base_dist=Normal(jnp.zeros(dim)),
            transformer=transformer,
            flow_layers=tasks.NUM_LAYERS[model],
            nn_width=hidden[0],
            nn_depth=len(hidden),
        )
        trainable, self.static = equinox.partition(
            flow, equinox.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable)
        )
        base_free = equinox.tree_at(lambda f: f.base_dist, trainable, None)
        self.base = trainable.base_dist
        leaves, structure = jax.tree.flatten(base_free)
        keys = jax.random.split(key, len(leaves))
        leaves = [a + spread * a.shape[-1] ** -0.5 * jax.random.normal(k, a.shape, a.dtype) for a, k in zip(leaves, keys)]
        self.params = jax.tree.unflatten(structure, leaves)
        self.optimizer = optax.adam(tasks.LEARNING_RATE)
        self.moments = self.optimizer.init(self.params)
        self._log_prob = jax.jit(lambda params, x: self.flow(params).log_prob(x))
        self._sample = jax.jit(lambda params, key, n: self.flow(params).sample(key, (n,)), static_argnums=2)
        self._train = jax.jit(self._step, donate_argnums=(0, 1))
        return {
            "stored": sum(a.size for a in leaves),
            "used": sum(
                int(np.count_nonzero(w)) + b.size
                for layer in self.describe()
                for w, b in zip(layer.get("weights", []), layer.get("biases", []))
            ),
            "versions": {"flowjax": version("flowjax"), "jax": jax.__version__},
            "threads": threads,
        }

    def flow(self, params: Any) -> Any:
        whole = equinox.tree_at(lambda f: f.base_dist, params, self.base, is_leaf=lambda leaf: leaf is None)
        return paramax.unwrap(equinox.combine(whole, self.static))

    def _loss(self, params: Any, x: jax.Array) -> jax.Array:
        return -self.flow(params).log_prob(x).mean()

    def _step(self, params: Any, moments: Any, data: jax.Array, rows: jax.Array) -> tuple[Any, Any, jax.Array]:
        loss, gradient = jax.value_and_grad(self._loss)(params, data[rows])
        updates, moments = self.optimizer.update(gradient, moments)
        return optax.apply_updates(params, updates), moments, loss

    def describe(self) -> list[dict[str, Any]]:
        """The layers, data to latent, as carry.py reads them."""
        scanned = self.flow(self.params).bijection.bijection.bijection
        dynamic, static = equinox.partition(scanned, equinox.is_array)
        layers = []
        for i in range(tasks.NUM_LAYERS[self.model]):
            chain = equinox.combine(jax.tree.map(lambda a, i=i: a[i], dynamic), static)
            bijection, permutation = chain.bijections
            autoregressive = isinstance(bijection, MaskedAutoregressive)
            net = bijection.masked_autoregressive_mlp if autoregressive else bijection.conditioner
            found: dict[str, Any] = {
                "kind": "autoregressive" if autoregressive else "coupling",
                "weights": [np.asarray(layer.weight, np.float64) for layer in net.layers],
                "biases": [np.asarray(layer.bias, np.float64) for layer in net.layers],
            }
            if autoregressive:
                found["order"] = np.arange(self.dim)
            else:
                found["mask"] = (np.arange(self.dim) < bijection.untransformed_dim).astype(int)
            if self.model in tasks.SPLINES:
                found["map"] = {
                    "kind": "spline",
                    "bins": tasks.BINS,
                    "bound": tasks.BOUND,
                    "least_size": LEAST / (2 * tasks.BOUND),  # its least width is a length, not a share
                    "least_slope": LEAST,
                    "sizes_over": 1.0,
                    "slope_shift": None,
                }
            else:
                found["map"] = {
                    "kind": "affine",
                    "scale": "softplus",
                    "offset": math.log(math.expm1(1 - LEAST_SCALE)),
                    "least": LEAST_SCALE,
                    "scale_row": 1,
                }
            layers += [found, {"kind": "permutation", "order": np.asarray(permutation.permutation[0])}]
        return layers

    def export(self, path: str) -> None:
        save_layers(path, self.describe())

    def evaluate(self, given: str, found: str) -> None:
        arrays = np.load(given)
        flow = self.flow(self.params)
        log_prob = jax.jit(lambda x: flow.log_prob(x))(jnp.asarray(arrays["x"]))
        x = jax.jit(jax.vmap(lambda z: flow.bijection.transform(z)))(jnp.asarray(arrays["z"]))
        np.savez(found, log_prob=np.asarray(log_prob, np.float64), x=np.asarray(x, np.float64))

    def _prepare(self, work: str, batch: int, n_batches: int = N_BATCHES) -> Callable[[], Any]:
        key = self.key
        if work in (tasks.TRAIN, tasks.COMPILED):
            data = jax.random.normal(key, (batch * n_batches, self.dim))
            parts = jnp.split(jax.random.permutation(key, len(data)), n_batches)
            turn = iter(range(1 << 60))
            # the buffers are given away, so that the step works on copies of its own
            state = [jax.tree.map(jnp.copy, part) for part in (self.params, self.moments)]

            def step() -> Any:
                state[0], state[1], loss = self._train(*state, data, parts[next(turn) % n_batches])
                return loss.block_until_ready()

            return step
        if work == tasks.LOG_PROB:
            x = jax.random.normal(key, (batch, self.dim))
            return lambda: self._log_prob(self.params, x).block_until_ready()
        return lambda: self._sample(self.params, key, batch).block_until_ready()

    def warm(self, work: str, batch: int, most: float) -> list[float]:
        """Seconds of the first call, which may compile, and of a second one unless the first took `most`."""
        self.ready = {(work, batch): self._prepare(work, batch)}
        return protocol.first_calls(self.ready[work, batch], most)

    def time(self, work: str, batch: int, at_least: float) -> float:
        return protocol.median_of(self.ready[work, batch], at_least)

    def rate(self, n: int, threads: int) -> float:
        """As torch_common.py's."""
        a, b = jax.random.normal(jax.random.key(0), (2, n, n), "float32")
        product = jax.jit(jnp.matmul)
        return protocol.best_rate(lambda: product(a, b).block_until_ready(), 2.0 * n**3)

    def step_memory(self, batch: int) -> float:
        """MB of a train step; see protocol.py."""
        return protocol.step_memory(self._prepare(tasks.TRAIN, batch, 1))

    def fit(self, given: str, epochs: int, batch: int, seed: int) -> dict[str, list[float]]:
        """As torch_common.py's; both sizes of batches are compiled before."""
        arrays, rng = np.load(given), np.random.default_rng(seed)
        train, test = jnp.asarray(arrays["train"]), jnp.asarray(arrays["test"])
        n_batches = math.ceil(len(train) / batch)
        params, moments = (jax.tree.map(jnp.copy, part) for part in (self.params, self.moments))
        for size in {len(rows) for rows in np.array_split(np.arange(len(train)), n_batches)}:
            params, moments, loss = self._train(params, moments, train, jnp.arange(size))
            loss.block_until_ready()
        seconds, reached, spent = [], [], 0.0
        for _ in range(epochs):
            started = time.perf_counter()
            for rows in np.array_split(rng.permutation(len(train)), n_batches):
                params, moments, loss = self._train(params, moments, train, rows)
            loss.block_until_ready()
            spent += time.perf_counter() - started
            reached.append(float(self._log_prob(params, test).mean()))
            seconds.append(spent)
        return {"seconds": seconds, "reached": reached}


if __name__ == "__main__":
    flowjax = Flowjax()
    names = ("build", "export", "evaluate", "warm", "time", "rate", "step_memory", "fit")
    protocol.serve({name: getattr(flowjax, name) for name in names})
