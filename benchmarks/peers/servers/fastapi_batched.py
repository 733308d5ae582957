"""FastAPI and pydantic as in `fastapi_plain.py`, with `redserve.batched` around the model: one decorator more."""

from fastapi import FastAPI
from given import SETTINGS, Model
from pydantic import BaseModel

from redserve import batched

app = FastAPI()
model = Model()


class Rows(BaseModel):
    """The body."""

    instances: list[list[float]]


class Predictions(BaseModel):
    """The answer."""

    predictions: list[list[float]]


@batched(max_batch_size=SETTINGS["max_batch_size"])
def run(rows: list[list[float]]) -> list[list[float]]:
    """One run for all that wait."""
    found: list[list[float]] = model(rows).tolist()
    return found


@app.post("/predict")
async def predict(body: Rows) -> Predictions:
    """Each request hands in its row."""
    return Predictions(predictions=[await run(body.instances[0])])
