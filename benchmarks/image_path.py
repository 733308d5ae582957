"""How long is the way of an image to the model, and what does it cost?

    python benchmarks/image_path.py [--quick]      needs redserve[dev]; writes benchmarks/results/image_path.json

One image of 3x224x224 float32 (602 kB) at a time over one connection, as a binary tensor of the Open Inference
Protocol.
The server notes when the last bytes of a request came and when the engine was called with it; the engine does nothing.
Beside it uvicorn on uvloop with an ASGI callable that reads the body and answers a constant. The servers take turns, a
fresh connection each round; CPU is that of the server's process, by request. Every answer is compared.
The C library is told to keep what is freed: in some of its starts the server that only reads would give its memory back
to the system with each image, and take it again, at six times the cost.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from load.watched import cpu_s

from redserve.bench.environment import environment

RESULTS = Path(__file__).parent / "results" / "image_path.json"
SERVER = Path(__file__).parent / "load" / "image_server.py"
KEEPS_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**27)}  # mallopt(3)
KINDS = ("redserve-inline", "redserve-thread", "bare")


def request() -> bytes:
    """The same bytes for all; the one that only reads does not look at them."""
    image = np.zeros((1, 3, 224, 224), np.float32)
    entry = {"name": "x", "shape": list(image.shape), "datatype": "FP32"}
    head = json.dumps({"inputs": [{**entry, "parameters": {"binary_data_size": image.nbytes}}]}).encode()
    return (
        b"POST /v2/models/glance/infer HTTP/1.1\r\nHost: test\r\nInference-Header-Content-Length: %d\r\n"
        b"Content-Length: %d\r\n\r\n" % (len(head), len(head) + image.nbytes)
    ) + head + image.tobytes()  # fmt: skip


class Running:
    """One of the servers."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._process = subprocess.Popen(
            [sys.executable, str(SERVER), kind], stdout=subprocess.PIPE, text=True, env=os.environ | KEEPS_MEMORY
        )
        assert self._process.stdout is not None
        while not (line := self._process.stdout.readline().strip().rpartition(":")[2]).isdigit():
            assert self._process.poll() is None, "the server has ended"
        self._port = int(line)

    def round(self, sent: bytes, count: int) -> float:
        """Microseconds of CPU a request."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=20) as connection:
            self._exchange(connection, sent)
            began_s = cpu_s(self._process.pid)
            for _ in range(count):
                self._exchange(connection, sent)
            return 1e6 * (cpu_s(self._process.pid) - began_s) / count

    def stop(self) -> list[float]:
        """Its notes."""
        self._process.send_signal(signal.SIGTERM)
        said, _ = self._process.communicate(timeout=20)
        return json.loads(said.splitlines()[-1]) if self.kind != "bare" else []

    def _exchange(self, connection: socket.socket, sent: bytes) -> None:
        connection.sendall(sent)
        received = b""
        while not received.endswith(b"}"):
            chunk = connection.recv(65_536)
            assert chunk, received
            received += chunk
        expected = b'"data":[0.0]' if self.kind != "bare" else b"[[0.0]]"
        assert received.startswith(b"HTTP/1.1 200 "), received
        assert expected in received, received


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few requests; write nothing")
    options = parser.parse_args()
    rounds, count = (1, 5) if options.quick else (9, 2_000)
    sent, servers = request(), [Running(kind) for kind in KINDS]
    cpu_us: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for turn in range(rounds):
        for server in servers if turn % 2 == 0 else reversed(servers):
            cpu_us[server.kind].append(server.round(sent, count))
    found: dict[str, Any] = {}
    for server in servers:
        notes_us = sorted(1e6 * note_s for note_s in server.stop())
        found[server.kind] = {
            "cpu_us_by_round": [round(value, 1) for value in cpu_us[server.kind]],
            "cpu_us": round(statistics.median(cpu_us[server.kind]), 1),
            "cpu_of_bare": round(
                statistics.median(
                    own / bare for own, bare in zip(cpu_us[server.kind], cpu_us["bare"], strict=True) if bare
                )
                if all(cpu_us["bare"])
                else 0.0,
                3,
            ),
        }
        if notes_us:
            found[server.kind]["last_byte_to_run_us"] = {
                f"p{share}": round(notes_us[min(len(notes_us) * share // 100, len(notes_us) - 1)], 1)
                for share in (0, 50, 90, 99)
            }
        print(f"{server.kind:<16} {json.dumps({k: v for k, v in found[server.kind].items() if 'round' not in k})}")
    if not options.quick:
        document = {
            "question": "how long is the way of an image to the model, and what does it cost?",
            "command": "python benchmarks/image_path.py",
            "environment": environment(),
            "bytes": len(sent),
            "servers": found,
        }
        RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
