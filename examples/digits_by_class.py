"""Digits by class
===============

One flow for ten kinds of digits: p(pixels | class), to draw digits of a class, to count bits, and to read digits.

scikit-learn's digits have 8 x 8 pixels of 17 shades, whole numbers, which `Glow(levels=17)` takes as they are: it sees
each at a random place of its cell, samples are whole numbers again, and `log_prob` is the logarithm of a probability, so
that bits per pixel are what an arithmetic coder would need.  The class is the condition, one-hot.  Bayes' rule turns ten
densities into a classifier.  For comparison every number is also given for pixels that are independent within a class, each
with its own table of shades.

Lower temperature draws digits closer to the typical one.

As a script::

    python examples/digits_by_class.py [--quick] [-o digits_by_class.png]
"""

import argparse

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import npflows
from npflows.plotting import images

COLUMNS, CLASSES = 4, np.arange(10)
"""Digits side by side in the picture, and what is drawn."""


def independent_pixels(x: np.ndarray, labels: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Log-probability (n, 10) of new digits if each pixel of each class keeps to a table of its own."""
    counts = np.full((10, *x.shape[1:3], 17), 0.3)  # so that no shade is impossible
    for c in CLASSES:
        counts[c] += (x[labels == c] == np.arange(17)).sum(axis=0)
    table = np.log(counts / counts.sum(axis=3, keepdims=True))
    return np.stack([(table[c] * (new == np.arange(17))).sum(axis=(1, 2, 3)) for c in CLASSES], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few epochs only")
    parser.add_argument("-o", "--output", default="digits_by_class.png", help="the picture")
    arguments = parser.parse_args()

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(pixels))
    pixels, labels = pixels[order].reshape(-1, 8, 8, 1).astype(np.uint8), labels[order]
    x, new, label, new_label = pixels[:1400], pixels[1400:], labels[:1400], labels[1400:]

    flow = npflows.Glow((8, 8, 1), num_scales=2, blocks_per_scale=2 if arguments.quick else 8, hidden_dims=(64, 64),
                        levels=17, alpha=0.01, condition_dim=10, rng=0)  # fmt: skip
    flow.fit(x, condition=npflows.one_hot(label, 10), max_epochs=2 if arguments.quick else 60, batch_size=64,
             weight_decay=1.0, rng=0)  # fmt: skip
    print(f"{len(x):,} digits, {len(flow.history['epoch'])} epochs in {sum(flow.history['seconds']):.1f} s")

    scores = {
        "flow": np.stack([flow.log_prob(new, condition) for condition in npflows.one_hot(CLASSES)], axis=1),
        "independent pixels": independent_pixels(x, label, new),
    }
    print(f"{len(new)} others; a pixel of any of 17 shades alike would cost {np.log2(17):.2f} bits")
    for name, log_prob in scores.items():
        bits = -log_prob[np.arange(len(new)), new_label].mean() / (64 * np.log(2))
        print(f"  {name:20}{bits:5.2f} bits per pixel,{(log_prob.argmax(axis=1) == new_label).mean():7.1%} read correctly")

    real = np.stack([pixels[labels == c][:COLUMNS] for c in CLASSES])
    warm, cool = (flow.sample_each(COLUMNS, npflows.one_hot(CLASSES), rng=1, temperature=t) for t in (1.0, 0.7))
    figure = Figure(figsize=(9, 7.2), dpi=100)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.95, wspace=0.12)
    sheets = {"digits": real, "samples": warm, "samples, temperature 0.7": cool}
    for ax, (name, digits) in zip(figure.subplots(1, 3), sheets.items()):
        images(digits, ax, limits=(0, 16), cmap="Greys")
        ax.set_title(name)
    figure.savefig(arguments.output)
    print(f"drawn in {arguments.output}")


if __name__ == "__main__":
    main()
