"""Many requests in, few calls out."""

from redserve.batching.batched import Batched, batched
from redserve.batching.batcher import Batcher
from redserve.batching.observer import BatchObserver, BatchRecorder, BatchReport
from redserve.batching.policy import BatchPolicy
from redserve.batching.request import Answer, Ticket

__all__ = [
    "Answer",
    "BatchObserver",
    "BatchPolicy",
    "BatchRecorder",
    "BatchReport",
    "Batched",
    "Batcher",
    "Ticket",
    "batched",
]
