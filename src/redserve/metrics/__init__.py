"""Instruments: requests, batches and models as numbers on a prometheus_client registry, and `/metrics` to read them.

Needs prometheus_client alone.
"""

from redserve.metrics.batch import BatchMetrics, BatchRecorder
from redserve.metrics.buckets import latency_buckets
from redserve.metrics.exposition import metrics_app
from redserve.metrics.model import ModelMetrics
from redserve.metrics.red import REDMetrics

__all__ = ["BatchMetrics", "BatchRecorder", "ModelMetrics", "REDMetrics", "latency_buckets", "metrics_app"]
