"""Jobs in process, on an engine that doubles its rows and fails where one begins with -1."""

import json
import math
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from puppet_engine import WAIT_S, PuppetEngine
from redserve.engine.base import Batchability
from redserve.engine.tensors import Array, Tensors
from redserve.models import ModelOptions
from redserve.offline import Job, JobFailed, Stopped, StopSignals, Summary, predict
from redserve.offline.terms import fingerprint

ROWS = 1000


class Silent:
    """A reporter that calls `told` with each number of rows."""

    def __init__(self, told: Callable[[int], None] = lambda rows: None) -> None:
        self.told = told
        self.is_closed = False

    def show(self, rows: int, share: float | None) -> None:
        assert share is None or 0 < share <= 1
        self.told(rows)

    def close(self) -> None:
        self.is_closed = True


def do(
    folder: Path,
    *,
    told: Callable[[int], None] = lambda rows: None,
    engine: PuppetEngine | None = None,
    options: ModelOptions | None = None,
    source: str = "rows.jsonl",
    target: str = "out.jsonl",
    model: str = "one",
    checkpoint_s: float = 0,
    **more: Any,
) -> Summary:
    job = Job(
        source=str(folder / source),
        target=str(folder / target),
        checkpoint_s=checkpoint_s,
        terms={"model": model},
        **more,
    )
    options = options or ModelOptions(max_batch_size=8)
    engine = engine or PuppetEngine()
    with StopSignals() as stop:
        try:
            return predict(job, lambda: engine, options, reporter=Silent(told), stop=stop)
        finally:
            engine.open()


def rows_file(folder: Path, rows: list[object]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where `rows.jsonl` and `x.npy` hold the same rows."""
    rows_file(tmp_path, [[row, 1] for row in range(ROWS)])
    np.save(tmp_path / "x.npy", np.float32([[row, 1] for row in range(ROWS)]))
    return tmp_path


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def break_off_at(rows: int) -> Callable[[int], None]:
    def told(done: int) -> None:
        if done >= rows:
            raise ConnectionAbortedError

    return told


def test_each_row_has_its_answer_in_its_place(folder):
    summary = do(folder)

    assert lines_of(folder / "out.jsonl") == [[2 * row, 2] for row in range(ROWS)]
    assert (summary.rows, summary.rows_before, summary.failed) == (ROWS, 0, 0)
    assert 0 < summary.engine_s <= summary.seconds
    assert str(summary).startswith("1,000 rows in ")


def test_no_rows_are_an_empty_output(tmp_path):
    rows_file(tmp_path, [])

    assert do(tmp_path).rows == 0
    assert (tmp_path / "out.jsonl").read_bytes() == b""


@pytest.mark.parametrize(("source", "target"), [("x.npy", "y.npy"), ("x.npy", "out.jsonl")])
def test_an_array_becomes_an_array_or_lines(folder, source, target):
    do(folder, source=source, target=target)

    expected = [[2 * row, 2] for row in range(ROWS)]
    found = np.load(folder / target).tolist() if target.endswith(".npy") else lines_of(folder / target)
    assert found == expected


@pytest.mark.parametrize("source", ["rows.jsonl", "x.npy"])
@pytest.mark.parametrize("broken_off_at", [1, 257, 900])
def test_a_job_goes_on_where_it_was_broken_off(folder, source, broken_off_at):
    target = "y.npy" if source == "x.npy" else "out.jsonl"
    do(folder, source=source, target=target)
    whole = (folder / target).read_bytes()
    (folder / target).unlink()
    with pytest.raises(ConnectionAbortedError):
        do(folder, source=source, target=target, told=break_off_at(broken_off_at))
    engine = PuppetEngine()

    summary = do(folder, source=source, target=target, engine=engine)

    assert (folder / target).read_bytes() == whole
    assert summary.rows == ROWS
    assert summary.rows_before % 256 == 0


def test_a_measured_batch_size_is_kept_for_the_rest_of_the_job(folder):
    rows_file(folder, [[row, 1] for row in range(300)] + ["wrong"])
    with pytest.raises(JobFailed) as failed:
        do(folder, options=ModelOptions(max_batch_size=5))
    assert failed.value.__notes__ == ["260 rows are done and kept: the same command goes on from there"]
    rows_file(folder, [[row, 1] for row in range(301)])
    engine = PuppetEngine()

    do(folder, engine=engine, options=ModelOptions(max_batch_size=None))

    assert max(engine.ran_rows) == 5
    assert len(lines_of(folder / "out.jsonl")) == 301


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": "another"}, "another model"),
        ({"on_error": "null"}, "another on error"),
        ({"options": ModelOptions(max_batch_size=4)}, "another max batch size .8, now 4."),
    ],
)
def test_a_job_does_not_go_on_under_other_terms(folder, change, reason):
    with pytest.raises(ConnectionAbortedError):
        do(folder, told=break_off_at(600))
    kept = (folder / "out.jsonl.partial.state").read_bytes()

    with pytest.raises(JobFailed, match=reason):
        do(folder, **change)

    assert (folder / "out.jsonl.partial.state").read_bytes() == kept
    assert do(folder, restart=True, **change).rows_before == 0


def test_a_row_without_an_answer_ends_the_job_and_may_be_corrected(folder):
    rows_file(folder, [[row, 1] for row in range(700)] + [[1, 2, 3]] + [[701, 1]] + [[-1, 1]])
    with pytest.raises(JobFailed, match=r"row 701: .*must have 2 along axis 1"):
        do(folder)
    rows_file(folder, [[row, 1] for row in range(702)])

    assert do(folder).rows_before == 512
    assert lines_of(folder / "out.jsonl") == [[2 * row, 2] for row in range(702)]


def test_rows_without_an_answer_leave_their_errors_and_cost_no_neighbour(folder):
    rows: list[object] = [[row, 1] for row in range(20)]
    rows[3], rows[7], rows[12] = [-1, 1], "text", [-1, 2]
    rows_file(folder, rows)

    summary = do(folder, on_error="skip")

    answers = lines_of(folder / "out.jsonl")
    assert summary.failed == 3
    assert str(summary).endswith("3 rows have no answer")
    assert answers[3]["error"] == answers[12]["error"] == {"reason": "model_error", "message": "a row begins with -1"}
    assert answers[7]["error"]["reason"] == "bad_request"
    assert [answers[row] for row in range(20) if row not in (3, 7, 12)] == [
        [2 * row, 2] for row in range(20) if row not in (3, 7, 12)
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"engine": PuppetEngine(Batchability(mode="whole", reason="it is one image"))}, "no rows .* it is one image"),
        ({"target": "y.npy"}, "an array is written from an array"),
        ({"output": "y"}, "one output is chosen for arrays only"),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(folder, change, reason):
    before = set(folder.iterdir())

    with pytest.raises(JobFailed, match=reason):
        do(folder, options=ModelOptions(max_batch_size=1), **change)

    assert set(folder.iterdir()) == before


def test_a_signal_keeps_what_is_done_even_while_the_engine_hangs(folder):
    class Hanging(PuppetEngine):
        """Hangs at row 256, the first of the second block."""

        hangs = threading.Event()
        interrupts = 0

        def run(self, tensors: Tensors) -> list[Array]:
            if tensors["x"][0, 0] == 256:
                self.shut()
                self.hangs.set()
            return super().run(tensors)

        def interrupt(self, thread_id: int | None = None) -> None:
            self.interrupts += 1
            super().interrupt(thread_id)

    engine = Hanging()

    def told(rows: int) -> None:
        assert engine.hangs.wait(WAIT_S)
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped) as stopped:
        do(folder, told=told, engine=engine, checkpoint_s=math.inf)

    assert engine.interrupts == 1
    assert stopped.value.__notes__ == ["256 rows are done and kept: the same command goes on from there"]
    assert do(folder).rows_before == 256


def test_a_model_is_known_by_its_file_and_the_files_that_it_names(tmp_path):
    model, weights, other = tmp_path / "m.onnx", tmp_path / "m.weights", tmp_path / "rows.jsonl"
    model.write_bytes(b"location m.weights")
    seen = set()
    for path, content in ((weights, b"1"), (weights, b"2"), (model, b"m.weights location")):
        path.write_bytes(content)
        seen.add(fingerprint(model))
    other.write_bytes(b"[1]")

    assert len(seen) == 3
    assert fingerprint(model) in seen
