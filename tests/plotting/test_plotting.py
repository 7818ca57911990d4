"""Pictures: they are drawn for any table, leave matplotlib as it was, and say what to install where it is missing."""

import sys

import numpy as np
import pytest
from picture_cases import coverage_found, png, uniform_pit, visible

import npflows
from npflows import plotting, support
from npflows.plotting.pairs import regions
from npflows.plotting.style import MASSES, mass_levels

matplotlib = pytest.importorskip("matplotlib")


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
    density, levels = regions(rows, edges)
    centers = 0.5 * (edges[0][1:] + edges[0][:-1])
    radius = np.hypot(*np.meshgrid(centers, centers))
    for level, share in zip(levels, MASSES):
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


def test_corner_draws_in_given_axes(x):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5))
    axes = figure.subplots(3, 6)
    assert plotting.corner(x, x, axes=axes[:, 3:]) is figure
    assert [ax.get_xlabel() for ax in axes[2]] == ["", "", "", "x0", "x1", "x2"]
    assert not axes[0, 4].get_visible()
    assert axes[0, 1].get_visible()
    with pytest.raises(ValueError, match="3 x 3 axes, got 18"):
        plotting.corner(x, axes=axes)
    with pytest.raises(ValueError, match="give one of them"):
        plotting.corner(x, axes=axes[:, 3:], fig=figure)


def heights(figure, which=0):
    """Of the first histogram in some of the axes."""
    return figure.axes[which].patches[0].get_data().values


def test_corner_counts_rows_by_their_weights(x, tmp_path):
    repeated = np.repeat(x, 3, axis=0)
    weights = np.full(1500, 0.0)
    weights[::3] = 0.2
    figure = plotting.corner(repeated, weights=weights, columns=["a", "b", "c"])
    np.testing.assert_allclose(heights(figure), heights(plotting.corner(x)))
    png(figure, tmp_path)
    with pytest.raises(ValueError, match="must not be negative"):
        plotting.corner(x, weights=-np.ones(500))


def test_corner_takes_the_names_of_a_data_frame(x):
    class Frame:
        columns = ("a", "b", "c")

        def __array__(self, dtype=None, copy=None):
            return x

    figure = plotting.corner(Frame())
    assert {ax.get_xlabel() for ax in figure.axes} - {""} == {"a", "b", "c"}


def test_training_curve_draws_what_fit_variational_recorded(tmp_path):
    history = {
        "step": [100, 200, 300, 400],
        "elbo": [-9.0, -3.0, -2.0, -2.1],
        "validation_elbo": [-1.0, -3.1, -2.0, -2.2],
        "ess": [0.9, 0.2, 0.83, 0.8],
        "tempering": [0.5, 1.0, 1.0, 1.0],
    }
    figure = plotting.training_curve(history)
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == ["samples of the steps", "fixed samples", "best, step 300: ESS 83%"]  # the first is tempered
    assert "ELBO" in figure.axes[0].get_ylabel()
    png(figure, tmp_path)
    history["validation_elbo"] = history["ess"] = [np.nan] * 4
    png(plotting.training_curve(history), tmp_path)


def test_training_curve_takes_a_flow(flow_1d):
    assert plotting.training_curve(flow_1d).axes[0].get_xlabel() == "epoch"


def test_density_1d_draws_a_line_for_each_condition(flow_1d, x, tmp_path):
    conditions = np.array([[0.0, 1], [2, 3]])
    figure = plotting.density_1d(flow_1d, condition=conditions, data=x[:, 0], n_points=50)
    ax = figure.axes[0]
    assert ax.get_xlabel() == "mass [kg]"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["data", "c0 = 0, c1 = 1", "c0 = 2, c1 = 3"]
    points, density = ax.lines[1].get_data()
    np.testing.assert_allclose(density, np.exp(flow_1d.log_prob(points[:, None], conditions[1])))
    assert (heights(figure) * np.diff(ax.patches[0].get_data().edges)).sum() == pytest.approx(0.99, abs=0.02)
    png(figure, tmp_path)
    flow_1d.condition_columns = ["age", "height"]
    figure = plotting.density_1d(flow_1d, (-1, 1), conditions[0], ax=figure.axes[0])
    assert figure.axes[0].get_legend().get_texts()[-1].get_text() == "age = 0, height = 1"
    assert figure.axes[0].get_xlim() == (-1, 1)


def test_densities_stay_within_the_support(tmp_path):
    options = {"num_layers": 1, "hidden_dims": (4,), "linear": "permutation", "rng": 0}
    flow = npflows.NeuralSplineFlow(1, support=[support.integer(0, 5)], **options)
    figure = plotting.density_1d(flow, data=[0, 1, 1, 5, 3])
    points, mass = figure.axes[0].lines[0].get_data()
    np.testing.assert_array_equal(points, np.arange(6))
    assert mass.sum() == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(heights(figure), [0.2, 0.4, 0, 0.2, 0, 0.2])
    png(figure, tmp_path)
    flow = npflows.NeuralSplineFlow(1, support=[support.positive()], **options)
    assert plotting.density_1d(flow).axes[0].get_xlim()[0] == 0
    columns = [support.periodic(0, 360), support.interval(-1, 1)]
    ax = plotting.density_2d(npflows.NeuralSplineFlow(2, support=columns, **options), n_points=20).axes[0]
    assert ax.get_xlim() == (0, 360)
    assert -1 <= ax.get_ylim()[0] < ax.get_ylim()[1] <= 1
    flow = npflows.NeuralSplineFlow(2, support=[support.integer(0, 3), support.real()], **options)
    png(plotting.density_2d(flow, n_points=20, data=[[0, 1.0], [3, 2.0]]), tmp_path)


def test_density_2d_draws_density_regions_and_data(x, tmp_path):
    flow = npflows.MAF(2, num_layers=1, hidden_dims=(4,), condition_dim=1, columns=["a", "b"], dtype="float64", rng=0)
    flow.params = flow.params * 0  # standard normal
    figure = plotting.density_2d(
        flow, [(-5, 5), (-4, 4)], [7], x[:, :2], n_points=100, weights=np.arange(500), max_points=9
    )
    ax = figure.axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("a", "b", "condition = 7")
    density = np.asarray(ax.collections[0].get_array())
    assert density.sum() * 0.1 * 0.08 == pytest.approx(1, abs=1e-3)
    assert len(figure.axes) == 2  # with the color bar
    levels = mass_levels(density)
    for level, share in zip(levels, MASSES):
        assert level == pytest.approx((1 - share) / (2 * np.pi), rel=0.05)
    png(figure, tmp_path)
    again = plotting.density_2d(flow, condition=[7], n_points=20, colorbar=False, ax=figure.axes[0])
    assert again is figure


@pytest.mark.parametrize(
    ("function", "d", "c", "arguments", "message"),
    [
        (plotting.density_1d, 2, 0, {}, "this one has 2 columns: use density_2d"),
        (plotting.density_1d, 3, 0, {}, "this one has 3 columns: corner"),
        (plotting.density_2d, 1, 0, {}, "this one has 1 column: use density_1d"),
        (plotting.density_1d, 1, 1, {}, "needs a condition of 1 values"),
        (plotting.density_1d, 1, 0, {"condition": [1]}, "takes no condition"),
        (plotting.density_1d, 1, 1, {"condition": np.zeros((0, 1))}, "at least one row"),
        (plotting.density_1d, 1, 1, {"condition": np.zeros((9, 1))}, "8 conditions at most, got 9"),
        (plotting.density_2d, 2, 1, {"condition": np.zeros((2, 1))}, "draws one condition, got 2"),
        (plotting.density_1d, 1, 0, {"data": [[1, 2]]}, "data must have 1 columns, got 2"),
        (plotting.density_1d, 1, 0, {"data": [np.nan]}, "no row"),
        (plotting.density_1d, 1, 0, {"ranges": (2, 1)}, "low < high"),
    ],
)
def test_densities_say_what_does_not_fit(function, d, c, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(npflows.MAF(d, num_layers=1, hidden_dims=(4,), condition_dim=c, rng=0), **arguments)


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg", "PNG"])
def test_pictures_are_written_in_full_or_not_at_all(suffix, tmp_path, x):
    path = plotting.check_picture(tmp_path / f"a.{suffix}")
    figure = plotting.corner(x[:50])
    plotting.save_picture(figure, path)
    before = path.read_bytes()
    assert before[:4] in (b"\x89PNG", b"%PDF", b"<?xm")
    figure.savefig = lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        plotting.save_picture(figure, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match=r"suffix is .png, .pdf or .svg"):
        plotting.check_picture(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="can't write"):
        plotting.check_picture(tmp_path / "no" / "a.png")


def test_drawing_leaves_matplotlib_as_it_was(x, tmp_path):
    before, had_pyplot = dict(matplotlib.rcParams), "matplotlib.pyplot" in sys.modules
    png(plotting.corner(x, x), tmp_path)
    png(plotting.latent(uniform_pit(1)), tmp_path)
    png(plotting.calibration(coverage_found()), tmp_path)
    assert dict(matplotlib.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == had_pyplot


def test_without_matplotlib_the_remedy_is_named(x, monkeypatch):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install 'npflows\[plot\]'"):
        plotting.corner(x)
    with pytest.raises(ImportError, match=r"pip install 'npflows\[plot\]'"):
        plotting.training_curve({"epoch": [1]})
    for draw in (plotting.latent, plotting.calibration, plotting.density_1d, plotting.density_2d, plotting.images,
                 plotting.check_picture):  # fmt: skip
        with pytest.raises(ImportError, match=r"pip install 'npflows\[plot\]'"):
            draw(None)


def test_an_ensemble_is_drawn_in_a_band():
    members = [npflows.MAF(1, 1, (4,), rng=seed) for seed in range(3)]
    for i, member in enumerate(members):
        member.standardize.set(0.5 * i, 1.0)
    ax = plotting.density_1d(npflows.Ensemble(members), ranges=(-3, 4)).axes[0]
    [line], [band] = ax.lines, ax.collections
    points = line.get_xdata()
    densities = np.exp([member.log_prob(points[:, None]) for member in members])
    np.testing.assert_allclose(line.get_ydata(), densities.mean(axis=0))
    low, high = band.get_paths()[0].get_extents().intervaly
    assert low >= 0
    assert high == pytest.approx((densities.mean(axis=0) + densities.std(axis=0, ddof=1)).max())
    assert line.get_label() == "3 flows"


def test_the_density_of_an_ensemble_of_two_columns_is_that_of_the_mixture(tmp_path):
    members = [npflows.MAF(2, 1, (4,), rng=seed) for seed in range(2)]
    members[1].standardize.set([8.0, 0.0], [1.0, 1.0])
    ensemble = npflows.Ensemble(members)
    figure = plotting.density_2d(ensemble, n_points=20)
    png(figure, tmp_path)
    mesh = figure.axes[0].collections[0]
    low, high = figure.axes[0].get_xlim()
    assert low < 0
    assert high > 8
    a, b = (np.linspace(*limits, 41)[1::2] for limits in ((low, high), figure.axes[0].get_ylim()))
    grid = np.stack(np.meshgrid(a, b), axis=-1)
    np.testing.assert_allclose(np.asarray(mesh.get_array()), np.exp(ensemble.log_prob(grid.reshape(-1, 2))).reshape(20, 20))
    with pytest.raises(ValueError, match="this one has 2 columns: use density_2d"):
        plotting.density_1d(ensemble)
    with pytest.raises(TypeError, match="a history for each of its 2 members: draw training_curve of a member"):
        plotting.training_curve(ensemble)
