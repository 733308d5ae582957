"""The reference server: FastAPI and uvicorn around the libraries below; the one room that wires them.

    settings -> create_app: models, service, doors, middleware -> runner: signals, readiness, drain, exit status

Decision: `/predict` is a plain ASGI callable in front of FastAPI's routing, not a route. Without sockets, a request
costs a median of 77 us of CPU by the door and 194 us as a route (`benchmarks/results/door_cost.json`), and the OpenAPI
page documents it all the same.

Decision: a client that leaves is watched for only after 20 ms. A watching task for each request would cost a good part
of what the door does, and rows that wait less than that are about to run anyway.

Decision: `redserve serve` ends the process without the interpreter's own farewell (`os._exit`), once everything is
answered and flushed. An engine thread may still be inside native code, which aborts when the interpreter ends under it.
"""

from redserve.server.app import create_app
from redserve.server.settings import Settings

__all__ = ["Settings", "create_app"]
