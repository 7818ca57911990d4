"""Pictures of diagnostics: latents, calibration, and whatever the diagnostics return."""

from types import SimpleNamespace

import numpy as np
import pytest
from picture_cases import coverage_found, png, uniform_pit, visible

from npflows import plotting

matplotlib = pytest.importorskip("matplotlib")


@pytest.mark.parametrize(("d", "columns"), [(1, 1), (2, 3), (9, 5)])
def test_latent_draws_a_histogram_and_quantiles_of_each_column(d, columns, tmp_path):
    figure = plotting.latent(uniform_pit(d))
    assert len(figure.axes) == 2 * columns
    if d == 9:
        assert figure.axes[0].get_title() == "latent column 5"
    for i in range(columns):
        band = figure.axes[i].patches[0].get_extents().transformed(figure.axes[i].transData.inverted())
        values = figure.axes[i].patches[1].get_data().values
        assert values.mean() == pytest.approx(1)
        assert ((values >= band.y0) & (values <= band.y1)).mean() > 0.9
        assert np.abs(figure.axes[columns + i].lines[-1].get_ydata()[50:-50]).max() < 0.15
    png(figure, tmp_path)


def test_latent_shows_what_is_not_uniform():
    off = plotting.latent(uniform_pit(1, power=2.0))
    assert off.axes[0].patches[1].get_data().values[0] > 3
    assert off.axes[1].lines[-1].get_ydata()[100] < -0.3
    edge = uniform_pit(2, n=30)
    edge.u[:5], edge.u[5:7] = 0, 1
    plotting.latent(edge, max_columns=1).canvas.draw()


def test_latent_counts_rows_by_their_weights(tmp_path):
    weights = np.random.default_rng(1).uniform(size=2000)
    figure = plotting.latent(uniform_pit(2, weights=weights))
    assert figure.axes[0].patches[1].get_data().values.mean() == pytest.approx(1)
    assert np.abs(figure.axes[3].lines[-1].get_ydata()[60:-60]).max() < 0.2
    png(figure, tmp_path)


@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("difference", [False, True])
def test_calibration_draws_coverage_on_its_binomial_band(d, difference, tmp_path):
    from scipy.stats import binom

    figure = plotting.calibration(coverage_found(d), difference=difference)
    ax = figure.axes[0]
    assert len(ax.lines) == 1 + d + (d > 1)
    found = ax.lines[-1].get_ydata()
    if d > 1:
        assert found[9] == pytest.approx(-np.sqrt(0.25 / 500) + 0.5 * (not difference))
    band = ax.collections[0].get_paths()[0].vertices
    half = band[np.isclose(band[:, 0], 0.5), 1]
    wanted = binom.ppf([0.005, 0.995], 500, 0.5) / 500 - 0.5 * difference
    np.testing.assert_allclose([half.min(), half.max()], wanted)
    png(figure, tmp_path)
    again = plotting.calibration(coverage_found(d, levels=[0.5, 0.9, 0.68]), ax, difference=difference)
    assert again is figure


def test_calibration_draws_ranks(tmp_path):
    rng = np.random.default_rng(0)
    counts = rng.multinomial(1000, np.full(16, 1 / 16), size=5)
    found = SimpleNamespace(counts=counts, expected=62.5, band=(43, 84), p_value=np.full(5, 0.3), n_samples=255)
    figure = plotting.calibration(found, columns=list("abcde"))
    assert [ax.get_title() for ax in visible(figure)] == list("abcde")
    png(figure, tmp_path)
    axes = figure.axes[:5]
    assert plotting.calibration(found, axes) is figure
    with pytest.raises(ValueError, match="1 x 5 axes, got 2"):
        plotting.calibration(found, axes[:2])
    with pytest.raises(ValueError, match="names 1 columns, the ranks are of 5"):
        plotting.calibration(found, columns=["a"])


@pytest.mark.parametrize("difference", [False, True])
def test_calibration_draws_tarp(difference, tmp_path):
    level = np.linspace(0, 1, 21)
    found = SimpleNamespace(level=level, coverage=level**1.1, error=np.full(21, 0.01), content=np.zeros(300), p_value=0.01)
    figure = plotting.calibration(found, difference=difference)
    np.testing.assert_allclose(figure.axes[0].lines[-1].get_ydata(), level**1.1 - level * difference)
    png(figure, tmp_path)


def test_diagnostics_are_told_apart():
    with pytest.raises(TypeError, match="calibration draws what coverage, sbc_ranks and tarp_coverage"):
        plotting.calibration(uniform_pit(2))
    with pytest.raises(TypeError, match=r"latent draws what npflows.diagnostics.pit returns, got SimpleNamespace"):
        plotting.latent(coverage_found())


def test_what_the_diagnostics_return_can_be_drawn(flow_1d, x, tmp_path):
    diagnostics = pytest.importorskip("npflows.diagnostics")
    rows, condition = x[:200, :1], x[:200, 1:]
    png(plotting.latent(diagnostics.pit(flow_1d, rows, condition)), tmp_path)
    for found in (
        diagnostics.coverage(flow_1d, rows, condition=condition),
        diagnostics.sbc_ranks(flow_1d, rows, condition, 31, rng=0),
        diagnostics.tarp_coverage(flow_1d, rows, condition, 31, rng=0),
    ):
        png(plotting.calibration(found), tmp_path)
