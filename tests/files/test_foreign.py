"""What a file is that is no flow is said in one sentence."""

import io
import json
import pickle
import struct

import numpy as np
import pytest

import npflows
from npflows import convert

TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."


def safetensors():
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + b"\0" * 4


def onnx_like(producer):
    return b"\x08\x08\x12" + bytes([len(producer)]) + producer + b"\x1a\x030.9:"


def gaussian_c(tmp_path):
    npflows.MAF(2, 1, (4,), rng=0).to_c(tmp_path / "flow.c")
    return (tmp_path / "flow.c").read_bytes()


CASES = {
    "empty": (lambda _: b"", r"is an empty file, no flow of npflows$"),
    "c": (
        gaussian_c,
        "is a C file that to_c wrote, no flow of npflows: it can't be read back: load the file that flow.save",
    ),
    "own onnx": (lambda _: onnx_like(b"npflows"), "is an ONNX model that to_onnx wrote, no flow of npflows"),
    "onnx": (lambda _: onnx_like(b"pytorch"), "is an ONNX model, no flow of npflows"),
    "safetensors": (lambda _: safetensors(), r"is a file of safetensors, .* npflows\.convert takes the mapping that"),
    "hdf5": (lambda _: b"\x89HDF\r\n\x1a\n" + b"\0" * 50, "is an HDF5 file, no flow of npflows$"),
    "fits": (lambda _: b"SIMPLE  =                    T", "is a FITS file, no flow of npflows$"),
    "parquet": (lambda _: b"PAR1\x15\x04", "is a Parquet file"),
    "json": (lambda _: b'{"univariate": "spline"}', "is a text of JSON, no flow of npflows$"),
    "text": (lambda _: "mass,größe\n1.0,2.0\n".encode(), "is a text, no flow of npflows$"),
    "torch before 1.6": (
        lambda _: TORCH,
        r"is a file of PyTorch in the format before 1\.6, .*torch\.save\(state_dict, path\)",
    ),
    "other bytes": (lambda _: b"\xff\x00\xfe\x01" * 20, "is not a complete .npz file"),
    "a zip cut short": (lambda _: b"PK\x03\x04" + b"\0" * 60, "is not a complete .npz file"),
    **{
        f"pickle {protocol} of a {type(value).__name__}": (
            lambda _, value=value, protocol=protocol: pickle.dumps(value, protocol),
            r"is a pickle, .* npflows\.convert\.from_pzflow takes flows of pzflow over",
        )
        for protocol in range(6)
        for value in ({"a": 1}, [1, 2], np.zeros(2))
    },
}


@pytest.mark.parametrize("what", CASES)
def test_load_says_what_a_file_is(what, tmp_path):
    make, message = CASES[what]
    path = tmp_path / "flow.npz"
    path.write_bytes(make(tmp_path))
    with pytest.raises(npflows.FlowFileError, match=message):
        npflows.load(path)


def test_what_is_read_as_a_state_dict_says_it_too(tmp_path):
    (tmp_path / "flow.pt").write_bytes(safetensors())
    with pytest.raises(convert.ConversionError, match=r"is a file of safetensors, and no zip file, .*load_file\(path\)"):
        convert.from_zuko(tmp_path / "flow.pt", univariate="affine")
    (tmp_path / "flow.pt").write_bytes(TORCH)
    with pytest.raises(convert.ConversionError, match=r"is a file of PyTorch in the format before 1\.6, and no zip file"):
        convert.read_state_dict(tmp_path / "flow.pt")


def test_an_array_is_named(tmp_path):
    content = io.BytesIO()
    np.save(content, np.zeros(3))
    (tmp_path / "flow.npy").write_bytes(content.getvalue())
    with pytest.raises(npflows.FlowFileError, match=r"is an array, or several .* npflows\.convert\.from_flowjax"):
        npflows.load(tmp_path / "flow.npy")
