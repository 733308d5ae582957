"""The reference server in the test's own loop: lifespan run, models loaded, requests through ASGI without a socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from fastapi import FastAPI


@asynccontextmanager
async def client_of(app: FastAPI, *, loaded: bool = True) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of `app` while it lives."""
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://redserve") as client,
    ):
        if loaded:
            await app.state.redserve.loaded.wait()
        yield client
