"""The course of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from npflows.distribution.transformed import TransformedDistribution
from npflows.plotting.style import ACCENT, INK, LEGEND, at_whole_numbers, figure_of, label, own_axes, require_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def training_curve(history: TransformedDistribution | Mapping[str, Sequence[float]], ax: Axes | None = None) -> Figure:
    """Draw the log-likelihood during `fit`, or the evidence lower bound during `fit_variational`.

    The first epochs, whose values are far below the others, are outside of the axes.

    Parameters
    ----------
    history : NormalizingFlow or mapping
        A flow, or its `history`.
    ax : matplotlib.axes.Axes, optional
        The axes to draw into; those of a new figure by default.

    Returns
    -------
    matplotlib.figure.Figure
    """
    require_matplotlib()
    record: Any = getattr(history, "history", history)
    if isinstance(record, list):
        raise TypeError(f"an ensemble has a history for each of its {len(record)} members: draw training_curve of a member")
    if not record or not len(next(iter(record.values()))):
        raise ValueError("history is empty: fit the flow first")
    values = {name: np.asarray(numbers, dtype=np.float64) for name, numbers in record.items()}
    variational = "elbo" in values
    if variational:
        time, unit, what = values["step"], "step", "evidence lower bound (ELBO)"
        fitted, judged = values["elbo"], values["validation_elbo"]
        allowed = values.get("tempering", np.ones(len(time))) >= 1
    else:
        time, unit, what = values["epoch"], "epoch", "mean log-likelihood per row"
        fitted, judged = -values["train_loss"], -values["validation_loss"]
        if not np.isnan(judged).all():
            judged = -values.get("clipped_loss", -judged)  # what the best epoch was chosen by
        allowed = np.ones(len(time), bool)
    ax = own_axes(ax)
    marker = "o" if len(time) == 1 else None
    ax.plot(
        time, fitted, color=INK, linewidth=1.5, marker=marker, label="samples of the steps" if variational else "training"
    )
    ranked = np.where(allowed & np.isfinite(judged), judged, -np.inf)
    if np.isfinite(judged).any():
        ax.plot(time, judged, color=ACCENT, linewidth=1.5, label="fixed samples" if variational else "validation")
    if np.isfinite(ranked).any():
        best = int(ranked.argmax())
        share = f": ESS {values['ess'][best]:.0%}" if variational and "ess" in values else ""
        ax.plot(time[best], judged[best], "o", color=ACCENT, label=f"best, {unit} {int(time[best])}{share}")
    late = np.concatenate([curve[len(curve) // 10 :] for curve in (fitted, judged)])
    late = late[np.isfinite(late)]
    if late.size and np.ptp(late) > 0:
        low = max(late.min(), np.median(late) - 8 * (late.max() - np.median(late)))
        margin = 0.08 * (late.max() - low)
        ax.set_ylim(low - margin, late.max() + margin)
    at_whole_numbers(ax.xaxis)
    label(ax, unit, what)
    ax.legend(frameon=False, fontsize=LEGEND, loc="best")
    return figure_of(ax)
