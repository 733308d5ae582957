"""The `redserve` command: `serve` models, `inspect` one, `check` a folder of them."""

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    try:
        arguments = _parser().parse_args(argv)
        status: int = arguments.run(arguments)
    except ModuleNotFoundError as error:
        print(
            f"redserve: {error.name} is missing: pip install 'redserve[server,cpu]' (or [server,gpu])", file=sys.stderr
        )
        return 2
    return status


def _parser() -> argparse.ArgumentParser:
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
    _add_settings(serve)
    serve.set_defaults(run=_serve)
    inspect = commands.add_parser(
        "inspect",
        help="show what a model takes and how it batches",
        description="Show inputs and outputs of a model, whether and why it can be batched, its time per batch size.",
    )
    inspect.add_argument("model", type=Path, metavar="PATH.onnx", help="the ONNX file")
    inspect.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="as for serve")
    inspect.add_argument("--intra-op-threads", type=int, metavar="N", help="as for serve")
    inspect.add_argument("--batching", choices=("auto", "on", "off"), default="auto", help="as for serve")
    inspect.set_defaults(run=_inspect)
    check = commands.add_parser(
        "check",
        help="say whether a folder of models can be served",
        description="Read the configuration of each model in a folder and load each version that is to serve once, "
        "without serving any. One line a model; ends with 1 when something is wrong.",
    )
    check.add_argument("repository", type=Path, metavar="DIR", help="as for serve --repository")
    check.add_argument("--device", choices=("auto", "cuda", "cpu"), help="in place of what the configurations say")
    check.set_defaults(run=_check)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """A flag for each field of `Settings`; values are checked by it, so that every source is checked alike."""
    from redserve.server.settings import SECRETS, Settings

    parser.add_argument("model", nargs="?", metavar="PATH.onnx", help=Settings.model_fields["model"].description)
    for name, field in Settings.model_fields.items():
        if name == "model" or name in SECRETS:
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
    from redserve.server.runner import serve
    from redserve.server.settings import Settings

    flags: dict[str, Any] = {key: value for key, value in vars(arguments).items() if key != "run"}
    try:
        for name in ("session_options", "provider_options"):
            if name in flags:
                flags[name] = dict(_key_value(text) for text in flags[name])
        settings = Settings.load(flags)
    except ValueError as error:
        print(f"redserve: {error}", file=sys.stderr)
        return 2
    try:
        status = serve(settings)
    except ValueError as error:  # settings that do not go together
        print(f"redserve: {error}", file=sys.stderr)
        status = 2
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # an engine thread may still be in native code, which aborts when the interpreter ends under it


def _key_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"write KEY=VALUE, not {text!r}")
    return key, value


def _inspect(arguments: argparse.Namespace) -> int:
    from redserve.engine.curve import choose_max_batch_size, measure_curve
    from redserve.engine.onnx_runtime import OnnxRuntimeEngine
    from redserve.errors import ModelLoadError
    from redserve.server.banner import curve_table, describe

    try:
        engine = OnnxRuntimeEngine.load(
            arguments.model,
            device=arguments.device,
            intra_op_threads=arguments.intra_op_threads,
            batching=arguments.batching,
        )
    except (ModelLoadError, ValueError) as error:
        print(f"redserve: {error}", file=sys.stderr)
        return 1
    print("\n".join(describe(engine, name=arguments.model.stem)))
    for key, value in engine.metadata.items():
        print(f"  metadata  {key} = {value}")
    curve = measure_curve(engine)
    print("\n".join(curve_table(curve)))
    print(f"            the smallest size within 5 % of the best rate: {choose_max_batch_size(curve)}")
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


if __name__ == "__main__":
    sys.exit(main())
