"""FastAPI as a first example has it, but for `async def`, which is faster than the thread that `def` costs."""

from fastapi import FastAPI
from given import Model
from pydantic import BaseModel

app = FastAPI()
model = Model()


class Rows(BaseModel):
    """The body."""

    instances: list[list[float]]


class Predictions(BaseModel):
    """The answer."""

    predictions: list[list[float]]


@app.post("/predict")
async def predict(body: Rows) -> Predictions:
    """One run a request."""
    return Predictions(predictions=model(body.instances).tolist())
