"""From what was asked for to requests that the server is known to answer.

    base URL      ask for the model ─ rows of a file, or made up ─ format ─┐
    any endpoint  --body as a template, or no body ────────────────────────┴─ one trial ─> Prepared

Where a model leaves sizes open, likely ones are tried until the server takes one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from redserve.bench.bodies import Body, Format, has_places, of_rows, of_template, of_tensors, path_of, request
from redserve.bench.exchange import Answer, Server
from redserve.bench.mistakes import BenchError
from redserve.bench.rows import Row, in_groups, join, read_rows, split
from redserve.bench.target import Target, find_target
from redserve.engine.samples import find_sampler
from redserve.engine.tensors import Tensors
from redserve.errors import ModelError

DISTINCT = 64
"""Different bodies where rows are made up, so that no cache in between makes a server look fast."""

MOST_BYTES = 256 * 1024 * 1024
"""Of all prepared requests together."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What to send, as the one who calls says it.

    Attributes:
        url: Of a server, or of one endpoint.
        model: Its name; `None` takes the only one.
        form: How rows are sent; `None` is `predict` for our own server and `v2` for others.
        data: Rows of a file in place of made up ones.
        rows: In one request.
        headers: Sent with everything.
        method: Of an endpoint; `None` is POST with a body, else GET.
        body: Template of an endpoint's bodies.
        deadline_s: Sent along as `X-Request-Timeout-Ms`.
        is_verified: Whether a certificate is checked.
        seed: Of the rows that are made up.
    """

    url: str
    model: str | None = None
    form: Format | None = None
    data: Path | None = None
    rows: int = 1
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str | None = None
    body: str | None = None
    deadline_s: float | None = None
    is_verified: bool = True
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What will be sent.

    Attributes:
        server: Whom.
        method: Of every request.
        path: Of every request.
        form: `predict`, `v2`, `v2-binary`, `template` or `no body`.
        rows: In one request; 0 where that is not known.
        requests: Whole ones, each different.
        target: The model, where the server said something of it.
    """

    server: Server
    method: str
    path: str
    form: str
    rows: int
    requests: Sequence[bytes]
    target: Target | None


def prepare(ask: Ask) -> Prepared:
    """Find the model, make the requests, and try one.

    Raises:
        BenchError: The server does not answer it with 2xx, or the rows do not fit.
    """
    if ask.rows < 1:
        raise BenchError(f"a request has >= 1 rows, got {ask.rows}")
    headers = dict(ask.headers)
    if ask.deadline_s is not None:
        headers["X-Request-Timeout-Ms"] = f"{max(ask.deadline_s * 1000, 1e-6):.6f}".rstrip("0").rstrip(".")
    server, path = Server.parse(ask.url, headers, is_verified=ask.is_verified)
    if path.strip("/"):
        return _endpoint(ask, server, path)
    for name, value in (("body", ask.body), ("method", ask.method)):
        if value is not None:
            raise BenchError(f"--{name} is for the URL of an endpoint; {ask.url} names a server only")
    return _model(ask, server)


def _endpoint(ask: Ask, server: Server, path: str) -> Prepared:
    if ask.model is not None or ask.form is not None:
        raise BenchError(f"--model and --format are for the URL of a server; {path!r} is one endpoint of it")
    method = ask.method or ("GET" if ask.body is None else "POST")
    rows = read_rows(ask.data) if ask.data else []
    bodies: list[Body] | list[None] = [None]
    places = ask.body is not None and has_places(ask.body)
    if rows and not places:
        raise BenchError("there are rows, but no --body with a $row or $rows to put them in")
    if ask.body is not None:
        groups = in_groups(rows, ask.rows) if rows else iter([[]])
        bodies = [of_template(ask.body, group) for group in groups]
    _expect_ok(server, method, path, _try(server, method, path, bodies[0]))
    return Prepared(
        server=server,
        method=method,
        path=path,
        form="no body" if ask.body is None else "template",
        rows=ask.rows if places else 0,
        requests=_requests(server, method, path, bodies),
        target=None,
    )


def _model(ask: Ask, server: Server) -> Prepared:
    target = find_target(server, ask.model)
    form: Format = ask.form or ("predict" if target.is_ours else "v2")
    path = path_of(target.model, form)
    if not target.is_row_wise and ask.rows > 1:
        raise BenchError(f"{target.model!r} takes whole tensors, whose axis 0 does not count rows: --rows must be 1")
    if ask.data is not None:
        groups = in_groups(read_rows(ask.data), ask.rows if target.is_row_wise else 1)
        bodies = [
            of_rows(group, target.inputs, form) if target.is_row_wise else of_tensors(_whole(target, group[0]), form)
            for group in groups
        ]
        _expect_ok(server, "POST", path, _try(server, "POST", path, bodies[0]))
    else:
        bodies = _made_up(ask, server, target, form, path)
    return Prepared(
        server=server,
        method="POST",
        path=path,
        form=form,
        rows=ask.rows,
        requests=_requests(server, "POST", path, bodies),
        target=target,
    )


def _made_up(ask: Ask, server: Server, target: Target, form: Format, path: str) -> list[Body]:
    def body_of(tensors: Tensors) -> Body:
        return of_rows(split(tensors), target.inputs, form) if target.is_row_wise else of_tensors(tensors, form)

    def run(tensors: Tensors) -> None:
        answer = _try(server, "POST", path, body_of(tensors))
        if not answer.is_ok:
            raise ModelError(str(answer))

    try:
        sampler = find_sampler(run, target.inputs, rows=ask.rows)
    except ModelError as error:
        raise BenchError(
            f"POST {path} refuses the rows that were made up for {', '.join(map(str, target.inputs))}; "
            f"give valid ones with --data. It answered {error}"
        ) from error
    return [body_of(sampler.draw(ask.rows, seed=ask.seed + number)) for number in range(DISTINCT)]


def _whole(target: Target, row: Row) -> Tensors:
    """A row of a file is one whole tensor, or an object of them."""
    batched = [replace(spec, shape=(None, *spec.shape)) for spec in target.inputs]
    return {name: array[0] for name, array in join([row], batched).items()}


def _try(server: Server, method: str, path: str, body: Body | None) -> Answer:
    if body is None:
        return server.ask(method, path)
    return server.ask(method, path, body=body.content, headers=body.headers)


def _expect_ok(server: Server, method: str, path: str, answer: Answer) -> None:
    if not answer.is_ok:
        raise BenchError(f"{method} {server.url}{path} does not work, so it is not measured. It answered {answer}")


def _requests(server: Server, method: str, path: str, bodies: Sequence[Body | None]) -> list[bytes]:
    made = [request(method, path, server.authority, server.headers, body) for body in bodies]
    size_bytes = 0
    for count, raw in enumerate(made):
        size_bytes += len(raw)
        if size_bytes > MOST_BYTES:
            return made[: max(count, 1)]
    return made
