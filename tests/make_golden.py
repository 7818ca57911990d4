"""Writes tests/golden: tiny flows as this version saves them, and what they compute.

Every later version must read these files and compute the same.  Add a flow here when there is something new that a file
can hold, and run `python tests/make_golden.py NAME`; never write an old file again.  NAME.npz is the flow, and NAME.json
holds what it computes with the inputs, so that a reader needs nothing else.
"""

import json
import string
import sys
import warnings
from pathlib import Path

import numpy as np

import npflows
from npflows import networks, support, transformers

FOLDER = Path(__file__).parent / "golden"
X = [[1.0, -2.0, 30.0], [1.5, -2.2, 28.0], [0.0, 1.0, 35.0], [3.0, 0.0, 15.0]]
Z = [[0.0, 0.0, 0.0], [1.0, -1.0, 0.5], [-2.0, 0.3, 1.5]]
TOLERANCE = {"float32": 1e-5, "float64": 1e-11}
"""How closely values must agree, compared with the largest of their kind where that is above 1: the order of sums depends
on the CPU."""


def layers():
    rng = np.random.default_rng(7)
    return npflows.NormalizingFlow(
        [
            npflows.Permutation(3, "random", rng=rng),
            npflows.MAFLayer(3, (6,), [1, 0, 2], rng=rng),
            npflows.CouplingLayer([0, 1, 0], (5,), "none", activation="elu", rng=rng),
            npflows.IAFLayer(3, (4,), rng=rng),
        ],
        npflows.Normal(3, [0.5, 0.0, -0.5], [1.0, 2.0, 0.5]),
    )


def spline_kinds():
    options = {"activation": "tanh", "rng": np.random.default_rng(23)}
    return npflows.NormalizingFlow(
        [
            npflows.SplineCouplingLayer([0, 1, 0], (4,), 3, spline="linear", tails="end_slope", **options),
            npflows.SplineAutoregressiveLayer(3, (4,), [1, 2, 0], 3, spline="quadratic", end_weight=0.5, **options),
            npflows.SplineCouplingLayer([1, 0, 1], (4,), 4, spline="cubic", tails="end_slope", inverted=True, **options),
            npflows.SplineAutoregressiveLayer(3, (4,), None, 3, spline="rational_linear", free_ends=True, **options),
        ]
    )


def monotone_maps():
    options = {"activation": "tanh", "rng": np.random.default_rng(24)}
    return npflows.NormalizingFlow(
        [
            npflows.MonotoneCouplingLayer([0, 0, 1], (4,), num_terms=3, min_scale=0.1, **options),
            npflows.MonotoneAutoregressiveLayer(3, (4,), scalar_map="bernstein", num_terms=4, **options),
            npflows.MonotoneLayer(3, scalar_map="bernstein", num_terms=4, tail_bound=3.0, bounded=False),
            npflows.SplineLayer(3, 3, 2.0, tails="end_slope"),
        ]
    )


def linear():
    rng = np.random.default_rng(8)
    return npflows.NormalizingFlow(
        [
            npflows.LULinear(3, "random", [1, -1, -1], rng=rng),
            npflows.MAFLayer(3, (6,), activation="tanh", rng=rng),
            npflows.Householder(3, 3),
            npflows.QRLinear(3),
            npflows.CouplingLayer([0, 1, 0], (5,), activation="elu", rng=rng),
            npflows.SVDLinear(3, 1),
        ]
    )


def parts():
    bins = transformers.spline(4, 3.0, 0.0, 0.0, 1e-3)
    half = npflows.Chain([npflows.LULinear(3, rng=1), npflows.Permutation(3, [1, 2, 0])], ["matrix", "order"])
    return npflows.NormalizingFlow(
        [
            npflows.Coupling([1, 0, 1], networks.dense(2, (5,), bins.multiplier, activation="silu"), bins, rng=2),
            half,
            npflows.Autoregressive(
                [2, 0, 1], networks.masked(3, (6,), 2, activation="tanh"), transformers.Affine("softplus", least=0.1), rng=3
            ),
            npflows.Elementwise(3, transformers.Affine("hard_clip", least=0.3, most=2.0)),
            half,
        ],
        npflows.Logistic(3, learnable=True),
    )


EVERY_SUPPORT = [
    support.real(),
    support.positive(-1.0),
    support.interval(2.0, 5.0),
    support.periodic(0.0, 360.0),
    support.integer(0, 4),
]

FLOWS = {
    "maf": lambda: npflows.MAF(3, 2, (8,), activation="tanh", rng=1),
    "iaf": lambda: npflows.IAF(3, 2, (8, 6), orders="random", activation="silu", rng=2),
    "realnvp": lambda: npflows.RealNVP(3, 3, (8,), activation="leaky_relu", base_distribution="student_t", rng=3),
    "layers": layers,
    "spline_coupling": lambda: npflows.NeuralSplineFlow(3, 2, (6,), 4, actnorm=True, activation="silu", rng=4),
    "spline_autoregressive": lambda: npflows.NeuralSplineFlow(
        3, 2, (6,), 4, conditioner="autoregressive", linear="reverse", residual_blocks=1, activation="tanh", rng=5
    ),
    "spline_circles": lambda: npflows.NeuralSplineFlow(
        3,
        2,
        (6,),
        4,
        linear="permutation",
        activation="tanh",
        support=[support.periodic(0.0, 360.0), support.real(), support.periodic(-1.0, 1.0)],
        rng=6,
    ),
    "spline_every_support": lambda: npflows.NeuralSplineFlow(
        5,
        2,
        (6,),
        3,
        conditioner="autoregressive",
        linear="permutation",
        activation="silu",
        support=EVERY_SUPPORT,
        rng=7,
    ),
    "spline_groups": lambda: npflows.NeuralSplineFlow(
        6,
        2,
        (6,),
        3,
        actnorm=True,
        activation="silu",
        support={
            0: support.periodic(0.0, 360.0),
            1: support.below(2.0),
            (2, 5): support.simplex(100.0),
            (4, 3): support.ordered(upper=1.0),
        },
        rng=20,
    ),
    "spline_one_column": lambda: npflows.NeuralSplineFlow(
        1, 2, num_bins=4, base_distribution=npflows.StudentT(1, 4.0), rng=8
    ),
    "spline_uniform": lambda: npflows.NeuralSplineFlow(
        2,
        2,
        (5,),
        3,
        tail_bound=5.0,
        linear="permutation",
        activation="elu",
        base_distribution=npflows.Uniform(2, -5.0, 5.0),
        rng=9,
    ),
    "spline_float64": lambda: npflows.NeuralSplineFlow(
        3, 2, (6,), 4, activation="silu", condition_dim=1, dtype="float64", rng=10
    ),
    "maf_float64": lambda: npflows.MAF(
        3,
        2,
        (6,),
        actnorm=True,
        activation="tanh",
        base_distribution=npflows.StudentT(3, [3.0, 8.0, 50.0], dtype="float64"),
        dtype="float64",
        rng=11,
    ),
    "maf_embedding": lambda: npflows.MAF(3, 2, (6,), activation="silu", condition_dim=2, embedding_dims=(4, 2), rng=12),
    "iaf_residual": lambda: npflows.IAF(
        4,
        2,
        (6,),
        residual_blocks=2,
        activation="tanh",
        condition_dim=1,
        support={0: support.positive(), 2: support.interval(0.0, 1.0), 3: support.integer(-2, 2)},
        rng=13,
    ),
    "realnvp_learned_base": lambda: npflows.RealNVP(
        3,
        2,
        (6,),
        actnorm=True,
        activation="silu",
        base_distribution=npflows.Normal(3, 0.5, 2.0, learnable=True),
        rng=14,
    ),
    "realnvp_image": lambda: npflows.RealNVP((4, 4, 1), 2, (3, 3), network="conv", actnorm=True, activation="tanh", rng=15),
    "conditional_realnvp": lambda: npflows.ConditionalRealNVP(3, 2, 2, (6,), residual_blocks=1, activation="silu", rng=16),
    "glow_levels": lambda: npflows.Glow((4, 4, 1), 2, 1, (3, 3), levels=8, alpha=0.05, activation="tanh", rng=17),
    "glow_condition": lambda: npflows.Glow(
        (4, 4, 1),
        2,
        1,
        (3,),
        parameterization="full",
        scale_activation="sigmoid",
        activation="silu",
        condition_dim=2,
        rng=18,
    ),
    "glow_additive": lambda: npflows.Glow(
        (2, 2, 2), 1, 1, (4,), network="dense", coupling="additive", split_prior="standard", activation="tanh", rng=19
    ),
    "parts": parts,
    "mixture": lambda: npflows.RealNVP(
        3, 2, (6,), activation="tanh", base_distribution=npflows.GaussianMixture(3, 3, scale=0.7, rng=24), rng=23
    ),
    "conditional_mixture": lambda: npflows.MAF(
        2,
        1,
        (6,),
        activation="tanh",
        base_distribution=npflows.ConditionalGaussianMixture(2, 2, 3, (5,), activation="tanh", rng=26),
        condition_dim=2,
        rng=27,
    ),
    "laplace": lambda: npflows.NormalizingFlow(
        [npflows.MAFLayer(3, (6,), None, "atan_clip", activation="silu", min_scale=0.1, rng=25)], "laplace"
    ),
    "maf_full": lambda: npflows.MAF(3, 2, (6,), activation="tanh", log_tails=3.0, condition_dim=2, rng=21),
    "linear": linear,
    "spline_ends": lambda: npflows.NeuralSplineFlow(
        3, 1, (6,), 4, affine_ends=True, log_tails=5.0, activation="silu", condition_dim=1, rng=22
    ),
    "spline_kinds": spline_kinds,
    "monotone_maps": monotone_maps,
}
FIT = {"maf_full": {"standardize": "full"}}
"""Options of the fits of some flows."""
FAR = ("maf_full", "spline_ends")
"""Flows of which a row far out is recorded, with a condition far out."""


def table_of(flow, rng):
    """100 rows that the flow may be fitted to."""
    dim = flow.input_dim
    if flow.support is not None and len(flow.input_shape) == 3:
        return rng.integers(0, flow.levels, (100, *flow.input_shape)).astype(float)
    table = rng.normal(size=(100, dim)) * np.resize([0.5, 1.0, 4.0], dim) + np.resize([1.0, -2.0, 30.0], dim)
    for d, column in enumerate(flow.support or []):
        if isinstance(column, support.Positive):
            table[:, d] = column.lower + np.exp(rng.normal(size=100))
        elif isinstance(column, support.Below):
            table[:, d] = column.upper - np.exp(rng.normal(size=100))
        elif isinstance(column, support.Group):
            if d == column.columns[0]:
                table[:, column.columns], _ = column.from_unconstrained(rng.normal(size=(100, len(column.columns))))
        elif isinstance(column, support.Integer):
            table[:, d] = rng.integers(column.low, column.high + 1, 100)
        elif isinstance(column, support.Interval | support.Periodic):
            table[:, d] = rng.uniform(column.low, column.high, 100)
    return table.reshape(100, *flow.input_shape)


def make(name):
    """A flow with parameters and units that are nowhere the default, and inputs for it."""
    flow = FLOWS[name]()
    rng = np.random.default_rng(len(name))
    table = table_of(flow, rng)
    condition = rng.normal(size=(100, flow.condition_dim)) * 3.0 - 1.0 if flow.condition_dim else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a few epochs on a few rows
        flow.fit(table, condition=condition, max_epochs=2, rng=0, progress=False, **FIT.get(name, {}))
    flow.params = flow.params + rng.normal(0, 0.2, flow.num_params)
    if len(flow.input_shape) == 1:
        flow.columns = list(string.ascii_lowercase[: flow.input_dim])
    if name in FAR:
        table[3] += 30 * table.std(axis=0)
    inputs = {"x": table[:4].tolist(), "z": (0.8 * rng.normal(size=(4, flow.latent_dim))).tolist()}
    if condition is not None:
        flow.condition_columns = list(string.ascii_uppercase[: flow.condition_dim])
        condition[3] *= 20 if name in FAR else 1
        inputs["condition"] = condition[:4].tolist()
    return flow, inputs


def expected(flow, inputs):
    """The values that the tests compare."""
    x, condition = np.array(inputs["x"]), inputs.get("condition")
    z, log_det = flow.forward(x, condition)
    values = {
        "log_prob": flow.log_prob(x, condition),
        "gradient": flow.log_prob_and_grad(x, condition)[1],
        "z": z,
        "log_det": log_det,
        "x of z": flow.inverse(inputs["z"], condition)[0],
    }
    return {what: np.asarray(value).tolist() for what, value in values.items()}


def recorded(name):
    """The inputs and the values of a golden flow; the first files have inputs in common, which are here."""
    values = json.loads((FOLDER / f"{name}.json").read_text())
    return values.pop("inputs", {"x": X, "z": Z}), values


def deviation(values, wanted):
    """The largest difference of two sets of values, in units of the largest of their kind where that is above 1."""
    return np.max(
        [
            np.abs(np.subtract(values[what], wanted[what])).max() / np.maximum(1.0, np.abs(wanted[what]).max())
            for what in wanted
        ]
    )


def write(name):
    """Write a flow's two files, with the values of the flow that is read again."""
    path = FOLDER / f"{name}.npz"
    if path.exists():
        sys.exit(f"{name}.npz is there already; old files stay as they are")
    flow, inputs = make(name)
    flow.save(path)
    values = expected(npflows.load(path), inputs)
    rounding = deviation(values, expected(npflows.load(path, dtype="float64"), inputs))
    if not rounding < TOLERANCE["float32"] / 2:  # another CPU may not be nearer than that
        path.unlink()
        sys.exit(f"{name}: rounding alone changes the values by {rounding:.1e}; take smaller parameters")
    path.with_suffix(".json").write_text(json.dumps({"inputs": inputs, **values}, allow_nan=False) + "\n")
    print(f"{name}: {path.stat().st_size} bytes, rounding {rounding:.1e}")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or [name for name in FLOWS if not (FOLDER / f"{name}.npz").exists()]:
        write(name)
