"""A server with one setting and another, on the same model, in turns."""

from collections.abc import Mapping
from typing import Any

from gpu.http_share import requests_of
from gpu.measurement import Measurement
from gpu.server import Server
from gpu.workloads import Workload

ROWS_A_REQUEST, CONNECTIONS, MAX_BATCH_SIZE = 16, 64, 64

Settings = Mapping[str, str | int | bool]


def compare_settings(
    measurement: Measurement, server: Server, workload: Workload, variants: Mapping[str, Settings]
) -> dict[str, Any]:
    """Load, compare the answers, ask in a closed loop of binary requests, unload; there and back again."""
    turns = list(variants) if measurement.is_quick else [*variants, *reversed(variants)]
    found: dict[str, Any] = {name: [] for name in variants}
    for name in turns:
        server.load(workload, max_batch_size=8 if measurement.is_quick else MAX_BATCH_SIZE, **variants[name])
        try:
            server.check(workload, 3)
            rows, connections, seconds = (2, 4, 0.4) if measurement.is_quick else (ROWS_A_REQUEST, CONNECTIONS, 1.0)
            requests = requests_of("binary", workload, rows)
            found[name].append(server.drive(requests, rows=rows, connections=connections, seconds=seconds))
        finally:
            server.unload(workload)
    return found
