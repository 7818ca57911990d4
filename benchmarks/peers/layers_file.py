"""Layers of a peer in a .npz file: arrays by number, and all else as JSON beside them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np


def save_layers(path: str, layers: list[dict[str, Any]]) -> None:
    arrays: list[np.ndarray] = []

    def without_arrays(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            arrays.append(value)
            return {"array": len(arrays) - 1}
        if isinstance(value, dict):
            return {k: without_arrays(v) for k, v in value.items()}
        return [without_arrays(v) for v in value] if isinstance(value, list) else value

    text = json.dumps(without_arrays(layers))
    np.savez(path, layers=np.array(text), **{f"array_{i}": a for i, a in enumerate(arrays)})


def load_layers(path: str) -> list[dict[str, Any]]:
    with np.load(path) as file:

        def with_arrays(value: Any) -> Any:
            if isinstance(value, dict):
                return (
                    file[f"array_{value['array']}"]
                    if set(value) == {"array"}
                    else {k: with_arrays(v) for k, v in value.items()}
                )
            return [with_arrays(v) for v in value] if isinstance(value, list) else value

        return with_arrays(json.loads(str(file["layers"])))
