"""Who is compared, how each is started, and which settings it may choose its best of.

A setting is a dictionary; what it means is its server's business (`servers/`). None of Mosec's or LitServe's batches
is as large as there are connections: such a batch never fills while one answer is on its way, so the worker idles out
the wait, which undersells them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVERS = Path(__file__).parent / "servers"
QUIET = ["--no-access-log", "--log-level", "warning", "--no-proxy-headers", "--no-server-header"]
UVICORN = ["--loop", "uvloop", "--http", "httptools", *QUIET]

Setting = dict[str, Any]

LONG_WAIT_MS = 20
"""Long enough that a large batch fills."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a command line is made of.

    Attributes:
        python: The interpreter of its environment.
        model: The ONNX file.
        port: To listen on.
        setting: One of the contestant's.
    """

    python: Path
    model: Path
    port: int
    setting: Setting


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One server.

    Attributes:
        name: For the command line and the results.
        doc: What it is.
        packages: Of its own virtual environment; none: redserve's own, which has FastAPI and uvicorn.
        command: Starts it.
        settings: That it may choose from, for a workload and a number of connections.
        variables: Of its environment, besides those of `servers/given.py`.
        is_ours: Others are compared with it.
    """

    name: str
    doc: str
    packages: tuple[str, ...] = ()
    command: Callable[[Start], Sequence[str]]
    settings: Callable[[str, int], Sequence[Setting]] = lambda workload, connections: [{}]
    variables: Callable[[Start], dict[str, str]] = lambda start: {}
    is_ours: bool = False


def redserve(start: Start) -> list[str]:
    """`redserve serve`; a setting is its flags."""
    flags = [part for key, value in start.setting.items() for part in (f"--{key.replace('_', '-')}", str(value))]
    return [str(start.python.parent / "redserve"), "serve", str(start.model), "--port", str(start.port), *flags]


def uvicorn(app: str, *more: str) -> Callable[[Start], list[str]]:
    """A server of one or several processes."""

    def command(start: Start) -> list[str]:
        workers = ["--workers", str(start.setting.get("workers", 1))]
        return [str(start.python), "-m", "uvicorn", *more, app, "--port", str(start.port), *workers, *UVICORN]

    return command


def script(name: str) -> Callable[[Start], list[str]]:
    """A file of `servers/`."""
    return lambda start: [str(start.python), str(SERVERS / name)]


def bentoml(start: Start) -> list[str]:
    """Its own command."""
    listen = ["--host", "127.0.0.1", "--port", str(start.port)]
    service = ["bentoml_service:Inference", "--working-dir", str(SERVERS)]
    return [str(start.python), "-m", "bentoml", "serve", *service, *listen]


def most(connections: int) -> int:
    """Rows of a batch that still fills while some answers are on their way."""
    return max(connections * 7 // 8, 1)


def redserve_settings(workload: str, connections: int) -> list[Setting]:
    """One and two processes; for wide models both cores in one, by two engines, or by two threads."""
    one = [{"workers": 1, "intra_op_threads": 1, "max_batch_size": rows} for rows in (32, 64)]
    two = [{"workers": 2, "intra_op_threads": 1, "max_batch_size": rows} for rows in (16, 32)]
    if workload == "small":
        return [*one, *two]
    two_engines = [{"instances": 2, "intra_op_threads": 1, "max_batch_size": rows} for rows in (32, 64)]
    two_threads = [{"intra_op_threads": 2, "max_batch_size": rows} for rows in (32, 64)]
    rows = most(connections)
    waiting = [
        {"intra_op_threads": 2, "max_batch_size": rows, "max_queue_delay_ms": LONG_WAIT_MS},
        {"workers": 2, "intra_op_threads": 1, "max_batch_size": max(rows // 2, 1), "max_queue_delay_ms": LONG_WAIT_MS},
    ]
    return [*two_engines, *two_threads, *two, *waiting]


def redserve_variables(start: Start) -> dict[str, str]:
    """The settings of `redserve.server:create_app`."""
    given = {"model": start.model, **start.setting}
    given.pop("workers", None)  # which are uvicorn's
    return {f"REDSERVE_{key.upper()}": str(value) for key, value in given.items()}


def mosec_settings(workload: str, connections: int) -> list[Setting]:
    """Small batches that wait shortly, large ones that wait until they are full; one and two workers, or threads."""
    half, quarter, full = max(connections // 2, 1), max(connections // 4, 1), most(connections)
    choices = {(1, half, 1, 1), (2, half, 1, 1), (1, quarter, 1, 1), (2, quarter, 1, 1), (1, half, 2, 1)}
    choices |= {(1, full, LONG_WAIT_MS, 1), (2, full // 2, LONG_WAIT_MS, 1)}
    if connections < 4:  # no batch of two comes together: none at all, or one that waits
        choices = {(1, 1, 1, 1), (2, 1, 1, 1), (1, 32, 1, 1), (1, 32, 2, 1)}
    if workload == "wide":
        choices |= {(1, half, 1, 2), (1, quarter, 1, 2), (1, full, LONG_WAIT_MS, 2)}
    names = ("workers", "max_batch_size", "max_wait_ms", "threads")
    return [dict(zip(names, choice, strict=True)) for choice in sorted(choices)]


def litserve_settings(workload: str, connections: int) -> list[Setting]:
    """As Mosec's, and the faster of its queues."""
    rows = max(connections // 2, 2)
    return [
        {"workers": workers, "max_batch_size": rows, "max_wait_ms": 1, "fast_queue": is_fast}
        for workers in (1, 2)
        for is_fast in (False, True)
    ]


CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        Contestant(name="redserve", doc="`redserve serve`, no settings", command=redserve, is_ours=True),
        Contestant(
            name="redserve-tuned",
            doc="`redserve serve`, best of its settings",
            command=redserve,
            settings=redserve_settings,
            is_ours=True,
        ),
        Contestant(
            name="redserve-asgi",
            doc="redserve by its ASGI door, under plain uvicorn",
            command=uvicorn("redserve.server:create_app", "--factory"),
            settings=lambda workload, connections: [
                {"workers": workers, "intra_op_threads": threads} for workers, threads in ((1, 1), (1, 2), (2, 1))
            ],
            variables=redserve_variables,
            is_ours=True,
        ),
        Contestant(
            name="mosec",
            doc="Mosec, orjson, best of its settings",
            packages=("mosec==0.9.8", "orjson>=3.10"),
            command=script("mosec_server.py"),
            settings=mosec_settings,
        ),
        Contestant(
            name="fastapi",
            doc="FastAPI, `async def`, pydantic, `session.run`",
            command=uvicorn("fastapi_plain:app", "--app-dir", str(SERVERS)),
            settings=lambda workload, connections: [{"workers": 1}, {"workers": 2}],
        ),
        Contestant(
            name="fastapi-batched",
            doc="the same with `redserve.batched`",
            command=uvicorn("fastapi_batched:app", "--app-dir", str(SERVERS)),
            settings=lambda workload, connections: [{"workers": workers, "max_batch_size": 64} for workers in (1, 2)],
        ),
        Contestant(
            name="litserve",
            doc="LitServe, best of its settings",
            packages=("litserve==0.2.19", "uvloop>=0.20", "httptools>=0.6"),
            command=script("litserve_server.py"),
            settings=litserve_settings,
        ),
        Contestant(
            name="bentoml",
            doc="BentoML, adaptive batching, best of its settings",
            packages=("bentoml==1.4.40", "uvloop>=0.20", "httptools>=0.6"),
            command=bentoml,
            settings=lambda workload, connections: [{"workers": workers, "max_batch_size": 32} for workers in (1, 2)],
            variables=lambda start: {"BENTOML_DO_NOT_TRACK": "True", "PYTHONPATH": str(SERVERS)},
        ),
    )
}
