"""Pictures: they are drawn for any table, leave matplotlib as it was, and say what to install where it is missing."""

import sys

import numpy as np
import pytest

from npflows import plotting

matplotlib = pytest.importorskip("matplotlib")


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((500, 3))


def png(figure, tmp_path):
    path = tmp_path / "picture.png"
    figure.savefig(path)
    assert path.stat().st_size > 1000
    return path


def visible(figure):
    return [ax for ax in figure.axes if ax.get_visible()]


@pytest.mark.parametrize("d", [1, 2, 3])
def test_corner_draws_every_column_and_pair(d, x, tmp_path):
    names = ["alpha", "beta", "gamma"][:d]
    figure = plotting.corner(x[:, :d], x[:200, :d] + 0.1, columns=names, max_points=50)
    assert len(visible(figure)) == d * (d + 1) // 2
    assert {ax.get_xlabel() for ax in visible(figure)} - {""} == set(names)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["data", "samples"]
    png(figure, tmp_path)


@pytest.mark.parametrize("n", [1, 2, 30])
def test_corner_draws_tables_of_any_size(n, x, tmp_path):
    png(plotting.corner(x[:n], x[:0]), tmp_path)
    png(plotting.corner(x[:n], x[:n]), tmp_path)


def test_corner_draws_awkward_columns(x, tmp_path):
    x[:, 0] = 7.0
    x[:, 1] = 58000 + 0.003 * x[:, 1]
    x[3, 2] = np.nan
    samples = x.copy()
    samples[4, 1] = np.inf
    samples[5, 2] = -1e30
    png(plotting.corner(x, samples), tmp_path)
    png(plotting.corner(x, samples + 1e6), tmp_path)  # not one sample inside
    png(plotting.corner(x.tolist(), ranges=[(6, 8), (57999, 58001), (-1, 1)], bins=8), tmp_path)


def test_regions_hold_the_share_of_the_rows_that_they_name():
    rows = np.random.default_rng(1).standard_normal((200_000, 2))
    edges = (np.linspace(-5, 5, 101),) * 2
    density, levels = plotting._regions(rows, edges)
    centres = 0.5 * (edges[0][1:] + edges[0][:-1])
    radius = np.hypot(*np.meshgrid(centres, centres))
    for level, share in zip(levels, plotting.MASSES):
        assert radius[density > level].max() == pytest.approx(np.sqrt(-2 * np.log(1 - share)), abs=0.25)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": np.zeros(3)}, "must have shape"),
        ({"data": np.zeros((0, 3))}, "no row"),
        ({"data": np.full((4, 2), np.nan)}, "no row"),
        ({"data": np.zeros((4, 2)), "samples": np.zeros((4, 3))}, "3 columns, the data 2"),
        ({"data": np.zeros((4, 2)), "columns": ["a"]}, "names 1 columns"),
        ({"data": np.zeros((4, 2)), "ranges": [(0, 1), (1, 1)]}, "low < high"),
        ({"data": np.zeros((4, 2)), "bins": 3}, "bins must be"),
    ],
)
def test_corner_says_what_does_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        plotting.corner(**arguments)


def test_corner_draws_in_a_given_figure(x):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5))
    assert plotting.corner(x, fig=figure) is figure
    assert len(visible(figure)) == 6


def test_training_curve_draws_what_fit_recorded(tmp_path):
    history = {"epoch": [1, 2, 3], "train_loss": [9.0, 2.0, 1.0], "validation_loss": [8.0, 2.0, 2.5]}
    figure = plotting.training_curve(history)
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == ["training", "validation", "best, epoch 2"]
    png(figure, tmp_path)
    history["validation_loss"] = [np.nan] * 3
    ax = plotting.training_curve(history).axes[0]
    assert plotting.training_curve(history, ax) is ax.figure
    png(ax.figure, tmp_path)
    png(plotting.training_curve({name: values[:1] for name, values in history.items()}), tmp_path)
    with pytest.raises(ValueError, match="fit the flow first"):
        plotting.training_curve({})


def test_drawing_leaves_matplotlib_as_it_was(x, tmp_path):
    before, had_pyplot = dict(matplotlib.rcParams), "matplotlib.pyplot" in sys.modules
    png(plotting.corner(x, x), tmp_path)
    assert dict(matplotlib.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == had_pyplot


def test_without_matplotlib_the_remedy_is_named(x, monkeypatch):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install 'npflows\[plot\]'"):
        plotting.corner(x)
    with pytest.raises(ImportError, match=r"pip install 'npflows\[plot\]'"):
        plotting.training_curve({"epoch": [1]})
