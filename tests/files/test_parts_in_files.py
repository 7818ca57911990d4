"""Networks and scalar maps that a file describes: nothing but their numbers is read, and what makes no sense is refused."""

import json
import re

import numpy as np
import pytest

import npflows
from npflows import Coupling, NormalizingFlow
from npflows.files.flow_file import pack, unpack
from npflows.networks import dense
from npflows.transformers import spline


def changed(kind, **values):
    """A saved flow of one coupling, of which what a file says of its network or its scalar map is something else."""
    flow = NormalizingFlow([Coupling([1, 0], dense(1, (4,), 11), spline(4, 3.0, 1e-3, 1e-3, 1e-3), rng=0)], rng=0)
    arrays = pack(flow)
    about = json.loads(str(arrays["about"]))
    parts = about["config"]["layers"][1]["config"]
    [part] = [part for part in parts.values() if isinstance(part, dict) and part["operation"] == kind]
    part["config"].update(values.pop("config", {}))
    part.update(values)
    del about["checksum"], arrays["checksum"]
    return {**arrays, "about": np.array(json.dumps(about))}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (lambda: changed("Mlp", operation="os.system"), "'os.system' is no scalar map and no network"),
        (lambda: changed("Mlp", operation=["Mlp"]), "is no scalar map and no network"),
        (lambda: changed("Mlp", operation="Coupling"), "'Coupling' is no scalar map and no network"),
        (lambda: changed("Mlp", config={"weights": 3}), "Mlp has no parameter weights"),
        (lambda: changed("Mlp", config={"hidden": 4}), "hidden of Mlp is 4, which it can't be"),
        (lambda: changed("Mlp", config={"hidden": [4, "4"]}), "hidden of Mlp is '4', which it can't be"),
        (lambda: changed("Mlp", config={"hidden": [True]}), "hidden of Mlp is True, which it can't be"),
        (lambda: changed("Mlp", config={"hidden": [0]}), "Mlp needs hidden layers of at least one unit"),
        (lambda: changed("Mlp", config={"hidden": [-4]}), "hidden of Mlp is -4, which it can't be"),
        (lambda: changed("Mlp", config={"hidden": [10**12]}), "hidden of Mlp is 1000000000000, which it can't be"),
        (lambda: changed("Mlp", config={"hidden": [60_000, 60_000]}), "more parameters than are there"),
        (lambda: changed("Mlp", config={"n_in": 2}), "needs 1 inputs and 11 outputs, got one of 2 and 11"),
        (lambda: changed("Mlp", config={"activation": "exec"}), "Mlp needs an activation of relu"),
        (lambda: changed("Mlp", config={"linear": [7]}), "Mlp needs numbers of hidden layers"),
        (lambda: changed("Mlp", config={"residual": True, "hidden": [4, 4]}), "an odd number of hidden layers"),
        (lambda: changed("Mlp", config={"gated": True}), "blocks and a condition for gates"),
        (lambda: changed("Spline", config={"num_bins": 0}), "Spline needs num_bins of at least 1"),
        (lambda: changed("Spline", config={"tail_bound": "3"}), "tail_bound of Spline is '3', which it can't be"),
        (lambda: changed("Spline", config={"tail_bound": -1.0}), "Spline needs a tail_bound above 0"),
        (lambda: changed("Spline", config={"circular": [True, False]}), "does not map 1 values"),
        (lambda: changed("Spline", config={"circular": []}), "Spline needs num_bins of at least 1, and flags"),
        (lambda: changed("Spline", config={"num_bins": 5}), "needs 1 inputs and 14 outputs"),
    ],
)
def test_files_that_describe_no_part_are_refused(arrays, message):
    with pytest.raises(npflows.FlowFileError, match=re.escape(message)):
        unpack(arrays(), "the file")
