"""The `redserve` command: `serve` models, `inspect` one, `check` a folder, `predict` rows, `bench` any server."""

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    words = sys.argv[1:] if argv is None else argv
    command = words[0] if words else ""
    try:
        arguments = _parser(command).parse_args(words)
        status: int = arguments.run(arguments)
    except ModuleNotFoundError as error:
        extras = "[bench]'" if command == "bench" else "[server,cpu]' (or [server,gpu])"
        print(f"redserve: {error.name} is missing: pip install 'redserve{extras}", file=sys.stderr)
        return 2
    return status


def _parser(command: str) -> argparse.ArgumentParser:
    """Only the options of `command` are read from its room: the rooms of others may lack their packages."""
    parser = argparse.ArgumentParser(
        prog="redserve", description="Serve ONNX models with dynamic batching and RED metrics."
    )
    version = f"redserve {importlib.metadata.version('redserve')}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="serve a model over HTTP",
        description="Serve a model over HTTP. Without a path, an embedded classifier of handwritten digits.",
        epilog="Each option may also be a REDSERVE_* variable (REDSERVE_PORT=9000) or a line of the TOML file that "
        "--config names (port = 9000); a flag wins over a variable, a variable over the file.",
        argument_default=argparse.SUPPRESS,
    )
    if command == "serve":
        _add_settings(serve)
    serve.set_defaults(run=_serve)
    inspect = commands.add_parser(
        "inspect",
        help="show what a model takes and how it batches",
        description="Show inputs and outputs of a model, whether and why it can be batched, its time per batch size.",
    )
    inspect.add_argument("model", type=Path, metavar="PATH.onnx", help="the ONNX file")
    inspect.add_argument("--device", choices=("auto", "cuda", "tensorrt", "cpu"), default="auto", help="as for serve")
    inspect.add_argument("--intra-op-threads", type=int, metavar="N", help="as for serve")
    inspect.add_argument("--batching", choices=("auto", "on", "off"), default="auto", help="as for serve")
    inspect.add_argument("--max-batch-size", type=int, metavar="N", help="rows of a batch with --length-buckets")
    inspect.add_argument("--length-buckets", metavar="BUCKETS", help="as for serve; shows what padding costs")
    inspect.add_argument("--mask-input", default="attention_mask", metavar="INPUT", help="as for serve")
    inspect.set_defaults(run=_inspect)
    check = commands.add_parser(
        "check",
        help="say whether a folder of models can be served",
        description="Read the configuration of each model in a folder and load each version that is to serve once, "
        "without serving any. One line a model; ends with 1 when something is wrong.",
    )
    check.add_argument("repository", type=Path, metavar="DIR", help="as for serve --repository")
    check.add_argument(
        "--device", choices=("auto", "cuda", "tensorrt", "cpu"), help="in place of what the configurations say"
    )
    check.set_defaults(run=_check)
    predict = commands.add_parser(
        "predict",
        help="answer the rows of a file, without a server",
        description="Answer each row of a file as /predict would, into another file. A job that was broken off goes on "
        "where it was when the same command is given again.",
        epilog="Settings of the model may also be REDSERVE_* variables or lines of the --config file, as for serve.",
        argument_default=argparse.SUPPRESS,
    )
    if command == "predict":
        _add_settings(predict, only=_PREDICT_SETTINGS)
    predict.add_argument("--in", dest="source", required=True, metavar="ROWS", help="rows.jsonl, x.npy, or - for stdin")
    predict.add_argument(
        "--out", dest="target", required=True, metavar="ANSWERS", help="answers.jsonl, y.npy, or - for stdout"
    )
    predict.add_argument(
        "--on-error",
        choices=("stop", "skip", "null"),
        default="stop",
        help='a row without an answer ends the job, or leaves {"error": ...} or null (in an array NaN) in its place '
        "(default: stop)",
    )
    predict.add_argument("--output", default=None, metavar="NAME", help="which output of the model y.npy is of")
    predict.add_argument("--restart", action="store_true", default=False, help="begin anew, whatever is done")
    predict.add_argument(
        "--checkpoint-s", type=float, default=5.0, metavar="S", help="seconds of work a crash may cost (default: 5)"
    )
    predict.set_defaults(run=_predict)
    bench = commands.add_parser(
        "bench",
        help="load a server and measure it",
        description="Load a server, ours or any other, and measure it: in open or closed loop; once, in a sweep or\n"
        "in turns with another; checked against what the server itself counts.",
    )
    if command == "bench":
        from redserve.bench.options import add_options

        add_options(bench)
    bench.set_defaults(run=_bench)
    return parser


_PREDICT_SETTINGS = (
    "config",
    "device",
    "device_id",
    "intra_op_threads",
    "session_options",
    "provider_options",
    "batching",
    "max_batch_size",
    "finite",
)


def _add_settings(parser: argparse.ArgumentParser, *, only: Sequence[str] = ()) -> None:
    """A flag for each field of `Settings`; values are checked by it, so that every source is checked alike."""
    from redserve.server.settings import SECRETS, Settings

    parser.add_argument("model", nargs="?", metavar="PATH.onnx", help=Settings.model_fields["model"].description)
    for name, field in Settings.model_fields.items():
        if name == "model" or name in SECRETS or (only and name not in only):
            continue
        flag = f"--{name.replace('_', '-')}"
        text = (field.description or "").replace("%", "%%")
        if field.annotation in (bool, bool | None):
            shown = "" if field.default is None else f" (default: {'on' if field.default else 'off'})"
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=text + shown)
        elif isinstance(field.default, dict):
            parser.add_argument(flag.removesuffix("s"), dest=name, action="append", metavar="KEY=VALUE", help=text)
        else:
            shown = "" if field.default is None else f" (default: {field.default})"
            choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
            metavar = "|".join(choices) or name.rpartition("_")[2].upper()
            parser.add_argument(flag, metavar=metavar, help=text + shown)


def _serve(arguments: argparse.Namespace) -> int:
    from redserve.server.settings import Settings

    try:
        settings = Settings.load(_flags(arguments))
    except ValueError as error:
        print(f"redserve: {error}", file=sys.stderr)
        return 2
    try:
        if settings.workers == 1:
            from redserve.server.runner import serve

            status = serve(settings)
        else:
            from redserve.server.supervisor import supervise

            status = supervise(settings)
    except ValueError as error:  # settings that do not go together
        print(f"redserve: {error}", file=sys.stderr)
        status = 2
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # an engine thread may still be in native code, which aborts when the interpreter ends under it


def _flags(arguments: argparse.Namespace, *, without: Sequence[str] = ()) -> dict[str, Any]:
    flags: dict[str, Any] = {key: value for key, value in vars(arguments).items() if key not in ("run", *without)}
    for name in ("session_options", "provider_options"):
        if name in flags:
            flags[name] = dict(_key_value(text) for text in flags[name])
    return flags


def _key_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"write KEY=VALUE, not {text!r}")
    return key, value


def _inspect(arguments: argparse.Namespace) -> int:
    from redserve.engine.curve import choose_max_batch_size, measure_curve, usual_run_s
    from redserve.engine.length_cost import measure_padding
    from redserve.engine.length_probe import judge_lengths
    from redserve.engine.lengths import LengthBuckets
    from redserve.engine.onnx_runtime import OnnxRuntimeEngine
    from redserve.errors import RedserveError
    from redserve.server.banner import curve_table, describe, padding_table
    from redserve.server.model_settings import ModelSettings

    asked, judged = arguments.length_buckets, None
    try:
        engine = OnnxRuntimeEngine.load(
            arguments.model,
            device=arguments.device,
            intra_op_threads=arguments.intra_op_threads,
            batching=arguments.batching,
        )
        if asked is not None:
            sizes = tuple(int(size) for size in asked.split(","))
            buckets = LengthBuckets(sizes=sizes, mask=arguments.mask_input, must=arguments.batching == "on")
            judged = judge_lengths(engine, buckets)
        print("\n".join(describe(engine, name=arguments.model.stem)))
        for key, value in engine.metadata.items():
            print(f"  metadata  {key} = {value}")
        curve = measure_curve(engine)
        print("\n".join(curve_table(curve)))
        best = choose_max_batch_size(curve)
        print(f"            the smallest size within 5 % of the best rate: {best}")
        if engine.can_run_inline:
            usual_ms = 1000 * usual_run_s(engine, best)
            is_short = usual_ms < ModelSettings.model_validate({}).inline_below_ms
            where = "on the event loop" if is_short else "in a thread"
            print(f"            which takes {usual_ms:.3f} ms: by default it runs {where}")
        if judged is not None:
            lengths, row = judged
            padding = measure_padding(engine, lengths, arguments.max_batch_size or best, row=row)
            print("\n".join(padding_table(padding, note=lengths.note)))
    except (RedserveError, ValueError) as error:
        print(f"redserve: {error}", file=sys.stderr)
        return 1
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from redserve.server.check import check
    from redserve.server.model_settings import ModelSettings

    status, found = 0, 0
    try:
        for finding in check(arguments.repository, ModelSettings.model_validate({}), device=arguments.device):
            found += 1
            versions = ", ".join(finding.versions) or "none"
            print(f"{'error' if finding.problems else 'ok':<6} {finding.name}  versions: {versions}", flush=True)
            for problem in finding.problems:
                status = 1
                print(f"       {problem}", flush=True)
    except OSError as error:
        print(f"redserve: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    if not found:
        print(f"redserve: there is no model in {arguments.repository}", file=sys.stderr)
        return 1
    return status


def _predict(arguments: argparse.Namespace) -> int:
    from functools import partial

    from redserve import demo
    from redserve.errors import RedserveError
    from redserve.offline import Job, Stopped, StopSignals, fingerprint, predict, reporter_for
    from redserve.server.settings import Settings

    own = {name: getattr(arguments, name) for name in Job.__dataclass_fields__ if hasattr(arguments, name)}
    status = 1
    try:
        settings = Settings.load(_flags(arguments, without=tuple(own)))
        model = settings.model or demo.path()
        terms = {
            name: getattr(settings, name) for name in ("batching", "finite", "session_options", "provider_options")
        }
        with StopSignals() as stop:
            summary = predict(
                Job(terms={"model": fingerprint(model), **terms}, reads=(model,), **own),
                partial(settings.load_engine, model),
                settings.model_options(),
                reporter=reporter_for(sys.stderr),
                stop=stop,
            )
    except ValueError as error:  # settings that are wrong
        _complain(str(error), error)
        status = 2
    except RedserveError as error:
        _complain(str(error), error)
    except OSError as error:
        names = {"-": "standard output"}
        name = error.filename or names.get(arguments.target, arguments.target)
        _complain(f"{name}: {error.strerror or error}", error)
    except Stopped as error:
        _complain(str(error), error)
        status = error.status
    else:
        print(f"redserve: {summary}", file=sys.stderr)
        status = 0
    sys.stderr.flush()
    os._exit(status)  # as above


def _bench(arguments: argparse.Namespace) -> int:
    from redserve.bench.command import run

    return run(arguments)


def _complain(text: str, error: BaseException) -> None:
    print("; ".join((f"redserve: {text}", *getattr(error, "__notes__", ()))), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
