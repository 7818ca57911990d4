"""Images side by side, in color or in black, with titles, and what is refused."""

import numpy as np
import pytest
from picture_cases import png

import npflows
from npflows import plotting

matplotlib = pytest.importorskip("matplotlib")


def shown(figure):
    """The image in the only axes of a figure: colors and opacity (height, width, 4)."""
    return np.asarray(figure.axes[0].images[0].get_array())


def test_images_lie_side_by_side_with_gaps(tmp_path):
    gray = np.arange(5 * 8 * 6).reshape(5, 8, 6, 1)
    figure = plotting.images(gray)
    sheet = shown(figure)
    assert sheet.shape == (8 + 1 + 8, 6 + 1 + 6 + 1 + 6, 4)  # 3 in a row
    np.testing.assert_allclose(sheet[9:, :6, :3], np.repeat(gray[3] / gray.max(), 3, axis=2), atol=0.004)
    assert (sheet[:8, :6, 3] == 1).all()
    for blank in (sheet[8], sheet[:, 6], sheet[9:, 14:]):
        assert (blank[..., 3] == 0).all()
    png(figure, tmp_path)
    assert plotting.images(gray, figure.axes[0], columns=5) is figure
    np.testing.assert_array_equal(shown(plotting.images(gray, columns=9)), shown(plotting.images(gray[None])))
    np.testing.assert_array_equal(shown(plotting.images(gray[0], limits=(0, 239))), sheet[:8, :6])


def test_images_are_colored_or_printed_in_black(tmp_path):
    rng = np.random.default_rng(0)
    colored = rng.integers(0, 256, (2, 3, 8, 8, 3), dtype=np.uint8)
    sheet = shown(plotting.images(colored, limits=(0, 255)))
    assert sheet.shape == (17, 26, 4)
    np.testing.assert_allclose(sheet[9:, 18:, :3], colored[1, 2] / 255)
    gray = rng.uniform(size=(4, 8, 8, 1))
    gray[0, 2, 3] = np.nan
    figure = plotting.images(gray, cmap="Greys", limits=(0, 0.5))
    sheet = shown(figure)
    assert sheet[2, 3, 3] == 0
    np.testing.assert_allclose(sheet[:8, 9:], matplotlib.colormaps["Greys"](np.clip(2 * gray[1, ..., 0], 0, 1)))
    png(figure, tmp_path)
    png(plotting.images(np.full((3, 4, 4, 1), 7)), tmp_path)
    png(plotting.images(np.full((1, 4, 4, 3), np.nan)), tmp_path)


def test_images_have_titles(tmp_path):
    figure = plotting.images(np.zeros((4, 8, 8, 1)), titles=list("abcd"), columns=4)
    assert [text.get_text() for text in figure.axes[0].texts] == list("abcd")
    assert shown(figure).shape == (2 + 8, 35, 4)
    png(figure, tmp_path)


def test_images_shows_what_a_flow_samples(tmp_path):
    flow = npflows.Glow((4, 4, 1), 1, 1, (4,), levels=17, condition_dim=2, rng=0)
    png(plotting.images(flow.sample(3, 0, condition=[0, 1])), tmp_path)
    png(plotting.images(flow.sample_each(3, [[0, 1], [1, 0]], 0), limits=(0, 16)), tmp_path)


@pytest.mark.parametrize(
    ("given", "arguments", "message"),
    [
        (np.zeros((3, 8, 8)), {}, r"1 or 3 channels, got \(3, 8, 8\)"),
        (np.zeros((8, 8)), {}, r"1 or 3 channels, got \(8, 8\)"),
        (np.zeros((3, 8, 8, 2)), {}, "1 or 3 channels"),
        (np.zeros((0, 8, 8, 1)), {}, "no image"),
        (np.zeros((3, 8, 8, 1)), {"titles": ["a"]}, "titles names 1 images, there are 3"),
        (np.zeros((3, 8, 8, 1)), {"limits": (2, 1)}, "limits must be two numbers, low < high"),
        (np.zeros((3, 8, 8, 1)), {"limits": 2}, "limits must be two numbers, low < high"),
        (np.zeros((3, 8, 8, 1)), {"columns": 0}, "columns must be a whole number of at least 1"),
    ],
)
def test_images_says_what_does_not_fit(given, arguments, message):
    with pytest.raises(ValueError, match=message):
        plotting.images(given, **arguments)
