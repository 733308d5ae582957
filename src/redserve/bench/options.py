"""The options of `redserve bench`, and the loads they describe."""

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path

from redserve.bench.arrivals import Arrivals, Burst, Constant, Poisson, Ramp, Replay
from redserve.bench.bodies import FORMATS
from redserve.bench.load import Load, Tls
from redserve.bench.mistakes import BenchError
from redserve.bench.prepare import Ask
from redserve.bench.recorded_times import read_times

EPILOG = """\
examples:
  redserve bench http://127.0.0.1:8000                             as fast as 64 connections are answered
  redserve bench http://127.0.0.1:8000 --rate 500                  500 a second, whatever becomes of them
  redserve bench http://127.0.0.1:8000 --sweep --slo-ms 50         the highest rate that keeps 50 ms
  redserve bench http://127.0.0.1:8000 --against http://127.0.0.1:9000 --rounds 5 --json a.json
  redserve bench --compare a.json a.against.json
  redserve bench http://127.0.0.1:9000/score --body '{"x": $row}' --data rows.jsonl
  redserve bench http://127.0.0.1:9000/healthz                     any URL; GET without a body

It ends with 0 when it has measured; with 1 when it could not, was broken off, nothing was answered, or the server's
counts contradict it; with 2 for wrong options.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """All of them."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("url", nargs="?", metavar="URL", help="http://HOST:PORT of a server, or the URL of an endpoint")
    _add_what(parser.add_argument_group("what is sent"))
    _add_when(parser.add_argument_group("when, and how long"))
    _add_found(parser.add_argument_group("what is found"))


def _add_what(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--model", metavar="NAME", help="the model (default: the only one there is)")
    group.add_argument(
        "--format", choices=FORMATS, help="/predict JSON, or Open Inference JSON or binary (default: as the server is)"
    )
    group.add_argument("--data", type=Path, metavar="FILE", help="rows.jsonl or x.npy (default: rows are made up)")
    group.add_argument("--rows", type=int, default=1, metavar="N", help="rows in a request (default: 1)")
    group.add_argument("--deadline-ms", type=float, metavar="MS", help="tell the server: X-Request-Timeout-Ms")
    group.add_argument("-H", "--header", action="append", default=[], metavar="'NAME: VALUE'", help="send it too")
    group.add_argument("--body", metavar="TEXT|@FILE", help="of an endpoint; $row and $rows stand for rows of --data")
    group.add_argument("--method", metavar="METHOD", help="of an endpoint (default: POST with a body, else GET)")
    group.add_argument("--insecure", action="store_true", help="do not check the server's certificate")


def _add_when(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--connections",
        type=int,
        default=64,
        metavar="N",
        help="closed: at any time; open: at first (default: 64)",
    )
    group.add_argument("--rate", type=float, metavar="PER_S", help="open loop: requests a second")
    group.add_argument(
        "--arrivals",
        default="poisson",
        metavar="constant|poisson|burst:N",
        help="of --rate (default: poisson, as independent clients are)",
    )
    group.add_argument("--ramp", metavar="FROM:TO", help="open loop: the rate grows evenly over the duration")
    group.add_argument("--replay", type=Path, metavar="FILE", help="open loop: a time a line, in seconds or ISO 8601")
    group.add_argument("--speed", type=float, default=1.0, metavar="X", help="of --replay (default: 1)")
    group.add_argument("--max-connections", type=int, default=1024, metavar="N", help="open loop (default: 1024)")
    group.add_argument("--duration-s", type=float, metavar="S", help="of a run (default: 10, of --replay: all of it)")
    group.add_argument("--warm-up-s", type=float, default=2.0, metavar="S", help="before it, not counted (default: 2)")
    group.add_argument("--timeout-s", type=float, default=30.0, metavar="S", help="then it has failed (default: 30)")
    group.add_argument(
        "--max-failed-percent", type=float, default=95.0, metavar="P", help="more in a second end it (default: 95)"
    )
    group.add_argument("--processes", type=int, default=1, metavar="N", help="that send (default: 1)")
    group.add_argument("--rounds", type=int, default=1, metavar="N", help="runs (default: 1)")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of made up rows and arrivals (default: 0)")


def _add_found(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--slo-ms", type=float, metavar="MS", help="how many requests are answered within it")
    group.add_argument("--sweep", action="store_true", help="find the highest rate that keeps --slo-ms")
    group.add_argument("--against", metavar="URL", help="measure this one in turns with the first, and compare")
    group.add_argument("--compare", nargs=2, type=Path, metavar=("A.json", "B.json"), help="two results; sends nothing")
    group.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    group.add_argument("--html", type=Path, metavar="FILE", help="write a report with plots, in one file")
    group.add_argument("--metrics-path", default="/metrics", metavar="PATH", help="for the check against the server")


def ask_of(options: argparse.Namespace, url: str) -> Ask:
    """What to send to `url`.

    Raises:
        BenchError: A file cannot be read.
    """
    body = options.body
    if body is not None and body.startswith("@"):
        try:
            body = Path(body[1:]).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise BenchError(f"{body[1:]}: {error}") from error
    return Ask(
        url=url,
        model=options.model,
        form=options.format,
        data=options.data,
        rows=options.rows,
        headers=_headers(options),
        method=options.method,
        body=body,
        deadline_s=deadline_s_of(options),
        is_verified=not options.insecure,
        seed=options.seed,
    )


def slo_s_of(options: argparse.Namespace) -> float | None:
    """The latency that is wanted."""
    return _seconds(options.slo_ms)


def deadline_s_of(options: argparse.Namespace) -> float | None:
    """What the server is told."""
    return _seconds(options.deadline_ms)


def arrivals_of(options: argparse.Namespace) -> tuple[Arrivals | None, str]:
    """The plan, and its words; no plan is a closed loop.

    Raises:
        BenchError: The times to replay cannot be read.
        ValueError: A number is wrong, or there are several plans.
    """
    given = [name for name in ("rate", "ramp", "replay") if getattr(options, name) is not None]
    if len(given) > 1:
        raise ValueError(f"choose one: --{' or --'.join(given)}")
    if options.ramp is not None:
        first, colon, last = options.ramp.partition(":")
        if not colon:
            raise ValueError(f"write --ramp FROM:TO, not {options.ramp!r}")
        return Ramp(float(first), float(last), duration_s_of(options)), f"from {first} to {last}/s"
    if options.replay is not None:
        replay = Replay(read_times(options.replay), options.speed)
        return replay, f"{options.replay.name} at speed {options.speed:g}"
    if options.rate is None:
        return None, ""
    return arrivals_at(options.rate, options), f"{options.arrivals} at {options.rate:,g}/s"


def arrivals_at(rate_per_s: float, options: argparse.Namespace) -> Arrivals:
    """A plan of the kind that is wanted.

    Raises:
        ValueError: There is no such kind.
    """
    kind, _, size = options.arrivals.partition(":")
    if kind == "constant" and not size:
        return Constant(rate_per_s)
    if kind == "poisson" and not size:
        return Poisson(rate_per_s, options.seed)
    if kind == "burst" and size.isdigit():
        return Burst(rate_per_s, int(size))
    raise ValueError(f"--arrivals is constant, poisson or burst:N, not {options.arrivals!r}")


def check(options: argparse.Namespace) -> None:
    """Refuse what is wrong before anything is sent.

    Raises:
        BenchError: A file cannot be read, or written.
        ValueError: An option is wrong.
    """
    if options.compare:
        return
    if options.url is None:
        raise ValueError("name a URL (or --compare A.json B.json)")
    if options.sweep and (options.against or options.slo_ms is None):
        raise ValueError("--sweep needs --slo-ms, and one URL")
    if options.sweep and (options.ramp is not None or options.replay is not None or options.rounds > 1):
        raise ValueError("--sweep chooses its rates and runs: it takes no --ramp, --replay or --rounds")
    if options.processes < 1 or options.rounds < 1:
        raise ValueError("--processes and --rounds must be >= 1")
    if options.connections < options.processes:
        raise ValueError(f"{options.processes} processes need as many connections, got {options.connections}")
    if not 0 <= options.warm_up_s < math.inf:
        raise ValueError(f"--warm-up-s must be >= 0, got {options.warm_up_s}")
    for milliseconds in (options.slo_ms, options.deadline_ms):
        _seconds(milliseconds)
    for path in filter(None, (options.json, options.html)):
        if not os.access(path.parent, os.W_OK) or path.is_dir():
            raise BenchError(f"{path} cannot be written")
    _headers(options)
    arrivals_of(options)
    arrivals_at(options.rate or 1.0, options)
    load_of(options, None, host="", port=0, requests=[b"none yet"])


def load_of(
    options: argparse.Namespace,
    arrivals: Arrivals | None,
    *,
    host: str,
    port: int,
    requests: Sequence[bytes],
    tls: Tls | None = None,
) -> Load:
    """What is sent.

    Raises:
        ValueError: A number is wrong.
    """
    return Load(
        host=host,
        port=port,
        requests=requests,
        arrivals=arrivals,
        connections=options.connections,
        max_connections=options.max_connections,
        duration_s=duration_s_of(options),
        timeout_s=options.timeout_s,
        max_failed_ratio=options.max_failed_percent / 100,
        tls=tls,
    )


def duration_s_of(options: argparse.Namespace) -> float:
    """Of a run; a replay lasts as long as its times, and a little, for the last one to be before the end."""
    if options.duration_s is not None:
        return float(options.duration_s)
    if options.replay is not None:
        times_s = read_times(options.replay)
        return (max(times_s) - min(times_s)) / float(options.speed) + 0.001
    return 10.0


def _headers(options: argparse.Namespace) -> dict[str, str]:
    headers = {}
    for text in options.header:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise ValueError(f"write -H 'NAME: VALUE', not {text!r}")
        headers[name.strip()] = value.strip()
    return headers


def _seconds(milliseconds: float | None) -> float | None:
    if milliseconds is None:
        return None
    if not 0 < milliseconds < math.inf:
        raise ValueError(f"milliseconds must be a number > 0, got {milliseconds}")
    return milliseconds / 1000
