"""The CUDA backend on a machine with an NVIDIA GPU: is it right, does it give the same bits twice, how fast is it?

    python benchmarks/cuda.py                      # prints tables in Markdown; status 1 where something is off
    NUMBA_ENABLE_CUDASIM=1 python benchmarks/cuda.py --quick

First every entry of the tests' registry on the GPU against the CPU, in both dtypes; then a gradient twice; then times: of
npflows on either, and of PyTorch on the GPU through zuko, nflows and normflows, where they are installed (eager, and
compiled by torch.compile where that works).  `--quick` does a little of each, for CI, in numba.cuda's simulator.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import npflows
from npflows.core import backend, evaluation

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
LIMITS = {"float64": 1e-12, "float32": 1e-5}
"""How far the GPU may be from the CPU, relative to max(1, |value|)."""


def off(own: Any, expected: Any) -> float:
    """The largest difference of two arrays, relative to max(1, |value|); infinite where one is finite and the other not."""
    own, expected = np.asarray(own), np.asarray(expected)
    finite = np.isfinite(expected)
    if not np.array_equal(np.isfinite(own), finite):
        return np.inf
    return float((np.abs(own - expected) / np.maximum(1, np.abs(expected))).max(initial=0, where=finite))


def check(name: str, dtype: str, n: int) -> float:
    """The largest difference of an entry of the registry between GPU and CPU."""
    from registry import build, condition, source

    obj = build(name, dtype)
    is_flow = isinstance(obj, npflows.NormalizingFlow)
    program = obj.program(with_base=False) if is_flow else obj.program()
    pair = [backend.select(one).compile(program, obj.dtype) for one in ("cuda", "cpu")]
    worst, free = 0.0, obj.parameters.free
    for inverse in (False, True):
        x = source(obj, n, "inverse" if inverse else "forward")
        given = {"x": x, "condition": condition(obj, n), "inverse": inverse}
        a, b = (evaluation.transport(one, obj.state(), **given) for one in pair)
        worst = max(worst, off(a.y, b.y), off(a.log_det, b.log_det))
        given |= {"dy": np.cos(x), "dlog": np.sin(np.arange(n)), "input": True}
        a, b = (evaluation.pullback(one, obj.state(), **given) for one in pair)
        worst = max(worst, off(a.dx, b.dx), off(a.gradient[free] / n, b.gradient[free] / n))
    return worst


def ways() -> dict[str, int]:
    """How networks may run, with the units from which on they do so product by product."""
    from npflows.backends.cuda import link, wide

    return {"lane by lane": link.WIDE, f"product by product, by {wide.chosen(np.dtype(np.float32)).name}": 1}


def check_tensor_cores(m: int, k: int, n: int) -> bool:
    """Whether a product on tensor cores is as exact as its emulation says, which prints what was found."""
    from npflows.backends.cpu.kernels.tiles import FROM_ZERO
    from npflows.backends.cuda import device, matrices, tensor_matrices, tf32

    rng, single = np.random.default_rng(0), np.dtype(np.float32)
    a, b = (rng.normal(size=shape).astype(single) for shape in ((m, k), (k, n)))
    multiplies = tensor_matrices.TensorCores(matrices.Tiles(single))
    prepared = multiplies.prepare([matrices.Product(0, k, 1, 0, 0, 0, m, k, FROM_ZERO)])
    c = device.to_device(np.full((m, n), np.nan, single))
    multiplies.multiply(prepared, device.to_device(a.ravel()), 0, device.to_device(b), c)
    own, exact = device.to_host(c), a.astype(float) @ b
    emulated = {"A100": tf32.product(a, b, tf32.A100), "H100": tf32.product(a, b, tf32.H100)}
    errors = {name: float(np.sqrt(np.mean((one - exact) ** 2))) for name, one in {"here": own, **emulated}.items()}
    same = [name for name, one in emulated.items() if np.array_equal(one, own)]
    told = ", ".join(f"{name} {value:.1e}" for name, value in errors.items())
    print(f"\nTensor cores, depth {k}: errors {told}; the same bits as emulated: {', '.join(same) or 'none'}")
    return errors["here"] < 1.5 * max(errors["A100"], errors["H100"])


def milliseconds(run: Callable[[], Any], repeats: int) -> float:
    """The median time of a call, the first one left out."""
    run()
    found = []
    for _ in range(repeats):
        begun = time.perf_counter()
        run()
        found.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(found)


WORK: dict[str, tuple[Callable[[], Any], int, int]] = {
    "train step, MAF D=8 64x64": (lambda: npflows.MAF(8, 5, (64, 64), rng=0), 8, 4096),
    "train step, spline coupling D=7 128x128": (lambda: npflows.NeuralSplineFlow(7, 8, (128, 128), 8, rng=0), 7, 4096),
    "train step, RealNVP D=64 512x512": (lambda: npflows.RealNVP(64, 8, (512, 512), rng=0), 64, 4096),
}
"""Names, and what makes the flow, its columns and the rows of a step."""
SMALL = {"train step, MAF D=2 4": (lambda: npflows.MAF(2, 1, (4,), rng=0), 2, 5)}
"""The same for the simulator."""


def train_step(flow: Any, x: np.ndarray) -> Callable[[], None]:
    """A step of training, with all that `fit` does for it."""
    program, theta, n = flow.executable(), flow.parameters.theta, len(x)
    optimizer = program.optimizer(theta, flow.parameters.free, 0.0, 5.0)
    buffers, log_prob, dlog = program.gradient_buffers({n}, theta)[n], np.empty(n), np.full(n, -1 / n)

    def step() -> None:
        flow.accumulate(x, None, dlog, buffers, log_prob=log_prob, key=1)
        optimizer.step(buffers, 1e-4)

    return step


def peers(name: str, dim: int) -> dict[str, Callable[[], Any]]:
    """Makers of the same flow in libraries of PyTorch that are installed, each a module with log_prob."""
    kind = "MAF" if "MAF" in name else "spline" if "spline" in name else "RealNVP"
    layers, hidden = {"MAF": (5, 64), "spline": (8, 128), "RealNVP": (8, 512)}[kind]

    def zuko() -> Any:
        import zuko

        makers = {"MAF": zuko.flows.MAF, "spline": zuko.flows.NSF, "RealNVP": zuko.flows.NICE}
        flow = makers[kind](dim, transforms=layers, hidden_features=(hidden, hidden))
        return flow, lambda x: flow().log_prob(x)

    def nflows() -> Any:
        from nflows import distributions, flows, transforms

        made = [transforms.MaskedAffineAutoregressiveTransform(dim, hidden, num_blocks=2, use_residual_blocks=False)
                for _ in range(layers)]  # fmt: skip
        flow = flows.Flow(transforms.CompositeTransform(made), distributions.StandardNormal([dim]))
        return flow, flow.log_prob

    def normflows() -> Any:
        import normflows as nf

        made = [nf.flows.MaskedAffineAutoregressive(dim, hidden, num_blocks=2) for _ in range(layers)]
        flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(dim), made)
        return flow, flow.log_prob

    return {"zuko": zuko, "nflows": nflows, "normflows": normflows} if kind == "MAF" else {"zuko": zuko}


def torch_steps(name: str, x: np.ndarray, repeats: int) -> dict[str, float]:
    """Times of the same step in PyTorch on the GPU, of what is installed."""
    try:
        import torch
    except ImportError:
        return {}
    if not torch.cuda.is_available():
        return {}
    found = {}
    given = torch.tensor(x, dtype=torch.float32, device="cuda")
    for library, make in peers(name, x.shape[1]).items():
        for mode in ("eager", "compiled"):
            try:
                flow, log_prob = make()
                flow.to("cuda")
                density = torch.compile(log_prob) if mode == "compiled" else log_prob
                optimizer = torch.optim.Adam(flow.parameters(), lr=1e-4)

                def step(flow: Any = flow, density: Any = density, optimizer: Any = optimizer) -> None:
                    optimizer.zero_grad()
                    (-density(given).mean()).backward()
                    optimizer.step()
                    torch.cuda.synchronize()

                found[f"{library}, {mode}"] = milliseconds(step, repeats)
            except Exception as error:  # a library that is not there, or what torch.compile does not take
                print(f"{library}, {mode}: {type(error).__name__}", file=sys.stderr)
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    from registry import ALL

    from npflows.backends.cuda import device, link, tensor_cores

    good, narrow = True, ways()
    print("| dtype | networks run | entries | largest difference from the CPU | in |\n| --- | --- | --- | --- | --- |")
    for (dtype, limit), (way, width) in itertools.product(LIMITS.items(), narrow.items()):
        link.WIDE = width
        names = ["MAF layer, condition", "LU"] if quick else list(ALL)
        found = {name: check(name, dtype, 3 if quick else 1000) for name in names}
        worst = max(found, key=lambda name: found[name])
        beyond = [f"{name} {value:.1e}" for name, value in found.items() if value > limit]
        good &= not beyond
        print(f"| {dtype} | {way} | {len(found)} | {found[worst]:.1e} | {worst} |")
        print(*beyond, sep="\n", file=sys.stderr)
    link.WIDE = narrow["lane by lane"]
    if quick or device.capability() >= tensor_cores.CAPABILITY:
        good &= check_tensor_cores(*((32, 64, 8) if quick else (512, 512, 1024)))
    columns = ["work", "rows", "GPU, ms", "CPU, ms", "PyTorch on the GPU, ms"]
    print(f"\n| {' | '.join(columns)} |\n{'| --- ' * len(columns)}|")
    for name, (make, dim, n) in (SMALL if quick else WORK).items():
        rows = np.random.default_rng(0).normal(size=(n, dim))
        flows = [make().to(device) for device in ("cuda", "cpu")]
        gradients = [flows[0].pullback(rows, None, dlog=np.ones(len(rows))).gradient for _ in range(2)]
        if not np.array_equal(*gradients):
            good = False
            print(f"{name}: not the same bits twice", file=sys.stderr)
        own, cpu = (milliseconds(train_step(flow, rows), 1 if quick else 20) for flow in flows)
        others = {} if quick else torch_steps(name, rows, 20)
        told = ", ".join(f"{library} {value:.2f}" for library, value in others.items())
        print(f"| {name} | {len(rows)} | {own:.2f} | {cpu:.2f} | {told} |")
    return not good


if __name__ == "__main__":
    sys.exit(main())
