"""Serve an ONNX model from your own program, beside your own routes.

    python examples/serve_onnx.py [PATH.onnx]          without a path: the embedded digits

    curl -s http://127.0.0.1:8000/labels
    curl -s http://127.0.0.1:8000/metrics

A body that works is at http://127.0.0.1:8000/docs, to be tried in the browser.

`create_app` makes an ordinary FastAPI application: `/predict`, `/readyz`, `/docs` and `/metrics` are there already, and
your routes are counted like them. The command line does the same: `redserve serve PATH.onnx`.
"""

import sys
from pathlib import Path

import uvicorn

from redserve.server import Settings, create_app

app = create_app(Settings.load({"model": Path(sys.argv[1]) if sys.argv[1:] else None, "max_queue_rows": 256}))


@app.get("/labels")
async def labels() -> dict[str, list[str]]:
    """A route of your own beside the model's."""
    return {"labels": [str(digit) for digit in range(10)]}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=8000, access_log=False)
