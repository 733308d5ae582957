"""Writes `benchmarks/README.md` from `benchmarks/results/*.json` and from the docstrings of the scripts that made them.

    python benchmarks/readme.py [--quick]      --quick writes nothing, and ends with 1 if what is there is not that

No number and no method is typed by hand: the question is a script's first paragraph, the method the rest of it. A
result without a module of its name in `tables/` is shown by `tables/plain.py`.
"""

import argparse
import ast
import importlib
import importlib.util
import json
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

HERE = Path(__file__).parent
README = HERE / "README.md"
TITLE = """# Benchmarks

One question a script. This page is written by [`readme.py`](readme.py) from the files in [`results`](results), which
hold the raw numbers; each script takes `--quick`, which checks that it works and writes nothing. What is timed is
checked first: an answer that is wrong ends the script. Compare ratios, not rates: a machine that is shared or virtual
runs the same code at half the speed from one minute to the next, so what is compared takes turns, and ratios are taken
between neighbours in time. The servers of a `pip install ".[dev]"` are compiled and quicker than those of `-e`: beside
the machine, `code` says which it was; where it says nothing, it was plain Python.
"""


def generated() -> str:
    """The whole page."""
    paths = sorted((HERE / "results").glob("*.json"))
    contents, sections = [], []
    for path in paths:
        document = read(path)
        question, method = said_by(script_of(path.stem))
        title = question + (f" ({path.stem.partition('_')[2]})" if path.stem.startswith("peers_") else "")
        contents.append(f"- [{title}](#{anchor(title)})")
        sections += [
            f"## {title}",
            "",
            *method,
            *tables_of(path.stem).lines(document),
            facts(path, document),
            "",
        ]
    return "\n".join([TITLE, *contents, "", *sections]).rstrip() + "\n"


def read(path: Path) -> dict[str, Any]:
    """One result.

    Raises:
        ValueError: It is shown as that of a GPU, and was measured on a CPU.
    """
    document: dict[str, Any] = json.loads(path.read_text())
    if path.stem.startswith("gpu_") and document["device"]["kind"] != "cuda":
        raise ValueError(f"{path.name} was measured on {document['device']['name']}, which is no GPU")
    return document


def script_of(name: str) -> Path:
    """Which one makes a result."""
    if name.startswith("gpu_"):
        return HERE / "gpu" / f"{name.removeprefix('gpu_')}.py"
    return HERE / ("peers/run.py" if name.startswith("peers_") else f"{name}.py")


def said_by(script: Path) -> tuple[str, list[str]]:
    """The question, and the lines of the method: paragraphs of the docstring, indented ones as they stand."""
    first, *paragraphs = (ast.get_docstring(ast.parse(script.read_text())) or "").split("\n\n")
    question, stop, rest = " ".join(first.split()).partition("?")
    method = [rest.strip()] if stop and rest.strip() else []
    lines = [*method, ""] if method else []
    for paragraph in paragraphs:
        is_code = "   " in paragraph or "python benchmarks/" in paragraph
        lines += ["```", *dedent(paragraph).splitlines(), "```", ""] if is_code else [*paragraph.splitlines(), ""]
    return question + stop, lines


def tables_of(name: str) -> Any:
    """The module that shows a result."""
    name = next((kind for kind in ("peers", "gpu") if name.startswith(f"{kind}_")), name)
    return importlib.import_module(f"tables.{name if importlib.util.find_spec(f'tables.{name}') else 'plain'}")


def facts(path: Path, document: dict[str, Any]) -> str:
    """The file, and where and with what it was made."""
    told = [f"Raw numbers: [`{path.name}`](results/{path.name})"]
    told += [f"made by `{document['command']}`"] if "command" in document else []
    for part in (document, *document.get("runs", ()), *document.get("workloads", {}).values()):
        told += [text_of(key, part[key]) for key in ("device", "machine", "versions", "python") if key in part]
    return "; ".join(dict.fromkeys(told)) + "."


def text_of(key: str, value: Any) -> str:
    """A fact, or a mapping of facts, as text."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {entry}" for name, entry in value.items())
    return f"python {value}" if key == "python" else str(value)


def anchor(title: str) -> str:
    """As GitHub makes them."""
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c in "-_")


def main() -> int:
    """Write, or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="write nothing; end with 1 if the page is another")
    if not parser.parse_args().quick:
        README.write_text(generated())
    elif README.read_text() != generated():
        print("benchmarks/README.md is not what benchmarks/readme.py makes of the results", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
