"""What `redserve serve` and `redserve inspect` say of a model and of a server, as text."""

import ipaddress
import shlex
from collections.abc import Sequence

import numpy as np

from redserve.compiled import IS_COMPILED
from redserve.engine.base import Engine
from redserve.engine.curve import CurvePoint
from redserve.engine.length_cost import PaddingCost
from redserve.engine.tensors import TensorSpec
from redserve.models import ModelState, ServedModel
from redserve.server.api_keys import SCOPES, ApiKeys
from redserve.server.app import Serving
from redserve.server.docs import MAX_EXAMPLE_BYTES, example_of

MAX_DESCRIBED = 2
"""More models have a line each."""


def banner(serving: Serving, host: str, port: int) -> str:
    """Everything a user wants to know once the server is ready."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    base = f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
    keys = serving.keyring.keys
    lines = [f"redserve is ready at {base}", ""]
    models = list(serving.repository)
    ready = [model for model in models if model.state is ModelState.READY]
    if len(models) > MAX_DESCRIBED or len(ready) < len(models):
        lines += [*map(_in_one_line, models), ""]
    else:
        for model in models:
            lines += [*describe(model.engine, name=model.name), *_batching(model), ""]
    if serving.settings.repository is not None:
        lines += _repository(serving)
    for model in [model for model in ready if model.example is not None][:MAX_DESCRIBED]:
        lines += ["  try it:", f"    {curl_line(model, base, needs_key=keys.guards('inference'))}", ""]
    if serving.settings.platform is not None:
        aliases = serving.settings.aliases()
        health = ", ".join(f"GET {path}" for path in sorted(aliases.health))
        lines.append(f"  platform  {serving.settings.platform}: POST {aliases.predict}, {health}")
    if serving.settings.workers > 1:
        lines.append(f"  workers   {serving.settings.workers} processes, each with its own models and queues")
    lines += _access(keys, host)
    code = "compiled" if IS_COMPILED else "plain Python, which is slower: see the README on REDSERVE_COMPILE"
    lines += [f"  code      {code}", f"  metrics   {base}/metrics", f"  docs      {base}/docs"]
    return "\n".join(lines)


def describe(engine: Engine, *, name: str) -> list[str]:
    """The model as it was loaded: inputs, outputs, provider, batchability."""
    lines = [f"  model     {name}"]
    lines += [f"  input     {spec}" for spec in engine.inputs]
    lines += [f"  output    {spec}" for spec in engine.outputs]
    lines.append(f"  provider  {_provider(engine)}")
    batchability = engine.batchability
    lines.append(f"  batching  {batchability.mode}: {batchability.reason}")
    if batchability.note:
        lines.append(f"            {batchability.note}")
    return lines


def curve_table(curve: Sequence[CurvePoint]) -> list[str]:
    """Measured time per batch size, a line each."""
    return [
        f"            {point.rows:>5} rows  {1000 * point.seconds:>9.3f} ms  {point.rows_per_s:>11,.0f} rows/s"
        for point in curve
    ]


def padding_table(padding: Sequence[PaddingCost], *, note: str) -> list[str]:
    """What it costs that rows of different lengths share a batch, a line a bucket, and what it changes."""
    lines = [
        "  lengths   rows of a bucket share a batch, padded to its longest:",
        f"            length         ms a row alone   in a batch of {padding[0].batch_rows}, at worst",
    ]
    for cost in padding:
        alone = f"{1000 * cost.shortest_alone_s:.3f} to {1000 * cost.longest_alone_s:.3f}"
        change = "dearer" if cost.worst_ratio > 1 else "cheaper"
        lines.append(
            f"            {cost.shortest:>4} to {cost.longest:<4}{alone:>20}{1000 * cost.row_s:>11.3f}, "
            f"{abs(cost.worst_ratio - 1):.0%} {change} for the shortest"
        )
    return [*lines, f"            {note}"] if note else lines


def curl_line(model: ServedModel, base: str, *, needs_key: bool = False) -> str:
    """A command that works when pasted, where `KEY` is in the environment if one is needed; of a known `example`."""
    url = shlex.quote(f"{base}/predict/{model.name}")
    head = f"curl -s {url} -H 'Content-Type: application/json'"
    if needs_key:
        head += ' -H "X-API-Key: $KEY"'
    example = example_of(model)
    if example is not None and len(example[0]) <= MAX_EXAMPLE_BYTES:
        return f"{head} -d {shlex.quote(example[0].decode())}"
    return f"{_python_example(model)} | {head} -d @-"


def _in_one_line(model: ServedModel) -> str:
    if model.state is not ModelState.READY:
        return f"  model     {model.name}, version {model.version}: {model.state}: {model.reason}"
    rows = model.policy.max_batch_size
    batching = f"up to {rows} rows a batch" if model.engine.batchability.is_row_wise else "one request at a time"
    return f"  model     {model.name}, version {model.version}: {_provider(model.engine)}, {batching}"


def _provider(engine: Engine) -> str:
    """What came up, and why not the GPU where one was looked for."""
    note = getattr(engine, "provider_note", "")
    return engine.provider + (f" ({note})" if note else "")


def _repository(serving: Serving) -> list[str]:
    settings = serving.settings
    when = {
        "none": "read at start",
        "poll": f"looked at every {settings.poll_s:g} s",
        "explicit": "models are loaded and unloaded by request: POST /v2/repository/models/NAME/load",
    }
    lines = [f"  folder    {settings.repository}: {when[settings.repository_mode]}"]
    if settings.repository_mode == "explicit" and not serving.keyring.keys.guards("admin"):
        lines.append("  warning   whoever may use this server may load and unload models: see --api-keys-file")
    return [*lines, ""]


def _access(keys: ApiKeys, host: str) -> list[str]:
    """Who may come in, from where."""
    guarded = [scope for scope in SCOPES if keys.guards(scope)]
    unguarded = [scope for scope in SCOPES if not keys.guards(scope)]
    lines = ["  keys      " + "; ".join(_each(guarded, "a key needed") + _each(unguarded, "open to all"))]
    if ipaddress.ip_address(host).is_loopback:
        lines.append(f"  reach     {host}: this machine only; --host 0.0.0.0 (or REDSERVE_HOST) lets others in")
    elif not keys.guards("inference"):
        lines.append(f"  warning   whoever can reach {host} may use this server: see --api-keys-file")
    return lines


def _each(scopes: Sequence[str], what: str) -> list[str]:
    return [f"{', '.join(scopes)}: {what}"] if scopes else []


def _python_example(model: ServedModel) -> str:
    """A command that prints a large request: its values are written as products of lists."""
    engine = model.engine
    inputs = model.example[0] if model.example is not None else {}
    row_wise = engine.batchability.is_row_wise
    columns = {spec.name: _zeros(spec, inputs[spec.name].shape[1 if row_wise else 0 :]) for spec in engine.inputs}
    named = "{" + ", ".join(f"{name!r}: {value}" for name, value in columns.items()) + "}"
    body = f"{{'instances': [{named}]}}" if row_wise else f"{{'inputs': {named}}}"
    return f"python3 -c {shlex.quote(f'import json; print(json.dumps({body}))')}"


def _zeros(spec: TensorSpec, sizes: Sequence[int]) -> str:
    zero = {"f": "0.0", "b": "False", "O": "''"}.get(np.dtype(spec.dtype).kind, "0")
    for size in reversed(sizes):
        zero = f"[{zero}] * {size}"
    return zero


def _where(model: ServedModel) -> str:
    if model.is_inline:
        return "on the event loop, while a run takes less than a hop to a thread is worth"
    return "in a thread" if model.runs_at_once == 1 else f"in {model.runs_at_once} threads"


def _batching(model: ServedModel) -> list[str]:
    policy = model.policy
    if not model.engine.batchability.is_row_wise:
        return [f"            one request at a time, {policy.max_queue_rows} may queue", *curve_table(model.curve)]
    asked = "measured" if model.options.max_batch_size is None else "as asked"
    return [
        f"            up to {policy.max_batch_size} rows a batch ({asked}), {policy.max_queue_rows} rows may queue,",
        f"            the oldest waits {1000 * policy.max_queue_delay_s:g} ms at most for company",
        *([f"            padded to {', '.join(map(str, policy.batch_sizes))} rows"] if policy.batch_sizes else []),
        f"            {_where(model)}",
        *curve_table(model.curve),
        *(padding_table(model.padding, note=model.lengths.note) if model.lengths is not None else []),
    ]
