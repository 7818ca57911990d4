"""The tasks of the race: models, sizes and work, with nothing imported, as workers of every environment read it."""

from __future__ import annotations

from typing import NamedTuple

MAF, REALNVP, COUPLING, AUTOREGRESSIVE = "MAF", "RealNVP", "coupling spline", "autoregressive spline"
NUM_LAYERS = {MAF: 5, REALNVP: 8, COUPLING: 8, AUTOREGRESSIVE: 5}
SIZES = {
    "D=8, 64x64": (8, (64, 64)),
    "D=8, 128x128": (8, (128, 128)),
    "D=64, 512x512": (64, (512, 512)),
    "D=7, 64x64": (7, (64, 64)),
}
SMALL, MIDDLE, LARGE, GALAXIES = SIZES
BINS, BOUND = 8, 3.0
LOG_PROB, TRAIN, SAMPLE = "log_prob", "train step", "sampling"
COMPILED = "train step, torch.compile"
"""The train step with what PyTorch's peers do compiled; for the others it is the train step."""
LEARNING_RATE = 1e-3

MEMORY_BATCH = 65536
"""Rows of the train step of a MAF of the largest size whose memory is measured."""


class Task(NamedTuple):
    """A row of the table."""

    work: str
    model: str
    size: str
    batch: int

    def __str__(self) -> str:
        return f"{self.work}, {self.model}, {self.size}, B={self.batch}"


SPLINES = (COUPLING, AUTOREGRESSIVE)
TASKS = [
    *(Task(LOG_PROB, model, SMALL, batch) for model in NUM_LAYERS for batch in (1, 256, 4096)),
    *(Task(TRAIN, model, SMALL, batch) for model in NUM_LAYERS for batch in (256, 4096)),
    *(Task(LOG_PROB, model, MIDDLE, batch) for model in (MAF, REALNVP, COUPLING) for batch in (1, 256, 4096)),
    *(Task(TRAIN, model, MIDDLE, batch) for model in (MAF, REALNVP, COUPLING) for batch in (256, 4096)),
    *(Task(LOG_PROB, model, LARGE, batch) for model in (MAF, REALNVP) for batch in (1, 256, 4096)),
    *(Task(TRAIN, model, LARGE, batch) for model in (MAF, REALNVP) for batch in (256, 4096)),
    *(Task(SAMPLE, model, SMALL, batch) for model in (MAF, AUTOREGRESSIVE) for batch in (1, 256, 4096)),
    *(Task(SAMPLE, MAF, LARGE, batch) for batch in (1, 256, 4096)),
    *(Task(COMPILED, model, SMALL, 256) for model in NUM_LAYERS),
]


def aim(task: Task) -> float | None:
    """How many times faster than the fastest peer npflows wants to be."""
    affine_coupling = task.model == REALNVP
    if task.work == SAMPLE:
        return 8 if task.batch == 1 else 10 if task.size == SMALL else 50
    if task.work == LOG_PROB:
        return (8 if task.batch == 1 else 3) if task.size == SMALL else None
    if task.size == SMALL:
        return 3 if not affine_coupling else 2.5 if task.batch == 256 else 2
    if task.size == MIDDLE:
        return (3 if task.batch == 256 else 2.5) if not affine_coupling else 2.5 if task.batch == 256 else 2
    return 1.4 if affine_coupling else 1.5 if task.batch == 256 else 2
