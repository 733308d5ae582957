"""`benchmarks/README.md` is what `benchmarks/readme.py` makes of the results."""

import json
from pathlib import Path

import pytest
import readme
from tables.markdown import number, ratio_text, table


def test_the_committed_page_is_the_generated_one() -> None:
    assert readme.README.read_text() == readme.generated(), "run python benchmarks/readme.py"


def test_every_result_has_its_question_and_its_link() -> None:
    page = readme.README.read_text()

    for path in (readme.HERE / "results").glob("*.json"):
        question, _ = readme.said_by(readme.script_of(path.stem))
        assert f"## {question}" in page
        assert f"(results/{path.name})" in page


def test_a_result_without_a_module_of_its_own_is_shown_plainly() -> None:
    document = json.loads(
        '{"question": "?", "clients": 4, "rates": {"a": 1.5, "b": 2.0}, "raw": [1, 2],'
        ' "rounds": {"wrk": [{"per_s": 10}, {"per_s": 30}, {"per_s": 20}]},'
        ' "cells": [{"load": 0.5, "p99_ms": 12.345, "raw": [1]}, {"load": 1.0, "p99_ms": null, "raw": [2]}]}'
    )

    lines = readme.tables_of("nothing_like_it").lines(document)

    assert "- Clients: 4" in lines
    assert "| a | 1.5 |" in lines
    assert "| 0.5 | 12.3 |" in lines
    assert "| wrk | 20 |" in lines
    assert "| 1 | - |" in lines


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.00012345, "0.000123"), (7.5, "7.5"), (99.94, "99.9"), (1234.5, "1,234"), (-2.345, "-2.35")],
)
def test_numbers_have_three_digits_and_no_exponent(value: float, text: str) -> None:
    assert number(value) == text


def test_a_ratio_comes_with_its_spread() -> None:
    assert ratio_text([2.0, 1.0, 4.0, 3.0]) == "2.50 (1.00 to 4.00)"


def test_columns_of_numbers_are_set_to_the_right() -> None:
    assert table(["who", "how many"], [["a|b", 1234], ["c", None]]) == [
        "| who | how many |",
        "| --- | --: |",
        "| a/b | 1,234 |",
        "| c | - |",
        "",
    ]


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_what_a_cpu_did_is_never_shown_as_a_gpu_s(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "gpu_curves.json"
    path.write_text(json.dumps({"device": {"kind": kind, "name": "some device"}, "cells": {}}))

    if kind == "cuda":
        assert "kind cuda, name some device" in readme.facts(path, readme.read(path))
        assert readme.script_of(path.stem).is_file()
    else:
        with pytest.raises(ValueError, match=r"gpu_curves\.json was measured on some device, which is no GPU"):
            readme.read(path)


def test_what_a_gpu_was_asked_is_shown_to_its_last_cell() -> None:
    document = {"cells": {"mlp": {"load_s": 1.5, "by_rows": [{"p50_ms": 2.0}, {"p50_ms": 3.0}]}, "cnn": {"load_s": 4}}}

    lines = readme.tables_of("gpu_curves").lines(document)

    assert [line for line in lines if line] == [
        "|  | Load s |",
        "| --- | --: |",
        "| mlp | 1.5 |",
        "| cnn | 4 |",
        "|  | P50 ms |",
        "| --- | --: |",
        "| mlp, By rows, 1 | 2 |",
        "| mlp, By rows, 2 | 3 |",
    ]


def test_another_page_than_the_generated_one_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(readme, "README", tmp_path / "README.md")
    (tmp_path / "README.md").write_text(readme.generated() + "typed by hand\n")
    monkeypatch.setattr("sys.argv", ["readme.py", "--quick"])

    assert readme.main() == 1
    assert "is not what" in capsys.readouterr().err
