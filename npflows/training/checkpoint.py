"""The whole state of a training run in one file, so that it can go on with the same bits."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from npflows.io import FlowFileError, atomic_write, pack, read_arrays
from npflows.training.data import Rows

if TYPE_CHECKING:
    from npflows.training.trainer import Trainer

_PREFIX = "run_"


def _json(value: Any) -> Any:
    """For what JSON does not know: arrays in the state of a bit generator."""
    return {"array": value.tolist(), "dtype": value.dtype.str} if isinstance(value, np.ndarray) else value.item()


def _from_json(value: dict) -> Any:
    return np.array(value["array"], value["dtype"]) if set(value) == {"array", "dtype"} else value


def write(trainer: Trainer, path: str | os.PathLike[str]) -> None:
    """The flow, its best parameters, the optimiser, the split of the rows, the generator and the counts."""
    arrays, numbers = trainer.state()
    content = pack(trainer.flow)
    content.update({_PREFIX + name: array for name, array in arrays.items()})
    content[_PREFIX + "numbers"] = np.array(json.dumps(numbers, default=_json))
    with atomic_write(path) as file:
        np.savez(file, **content)


@dataclass
class Saved:
    """What a checkpoint holds."""

    where: str
    about: dict[str, Any]
    numbers: dict[str, Any]
    arrays: dict[str, np.ndarray]
    table: np.ndarray

    def rows(self, rows: Rows) -> tuple[Rows, Rows | None]:
        """The split of the run."""
        train, validation = self.arrays["train"], self.arrays["validation"]
        if max(train.max(initial=-1), validation.max(initial=-1)) >= len(rows.x):
            raise FlowFileError(f"{self.where} belongs to another run: it had more than the {len(rows.x)} rows of x")
        return Rows(rows.x, train, rows.weight, rows.condition), (
            Rows(rows.x, validation, rows.weight, rows.condition) if len(validation) else None
        )

    def restore(self, trainer: Trainer) -> None:
        """Take up the run.

        Raises
        ------
        FlowFileError
            If it was one of another flow, other data or other options.
        """
        flow, wrong = trainer.flow, []
        ours, theirs = (type(flow).__name__, json.loads(json.dumps(flow.config))), (self.about["class"],
                                                                                  self.about["config"])  # fmt: skip
        if ours != theirs:
            wrong.append(f"the flow is {ours[0]} {ours[1]}, the file has {theirs[0]} {theirs[1]}")
        options = self.numbers["options"]
        wrong += [
            f"{name} is {value!r}, the file has {options.get(name)!r}"
            for name, value in trainer.options().items()
            if options.get(name) != value
        ]
        if wrong:
            raise FlowFileError(f"{self.where} belongs to another run:\n  " + "\n  ".join(wrong))
        flow.standardize.set(*self.table)
        flow._is_standardized = self.about["standardized"]
        flow.history = {name: list(values) for name, values in self.about["history"].items()}
        trainer.restore(self.arrays, self.numbers)


def read(path: str | os.PathLike[str]) -> Saved | None:
    """What `path` holds; None if there is no such file yet."""
    if not Path(path).exists():
        return None
    content, where = read_arrays(path), os.fspath(path)
    try:
        return Saved(
            where,
            json.loads(str(content["about"])),
            json.loads(str(content[_PREFIX + "numbers"]), object_hook=_from_json),
            {name[len(_PREFIX) :]: array for name, array in content.items() if name.startswith(_PREFIX)},
            content["standardize"],
        )
    except (KeyError, ValueError) as error:
        raise FlowFileError(f"{where} is not a checkpoint ({error!r})") from None
