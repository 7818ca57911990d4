"""`npflows info`: what a file of a flow or an ensemble holds."""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from npflows import NormalizingFlow
from npflows.cli.ensembles import is_ensemble
from npflows.cli.reports import column_names, condition_names, report, training
from npflows.files.archive import read_json
from npflows.files.ensemble_file import about_ensemble, read_ensemble_arrays, unpack_ensemble
from npflows.files.flow_file import read_flow_arrays, unpack


def info(a: argparse.Namespace) -> int:
    """Print what a file says about its flow, or the flows of its ensemble, as text or JSON."""
    if is_ensemble(a.flow):
        arrays = read_ensemble_arrays(a.flow)
        whole, members = about_ensemble(arrays, a.flow), unpack_ensemble(arrays, a.flow)
        abouts = [read_json(str(arrays[f"{i}/about"])) for i in range(len(members))]
        if a.json:
            facts = [_facts(member, about) for member, about in zip(members, abouts)]
            print(json.dumps({"ensemble": len(members), "members": facts, "format": whole["format"],
                              "npflows": whole.get("npflows")}, indent=2, default=str))  # fmt: skip
        else:
            _report_ensemble(members, whole)
        return 0
    arrays = read_flow_arrays(a.flow)
    flow, about = unpack(arrays, a.flow), read_json(str(arrays["about"]))
    if a.json:
        print(json.dumps(_facts(flow, about), indent=2, default=str))
    else:
        _report(flow, about)
    return 0


def _facts(flow: NormalizingFlow, about: dict[str, Any]) -> dict[str, Any]:
    """Everything about a flow, for programs."""
    factor = flow.standardize.factor
    history = {name: [value if math.isfinite(value) else None for value in values] for name, values in flow.history.items()}
    return {
        "model": type(flow).__name__,
        "config": flow.arguments,
        "input_dim": flow.input_dim,
        "columns": flow.columns,
        "condition_dim": flow.condition_dim,
        "condition_columns": flow.condition_columns,
        "units": flow.units,
        "condition_units": flow.condition_units,
        "num_params": flow.num_params,
        "dtype": flow.dtype.name,
        "standardize": {
            "loc": flow.standardize.loc.tolist(),
            "scale": flow.standardize.scale.tolist(),
            "factor": None if factor is None else factor.tolist(),
            "robust_columns": flow.robust_columns,
        },
        "history": history,
        "format": about["format"],
        "npflows": about.get("npflows"),
    }


def _report_ensemble(members: list[NormalizingFlow], about: dict[str, Any]) -> None:
    """The flows of an ensemble, and what came of the fit of each."""
    first, fits = members[0], [training(member.history) for member in members]
    report([
        ("ensemble", f"{len(members)} flows, whose mixture is the density"),
        *_kind(first),
        *((f"member {i}", "; ".join(f"{name} {value}" for name, value in fit)) for i, fit in enumerate(fits)),
        ("file", f"format {about['format']}, written by npflows {about.get('npflows', '?')}"),
    ])  # fmt: skip


def _kind(flow: NormalizingFlow) -> list[tuple[str, object]]:
    """What a flow is, as lines of a report."""
    kinds = Counter(type(layer).__name__ for layer in flow.flow_layers[1:])
    return [
        ("model", f"{type(flow).__name__}, {flow.num_params:,} parameters, {flow.dtype.name}"),
        ("layers", ", ".join(f"{n} of {kind}" for kind, n in kinds.items()) or "none"),
        ("base", repr(flow.base)),
        ("columns", column_names(flow)),
        *([("condition", condition_names(flow))] if flow.condition_dim else []),
    ]


def _report(flow: NormalizingFlow, about: dict[str, Any]) -> None:
    """What a flow is, what came of its fit, and where its columns lie."""
    seconds, factor = sum(flow.history.get("seconds", [])), flow.standardize.factor
    report([
        *_kind(flow),
        *training(flow.history),
        *([("training time", f"{seconds:.1f} s")] if flow.history else []),
        ("file", f"format {about['format']}, written by npflows {about.get('npflows', '?')}"),
    ])  # fmt: skip
    names = flow.headers.x.labels if flow.columns else [str(i) for i in range(flow.input_dim)]
    if flow.robust_columns:
        print(f"\nscaled by the bulk of the rows: {', '.join(flow.robust_columns)}")
    if factor is not None:
        thin = np.flatnonzero((factor != np.eye(len(factor))).any(axis=1))
        print(f"\nscaled after what the columns before say of them: {', '.join(names[d] for d in thin)}")
    width = max(map(len, [*names, "column"]))
    support: Sequence[object] = flow.support or [""] * flow.input_dim
    print(f"\n{'column':{width}}  {'location':>12}  {'scale':>12}{'  lives on' if flow.support else ''}")
    for name, column, *numbers in zip(names, support, flow.standardize.loc.tolist(), flow.standardize.scale.tolist()):
        print("  ".join([f"{name:{width}}", *(f"{number:12.6g}" for number in numbers), str(column)]).rstrip())
