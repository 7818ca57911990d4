"""The pictures that the tests look at."""

from types import SimpleNamespace

import numpy as np


def png(figure, tmp_path):
    path = tmp_path / "picture.png"
    figure.savefig(path)
    assert path.stat().st_size > 1000
    return path


def visible(figure):
    return [ax for ax in figure.axes if ax.get_visible()]


def uniform_pit(d, n=2000, power=1.0, weights=None):
    """A result like that of `npflows.diagnostics.pit`."""
    u = np.random.default_rng(0).uniform(size=(n, d)) ** power
    return SimpleNamespace(u=u, weights=weights, statistic=np.arange(d) / 100, p_value=np.linspace(0.2, 0.9, d))


def coverage_found(d=3, n=500, levels=None):
    levels = np.linspace(0.05, 0.95, 19) if levels is None else np.asarray(levels)
    error = np.sqrt(levels * (1 - levels) / n)
    return SimpleNamespace(levels=levels, error=error, ball=levels - error, interval=np.tile(levels[:, None], d))
