"""Requests in the forms that the server reads; and a wait for what waits."""

import asyncio
import io
import json

import numpy as np

LENGTH = "inference-header-content-length"


def request_of(rows, **fields):
    """A request in JSON for the rows."""
    return {"inputs": [{"name": "x", "shape": [len(rows), 2], "datatype": "FP32", "data": rows}], **fields}


def binary_request(rows, **fields):
    """Body and headers of a request for the rows as binary data."""
    tail = np.array(rows, "<f4").tobytes()
    entry = {"name": "x", "shape": [len(rows), 2], "datatype": "FP32", "parameters": {"binary_data_size": len(tail)}}
    head = json.dumps({"inputs": [entry], **fields}).encode()
    return head + tail, {LENGTH: str(len(head))}


def npy_of(array):
    """The bytes of a `.npy` file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


async def until_queued(app, rows):
    """Return once so many rows wait in the one model of `app`."""
    (model,) = app.state.redserve.repository
    for _ in range(10_000):
        if model.queued_rows == rows:
            return
        await asyncio.sleep(0)
    raise AssertionError(f"{model.queued_rows} rows wait, not {rows}")
