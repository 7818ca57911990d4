"""The whole state of a training run in one file, so that it can go on with the same bits."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from npflows.core.atomic import atomic_write
from npflows.core.checks import warn_user
from npflows.distribution.conditioning import is_learned_table
from npflows.files.flow_file import FlowFileError, pack, read_arrays, set_state
from npflows.layers.standardize import is_learned
from npflows.training.bound import LossBound
from npflows.training.rows import Rows
from npflows.training.run import Run

_PREFIX = "run_"
_NO_BOUNDS = {
    f"{name}_{part}": value for name in ("train_bound", "validation_bound") for part, value in LossBound()._asdict().items()
}
"""The bounds of losses in files from before there were any."""


def _json(value: Any) -> Any:
    """A value that JSON does not know as one that it does: arrays and numbers in the state of a bit generator."""
    return {"array": value.tolist(), "dtype": value.dtype.str} if isinstance(value, np.ndarray) else value.item()


def _from_json(value: dict) -> Any:
    return np.array(value["array"], value["dtype"]) if set(value) == {"array", "dtype"} else value


def write(run: Run, path: str | os.PathLike[str]) -> None:
    """Write the flow, its best parameters, the optimizer, the choices made before the first round, generator and counts."""
    arrays, numbers = run.state()
    content = {**pack(run.flow), "theta": run.best}  # so that `load` finds the best ones
    content.update({_PREFIX + name: array for name, array in arrays.items()})
    content[_PREFIX + "numbers"] = np.array(json.dumps(numbers, default=_json))
    with atomic_write(path) as file:
        np.savez(file, **content)


@dataclass
class Saved:
    """The content of a checkpoint.

    Attributes
    ----------
    where : str
        The path of the file.
    about : dict
        The description of the flow.
    numbers : dict
        The numbers of the run, its options among them.
    arrays : dict of str to ndarray
        The arrays of the run.
    standardizations : dict of str to ndarray
        Location and scale of samples and of conditions.
    """

    where: str
    about: dict[str, Any]
    numbers: dict[str, Any]
    arrays: dict[str, np.ndarray]
    standardizations: dict[str, np.ndarray]

    def merged_or_not(self, every: Rows, merged: Rows) -> Rows:
        """The merged rows, or all of them where the run is from before equal rows were merged."""
        trained = self.arrays.get("train", np.zeros(0))
        return merged if np.isin(trained, merged.index).all() else every

    def rows(self, rows: Rows) -> tuple[Rows, Rows | None]:
        """The split of the run."""
        parts = [self.arrays.get(name, np.zeros(0)) for name in ("train", "validation")]
        if any(part.dtype != np.int64 or part.ndim != 1 for part in parts):
            raise FlowFileError(f"{self.where} belongs to another kind of run, or is damaged: it holds no row numbers")
        every = np.concatenate(parts)
        if not len(parts[0]) or every.min() < 0 or every.max() >= len(rows.x) or len(np.unique(every)) < len(every):
            raise FlowFileError(f"{self.where} belongs to another run: its rows are not among the {len(rows.x)} of x")
        train, validation = (replace(rows, index=part) for part in parts)
        return train, validation if len(validation) else None

    def restore(self, run: Run) -> None:
        """Take up the run.

        Raises
        ------
        FlowFileError
            If it was one of another flow, other data or other options, or the file is damaged; nothing is changed then.
        """
        flow, options = run.flow, self.numbers["options"]
        ours = {"flow": type(flow).__name__, **_unset(json.loads(json.dumps(flow.arguments))), **run.options}
        theirs = {"flow": self.about["class"], **_unset(self.about["config"]), **options}
        wrong = [
            f"{name} is {value!r}, the file has {theirs.get(name)!r}"
            for name, value in ours.items()
            if theirs.get(name) != value
        ]
        changed = {name for name, value in ours.items() if theirs.get(name) != value}
        if changed - run.may_change:
            raise FlowFileError(
                f"{self.where} belongs to another run:\n  " + "\n  ".join(wrong) + "\na run can go on with another "
                f"{', '.join(sorted(run.may_change & set(ours)))} alone; for all else, begin a new one with "
                f"npflows.load({self.where!r}), which has its best parameters"
            )
        if self.numbers.get("round", 0) > 0:
            self._check_length(run, ours)
        expected, numbers = run.state()
        found = {name: _describe(self.arrays.get(name)) for name in expected}
        wrong = [
            f"{name} is {found[name]}, expected {_describe(array)}"
            for name, array in expected.items()
            if found[name] != _describe(array)
        ]
        wrong += [
            f"{name} is {self.numbers.get(name)!r}"
            for name, value in numbers.items()
            if name != "options" and not isinstance(self.numbers.get(name), dict if name == "generator" else (int, float))
        ]
        wrong += [
            f"{name} has values that are not finite"
            for name, array in [*self.arrays.items(), *self.standardizations.items()]
            if array.dtype.kind == "f" and not np.isfinite(array[:2] if name == "standardize_condition" else array).all()
        ]
        for name, width, fits in (("standardize", flow.latent_dim, is_learned),
                                  ("standardize_condition", flow.condition_dim, is_learned_table)):  # fmt: skip
            table = self.standardizations[name]
            if table.dtype != np.float64 or not fits(table, width):
                wrong.append(f"{name} must be a location and a positive scale for each of {width} columns")
        if wrong:
            raise FlowFileError(f"{self.where} is damaged:\n  " + "\n  ".join(wrong))
        set_state(flow, self.about, self.standardizations)
        flow.history = {name: list(values) for name, values in self.about["history"].items()}
        run.restore(self.arrays, self.numbers)
        if changed and run.is_stuck:
            warn_user(
                f"{self.where}: the run had ended after {run.waited} {run.unit}s without improvement, and nothing is "
                f"trained now: give a larger patience, or None"
            )

    def _check_length(self, run: Run, options: dict[str, Any]) -> None:
        """Refuse to go on to an end that has been passed."""
        for name, done in (("max_epochs", self.numbers.get("round")), ("max_steps", self.numbers.get("step"))):
            if name in options and isinstance(done, int) and options[name] < done:
                raise FlowFileError(f"{self.where} has {done} {name[4:]} behind it: give {name} of at least that, got "
                                    f"{options[name]}")  # fmt: skip


def _unset(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the location and scale of the first layer, which a run sets."""
    first, *others = config.get("layers") or [None]
    if not isinstance(first, dict) or first.get("class") != "Standardize":
        return config
    kept = {name: value for name, value in first["config"].items() if name not in ("loc", "scale", "factor")}
    return {**config, "layers": [{**first, "config": kept}, *others]}


def _describe(array: np.ndarray | None) -> str:
    return "missing" if array is None else f"{array.dtype} {array.shape}"


def read(path: str | os.PathLike[str]) -> Saved | None:
    """The run that `path` holds; None if there is no such file yet."""
    if not Path(path).exists():
        return None
    content, where = read_arrays(path), os.fspath(path)
    try:
        saved = Saved(
            where,
            json.loads(str(content["about"])),
            json.loads(str(content.pop(_PREFIX + "numbers")), object_hook=_from_json),
            {name[len(_PREFIX) :]: array for name, array in content.items() if name.startswith(_PREFIX)},
            {name: content[name] for name in ("standardize", "standardize_condition")},
        )
        options = saved.numbers["options"]
        later = {"averaged": saved.numbers.get("step"), "planned_steps": options.get("max_steps", 0),
                 "tempering_end": options.get("tempering_steps", 0)}  # fmt: skip
        saved.numbers = {**later, **_NO_BOUNDS, **saved.numbers}  # what older files lack
        history = saved.about["history"]
        if "validation_loss" in history and "clipped_loss" not in history:
            held_out = len(saved.arrays.get("validation", ())) > 0
            history["clipped_loss"] = list(history["validation_loss" if held_out else "train_loss"])
        parts = (saved.about["class"], dict(saved.about["config"]), saved.about["standardized"], saved.about["history"])
        if not parts[3] or not isinstance(saved.numbers["options"], dict):
            raise ValueError("it records no round")
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise FlowFileError(f"{where} is not a checkpoint, or damaged ({error!r})") from None
    return saved
