"""Anomaly detection
=================

What does not belong: rows to which a flow, fitted to good ones, gives less density than it gives to nearly all of those.

The threshold is the 1 % quantile of the training rows' log-likelihoods, so that about 1 % of good rows are called anomalous
by mistake, and held-out ones tell how nearly.  Three faults are put into held-out galaxies: one band 0.15 magnitudes off,
two neighboring bands exchanged, and the redshift of another galaxy.  Each value remains an ordinary one, only in the wrong
company: limits on single columns can't see it, and one Gaussian, whose density is a Mahalanobis distance, hardly sees the
first and the last.

`npflows.sklearn.FlowOutlierDetector` is the same as a scikit-learn estimator.

As a script::

    python examples/anomaly_detection.py [--quick] [-o anomaly_detection.png]
"""

import argparse

import numpy as np
from matplotlib.figure import Figure

import npflows
from npflows.data import load_galaxies

SHARE = 0.01
"""Of good rows that may be called anomalous."""


def with_faults(good: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Copies of redshift, u, g, r, i, z, y, each with one kind of fault."""
    shifted, exchanged, mistaken = good.copy(), good.copy(), good.copy()
    band = rng.integers(1, 7, len(good))
    shifted[np.arange(len(good)), band] += 0.15
    exchanged[:, [3, 4]] = good[:, [4, 3]]
    mistaken[:, 0] = np.roll(good[:, 0], 1)
    return {"one band 0.15 mag off": shifted, "r and i exchanged": exchanged, "wrong redshift": mistaken}


def roc(good: np.ndarray, bad: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """False alarms, detections at every threshold of two sets of scores, and the area below the curve."""
    thresholds = np.sort(np.concatenate([good, bad]))
    alarms, detections = (np.searchsorted(np.sort(s), thresholds, side="right") / len(s) for s in (good, bad))
    area = np.searchsorted(np.sort(bad), good, side="left").mean() / len(bad)
    return alarms, detections, area


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few epochs only")
    parser.add_argument("-o", "--output", default="anomaly_detection.png", help="the picture")
    arguments = parser.parse_args()

    x = load_galaxies()[0].astype(np.float64)
    known, good = x[:16_000], x[16_000:]
    faults = with_faults(good, np.random.default_rng(0))

    flow = npflows.MAF(7, num_layers=8, hidden_dims=(64, 64), activation="tanh", rng=0)
    flow.fit(known, max_epochs=4 if arguments.quick else 60, batch_size=128, learning_rate=7e-3, rng=0)
    known_score, good_score = flow.log_prob(known), flow.log_prob(good)
    threshold = np.quantile(known_score, SHARE)
    print(f"{len(known):,} galaxies to learn from; anomalous is a log-likelihood below {threshold:.2f}")
    print(f"called anomalous: {(known_score < threshold).mean():.2%} of them, "
          f"{(good_score < threshold).mean():.2%} of {len(good):,} held-out ones")  # fmt: skip

    center, precision = known.mean(axis=0), np.linalg.inv(np.cov(known.T))

    def gaussian(rows: np.ndarray) -> np.ndarray:
        return -np.einsum("ni,ij,nj->n", rows - center, precision, rows - center)

    gaussian_good = gaussian(good)
    gaussian_threshold = np.quantile(gaussian(known), SHARE)

    figure = Figure(figsize=(10, 3.9), dpi=120)
    figure.subplots_adjust(left=0.06, right=0.98, bottom=0.13, top=0.97, wspace=0.17)
    left, right = figure.subplots(1, 2)
    bins = np.linspace(-40, 14, 55)
    left.hist(np.clip(good_score, -40, 14), bins, color="#b4bcc7", label="held out, good")
    print(f"{'':24}found: flow, Gaussian   area below the curve: flow, Gaussian")
    for (name, rows), color in zip(faults.items(), ("#d9480f", "#1971c2", "#2b8a3e")):
        score, gaussian_score = flow.log_prob(rows), gaussian(rows)
        left.hist(np.clip(score, -40, 14), bins, histtype="step", color=color, lw=1.3, label=name)
        alarms, detections, area = roc(good_score, score)
        right.plot(alarms, detections, color=color, label=name)
        gaussian_alarms, gaussian_detections, gaussian_area = roc(gaussian_good, gaussian_score)
        right.plot(gaussian_alarms, gaussian_detections, color=color, ls=":")
        print(f"{name:24}{(score < threshold).mean():11.1%}{(gaussian_score < gaussian_threshold).mean():10.1%}"
              f"{area:30.4f}{gaussian_area:10.4f}")  # fmt: skip
    left.axvline(threshold, color="#3c4654", ls="--", lw=1, label=f"threshold: {SHARE:.0%} of training rows")
    left.set(
        xlabel="log-likelihood (all below -40 in the first bin)",
        ylabel="galaxies",
        yscale="log",
        xlim=(-40, 14),
        ylim=(0.8, 30000),
    )
    left.legend(loc="upper left", bbox_to_anchor=(0.05, 1), frameon=False, fontsize=9, labelspacing=0.25)
    right.axvline(SHARE, color="#3c4654", ls="--", lw=1)
    right.plot([], [], color="#3c4654", ls=":", label="by one Gaussian")
    right.set(xscale="log", xlim=(1e-3, 1), ylim=(0, 1.02), xlabel="good galaxies called anomalous",
              ylabel="faults found")  # fmt: skip
    right.legend(loc="center left", bbox_to_anchor=(0.0, 0.3), edgecolor="none", framealpha=1)
    figure.savefig(arguments.output)
    print(f"drawn in {arguments.output}")


if __name__ == "__main__":
    main()
