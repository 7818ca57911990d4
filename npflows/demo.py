"""`npflows demo`: a flow of 20,000 galaxies, compared with two classical density estimates, and a picture."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from npflows import MAF, __version__, get_num_threads, load, plotting
from npflows.core.checks import as_flag
from npflows.core.optional import scipy
from npflows.data import load_galaxies

PICTURE = "npflows_demo.png"
N_VALIDATION = N_TEST = 2000


def demo(picture: str | os.PathLike[str] | None = None, *, seed: int = 0, quick: bool = False) -> dict[str, float]:
    """Fit the galaxies, print the results, and draw data and samples.

    Parameters
    ----------
    picture : path-like, optional
        Where to draw; npflows_demo.png, and only if matplotlib is installed, by default.
    seed : int
    quick : bool
        A few seconds of training only.

    Returns
    -------
    dict
        Mean log-likelihood of held-out rows under each estimate.

    Raises
    ------
    ImportError
        If SciPy is missing, or matplotlib and a picture was asked for.
    OSError, ValueError
        If the picture can't be written there; checked before anything else.
    """
    started = time.perf_counter()
    quick, draw = as_flag(quick, "quick"), _drawing(picture)
    x, columns = load_galaxies()
    train, validation, test = np.split(x, [len(x) - N_VALIDATION - N_TEST, len(x) - N_TEST])
    if quick:
        train = train[:4000]
    print(f"npflows {__version__}: {len(x):,} simulated galaxies, {columns[0]} and magnitudes {', '.join(columns[1:])}")
    print(f"{len(train):,} rows to train on, {len(validation):,} to validate, {len(test):,} held out; "
          f"{get_num_threads()} threads")  # fmt: skip

    scores = _classical(train, test)
    flow = MAF(x.shape[1], num_layers=8, hidden_dims=(64, 64), activation="tanh", rng=seed)
    flow.columns = columns
    print(f"\nfitting a masked autoregressive flow, {flow.num_layers} layers, {flow.num_params:,} parameters", flush=True)
    print(f"  {'compiled, or loaded from the cache':36}{_timed(lambda: _every_kernel(train[:256])):6.1f} s", flush=True)
    seconds = _timed(lambda: flow.fit(train, validation_data=validation, max_epochs=10 if quick else 120, batch_size=128,
                                      learning_rate=7e-3, patience=None, rng=seed))  # fmt: skip
    print(f"  {'trained for ' + str(len(flow.history['epoch'])) + ' epochs':36}{seconds:6.1f} s")

    scores["normalizing flow (npflows MAF)"] = float(flow.log_prob(test).mean())
    print("\nmean log-likelihood of a held-out galaxy, in nats: higher is better")
    for name, score in scores.items():
        print(f"  {name:36}{score:6.2f}")

    with tempfile.TemporaryDirectory() as folder:
        flow.save(Path(folder, "galaxies.npz"))
        again = load(Path(folder, "galaxies.npz"))
    if again.log_prob(test).tobytes() != flow.log_prob(test).tobytes():
        raise RuntimeError("the flow that was loaded from its file gives other log-densities: please report this")
    print("\nsaved, loaded: the same log-densities to the last bit")
    started_sampling = time.perf_counter()
    samples = again.sample(len(x), rng=seed)
    print(f"{len(x):,} samples drawn in {time.perf_counter() - started_sampling:.2f} s")
    print(draw(x, samples, columns))
    print(f"{time.perf_counter() - started:.1f} s in all")
    return scores


def _every_kernel(x: np.ndarray) -> None:
    """Compile the kernels that the demonstration uses, or load them from the cache, before anything is timed."""
    flow = MAF(x.shape[1], num_layers=1, hidden_dims=(8,), activation="tanh", rng=0)
    flow.fit(x, max_epochs=1, rng=0, progress=False).sample(len(x), rng=0)


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _drawing(picture: str | os.PathLike[str] | None) -> Callable[[np.ndarray, np.ndarray, list[str]], str]:
    """A function that draws the picture and returns a line about it, after checking that a picture can be drawn."""
    path = Path(PICTURE if picture is None else picture)
    try:
        plotting.require_matplotlib()
    except ImportError as error:
        if picture is not None:
            raise
        hint = str(error)
        return lambda *_: f"no picture: {hint}"
    plotting.check_picture(path)

    def draw(data: np.ndarray, samples: np.ndarray, columns: list[str]) -> str:
        figure = plotting.corner(data, samples, columns=columns, labels=("galaxies", "samples of the flow"))
        plotting.save_picture(figure, path)
        return f"data and samples drawn in {path}"

    return draw


def _classical(train: np.ndarray, test: np.ndarray) -> dict[str, float]:
    """Mean log-likelihood of `test` under a Gaussian and a kernel density estimate of `train`."""
    stats = scipy("stats", "npflows demo")
    train, test = train.astype(np.float64), test.astype(np.float64)
    gaussian = stats.multivariate_normal(train.mean(axis=0), np.cov(train.T))
    return {
        "Gaussian": float(gaussian.logpdf(test).mean()),
        "kernel density estimate (SciPy)": float(stats.gaussian_kde(train.T).logpdf(test.T).mean()),
    }
