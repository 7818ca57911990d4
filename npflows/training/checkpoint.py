"""The whole state of a training run in one file, so that it can go on with the same bits."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from npflows.core.atomic import atomic_write
from npflows.core.checks import LARGEST_INT, warn_user
from npflows.distribution.conditioning import is_learned_table
from npflows.files.archive import FlowFileError, checksum, read_arrays, read_json, write_arrays
from npflows.files.flow_file import CHECKSUM, MEMBERS, check_checksum, pack, read_about, set_state, wrong_state
from npflows.layers.standardize import is_learned
from npflows.training.bound import LossBound
from npflows.training.rows import Rows
from npflows.training.run import Run

_PREFIX = "run_"
_NUMBERS, _CHECKSUM = f"{_PREFIX}numbers", f"{_PREFIX}checksum"
_COUNTS = ("best_round", "round", "step", "waited", "bad_in_row", "recoveries", "averaged", "adam_steps", "planned_steps")
"""The numbers of a run that are whole; others may be, as the step at which tempering ends."""
_NO_BOUNDS = {
    f"{name}_{part}": value for name in ("train_bound", "validation_bound") for part, value in LossBound()._asdict().items()
}
"""The bounds of losses in files from before there were any."""


def _json(value: Any) -> Any:
    """A value that JSON does not know as one that it does: arrays and numbers in the state of a bit generator."""
    return {"array": value.tolist(), "dtype": value.dtype.str} if isinstance(value, np.ndarray) else value.item()


def _from_json(value: dict) -> Any:
    return np.array(value["array"], value["dtype"]) if set(value) == {"array", "dtype"} else value


def write(run: Run, path: str | os.PathLike[str], writing: bool = True) -> None:
    """Write the flow, its best parameters, the optimizer, the choices made before the first round, generator and counts.

    Of several ranks all collect them, and one is `writing`.
    """
    arrays, numbers = run.state()
    if not writing:
        return
    state = {_PREFIX + name: array for name, array in arrays.items()}
    state[_NUMBERS] = np.array(json.dumps(numbers, default=_json))
    content = {**pack(run.flow, theta=run.best), **state, _CHECKSUM: checksum(state)}  # `load` finds the best ones
    with atomic_write(path) as file:
        write_arrays(file, content)


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
        return every if trained.dtype == np.int64 and not np.isin(trained, merged.index).all() else merged

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
        try:
            theirs = {"flow": self.about["class"], **_unset(self.about["config"]), **options}
        except (TypeError, ValueError, AttributeError) as error:
            raise FlowFileError(f"{self.where} is damaged: its configuration can't be read ({error!r})") from None
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
        try:
            wrong = self._damages(run)
        except Exception as error:  # whatever an edited file makes of what expects a whole one
            wrong = [repr(error)]
        if wrong:
            raise FlowFileError(f"{self.where} is damaged:\n  " + "\n  ".join(wrong))
        if self.numbers["round"] > 0:
            self._check_length(run, ours)
        set_state(flow, self.about, self.standardizations)
        flow.history = {name: list(values) for name, values in self.about["history"].items()}
        run.restore(self.arrays, self.numbers)
        if changed and run.is_stuck:
            warn_user(
                f"{self.where}: the run had ended after {run.waited} {run.unit}s without improvement, and nothing is "
                f"trained now: give a larger patience, or None"
            )

    def _damages(self, run: Run) -> list[str]:
        """What is wrong with the content of the file, for a run that it otherwise belongs to."""
        flow, (expected, numbers) = run.flow, run.state()
        found = {name: _describe(self.arrays.get(name)) for name in expected}
        wrong = [
            f"{name} is {found[name]}, expected {_describe(array)}"
            for name, array in expected.items()
            if found[name] != _describe(array)
        ]
        for name in numbers:
            value = self.numbers.get(name)
            if name == "generator":
                wrong += [] if _is_state_of(run.rng, value) else ["generator is no state of one of its kind"]
            elif name != "options" and not _is_like(value, 0 if name in _COUNTS else 0.0, zero=name != "factor"):
                wrong.append(f"{name} is {value!r}")
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
        if any((array < 0).any() for name, array in self.arrays.items() if name == "v"):
            wrong.append("v has values below 0")
        history, round_ = self.about["history"], self.numbers.get("round")
        if "seconds" not in history or {len(values) for values in history.values()} != {round_}:
            wrong.append(f"the history is not one of {round_} rounds")
        if any(value is None for values in history.values() for value in values):
            wrong.append("the history has entries that are no numbers")
        return wrong + wrong_state(flow, self.about)

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


def _is_like(value: Any, now: Any, *, zero: bool) -> bool:
    """Whether a number of a file may be what a number of the run was: a count, or a finite number or infinity."""
    if type(now) is int:
        return type(value) is int and value >= 0
    return type(value) in (int, float) and not math.isnan(value) and (zero or value > 0)


def _is_state_of(rng: np.random.Generator, state: Any) -> bool:
    """Whether a bit generator of the same kind takes a state."""
    try:
        twin = type(rng.bit_generator)(0)
        twin.state = state
        np.random.Generator(twin).random()
        return json.dumps(twin.state, default=_json) != ""
    except Exception:
        return False


def _describe(array: np.ndarray | None) -> str:
    return "missing" if array is None else f"{array.dtype} {array.shape}"


def read(path: str | os.PathLike[str]) -> Saved | None:
    """The run that `path` holds; None if there is no such file yet."""
    if not Path(path).exists():
        return None
    content, where = read_arrays(path, _is_part), os.fspath(path)
    try:
        return _saved(content, where)
    except FlowFileError:
        raise
    except Exception as error:  # whatever an edited file makes of what expects a whole one
        raise FlowFileError(f"{where} is not a checkpoint, or damaged ({error!r})") from None


def _is_part(name: str) -> bool:
    """Whether an array of this name may belong to a checkpoint."""
    return name in (*MEMBERS, CHECKSUM) or name.startswith(_PREFIX)


def _saved(content: dict[str, np.ndarray], where: str) -> Saved:
    if _NUMBERS not in content:
        raise ValueError("it records no run")
    about = read_about(content, where)
    check_checksum({name: content[name] for name in MEMBERS}, content.get(CHECKSUM), about, where)
    state = {name: array for name, array in content.items() if name.startswith(_PREFIX) and name != _CHECKSUM}
    check_checksum(state, content.get(_CHECKSUM), about, where)
    numbers = read_json(str(state.pop(_NUMBERS)), object_hook=_from_json)
    options = numbers["options"]
    arrays = {name[len(_PREFIX) :]: array for name, array in state.items()}
    later = {"averaged": numbers.get("step"), "planned_steps": options.get("max_steps", 0),
             "tempering_end": options.get("tempering_steps", 0)}  # fmt: skip
    numbers = {**later, **_NO_BOUNDS, **numbers}  # what older files lack
    history = about["history"]
    if "validation_loss" in history and "clipped_loss" not in history:
        held_out = len(arrays.get("validation", ())) > 0
        history["clipped_loss"] = list(history["validation_loss" if held_out else "train_loss"])
    if not history or any(type(numbers[name]) is not int or numbers[name] < 0 for name in ("round", "step")):
        raise ValueError("it records no round")
    if type(numbers["planned_steps"]) is not int or not 0 <= numbers["planned_steps"] <= LARGEST_INT:
        raise ValueError(f"planned_steps is {numbers['planned_steps']!r}")
    return Saved(where, about, numbers, arrays, {name: content[name] for name in ("standardize", "standardize_condition")})
