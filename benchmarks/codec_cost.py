"""What does a request cost to decode and its answer to encode, by wire format and size of the row?

    python benchmarks/codec_cost.py [--quick]      needs redserve[server]; writes benchmarks/results/codec_cost.json

One row of float32 in, ten numbers out, for a model `x [batch, n] -> y [batch, 10]`; no server, no socket, no model. The
formats take turns within a round; a figure is the lowest of the rounds, in microseconds. Before they are timed, each
must decode its body to the same row and encode an answer that reads back as what it was.
"""

import argparse
import io
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from redserve.bench.environment import environment
from redserve.engine.tensors import TensorSpec
from redserve.protocol import Codec, Npy, OctetStream, OpenInference, PredictJson

RESULTS = Path(__file__).parent / "results" / "codec_cost.json"
FLOATS = (16, 256, 4096, 150_528)
"""The small perceptron's row, the wide one's, an embedding or two, a photograph."""
OUTPUTS = 10
ROUND_S = 0.01


@dataclass(frozen=True)
class Format:
    """One wire format with one request.

    Attributes:
        name: For people.
        codec: Reads and writes it.
        body: A request.
        json_length: Its `Inference-Header-Content-Length`.
        read: An answer's body to its numbers.
    """

    name: str
    codec: Codec
    body: bytes
    json_length: bytes
    read: Callable[[bytes], Any]


def formats(row: np.ndarray) -> list[Format]:
    """All that a model with one input and one output can be asked by."""
    inputs = [TensorSpec("x", np.dtype(np.float32), ("batch", row.shape[1]))]
    outputs = [TensorSpec("y", np.dtype(np.float32), ("batch", OUTPUTS))]
    predict = PredictJson(inputs, outputs)
    v2 = OpenInference(inputs, outputs, model_name="m", model_version="1")
    texts = [round(value, 4) for value in row[0].tolist()]
    tensor = {"name": "x", "datatype": "FP32", "shape": list(row.shape)}
    raw = row.tobytes()
    head = json.dumps(
        {
            "inputs": [tensor | {"parameters": {"binary_data_size": len(raw)}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    npy = io.BytesIO()
    np.save(npy, row)
    return [
        Format("/predict, JSON", predict, compact({"instances": [texts]}), b"", lambda b: json.loads(b)["predictions"]),
        Format("/v2, JSON", v2, compact({"inputs": [tensor | {"data": texts}]}), b"", read_v2),
        Format("/v2, binary", v2, head + raw, str(len(head)).encode(), read_last_bytes),
        Format("/predict, npy", Npy(inputs, outputs, row_wise=True, json=predict), npy.getvalue(), b"", read_npy),
        Format(
            "/predict, octet-stream",
            OctetStream(inputs, row_wise=True, json=predict),
            raw,
            b"",
            lambda b: json.loads(b)["predictions"],
        ),
    ]


def compact(value: Any) -> bytes:
    """JSON as a client sends it."""
    return json.dumps(value, separators=(",", ":")).encode()


def read_v2(body: bytes) -> Any:
    """The numbers of the first output."""
    (output,) = json.loads(body)["outputs"]
    return np.reshape(output["data"], output["shape"])


def read_last_bytes(body: bytes) -> Any:
    """The binary tensor behind the JSON."""
    return np.frombuffer(body[-4 * OUTPUTS :], np.float32).reshape(1, OUTPUTS)


def read_npy(body: bytes) -> Any:
    """The array."""
    return np.load(io.BytesIO(body))


def check(one: Format, row: np.ndarray, answer: np.ndarray) -> None:
    """Decode and encode once.

    Raises:
        RuntimeError: Something else came out.
    """
    request = one.codec.decode(one.body, json_length=one.json_length)
    if not np.array_equal(request.tensors["x"], row):
        raise RuntimeError(f"{one.name} decodes to another row")
    if not np.allclose(one.read(one.codec.encode(request, [answer]).body), answer, rtol=1e-6):
        raise RuntimeError(f"{one.name} encodes another answer")


def measure(count: int, *, rounds: int) -> dict[str, Any]:
    """Microseconds of each format for a row of so many floats."""
    draw = np.random.default_rng(0)
    row = draw.random((1, count)).round(4).astype(np.float32)
    answer = draw.random((1, OUTPUTS), np.float32)
    calls: dict[str, dict[str, Callable[[], object]]] = {}
    sizes = {}
    for one in formats(row):
        check(one, row, answer)
        request = one.codec.decode(one.body, json_length=one.json_length)
        sizes[one.name] = len(one.body)
        calls[one.name] = {
            "decode_us": lambda one=one: one.codec.decode(one.body, json_length=one.json_length),
            "encode_us": lambda one=one, request=request: one.codec.encode(request, [answer]),
        }
    taken: dict[tuple[str, str], list[float]] = {(name, step): [] for name in calls for step in calls[name]}
    for _ in range(rounds):
        for (name, step), times in taken.items():
            times.append(mean_us(calls[name][step]))
    return {
        name: {"body_bytes": sizes[name], **{step: round(min(taken[name, step]), 2) for step in calls[name]}}
        for name in calls
    }


def mean_us(call: Callable[[], object]) -> float:
    """Of the calls that fit in a round."""
    done, began_s = 0, time.perf_counter()
    while (took_s := time.perf_counter() - began_s) < ROUND_S:
        for _ in range(10):
            call()
        done += 10
    return 1e6 * took_s / done


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds; write nothing")
    quick = parser.parse_args().quick
    rounds = 2 if quick else 50
    results = {}
    for count in FLOATS:
        print(f"\n{count:,} floats{'':16}    bytes     decode us   encode us")
        results[str(count)] = measure(count, rounds=rounds)
        for name, found in results[str(count)].items():
            print(f"  {name:<24}{found['body_bytes']:>9,}{found['decode_us']:>14.2f}{found['encode_us']:>12.2f}")
    if quick:
        return
    document = {
        "question": (__doc__ or "").partition("\n")[0],
        "command": "python benchmarks/codec_cost.py",
        "rounds": rounds,
        "outputs": OUTPUTS,
        "machine": environment(),
        "versions": {name: version(name) for name in ("redserve", "msgspec", "numpy", "orjson")}
        | {"python": platform.python_version()},
        "results_by_floats": results,
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
