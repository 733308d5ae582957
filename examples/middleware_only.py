"""RED metrics for a FastAPI app in one line: rate, errors, duration and requests in flight.

Needs `pip install . fastapi uvicorn`. Start it, make some requests, look at the numbers:

    python examples/middleware_only.py
    curl http://127.0.0.1:8000/square/7
    curl http://127.0.0.1:8000/square/many
    curl http://127.0.0.1:8000/metrics

The first request is `ok`, the second a `client_error`, both under the route `/square/{number}`; the scrape itself is
not counted.
"""

import uvicorn
from fastapi import FastAPI

from redserve import REDMiddleware

app = FastAPI()
app.add_middleware(REDMiddleware)  # the one line


@app.get("/square/{number}")
async def square(number: int) -> dict[str, int]:
    """Answer the square of a number."""
    return {"square": number * number}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=8000)
