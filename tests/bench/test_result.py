import json
from pathlib import Path

import msgspec
import pytest
from results import result_of, run_of, swept

from redserve.bench.histogram import Histogram
from redserve.bench.mistakes import BenchError
from redserve.bench.result import SCHEMA, Result

FROZEN = Path(__file__).parent / "result_schema.json"


def test_the_schema_is_the_frozen_one():
    """Who changes it on purpose writes a new `SCHEMA`, and the new schema into the file."""
    schema = msgspec.json.schema(Result)

    assert schema == json.loads(FROZEN.read_text())
    assert json.dumps(SCHEMA) in FROZEN.read_text()


@pytest.mark.parametrize("result", [result_of(run_of()), swept()], ids=["a run", "a sweep"])
def test_a_result_comes_back_from_its_file(tmp_path, result):
    result.write(tmp_path / "a.json")
    again = Result.read(tmp_path / "a.json")

    assert msgspec.json.encode(again) == msgspec.json.encode(result)
    assert len(Histogram(again.runs[0].client.histogram)) == again.runs[0].client.ok


def test_a_file_that_is_no_result_says_so(tmp_path):
    (tmp_path / "a.json").write_text('{"schema": "redserve-bench/0"}')

    with pytest.raises(BenchError, match=r"a.json is no result of `redserve bench` \(redserve-bench/1\)"):
        Result.read(tmp_path / "a.json")
    with pytest.raises(BenchError, match="No such file"):
        Result.read(tmp_path / "b.json")
    with pytest.raises(BenchError, match="No such file"):
        result_of(run_of()).write(tmp_path / "nowhere" / "a.json")
