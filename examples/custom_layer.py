"""A layer of your own
===================
y = sinh(exp(a) arcsinh(x) + b) (Jones and Pewsey 2009, Biometrika 96, 761); npflows.extend says what kernels do."""

import argparse

import numpy as np

import npflows
from npflows.extend import Layer, Parameter, inlined, kernel
from npflows.plotting import corner


@inlined
def bend(block, log_det, work, theta, sign):  # the inverse is a map of the same kind: sinh(c arcsinh(y) + d)
    for i in range(block.shape[0]):
        c, b = np.exp(sign * theta[2 * i]), theta[2 * i + 1]
        for t in range(block.shape[1]):
            x = work[i, t] = block[i, t]
            v = c * np.arcsinh(x) + (b if sign > 0 else -c * b)
            block[i, t] = np.sinh(v)
            log_det[t] += np.log(c) + np.log(np.cosh(v)) - 0.5 * np.log(1 + x * x)


@inlined
def bend_vjp(dblock, dlog_det, work, theta, dtheta, sign):
    for i in range(dblock.shape[0]):
        c, b, dc, dd = np.exp(sign * theta[2 * i]), theta[2 * i + 1], 0.0, 0.0
        for t in range(dblock.shape[1]):
            x, u, dl = work[i, t], np.arcsinh(work[i, t]), dlog_det[t]
            v = c * u + (b if sign > 0 else -c * b)
            dv = dblock[i, t] * np.cosh(v) + dl * np.tanh(v)
            dblock[i, t] = dv * c / np.sqrt(1 + x * x) - dl * x / (1 + x * x)
            dc, dd = dc + dv * u + dl / c, dd + dv
        if dtheta.size > 0:
            dtheta[2 * i] += dc * c if sign > 0 else (dd * b - dc) * c
            dtheta[2 * i + 1] += dd if sign > 0 else -dd * c


@kernel
def forward(spec, theta, context, key, first, block, log_det, work, temp):
    bend(block, log_det, work, theta, 1)


@kernel
def inverse(spec, theta, context, key, first, block, log_det, work, temp):
    bend(block, log_det, work, theta, -1)


@kernel
def forward_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    bend_vjp(dblock, dlog_det, work, theta, dtheta, 1)


@kernel
def inverse_vjp(spec, theta, context, key, first, dblock, dlog_det, work, temp, dtheta, dcontext):
    bend_vjp(dblock, dlog_det, work, theta, dtheta, -1)


class SinhArcsinh(Layer):
    kernels = (forward, inverse, forward_vjp, inverse_vjp)

    def __init__(self, n, *, dtype="float32"):
        self.n = n  # save and load find the constructor's arguments under their names
        super().__init__(n, [Parameter("a_and_b", np.zeros((n, 2)))], work_rows=n, temp_rows=0, dtype=dtype)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("-o", "--output", default="custom_layer.png")
    options = parser.parse_args()
    rows, epochs = (3000, 5) if options.quick else (20000, 60)
    x = np.sinh(np.random.default_rng(0).normal(size=(rows, 2)) @ [[1.0, 0.8], [0.0, 0.7]] + [1.0, -0.5])
    flow = npflows.NormalizingFlow([SinhArcsinh(2), npflows.MAFLayer(2, (16,), rng=1)])
    flow.fit(x, standardize=False, max_epochs=epochs, learning_rate=1e-2, rng=0).save(options.output + ".npz")
    flow = npflows.load(options.output + ".npz", classes=[SinhArcsinh])
    print("mean log-likelihood", flow.log_prob(x).mean())
    corner(np.arcsinh(x), np.arcsinh(flow.sample(rows, rng=2)), columns=["asinh x0", "asinh x1"]).savefig(options.output)
