"""Digits drawn by Glow
====================

Glow in a minute: digits of 8 x 8 pixels, drawn by a flow of images, and what lies between two of them.

scikit-learn's digits have 17 shades, whole numbers.  `levels=17` takes them as they are: the flow sees each at a random
place of its cell, samples are whole numbers again, and `bits_per_dim` is what an arithmetic coder would need for a pixel.
`alpha` stretches the two ends of the shades, where most pixels are.  A table of 1,400 digits is small: weight decay keeps
the flow from learning them by heart.

Two held-out digits have latent values; `interpolate` goes from one to the other in a straight line there.

As a script::

    python examples/glow_digits.py [--quick] [-o glow_digits.png]
"""

import argparse
import time

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import npflows
from npflows.plotting import images, training_curve

TEMPERATURE = 0.8
"""How the samples in the picture are drawn."""
PAIRS = (0, 6), (1, 7), (3, 8), (4, 9), (2, 5)
"""Digits with a way between them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few epochs only")
    parser.add_argument("-o", "--output", default="glow_digits.png", help="the picture")
    arguments = parser.parse_args()

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(pixels))
    pixels, labels = pixels[order].reshape(-1, 8, 8, 1).astype(np.uint8), labels[order]
    x, new, new_label = pixels[:1400], pixels[1400:], labels[1400:]

    flow = npflows.Glow((8, 8, 1), num_scales=2, blocks_per_scale=2 if arguments.quick else 8, hidden_dims=(64, 64),
                        levels=17, alpha=0.01, rng=0)  # fmt: skip
    start = time.perf_counter()
    flow.fit(x, max_epochs=2 if arguments.quick else 60, batch_size=64, weight_decay=1.0, rng=0)
    print(f"{len(x):,} digits, {len(flow.history['epoch'])} epochs in {time.perf_counter() - start:.0f} s, "
          f"{flow.num_params:,} parameters")  # fmt: skip
    bits = flow.bits_per_dim(new)
    print(f"{len(new)} others: {bits:.3f} bits per pixel; a pixel of any of 17 shades alike would cost {np.log2(17):.2f}")

    samples = flow.sample(60, rng=1, temperature=TEMPERATURE)
    ways = [flow.interpolate(new[new_label == a][0], new[new_label == b][0], 9) for a, b in PAIRS]
    figure = Figure(figsize=(9, 6.6), dpi=100)
    figure.subplots_adjust(left=0.01, right=0.985, bottom=0.08, top=0.95, wspace=0.28, hspace=0.13)
    axes = figure.subplot_mosaic("SR;WC", width_ratios=(1.5, 1), height_ratios=(1, 0.92))
    images(samples, axes["S"], columns=10, limits=(0, 16), cmap="Greys")
    images(new[:42], axes["R"], columns=7, limits=(0, 16), cmap="Greys")
    images(np.stack(ways), axes["W"], limits=(0, 16), cmap="Greys")
    axes["S"].set_title(f"samples, temperature {TEMPERATURE}")
    axes["R"].set_title("held-out digits")
    axes["W"].set_title("from one held-out digit to another")
    axes["C"].set_title(f"held out: {bits:.2f} bits per pixel")
    training_curve(flow, axes["C"])
    figure.savefig(arguments.output)
    print(f"drawn in {arguments.output}")


if __name__ == "__main__":
    main()
