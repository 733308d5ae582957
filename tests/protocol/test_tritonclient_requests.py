"""What tritonclient 2.73.0 sends, byte by byte: `InferenceServerClient.generate_request_body`."""

import numpy as np
import pytest
from open_inference_models import DTYPES, F32, X, Y, codec_of, tensor

from redserve.engine.tensors import TensorSpec
from redserve.protocol import Asked, AskedOutput

TEXT = TensorSpec("t", DTYPES["BYTES"], ("batch", 1))
Z = TensorSpec("z", F32, ("batch",))

TENSORS = {
    "BOOL": ("0100", "[true,false]", [True, False]),
    "UINT8": ("00ff", "[0,255]", [0, 255]),
    "UINT16": ("0000ffff", "[0,65535]", [0, 2**16 - 1]),
    "UINT32": ("00000000ffffffff", "[0,4294967295]", [0, 2**32 - 1]),
    "UINT64": ("0000000000000000ffffffffffffffff", "[0,18446744073709551615]", [0, 2**64 - 1]),
    "INT8": ("807f", "[-128,127]", [-128, 127]),
    "INT16": ("0080ff7f", "[-32768,32767]", [-(2**15), 2**15 - 1]),
    "INT32": ("00000080ffffff7f", "[-2147483648,2147483647]", [-(2**31), 2**31 - 1]),
    "INT64": (
        "0000000000000080ffffffffffffff7f",
        "[-9223372036854775808,9223372036854775807]",
        [-(2**63), 2**63 - 1],
    ),
    "FP16": ("003e007c", None, [1.5, np.inf]),
    "BF16": ("c03f00c0", None, [1.5, -2.0]),
    "FP32": ("cdcccc3d000080ff", "[0.10000000149011612,-Infinity]", [0.1, -np.inf]),
    "FP64": ("9a9999999999b93f000000000000f87f", "[0.1,NaN]", [0.1, np.nan]),
    "BYTES": ("03000000610062" + "02000000c3a9", '["a\\u0000b","\\u00E9"]', ["a\0b", "é"]),
}

EVERYTHING = (
    b'{"id":"7","inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}},'
    b'{"name":"t","shape":[1,1],"datatype":"BYTES","parameters":{"binary_data_size":6}}],"outputs":[{"name":"y",'
    b'"parameters":{"classification":2,"binary_data":true}},{"name":"z","parameters":{"binary_data":false}}],'
    b'"parameters":{"sequence_id":5,"sequence_start":true,"sequence_end":true,"priority":1,"timeout":2500,"mine":"x"}}'
    b"\x00\x00\x80?\x00\x00\x00@\x02\x00\x00\x00\xc3\xa9"
)


def request_of(datatype, field):
    return (
        f'{{"inputs":[{{"name":"x","shape":[1,2],"datatype":"{datatype}",{field}}}],'
        '"parameters":{"binary_data_output":true}}'
    ).encode()


@pytest.mark.parametrize("datatype", sorted(TENSORS))
def test_every_datatype_is_read_from_binary(datatype):
    tail, _, values = TENSORS[datatype]
    data = bytes.fromhex(tail)
    head = request_of(datatype, f'"parameters":{{"binary_data_size":{len(data)}}}')

    request = tensor(datatype, (None, 2)).decode(head + data, json_length=str(len(head)).encode())

    wanted = np.array([values], DTYPES[datatype])
    assert np.array_equal(request.tensors["x"], wanted, equal_nan=datatype == "FP64")
    assert request.tensors["x"].dtype == wanted.dtype
    assert request.form == Asked((AskedOutput(0, is_binary=True),))


@pytest.mark.parametrize("datatype", [name for name, (_, data, _) in sorted(TENSORS.items()) if data])
def test_every_datatype_is_read_from_json(datatype):
    _, data, values = TENSORS[datatype]

    request = tensor(datatype, (None, 2)).decode(request_of(datatype, f'"data":{data}'))

    wanted = np.array([values], DTYPES[datatype])
    assert np.array_equal(request.tensors["x"], wanted, equal_nan=datatype == "FP64")


def test_everything_at_once_is_read():
    request = codec_of([X, TEXT], [Y, Z]).decode(EVERYTHING, json_length=b"422")

    assert request.tensors["x"].tolist() == [[1.0, 2.0]]
    assert request.tensors["t"].tolist() == [["é"]]
    assert request.timeout_s == 0.0025
    assert request.form == Asked((AskedOutput(0, is_binary=True, classes=2), AskedOutput(1, is_binary=False)), "7")


def test_a_tensor_without_elements_is_read():
    head = (
        b'{"inputs":[{"name":"x","shape":[0,2],"datatype":"FP32","parameters":{"binary_data_size":0}}],'
        b'"parameters":{"binary_data_output":true}}'
    )

    assert codec_of().decode(head, json_length=str(len(head)).encode()).tensors["x"].shape == (0, 2)
