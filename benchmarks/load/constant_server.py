"""A server that answers every request for inference at once, with the same: what is left is the way into a server.

    python benchmarks/load/constant_server.py fast|asgi        listens on PEER_PORT, serves until it is terminated

`fast` is redserve's fast door, which parses, counts and writes; `asgi` is uvicorn with an ASGI callable that reads the
body.
"""

import contextlib
import os
import sys
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry

from redserve.server import Settings, create_app
from redserve.server.reply import Reply, lines_of
from redserve.server.runner import Server

PREDICTIONS = [[0.0, 0.0, 0.0]]
BODY = b'{"predictions":[[0.0,0.0,0.0]]}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
TIMING = (b"server-timing", b"queue;dur=0.000, compute;dur=0.000, total;dur=0.000")


async def only_reads(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body, and answers."""
    if scope["type"] == "http":
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": BODY})


def main() -> None:
    """Serve until a signal."""
    port = int(os.environ["PEER_PORT"])
    if sys.argv[1] == "asgi":
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.run(
                only_reads, port=port, log_level="warning", access_log=False, proxy_headers=False, server_header=False
            )
        return
    settings = Settings(port=port)
    app = create_app(settings, registry=CollectorRegistry())
    reply = Reply(200, lines_of([*HEADERS, TIMING]), BODY, "digits")
    app.state.redserve.fast_door.infer = lambda target, headers, body, answer, arrived_s: answer(reply)
    sys.stdout.flush()
    os._exit(Server(app, settings).run() or 0)


if __name__ == "__main__":
    main()
