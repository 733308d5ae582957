"""What the servers are asked, and what is right: one-row JSON bodies, the same bytes for each of them."""

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from models.build import RECIPES, built, runner

BODIES = 64
TOLERANCE = 1e-4
LIMIT_S = 20.0


class WrongAnswer(Exception):
    """A server answered something else than ONNX Runtime."""


@dataclass(frozen=True)
class Workload:
    """One model and rows to ask it with.

    Attributes:
        name: Of the model.
        doc: What it is.
        model: Its file.
        bodies: A row each.
        right: `(rows, outputs)`, as ONNX Runtime answers.
    """

    name: str
    doc: str
    model: Path
    bodies: list[bytes]
    right: np.ndarray

    @classmethod
    def of(cls, name: str) -> "Workload":
        """Build it."""
        recipe, model = RECIPES[name], built(name)
        given = recipe.rows(BODIES)
        bodies = [json.dumps({"instances": [row]}, separators=(",", ":")).encode() for row in _texts(given["x"])]
        return cls(name, recipe.doc, model, bodies, runner(model)(given)[0])

    def request(self, number: int) -> bytes:
        """A whole HTTP/1.1 request."""
        body = self.bodies[number]
        head = "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def check(self, port: int) -> None:
        """Send all rows at once and compare each answer.

        Raises:
            WrongAnswer: One is not right.
            OSError: There is no answer.
        """
        with ThreadPoolExecutor(BODIES) as threads:
            list(threads.map(lambda number: self.check_one(port, number), range(BODIES)))

    def check_one(self, port: int, number: int) -> None:
        """Send one row and compare, as `check`."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
        try:
            connection.request("POST", "/predict", self.bodies[number], {"Content-Type": "application/json"})
            answer = connection.getresponse()
            status, body = answer.status, answer.read()
        finally:
            connection.close()
        if status != 200:
            raise WrongAnswer(f"row {number}: {status} {body[:200]!r}")
        found = json.loads(body)
        rows = found["predictions"] if isinstance(found, dict) else found  # BentoML answers with the bare rows
        expected = self.right[number : number + 1]
        if np.shape(rows) != expected.shape or not np.allclose(rows, expected, rtol=TOLERANCE, atol=TOLERANCE):
            raise WrongAnswer(f"row {number}: {body[:200]!r} is not {expected.tolist()}")


def _texts(rows: np.ndarray) -> list[list[float]]:
    """As a client would write them: three digits, not the seventeen of a float32 in double precision."""
    return [[round(value, 3) for value in row] for row in rows.tolist()]
