"""The public names and signatures are those of public_signatures.txt."""

import difflib

import public_names
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")


def test_public_names_and_signatures_are_as_recorded():
    recorded = public_names.FILE.read_text(encoding="utf-8").splitlines()
    changes = list(difflib.unified_diff(recorded, public_names.describe(), "recorded", "now", lineterm="", n=0))
    assert not changes, "\n".join(
        ["public names changed; if that is meant, run `python tests/public_names.py`, which records them anew:", *changes]
    )
