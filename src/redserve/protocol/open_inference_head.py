"""The JSON of an Open Inference request, checked as far as it is the same for every model.

    bytes ─ msgspec ─> Head(inputs, outputs, parameters, id)      `data` stays unread until its datatype is known
      └ NaN, Infinity or -Infinity inside ─ json, msgspec.convert ─> the same, `data` as Python lists

Fields that the protocol does not know are ignored; `null` is as good as absent, because clients made from Pydantic
models write it.
"""

import json
import math
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from redserve.errors import BadRequest
from redserve.protocol.json_lists import explain

Data = TypeVar("Data")

Parameters: TypeAlias = dict[str, str | int | float | bool | None]

_US_PER_S = 1_000_000
_LONGEST_US = 2**64  # Triton's limit; an integer may have more digits than a float can say


class Input(msgspec.Struct, Generic[Data]):
    """One input, its elements still unread."""

    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters | None = None
    data: Data | msgspec.UnsetType = msgspec.UNSET


class Output(msgspec.Struct):
    """One output that is asked for."""

    name: str
    parameters: Parameters | None = None


class Head(msgspec.Struct, Generic[Data]):
    """A request without its binary tensors."""

    inputs: list[Input[Data]]
    outputs: list[Output] | None = None
    parameters: Parameters | None = None
    id: str | None = None


_decoder = msgspec.json.Decoder(Head[msgspec.Raw])


def parse_head(text: bytes | memoryview) -> Head[Any]:
    """Read the JSON of a request; the `data` of an input is `msgspec.Raw`, or Python objects where a NaN is near.

    Raises:
        BadRequest: It is no JSON, or has not the protocol's form; says where.
    """
    try:
        return _decoder.decode(text)
    except msgspec.ValidationError as error:
        raise misfit(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        whole = bytes(text)
        if b"NaN" in whole or b"Infinity" in whole:
            return _parse_not_finite(whole)
        hint = ": Inference-Header-Content-Length says where the JSON ends" if "trailing" in str(error) else ""
        raise BadRequest(f"the body is not valid JSON: {error}{hint}") from error
    except RecursionError as error:
        raise BadRequest("the body is nested too deeply") from error


def misfit(error: msgspec.ValidationError, *, below: str = "$") -> BadRequest:
    """Translate msgspec's complaint about a value at or under the path `below`."""
    message, place = explain(error)
    return BadRequest(message, where=below + place.removeprefix("$"))


def check_parameters(parameters: Parameters) -> float | None:
    """Check the parameters of a request that have a meaning; others are let pass.

    `priority` and those of sequences are accepted and have no effect, as in Triton where the model has neither.

    Returns:
        How long the answer may take, in seconds; `None` where `timeout` is absent or 0, as in Triton.

    Raises:
        BadRequest: One has a wrong type, or is reserved.
    """
    for key, value in parameters.items():
        where = "$.parameters"
        if key.startswith("triton_"):
            raise BadRequest(f"parameter {key!r} is reserved: names may not start with 'triton_'", where=where)
        if value is None:
            continue
        if key in ("timeout", "priority") and not is_count(value):
            raise BadRequest(f"parameter {key!r} must be a non-negative integer, not {value!r}", where=where)
        if key in ("binary_data_output", "sequence_start", "sequence_end") and not isinstance(value, bool):
            raise BadRequest(f"parameter {key!r} must be true or false, not {value!r}", where=where)
        if key == "sequence_id" and not (is_count(value) or isinstance(value, str)):
            raise BadRequest(
                f"parameter {key!r} must be a non-negative integer or a string, not {value!r}", where=where
            )
    timeout_us = parameters.get("timeout")
    return min(int(timeout_us), _LONGEST_US) / _US_PER_S if timeout_us else None


def is_count(value: object) -> bool:
    """Whether `value` is an integer that counts something; `true` is none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _parse_not_finite(text: bytes) -> Head[Any]:
    """The same with Python's JSON, which takes the bare tokens that msgspec refuses; about ten times slower."""
    try:
        message = json.loads(text.decode(), parse_float=_finite)
        head = msgspec.convert(message, Head[Any])
        (head.id or "").encode()
    except msgspec.ValidationError as error:
        raise misfit(error) from error
    except ValueError as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise BadRequest("the body is nested too deeply") from error
    return head


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"number out of range: {text[:40]}")
    return number
