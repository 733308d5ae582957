"""`redserve predict` as a user meets it: the real command, killed and stopped, beside the real server."""

import json
import os
import pty
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
from onnx import TensorProto, helper
from served import REDSERVE, Served

from engine.onnx_models import row_encoding, save, token_sum, two_outputs_renamed
from redserve import demo

WAIT_S = 60.0
PREDICT = [*REDSERVE, "predict"]


def run(*arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [*PREDICT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False, **more)


def lines(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def post(url: str, rows: Sequence[object]) -> list[object]:
    body = json.dumps({"instances": list(rows)}).encode()
    request = Request(url, body, {"Content-Type": "application/json"})
    with urlopen(request, timeout=WAIT_S) as response:
        predictions: list[object] = json.load(response)["predictions"]
    return predictions


def images(count: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 17, (count, 64)).astype(np.float32)


@contextmanager
def begun(*arguments: object, **more: Any) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen([*PREDICT, *map(str, arguments)], stderr=subprocess.PIPE, text=True, **more)
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def rows_done(state: Path) -> int:
    try:
        return int(json.loads(state.read_text())["input"]["rows"])
    except FileNotFoundError:
        return 0


def wait_until(process: "subprocess.Popen[str]", is_so: Callable[[], bool]) -> None:
    limit_s = time.monotonic() + WAIT_S
    while not is_so():
        assert process.poll() is None, f"it ended with {process.returncode}: {process.communicate()[1]}"
        assert time.monotonic() < limit_s
        time.sleep(0.001)


def test_the_answers_are_those_of_the_server(tmp_path):
    rows = images(200).tolist()
    source = lines(tmp_path / "rows.jsonl", [*rows[:100], *({"pixels": row} for row in rows[100:])])

    done = run("--max-batch-size", 64, "--in", source, "--out", tmp_path / "out.jsonl")

    assert done.returncode == 0, done.stderr
    assert "200 rows in " in done.stderr
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    with Served("--max-batch-size", "64") as served:
        url = f"{served.url}/predict/digits"
        assert answers == [answer for start in range(0, 200, 64) for answer in post(url, rows[start : start + 64])]
        alone = [post(url, [row])[0] for row in rows[:20]]
    for together, single in zip(answers, alone, strict=False):  # other batch sizes round differently
        assert together["label"] == single["label"]
        np.testing.assert_allclose(together["probabilities"], single["probabilities"], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("make", "rows"),
    [
        (row_encoding, [[row, 0.5, -1, 1e-9] for row in range(30)]),
        (two_outputs_renamed, [{"a": [row, 2**53 + 1, -1], "b": [1, 1, 1]} for row in range(30)]),
        (token_sum, [{"ids": list(range(1 + row % 4))} for row in range(30)]),
        (token_sum, [list(range(1 + row % 4)) for row in range(30)]),
    ],
)
def test_the_answers_are_those_of_the_server_for_any_model(tmp_path, make, rows):
    model = make(tmp_path)
    source = lines(tmp_path / "rows.jsonl", rows)

    done = run(model, "--in", source, "--out", tmp_path / "out.jsonl")

    assert done.returncode == 0, done.stderr
    with Served(str(model)) as served:
        expected = [post(f"{served.url}/predict", [row])[0] for row in rows]
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == expected


def test_an_array_becomes_an_array(tmp_path):
    np.save(tmp_path / "x.npy", images(700))
    lines(tmp_path / "x.jsonl", images(700).tolist())

    for arguments in (
        ("--in", tmp_path / "x.npy", "--out", tmp_path / "y.npy", "--output", "probabilities"),
        ("--in", tmp_path / "x.npy", "--out", tmp_path / "of_array.jsonl"),
        ("--in", tmp_path / "x.jsonl", "--out", tmp_path / "of_lines.jsonl"),
    ):
        done = run("--max-batch-size", 32, *arguments)
        assert done.returncode == 0, done.stderr

    assert (tmp_path / "of_array.jsonl").read_bytes() == (tmp_path / "of_lines.jsonl").read_bytes()
    answers = [json.loads(line)["probabilities"] for line in (tmp_path / "of_lines.jsonl").read_text().splitlines()]
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), np.float32(answers))


@pytest.mark.parametrize(("suffix", "more"), [("jsonl", ()), ("npy", ("--output", "probabilities"))])
def test_a_job_that_is_killed_again_and_again_ends_with_the_same_bytes(tmp_path, suffix, more):
    rows = images(40_000)
    source = tmp_path / f"x.{suffix}"
    if suffix == "npy":
        np.save(source, rows)
    else:
        lines(source, rows.tolist())
    whole, out = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}"
    arguments = ("--in", source, *more, "--checkpoint-s", 0, "--max-batch-size", 64)
    assert run(*arguments, "--out", whole).returncode == 0
    state, killed_at = tmp_path / f"out.{suffix}.partial.state", []

    for target in (1, 5_000, 15_000):
        with begun(*arguments, "--out", out) as process:
            wait_until(process, lambda: rows_done(state) >= target)  # noqa: B023
            process.send_signal(signal.SIGKILL)
        killed_at.append(rows_done(state))
        assert not out.exists()
    with (tmp_path / f"out.{suffix}.partial").open("ab") as file:
        file.write(b"half a li")  # what was on its way
    done = run(*arguments, "--out", out)

    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == whole.read_bytes()
    assert 0 < killed_at[0] < killed_at[1] < killed_at[2] < len(rows)
    assert f"{killed_at[-1]:,} rows were done before" in done.stderr
    assert not list(tmp_path.glob("*.partial*"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_what_is_done_and_says_how_to_go_on(tmp_path, number, status):
    source = lines(tmp_path / "x.jsonl", images(40_000).tolist())
    arguments = ("--in", source, "--out", tmp_path / "out.jsonl")
    state = tmp_path / "out.jsonl.partial.state"

    with begun(*arguments, "--checkpoint-s", 0) as process:
        wait_until(process, lambda: rows_done(state) > 0)
        process.send_signal(number)
        _, said = process.communicate(timeout=WAIT_S)

    assert process.returncode == status
    kept = rows_done(state)
    assert f"redserve: stopped by {number.name}; {kept:,} rows are done and kept: the same command goes on" in said
    assert "Traceback" not in said
    source.write_text(source.read_text().replace("[", "[1", 1))  # another first row
    refused = run(*arguments)
    assert refused.returncode == 1
    assert "rows of the input are not those that were done" in refused.stderr
    assert run(*arguments, "--restart").returncode == 0
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 40_000


def test_another_model_does_not_go_on(tmp_path):
    rows = [[row, 1, 1, 1] for row in range(600)]
    source = lines(tmp_path / "x.jsonl", [*rows, "wrong"])
    model = row_encoding(tmp_path)
    arguments = (model, "--in", source, "--out", tmp_path / "out.jsonl")
    wrong = run(*arguments)
    assert wrong.returncode == 1
    assert "redserve: row 601: Expected `" in wrong.stderr
    assert ", got `str`; 512 rows are done and kept" in wrong.stderr
    model.write_bytes(row_encoding(tmp_path, batch="rows").read_bytes())

    refused = run(*arguments)

    assert refused.returncode == 1
    assert "was done with another model" in refused.stderr


def test_rows_without_an_answer_are_told_in_their_place(tmp_path):
    source = lines(tmp_path / "x.jsonl", [[1, 1, 1, 1], [1, 2], [2, 2, 2, 2]])

    done = run(row_encoding(tmp_path), "--on-error", "skip", "--in", source, "--out", tmp_path / "out.jsonl")

    assert done.returncode == 0
    assert "1 rows have no answer" in done.stderr
    first, error, last = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert (first, last) == ([3, 3, 3, 3], [5, 5, 5, 5])
    assert error["error"]["reason"] == "bad_request"


def test_a_row_that_the_model_fails_on_costs_no_other_its_answer(tmp_path):
    model = save(
        tmp_path / "names.onnx",
        [helper.make_node("Gather", ["table", "id"], ["y"])],
        {"id": (TensorProto.INT64, ["batch"])},
        {"y": (TensorProto.FLOAT, ["batch"])},
        {"table": np.arange(10, dtype=np.float32)},
    )
    rows = [*range(10), 10, 3, -11, 4] * 20
    source = lines(tmp_path / "x.jsonl", rows)

    done = run(model, "--max-batch-size", 64, "--on-error", "null", "--in", source, "--out", "-")

    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == [row if -1 < row < 10 else None for row in rows]
    assert "40 rows have no answer" in done.stderr
    stopped = run(model, "--in", source, "--out", tmp_path / "out.jsonl")
    assert stopped.returncode == 1
    assert "redserve: row 11: " in stopped.stderr


def test_rows_come_through_pipes(tmp_path):
    rows = images(1000).tolist()
    source = lines(tmp_path / "x.jsonl", rows)
    assert run("--max-batch-size", 64, "--in", source, "--out", tmp_path / "out.jsonl").returncode == 0

    with source.open() as standard_input:
        done = run("--max-batch-size", 64, "--in", "-", "--out", "-", stdin=standard_input)

    assert done.returncode == 0, done.stderr
    assert done.stdout == (tmp_path / "out.jsonl").read_text()
    assert "1,000 rows in " in done.stderr


def test_a_reader_that_leaves_ends_the_job_in_one_line(tmp_path):
    source = lines(tmp_path / "x.jsonl", images(20_000).tolist())

    with begun("--in", source, "--out", "-", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()

    assert process.returncode == 1
    assert said == "redserve: standard output: Broken pipe\n"


def test_a_full_disk_is_told_and_the_job_goes_on_when_there_is_room(tmp_path):
    source = lines(tmp_path / "x.jsonl", images(5_000).tolist())
    out = tmp_path / "out.jsonl"
    device = run("--in", source, "--out", "/dev/full")
    assert (device.returncode, device.stderr) == (1, "redserve: /dev/full: No space left on device\n")
    arguments = ("--in", source, "--out", out, "--checkpoint-s", 0)

    full = run(*arguments, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)))

    assert full.returncode == 1
    assert full.stderr.startswith(f"redserve: {out}: File too large; ")
    assert "rows are done and kept" in full.stderr
    again = run(*arguments)
    assert again.returncode == 0, again.stderr
    assert "were done before" in again.stderr
    assert len(out.read_text().splitlines()) == 5_000


def test_a_terminal_sees_a_bar(tmp_path):
    source = lines(tmp_path / "x.jsonl", images(5_000).tolist())
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        [*PREDICT, "--in", source, "--out", tmp_path / "out.jsonl"], stderr=theirs, env=environment
    )
    os.close(theirs)
    said = b""
    try:
        while data := os.read(ours, 65_536):
            said += data
    except OSError:  # how Linux says that the other side has closed
        pass
    os.close(ours)

    assert process.wait(WAIT_S) == 0
    assert "━".encode() in said
    assert b"5,000 rows in " in said


def peak_mib(process: "subprocess.Popen[str]") -> float:
    """The most memory it had until its end, looked at all along."""
    peak_kib = 0
    while process.poll() is None:
        said = Path(f"/proc/{process.pid}/status").read_text()  # without the line once it has ended
        peak_kib = max([peak_kib, *(int(line.split()[1]) for line in said.splitlines() if line.startswith("VmHWM"))])
        time.sleep(0.001)
    return peak_kib / 1024


def test_memory_does_not_grow_with_the_rows(tmp_path):
    peaks = []
    for count in (2_000, 60_000):
        source = lines(tmp_path / "x.jsonl", images(count).tolist())
        with begun("--in", source, "--out", "/dev/null") as process:
            peaks.append(peak_mib(process))
            assert process.returncode == 0

    assert source.stat().st_size > 15 * 2**20
    assert min(peaks) > 40
    assert peaks[1] - peaks[0] < 8, f"MiB at their peak: {peaks}"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--in", "nowhere.jsonl", "--out", "o.jsonl"), 1, "redserve: nowhere.jsonl: No such file or directory\n"),
        (("nothing.onnx", "--in", "x.jsonl", "--out", "o.jsonl"), 1, "redserve: nothing.onnx: No such file"),
        (("x.jsonl", "--in", "x.jsonl", "--out", "o.jsonl"), 1, "x.jsonl cannot be loaded"),
        (("--in", "x.jsonl", "--out", "no/o.jsonl"), 1, "redserve: no/o.jsonl.partial: No such file or directory\n"),
        (("--in", "x.jsonl", "--out", "x.npy"), 1, "x.npy is there already; --restart writes it anew"),
        (("--in", "x.jsonl", "--out", "x.jsonl", "--restart"), 1, "x.jsonl is read: name another file for the answers"),
        (("--in", "x.npy", "--out", "y.npy"), 1, "several outputs (probabilities, label): choose one"),
        (("--in", "x.jsonl", "--out", "y.npy"), 1, "an array is written from an array"),
        (("--max-batch-size", "0", "--in", "x.jsonl", "--out", "o.jsonl"), 2, "redserve: max_batch_size: "),
        (("--checkpoint-s", "-1", "--in", "x.jsonl", "--out", "o.jsonl"), 2, "checkpoint_s must be >= 0"),
        (("--in", "x.jsonl"), 2, "--out"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_leaves_nothing(tmp_path, arguments, status, said):
    lines(tmp_path / "x.jsonl", images(3).tolist())
    np.save(tmp_path / "x.npy", images(3))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    done = run(*arguments, cwd=tmp_path)

    assert done.returncode == status
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_demo_is_the_model_where_none_is_named(tmp_path):
    known = demo.samples()
    source = lines(tmp_path / "x.jsonl", [sample["pixels"] for sample in known])

    done = run("--in", source, "--out", "-")

    assert [json.loads(line)["label"] for line in done.stdout.splitlines()] == [sample["label"] for sample in known]
