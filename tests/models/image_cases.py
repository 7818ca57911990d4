"""Images of bright spots and a small Glow for them."""

import numpy as np

from npflows import Glow

LEVELS = 17
OPTIONS = {"max_epochs": 2, "batch_size": 32, "rng": 2, "progress": False}


def blobs(n, size=(4, 4), levels=LEVELS, seed=0, brightness=None):
    """Images (n, height, width, 1) of a bright spot somewhere, whole numbers as uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(size)
    center = rng.uniform(0, 1, (2, n, 1, 1)) * np.reshape(np.array(size) - 1, (2, 1, 1, 1))
    height = rng.uniform(0.5, 1.0, (n, 1, 1)) if brightness is None else np.reshape(brightness, (n, 1, 1))
    spot = np.exp(-0.5 * ((y - center[0]) ** 2 + (x - center[1]) ** 2))
    images = height * spot * (levels - 1) + rng.normal(0, 0.02 * levels, (n, *size))
    return np.clip(np.rint(images), 0, levels - 1).astype(np.uint8)[..., None]


IMAGES = blobs(120)
REAL = np.random.default_rng(1).normal(size=(30, 4, 4, 2)) @ [[2.0, 0.3], [0.0, 0.5]] + [5.0, -1.0]


def glow(shape=(4, 4, 1), **options):
    """A small Glow, of whole numbers by default."""
    return Glow(shape, 2, 1, (6, 5), **{"levels": LEVELS, "rng": 0, **options})


def bent(flow, strength=0.2):
    """The flow with random parameters."""
    flow.params = flow.params + strength * np.random.default_rng(3).normal(size=flow.num_params)
    return flow


def settings(flow):
    return np.concatenate([v.ravel() for n, v in flow.named_params().items() if n.endswith(("logs", "actnorm.bias"))])
