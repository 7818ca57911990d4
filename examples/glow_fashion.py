"""Clothes drawn by Glow
=====================

Glow on images: shirts, shoes and bags of 28 x 28 pixels, drawn by class and counted in bits.

Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747) has 70,000 gray images of ten kinds of clothing.  A border of two pixels
makes them 32 x 32, which three scales can halve.  The flow gets the kind as a condition; `levels=256` says that pixels are
whole numbers, `alpha` stretches the two ends of the shades, where most pixels are.  It takes six minutes of CPU time.

The images are four gzipped files, in a folder that you name.  On Debian and Ubuntu the package dataset-fashion-mnist puts
them into /usr/share/datasets/fashion-mnist; https://github.com/zalandoresearch/fashion-mnist has them too.

As a script::

    python examples/glow_fashion.py FOLDER [-o glow_fashion.png]
    python examples/glow_fashion.py --quick            # a few steps, on digits where there is no folder
"""

import argparse
import gzip
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import npflows
from npflows.plotting import images, training_curve

ROWS, TEMPERATURE = 4, 0.8
"""Samples of each kind in the picture, and how they are drawn."""
HOW = """the folder of Fashion-MNIST's four files is needed, train-images-idx3-ubyte.gz and so on:
  apt install dataset-fashion-mnist && python examples/glow_fashion.py /usr/share/datasets/fashion-mnist
or download them from https://github.com/zalandoresearch/fashion-mnist"""


def read(path: Path) -> np.ndarray:
    """The bytes of a gzipped IDX file, in the shape that it names."""
    with gzip.open(path) as file:
        content = file.read()
    n_axes = content[3]
    shape = np.frombuffer(content, ">i4", n_axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * n_axes).reshape(shape)


def fashion(folder: Path) -> list[np.ndarray]:
    """Images and kinds to train on, then those of the test."""
    return [
        read(folder / f"{part}-{what}-ubyte.gz") for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")
    ]


def digits() -> list[np.ndarray]:
    """Digits in the place of clothes."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    large = 15 * np.kron(pixels.reshape(-1, 8, 8).astype(np.uint8), np.ones((1, 3, 3), np.uint8))
    x = np.pad(large, ((0, 0), (2, 2), (2, 2)))
    return [x[:-100], labels[:-100], x[-100:], labels[-100:]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="where Fashion-MNIST's four files are")
    parser.add_argument("--quick", action="store_true", help="a few steps on a few images")
    parser.add_argument("-o", "--output", default="glow_fashion.png", help="the picture")
    arguments = parser.parse_args()
    if arguments.folder is None and not arguments.quick:
        parser.error(HOW)
    try:
        x, kind, new, new_kind = digits() if arguments.folder is None else fashion(arguments.folder)
    except FileNotFoundError as error:
        parser.error(f"{error.filename} is missing; {HOW}")

    if arguments.quick:
        x, kind, new, new_kind = x[:320], kind[:320], new[:32], new_kind[:32]
    x, new = (np.pad(pixels, ((0, 0), (2, 2), (2, 2)))[..., None] for pixels in (x, new))
    condition, new_condition = npflows.one_hot(kind, 10), npflows.one_hot(new_kind, 10)

    flow = npflows.Glow((32, 32, 1), num_scales=3, blocks_per_scale=1 if arguments.quick else 4, hidden_dims=(64, 64),
                        levels=256, alpha=0.001, condition_dim=10, rng=0)  # fmt: skip
    print(f"{len(x):,} images of {x.shape[1]} x {x.shape[2]} pixels, {flow.num_params:,} parameters")
    start = time.perf_counter()
    flow.fit(x, condition=condition, validation_fraction=1 / 30, max_epochs=1 if arguments.quick else 5, batch_size=32,
             ema=0.999, rng=0)  # fmt: skip
    epochs = len(flow.history["epoch"])
    print(f"trained for {epochs} epochs in {(time.perf_counter() - start) / 60:.1f} minutes")

    parts = [slice(i, i + 500) for i in range(0, len(new), 500)]  # each at other places of its cells
    bits = np.average([flow.bits_per_dim(new[part], new_condition[part], draws=4, rng=part.start) for part in parts],
                      weights=[len(new[part]) for part in parts])  # fmt: skip
    print(f"{len(new):,} others: {bits:.3f} bits per pixel of 32 x 32, at most {bits * (32 / 28) ** 2:.3f} of 28 x 28")

    samples = flow.sample_each(ROWS, np.eye(10), rng=1, temperature=TEMPERATURE)
    real = np.stack([np.resize(new[new_kind == c], (ROWS, 32, 32, 1)) for c in range(10)])
    figure = Figure(figsize=(9, 6.6), dpi=100, layout="constrained")
    axes = figure.subplot_mosaic("SSS;RRC", height_ratios=(1.55, 1), width_ratios=(1, 1, 1.1))
    for ax, shown in ((axes["S"], samples), (axes["R"], real)):
        images(shown.swapaxes(0, 1)[:, :, 2:-2, 2:-2], ax, limits=(0, 255), cmap="Greys")
    axes["S"].set_title(f"samples of each kind, temperature {TEMPERATURE}")
    axes["R"].set_title("held-out images")
    axes["C"].set_title(f"held out: {bits:.2f} bits per pixel")
    training_curve(flow, axes["C"])
    figure.savefig(arguments.output)
    print(f"drawn in {arguments.output}")


if __name__ == "__main__":
    main()
