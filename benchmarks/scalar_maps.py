"""Times of scalar maps, of one value on one thread, as a table: python benchmarks/scalar_maps.py

Each time is the least of seven, taken in turn, as machines drift.
"""

import time

import numpy as np

import npflows

ROWS, COLUMNS, ROUNDS = 20_000, 4, 7
LAYERS = {
    "rational-quadratic spline": lambda: npflows.SplineLayer(COLUMNS),
    'the same with `tails="end_slope"`': lambda: npflows.SplineLayer(COLUMNS, tails="end_slope"),
    "linear spline": lambda: npflows.SplineLayer(COLUMNS, spline="linear"),
    "quadratic spline": lambda: npflows.SplineLayer(COLUMNS, spline="quadratic"),
    "cubic spline": lambda: npflows.SplineLayer(COLUMNS, spline="cubic"),
    "rational-linear spline": lambda: npflows.SplineLayer(COLUMNS, spline="rational_linear"),
    "mixture of logistics": lambda: npflows.MonotoneLayer(COLUMNS),
    "Bernstein polynomial, bounded": lambda: npflows.MonotoneLayer(COLUMNS, scalar_map="bernstein"),
}


def main():
    npflows.set_num_threads(1)
    rng = np.random.default_rng(0)
    x, dy, dlog = rng.normal(size=(ROWS, COLUMNS)), np.ones((ROWS, COLUMNS)), np.ones(ROWS)
    layers = {name: make() for name, make in LAYERS.items()}
    for layer in layers.values():
        layer.params = rng.normal(size=layer.num_params)
    best = {}
    for _ in range(1 + ROUNDS):  # the first one compiles
        for name, layer in layers.items():
            for k, call in enumerate((layer.forward, layer.inverse, lambda x, on=layer: on.forward_vjp(x, dy, dlog))):
                start = time.perf_counter()
                call(x)
                best[name, k] = min(best.get((name, k), np.inf), time.perf_counter() - start)
    print("| scalar map of 8 bins or terms, float32 | forward | inverse | gradient |\n| --- | --- | --- | --- |")
    for name in layers:
        print(f"| {name} |", " | ".join(f"{best[name, k] / x.size * 1e9:.0f} ns" for k in range(3)), "|")


if __name__ == "__main__":
    main()
