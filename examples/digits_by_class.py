"""One flow for ten kinds of digits: p(pixels | class), to draw digits of a class, to count bits, and to read digits.

scikit-learn's digits have 8 x 8 pixels of 17 shades, whole numbers, which `support=integer(0, 16)` takes as they are: the
flow sees each at a random place of its cell, samples are whole numbers again, and `log_prob` is the logarithm of a
probability, so that bits per pixel are what an arithmetic coder would need.  The class is the condition, one-hot.  Bayes'
rule turns ten densities into a classifier (`npflows.sklearn.FlowClassifier` has it ready).  For comparison every number
is also given for pixels that are independent within a class, each with its own table of shades.

Lower temperature draws digits closer to the typical one.  Pixels that are the same in all digits are left out.

    python examples/digits_by_class.py [--quick] [-o digits_by_class.png]
"""

import argparse

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import npflows
from npflows.support import integer

COLUMNS, CLASSES = 4, np.arange(10)
"""Digits side by side in the picture, and what is drawn."""


def independent_pixels(x: np.ndarray, labels: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Log-probability (n, 10) of new digits if each pixel of each class keeps to a table of its own."""
    counts = np.full((10, x.shape[1], 17), 0.3)  # so that no shade is impossible
    for c in CLASSES:
        counts[c] += (x[labels == c][:, :, None] == np.arange(17)).sum(axis=0)
    table = np.log(counts / counts.sum(axis=2, keepdims=True))
    return sum(table[:, d, new[:, d].astype(int)].T for d in range(x.shape[1]))


def sheet(digits: np.ndarray) -> np.ndarray:
    """One picture of digits (10, COLUMNS, 8, 8): a row for each class, with gaps."""
    framed = np.pad(digits, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return framed.transpose(0, 2, 1, 3).reshape(100, 10 * COLUMNS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few epochs only")
    parser.add_argument("-o", "--output", default="digits_by_class.png", help="the picture")
    arguments = parser.parse_args()

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(pixels))
    pixels, labels = pixels[order], labels[order]
    used = pixels.std(axis=0) > 0
    x, new, label, new_label = pixels[:1400, used], pixels[1400:, used], labels[:1400], labels[1400:]

    n = x.shape[1]
    flow = npflows.ConditionalRealNVP(n, 10, num_coupling_layers=8, hidden_dims=(128, 128), activation="tanh", dropout=0.2,
                                      support=[integer(0, 16)] * n, rng=0)  # fmt: skip
    flow.fit(x, condition=npflows.one_hot(label, 10), max_epochs=4 if arguments.quick else 300, batch_size=64,
             learning_rate=3e-3, ema=0.99, rng=0)  # fmt: skip
    print(f"{len(x):,} digits, {len(flow.history['epoch'])} epochs in {sum(flow.history['seconds']):.1f} s")

    scores = {
        "flow": np.stack([flow.log_prob(new, condition) for condition in npflows.one_hot(CLASSES)], axis=1),
        "independent pixels": independent_pixels(x, label, new),
    }
    print(f"{len(new)} others; a pixel of any of 17 shades alike would cost {np.log2(17):.2f} bits")
    for name, log_prob in scores.items():
        bits = -log_prob[np.arange(len(new)), new_label].mean() / (64 * np.log(2))
        print(f"  {name:20}{bits:5.2f} bits per pixel,{(log_prob.argmax(axis=1) == new_label).mean():7.1%} read correctly")

    def drawn(temperature: float) -> np.ndarray:
        digits = np.zeros((10, COLUMNS, 64))
        digits[:, :, used] = flow.sample_each(COLUMNS, npflows.one_hot(CLASSES), rng=1, temperature=temperature)
        return digits.reshape(10, COLUMNS, 8, 8)

    real = np.stack([pixels[labels == c][:COLUMNS].reshape(COLUMNS, 8, 8) for c in CLASSES])
    figure = Figure(figsize=(9, 7.8), dpi=100)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.95, wspace=0.12)
    sheets = {"digits": real, "samples": drawn(1.0), "samples, temperature 0.7": drawn(0.7)}
    for ax, (name, digits) in zip(figure.subplots(1, 3), sheets.items()):
        ax.imshow(sheet(digits), cmap="Greys", vmin=0, vmax=16)
        ax.set(title=name, xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    figure.savefig(arguments.output)
    print(f"drawn in {arguments.output}")


if __name__ == "__main__":
    main()
