"""A server that takes an image: redserve's own, which notes when bytes come and when the engine runs, or one that only
reads the body.

    python benchmarks/load/image_server.py redserve-inline|redserve-thread|bare
                              prints its port, serves until it is terminated, prints its notes as JSON

The notes are the seconds from the last bytes of each request to the engine's run.
"""

import contextlib
import json
import os
import sys
import time
from typing import Any

import numpy as np
import uvicorn
from prometheus_client import CollectorRegistry

from redserve.engine import Array, Batchability, Tensors, TensorSpec
from redserve.server import Settings, create_app, http_protocol
from redserve.server.direct_body import DirectBody
from redserve.server.runner import Server

SHAPE = (3, 224, 224)
last_bytes_s = 0.0
notes_s: list[float] = []


class Glance:
    """`x (rows, 3, 224, 224) float32` gives its first number, `y (rows, 1)`: no model, only the way to it."""

    inputs = (TensorSpec("x", np.dtype(np.float32), ("batch", *SHAPE)),)
    outputs = (TensorSpec("y", np.dtype(np.float32), ("batch", 1)),)
    batchability = Batchability(mode="dynamic", reason="each row by itself")
    provider = "none"
    can_run_inline = sys.argv[-1] == "redserve-inline"

    def run(self, tensors: Tensors) -> list[Array]:
        """Note the time, then answer."""
        notes_s.append(time.perf_counter() - last_bytes_s)
        return [tensors["x"][:, 0, 0, :1].copy()]

    def interrupt(self, thread_id: int | None = None) -> None:
        """No run is long."""

    def close(self) -> None:
        """Nothing to free."""


class Noting(DirectBody):
    """Notes when bytes come; the last of a body as large as an image always come here."""

    def buffer_updated(self, nbytes: int) -> None:
        """Note, then go on."""
        global last_bytes_s
        last_bytes_s = time.perf_counter()
        super().buffer_updated(nbytes)


async def only_reads(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body, and answers with what redserve would."""
    if scope["type"] == "http":
        while (await receive()).get("more_body"):
            pass
        body = b'{"predictions":[[0.0]]}'
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Announcing(uvicorn.Server):
    """Prints its port."""

    async def startup(self, sockets: Any = None) -> None:
        """As soon as it listens."""
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)


class AnnouncingOurs(Server):
    """Prints its port, once the model is ready."""

    async def _announce(self) -> None:
        await super()._announce()
        notes_s.clear()


def main() -> None:
    """Serve until a signal."""
    if sys.argv[1] == "bare":
        config = uvicorn.Config(
            only_reads, port=0, log_level="warning", access_log=False, proxy_headers=False, server_header=False
        )
        with_signals: uvicorn.Server = Announcing(config)
        with contextlib.suppress(KeyboardInterrupt):
            with_signals.run()
        return
    settings = Settings(port=0, max_batch_size=8)
    server = AnnouncingOurs(create_app(settings, engines={"glance": Glance}, registry=CollectorRegistry()), settings)
    http_protocol.DirectBody = Noting  # type: ignore[misc]
    server.run()
    print(json.dumps(notes_s), flush=True)
    os._exit(server.exit_status)


if __name__ == "__main__":
    main()
