"""Training with SciPy's optimizers
================================

Any optimizer can train a flow: SciPy's L-BFGS on a few thousand rows, and Adam (`fit`) beside it.

`flow.params` is one vector, `flow.nll_and_grad(x)` the mean negative log-likelihood and its gradient in the same order:
all that `scipy.optimize.minimize(..., jac=True)` needs.  With a small flow in double precision and all rows in every step,
L-BFGS needs no learning rate and ends where the gradient does.

As a script::

    python examples/train_with_scipy.py [--quick] [-o train_with_scipy.png]
"""

import argparse
import time

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import minimize

import npflows


def banana(n: int, rng: np.random.Generator) -> np.ndarray:
    """A bent Gaussian (n, 2), the shape of many posteriors; its entropy is known."""
    a, b = rng.standard_normal((2, n))
    return np.stack([a, 0.3 * b + a**2], axis=1)


ENTROPY = np.log(2 * np.pi) + 1 + np.log(0.3)
"""No density has a smaller mean negative log-likelihood."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few iterations only")
    parser.add_argument("-o", "--output", default="train_with_scipy.png", help="the picture")
    arguments = parser.parse_args()

    generator = np.random.default_rng(0)
    x, new = banana(4000, generator), banana(20_000, generator)

    def make_flow() -> npflows.NormalizingFlow:
        return npflows.MAF(2, num_layers=3, hidden_dims=(16, 16), activation="tanh", dtype="float64", rng=0)

    flow = make_flow()

    def objective(params: np.ndarray) -> tuple[float, np.ndarray]:
        flow.params = params
        return flow.nll_and_grad(x)

    started, losses = time.perf_counter(), []
    objective(flow.params)  # compiles, or loads from the cache
    compiled = time.perf_counter()
    result = minimize(objective, flow.params, jac=True, method="L-BFGS-B",
                      callback=lambda params: losses.append(flow.nll_and_grad(x)[0]),
                      options={"maxiter": 30 if arguments.quick else 300})  # fmt: skip
    flow.params = result.x
    ended = time.perf_counter()
    adam = make_flow().fit(x, max_epochs=10 if arguments.quick else 200, patience=None, learning_rate=5e-3, rng=0)
    adam_seconds = time.perf_counter() - ended

    print(f"{flow.num_params} parameters; ready after {compiled - started:.1f} s")
    print("mean negative log-likelihood of new rows (the least possible is the entropy)")
    print(f"  L-BFGS  {-flow.log_prob(new).mean():.4f}   {result.nit} iterations, {ended - compiled:.1f} s")
    print(f"  Adam    {-adam.log_prob(new).mean():.4f}   {len(adam.history['epoch'])} epochs, {adam_seconds:.1f} s")
    print(f"  entropy {ENTROPY:.4f}")

    figure = Figure(figsize=(9, 3.6), dpi=120)
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.14, top=0.92, wspace=0.2)
    left, right = figure.subplots(1, 2)
    left.plot(1 + np.arange(len(losses)), np.array(losses) - ENTROPY, color="#d9480f")
    left.set(xlabel="iteration of L-BFGS", ylabel="loss above the entropy", yscale="log")
    sides = np.linspace(-3.5, 3.5, 200), np.linspace(-2, 9, 200)
    grid = np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2)
    log_prob = flow.log_prob(grid).reshape(200, 200)
    right.plot(*x.T, ".", color="#b4bcc7", markersize=2)
    right.contour(*sides, log_prob, levels=[-8, -6, -4, -2], colors="#d9480f", linestyles="solid",
                  linewidths=1)  # fmt: skip
    right.set(xlabel="$x_0$", ylabel="$x_1$", title="rows, and contours of the log-density", xlim=(-3.5, 3.5), ylim=(-2, 9))
    figure.savefig(arguments.output)
    print(f"drawn in {arguments.output}")


if __name__ == "__main__":
    main()
