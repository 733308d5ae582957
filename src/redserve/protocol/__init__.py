"""Wire formats: bytes to tensors, tensors to bytes; no web framework, no clock, no queue.

    body ─ decompress ─ Codec.decode ─> InferRequest (named tensors)      a mistake is a BadRequest that says where
    outputs, in the model's order ─ Codec.encode ─ compress ─> Encoded    what the format cannot say is a ModelError

    PredictJson     /predict        application/json           rows or columns
    Npy             /predict        application/x-npy          one array
    OctetStream     /predict        application/octet-stream   bare rows; answers JSON
    OpenInference   /v2/.../infer   any                        JSON, with binary tensors behind it

A codec is made once per model, from its input and output specifications, so that its parser is typed: JSON is decoded
straight into the nesting and the element type that the model takes. Binary numbers are views of the body: nothing is
copied until a batch is gathered.

Decision: msgspec decodes, orjson encodes. msgspec refuses `null`, `true`, `"1"` and `NaN` where a float is due, and
names the place; orjson or pydantic turn some of them into numbers. A row of 256 floats costs 11 us either way
(pydantic: 15 and more). orjson writes numpy arrays as the shortest float32 text, a thousand floats in 18 us (a list
of doubles: 34 us and twice the bytes). Refused: pydantic for tensors.

Decision: NaN and infinities are bare tokens under `/v2`, both ways, because Triton's clients send and read them so. A
request that has some is read by Python's `json`, at ten times the cost; in an answer they take the places where orjson
wrote null.
"""

from redserve.protocol.compression import choose_encoding, compress, decompress
from redserve.protocol.datatypes import datatype_of
from redserve.protocol.messages import Asked, AskedOutput, Body, Codec, Encoded, InferRequest
from redserve.protocol.npy import Npy
from redserve.protocol.octet_stream import OctetStream
from redserve.protocol.open_inference import OpenInference
from redserve.protocol.open_inference_metadata import error_body, model_config, model_metadata, server_metadata
from redserve.protocol.predict_json import PredictJson

__all__ = [
    "Asked",
    "AskedOutput",
    "Body",
    "Codec",
    "Encoded",
    "InferRequest",
    "Npy",
    "OctetStream",
    "OpenInference",
    "PredictJson",
    "choose_encoding",
    "compress",
    "datatype_of",
    "decompress",
    "error_body",
    "model_config",
    "model_metadata",
    "server_metadata",
]
