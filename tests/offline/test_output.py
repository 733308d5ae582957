import os
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from redserve.offline.block import InputMark
from redserve.offline.failures import JobFailed
from redserve.offline.output import Mark, PartialFile, Pipe

DONE = Mark(InputMark(3, 30, "abc"), failed=1, output_bytes=0, terms={"model": "m"})


def begin(folder: Path, *, is_resumable: bool = True, restart: bool = False) -> PartialFile:
    return PartialFile(folder / "out", is_resumable=is_resumable, restart=restart)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_has_its_name_when_it_is_complete(tmp_path):
    with closing(begin(tmp_path)) as output:
        output.append(b"one\n")
        output.keep(DONE)
        assert names(tmp_path) == {"out.partial", "out.partial.state"}
        output.append(b"two\n")
        output.finish()

    assert names(tmp_path) == {"out"}
    assert (tmp_path / "out").read_bytes() == b"one\ntwo\n"


def test_a_job_goes_on_behind_its_mark_and_what_lies_behind_that_is_cut_off(tmp_path):
    with closing(begin(tmp_path)) as output:
        output.append(b"one\n")
        output.keep(DONE)
        output.append(b"half a li")

    with closing(begin(tmp_path)) as output:
        assert output.mark == replace(DONE, output_bytes=4)
        output.append(b"two\n")
        output.finish()

    assert (tmp_path / "out").read_bytes() == b"one\ntwo\n"


def test_nothing_is_left_of_a_job_that_no_other_could_go_on_from(tmp_path):
    for is_resumable in (True, False):
        with closing(begin(tmp_path, is_resumable=is_resumable)) as output:
            output.append(b"one\n")
            if not is_resumable:
                output.keep(DONE)

    assert names(tmp_path) == set()


def test_restart_forgets_what_was_done_and_leaves_the_last_output_until_there_is_a_new_one(tmp_path):
    (tmp_path / "out").write_bytes(b"old")
    with pytest.raises(JobFailed, match="out is there already"):
        begin(tmp_path)
    with closing(begin(tmp_path, restart=True)) as output:
        output.append(b"one\n")
        output.keep(DONE)

    with closing(begin(tmp_path, restart=True)) as output:
        assert output.mark is None
        assert (tmp_path / "out").read_bytes() == b"old"
        output.append(b"new")
        output.finish()

    assert names(tmp_path) == {"out"}
    assert (tmp_path / "out").read_bytes() == b"new"


def test_two_processes_cannot_write_one_output(tmp_path):
    with closing(begin(tmp_path)) as output:
        output.append(b"one\n")
        with pytest.raises(JobFailed, match="another process writes"):
            begin(tmp_path)
        output.finish()

    assert (tmp_path / "out").read_bytes() == b"one\n"


@pytest.mark.parametrize("state", [b"", b"{}", b'{"input": 3}', b"no json"])
def test_a_mark_that_cannot_be_read_is_refused_and_nothing_is_lost(tmp_path, state):
    (tmp_path / "out.partial").write_bytes(b"precious")
    (tmp_path / "out.partial.state").write_bytes(state)

    with pytest.raises(JobFailed, match="--restart begins anew"):
        begin(tmp_path)

    assert (tmp_path / "out.partial").read_bytes() == b"precious"


def test_a_mark_that_speaks_of_more_than_there_is_is_refused(tmp_path):
    with closing(begin(tmp_path)) as output:
        output.append(b"one\n")
        output.keep(DONE)
    (tmp_path / "out.partial").write_bytes(b"on")

    with pytest.raises(JobFailed, match="is shorter than"):
        begin(tmp_path)

    assert names(tmp_path) == {"out.partial", "out.partial.state"}


def test_a_pipe_takes_more_than_it_holds():
    reading, writing = os.pipe()
    read: list[bytes] = []

    def drain() -> None:
        with open(reading, "rb") as file:
            read.append(file.read())

    reader = threading.Thread(target=drain)
    reader.start()
    pipe = Pipe(writing)
    pipe.append(b"x" * 1_000_000)
    pipe.close()
    os.close(writing)
    reader.join()

    assert len(read[0]) == 1_000_000
