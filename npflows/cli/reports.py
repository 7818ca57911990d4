"""The output of the commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from npflows import NormalizingFlow

INTERRUPTED = 130
"""Exit status after Ctrl-C, that of shells."""


def complain(message: str, status: int = 2) -> int:
    """Print an error in one line on standard error, and return the exit status."""
    lines = [line.strip() for line in message.splitlines()]
    print(f"npflows: {' '.join(lines[:1])} {'; '.join(lines[1:])}".rstrip(), file=sys.stderr)
    return status


def report(pairs: Sequence[tuple[str, object]]) -> None:
    """Print names and values in two columns on standard output."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        print(f"{name:{width}}  {value}")


def column_names(flow: NormalizingFlow) -> str:
    """The columns of a flow, with their units."""
    known = flow.columns or flow.units
    return ", ".join(flow.headers.x.labels) if known else f"{flow.input_dim}, without names"


def condition_names(flow: NormalizingFlow) -> str:
    """The values of the condition of a flow, with their units."""
    known = flow.condition_columns or flow.condition_units
    return ", ".join(flow.headers.condition.labels) if known else f"{flow.condition_dim} values, without names"


def training(history: dict[str, list[float]]) -> list[tuple[str, str]]:
    """The result of a fit, as lines of a report."""
    if not history:
        return [("training", "none")]
    if "elbo" in history:
        judged = np.array(history["validation_elbo"])
        bounds = np.where(np.isfinite(judged), judged, history["elbo"])[np.array(history["tempering"]) >= 1]
        bounds = bounds[np.isfinite(bounds)]
        return [
            ("evidence lower bound", f"{bounds.max():.4f}" if len(bounds) else "-"),
            ("steps", f"{int(history['step'][-1])}"),
        ]
    validated = not np.isnan(history["validation_loss"]).all()
    losses = history.get("clipped_loss", history["validation_loss" if validated else "train_loss"])
    best = int(np.nanargmin(losses)) if np.isfinite(losses).any() else 0
    kind = "held-out" if validated else "training"
    return [
        (f"{kind} log-likelihood", f"{-losses[best]:.4f} per row"),
        ("epochs", f"{len(losses)}, the best was {int(history['epoch'][best])}"),
    ]
