"""The reference server: FastAPI and uvicorn around the libraries below; the one room that wires them.

    settings -> create_app: models, service, doors, middleware -> runner: signals, readiness, drain, exit status

Decision: `/predict` is a plain ASGI callable in front of FastAPI's routing, not a route. Without sockets, a request
costs a median of 43 us of CPU by the door and 141 us as a route (`benchmarks/results/door_cost.json`), and the OpenAPI
page documents it all the same.

Decision: where nobody else is to see them, plain requests pass FastAPI's layers too, which brings them to 34 us
(`door_cost.json`), and under uvicorn are answered in one write. "Nobody else" is read off what is public and off where
classes come from: no middleware but ours, no foreign layer in the stack, no replaced `__call__`, no application around,
no OpenTelemetry SDK loaded. A middleware of ours as the outermost would need none of this, but FastAPI asks for its
telemetry in the environment, and three layers wrap each message, before any middleware is called.

Decision: a client that leaves is watched for only after 20 ms. A watching task for each request would cost a good part
of what the door does, and rows that wait less than that are about to run anyway.

Decision: several workers are fresh processes, each a whole server with its own models, under one supervisor that loads
nothing (`supervisor.py`). It accepts the connections and hands them over in turn. Two workers that accept on one shared
socket had 3 or all of 4 connections on one of them in 38 trials of 40, and a median of 64 of 64; with SO_REUSEPORT
each, in 24 of 40, and 35 of 64, 43 at worst. In turn it is 2 and 32, always, and at the end one owner of one backlog
leaves nobody in a queue that nobody reads. The price is a hop a connection, not a request. On two cores, which wrk
shares, 64 connections get 65,900 small answers/s from two workers and 53,300 from one: all cores are busy then.
(`benchmarks/results/several_workers.json`)

Decision: a scrape asks every worker, by way of the supervisor, for a snapshot that it takes in one step of its loop,
and they are summed. Cells in shared memory would need no asking, but received = ended + in flight holds between two
steps of a loop only. So a scrape at any worker has whatever was answered before it. The last snapshot of a worker that
died is kept, so that nothing falls; what it did since then nobody knows, and what it had in flight ends as
`worker_died`. A worker that does not answer within a second enters with its snapshot of before, and is shown as
`inference_workers{state="silent"}`: a failed scrape would hide the others just then.

Decision: `redserve serve` ends the process without the interpreter's own farewell (`os._exit`), once everything is
answered and flushed. An engine thread may still be inside native code, which aborts when the interpreter ends under it.
"""

from typing import TYPE_CHECKING, Any

from redserve.server.settings import Settings

if TYPE_CHECKING:
    from redserve.server.app import create_app

__all__ = ["Settings", "create_app"]


def __getattr__(name: str) -> Any:
    """The application loads FastAPI, which the supervisor of several workers has no use for."""
    if name == "create_app":
        from redserve.server.app import create_app

        return create_app
    raise AttributeError(name)
