"""Images of one channel for the race between Glows: a folder of gzipped IDX files, or scikit-learn's digits."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

SIZE = 32


def load(folder: str | None, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, str]:
    """Training and held-out images (n, 32, 32) of uint8, and what they are."""
    if folder is None:
        from sklearn.datasets import load_digits

        digits = (load_digits().images * 15).astype(np.uint8).repeat(4, 1).repeat(4, 2)
        digits = digits[rng.permutation(len(digits))]
        return digits[:1500], digits[1500:], "scikit-learn's digits, each pixel 4 x 4 times"
    train, test = (padded(read_idx(Path(folder, f"{name}-images-idx3-ubyte.gz"))) for name in ("train", "t10k"))
    return train, test, f"{Path(folder).name}, padded with zeros to {SIZE} x {SIZE}"


def read_idx(path: Path) -> np.ndarray:
    """A gzipped IDX file of bytes."""
    with gzip.open(path) as file:
        data = file.read()
    if data[:3] != b"\0\0\x08":
        raise ValueError(f"{path} holds no bytes in IDX format")
    shape = np.frombuffer(data, ">u4", data[3], 4).astype(int)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def padded(images: np.ndarray) -> np.ndarray:
    """Zeros on all sides."""
    (top, left) = ((SIZE - n) // 2 for n in images.shape[1:])
    room = [(0, 0), (top, SIZE - images.shape[1] - top), (left, SIZE - images.shape[2] - left)]
    return np.pad(images, room)
