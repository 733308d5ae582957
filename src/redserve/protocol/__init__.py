"""Wire formats: bytes to tensors, tensors to bytes; no web framework, no clock, no queue.

    body -> Codec.decode -> InferRequest (named tensors)        a mistake is a BadRequest that says where
    outputs, in the model's order -> Codec.encode -> body       a value JSON cannot say is a ModelError

A codec is made once per model, from its input and output specifications, so that its parser is typed: JSON is decoded
straight into the nesting and the element type that the model takes.

Decision: msgspec decodes, orjson encodes. msgspec refuses `null`, `true`, `"1"` and `NaN` where a float is due, and
names the place; orjson or pydantic turn some of them into numbers. A row of 256 floats costs 11 us either way
(pydantic: 15 and more). orjson writes numpy arrays as the shortest float32 text, a thousand floats in 18 us (a list
of doubles: 34 us and twice the bytes). Refused: pydantic for tensors.
"""

from redserve.protocol.messages import Codec, Encoded, InferRequest
from redserve.protocol.predict_json import PredictJson

__all__ = ["Codec", "Encoded", "InferRequest", "PredictJson"]
