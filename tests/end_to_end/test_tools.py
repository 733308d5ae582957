"""Finding the tools, with made-up programs on a PATH that holds nothing else."""

from pathlib import Path

import pytest
from browser import PACKAGE, find_browser
from tools import ToolsMissing, find_tools

# Writes a package, or fails as apt does with an empty index until `apt-get update` has been run.
APT_GET = """#!/bin/sh
cd "{home}" && echo "$1" >> calls
if [ "$1" = update ]; then : > index; exit 0; fi
if [ ! -e index ]; then echo "E: Unable to locate package prometheus"; exit 100; fi
: > "$OLDPWD/prometheus_2.42.0_amd64.deb"
"""
DPKG = """#!/bin/sh
/bin/mkdir -p "$3/usr/bin"
for program in prometheus promtool; do : > "$3/usr/bin/$program"; /bin/chmod +x "$3/usr/bin/$program"; done
"""


def write_program(folder: Path, name: str, text: str = "#!/bin/sh\n") -> Path:
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(text)
    program.chmod(0o755)
    return program


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH; empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "tools"


@pytest.fixture
def debian(path: Path, tmp_path: Path) -> Path:
    """A Debian whose package index is empty; the folder holds `calls` and, when it is filled, `index`."""
    write_program(path, "apt-get", APT_GET.format(home=tmp_path))
    write_program(path, "dpkg", DPKG)
    return tmp_path


def test_the_programs_on_path_come_first(path: Path, cache: Path) -> None:
    for folder in (path, cache):
        write_program(folder, "prometheus")
        write_program(folder, "promtool")

    found = find_tools(cache=cache)

    assert (found.prometheus, found.promtool) == (path / "prometheus", path / "promtool")


def test_both_programs_are_of_one_place(path: Path, cache: Path) -> None:
    write_program(path, "prometheus")
    write_program(cache, "prometheus")
    write_program(cache, "promtool")

    found = find_tools(cache=cache)

    assert (found.prometheus, found.promtool) == (cache / "prometheus", cache / "promtool")


def test_where_they_are_nowhere_the_package_of_debian_is_unpacked(debian: Path, cache: Path) -> None:
    (debian / "index").touch()

    found = find_tools(cache=cache)

    assert found.prometheus == cache / "prometheus"
    assert sorted(entry.name for entry in cache.iterdir()) == ["prometheus", "promtool"]  # and nothing left over


def test_root_renews_an_empty_package_index(debian: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)

    find_tools(cache=cache)

    assert (debian / "calls").read_text().split() == ["download", "update", "download"]


def test_others_are_told_why_nothing_could_be_fetched(
    debian: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    with pytest.raises(ToolsMissing, match="`apt-get download` failed: E: Unable to locate package prometheus"):
        find_tools(cache=cache)

    assert (debian / "calls").read_text().split() == ["download"]


def test_a_system_without_apt_is_told_so(path: Path, cache: Path) -> None:
    with pytest.raises(ToolsMissing, match="no apt-get to fetch them"):
        find_tools(cache=cache)


def test_another_run_of_the_tests_may_unpack_chromium_first(path: Path, cache: Path) -> None:
    plan = f"""case "$1" in -s) echo "Inst {PACKAGE} (1)";; download) : > one.deb;; esac"""
    write_program(path, "apt-get", f"#!/bin/sh\n{plan}\n")
    write_program(path, "dpkg", f"#!/bin/sh\n/bin/mkdir -p unpacked {cache}/chromium/usr\n")

    assert find_browser(cache=cache).program.is_relative_to(cache / "chromium")
    assert [entry.name for entry in cache.iterdir()] == ["chromium"]
