"""The reference server: FastAPI and uvicorn around the libraries below; the one room that wires them.

    settings -> create_app: models, service, doors, middleware -> runner: signals, readiness, drain, exit status

Decision: `/predict` is a plain ASGI callable in front of FastAPI's routing, not a route. It costs 35 us a request
where a FastAPI route costs 130, and the OpenAPI page documents it all the same.

Decision: a client that leaves is watched for only after 20 ms. A watching task for each request would cost a third of
what the door does, and rows that wait less than that are about to run anyway.
"""

from redserve.server.app import create_app
from redserve.server.settings import Settings

__all__ = ["Settings", "create_app"]
