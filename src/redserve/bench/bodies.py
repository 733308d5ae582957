"""Rows as request bodies, and bodies as whole HTTP/1.1 requests.

predict     POST /predict/{model}            {"instances": [row, ...]}
v2          POST /v2/models/{model}/infer    JSON
v2-binary   POST /v2/models/{model}/infer    a JSON head and the numbers' bytes
template    any URL                          $row is a row, $rows a list of rows, each as JSON
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import quote

import orjson

from redserve.bench.mistakes import BenchError
from redserve.bench.rows import Row, join
from redserve.engine.tensors import Array, TensorSpec
from redserve.protocol import datatype_of
from redserve.protocol.binary_tensors import to_bytes

Format = Literal["predict", "v2", "v2-binary"]
FORMATS: tuple[str, ...] = get_args(Format)

_JSON = {"Content-Type": "application/json"}
_HEADER = re.compile(r"[!-9;-~]+: [\t\x20-\x7e\x80-\xff]*")
_PLACE = re.compile(r"\$(rows|row)\b")


@dataclass(frozen=True)
class Body:
    """The bytes, and the headers that go with them."""

    content: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: _JSON)


def path_of(model: str, form: Format) -> str:
    """Where requests of this format go."""
    name = quote(model, safe="")
    return f"/predict/{name}" if form == "predict" else f"/v2/models/{name}/infer"


def of_rows(rows: Sequence[Row], inputs: Sequence[TensorSpec], form: Format) -> Body:
    """The body of a row-wise model.

    Raises:
        BenchError: The rows do not have the model's form.
    """
    if form == "predict":
        return Body(_json({"instances": rows}))
    return of_tensors(join(rows, inputs), form)


def of_tensors(tensors: Mapping[str, Array], form: Format) -> Body:
    """The body of whole tensors."""
    if form == "predict":
        return Body(_json({"inputs": tensors}))
    if form == "v2":
        return Body(_json({"inputs": [_head(name, array) | {"data": array} for name, array in tensors.items()]}))
    parts = [bytes(to_bytes(array)) for array in tensors.values()]
    inputs = [
        _head(name, array) | {"parameters": {"binary_data_size": len(part)}}
        for (name, array), part in zip(tensors.items(), parts, strict=True)
    ]
    head = _json({"inputs": inputs, "parameters": {"binary_data_output": True}})
    return Body(
        b"".join((head, *parts)),
        {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))},
    )


def of_template(template: str, rows: Sequence[Row]) -> Body:
    """`template` with rows in the places of `$row` and `$rows`.

    Raises:
        BenchError: It has such places and there are no rows.
    """
    content_type = _JSON if template.lstrip()[:1] in ("{", "[") else {"Content-Type": "text/plain; charset=utf-8"}
    if not has_places(template):
        return Body(template.encode(), content_type)
    if not rows:
        raise BenchError("the body has a place for rows: name their file with --data")
    values = {"row": _json(rows[0]).decode(), "rows": _json(rows).decode()}
    return Body(_PLACE.sub(lambda place: values[place[1]], template).encode(), content_type)


def has_places(template: str) -> bool:
    """Whether rows are to be put into `template`."""
    return _PLACE.search(template) is not None


def request(method: str, path: str, authority: str, headers: Mapping[str, str], body: Body | None) -> bytes:
    """A whole request.

    Raises:
        BenchError: A header cannot be sent.
    """
    lines = {"Host": authority, "Accept": "*/*", "User-Agent": "redserve-bench"}
    if body is not None:
        lines |= {**body.headers, "Content-Length": str(len(body.content))}
    # what the user says counts, however the name is written
    given = {name.lower() for name in headers}
    kept = {name: value for name, value in lines.items() if name.lower() not in given} | dict(headers)
    for name, value in kept.items():
        if not _HEADER.fullmatch(f"{name}: {value}"):
            raise BenchError(f"this header cannot be sent: {name}: {value!r}")
    head = "".join(f"{name}: {value}\r\n" for name, value in kept.items())
    return f"{method} {path or '/'} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + (body.content if body else b"")


def _head(name: str, array: Array) -> dict[str, object]:
    return {"name": name, "shape": list(array.shape), "datatype": datatype_of(array.dtype)}


def _json(value: object) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY, default=_listed)
    except orjson.JSONEncodeError as error:
        raise BenchError(f"JSON cannot say these rows ({error}): try --format v2-binary") from error


def _listed(value: object) -> object:
    """What orjson does not know of numpy: strings, float16, arrays that are not contiguous, scalars of these."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
