from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redserve.models.transitions import Add, Load, Stage, Unload, next_action, number_of

WAITING, LOADING, READY, FAILED = Stage.WAITING, Stage.LOADING, Stage.READY, Stage.FAILED


@dataclass(eq=False)
class Held:
    version: str
    fingerprint: str
    stage: Stage


def said(wanted: str, held: str) -> str:
    """Both as words `version+fingerprint`, or `version+fingerprint:stage`; the answer likewise."""
    standing = []
    for word in held.split():
        what, _, stage = word.partition(":")
        standing.append(Held(what[:-1], what[-1], Stage(stage)))
    match next_action({word[:-1]: word[-1] for word in wanted.split()}, standing):
        case Add(version):
            return f"add {version}"
        case Load(each):
            return f"load {each.version}{each.fingerprint}"
        case Unload(each):
            return f"unload {each.version}{each.fingerprint}"
        case None:
            return "nothing"


@pytest.mark.parametrize(
    ("wanted", "held", "action"),
    [
        ("", "", "nothing"),
        ("1a", "", "add 1"),
        ("1a", "1a:waiting", "load 1a"),
        ("1a", "1a:loading", "nothing"),
        ("1a", "1a:ready", "nothing"),
        ("1a", "1a:failed", "nothing"),
        ("2a", "1a:ready", "add 2"),
        ("2a", "1a:ready 2a:waiting", "load 2a"),
        ("2a", "1a:ready 2a:loading", "nothing"),
        ("2a", "1a:ready 2a:ready", "unload 1a"),
        ("2a", "1a:ready 2a:failed", "nothing"),
        ("3a", "1a:ready 2a:failed", "unload 2a"),
        ("3a", "1a:ready 2a:loading", "add 3"),
        ("3a", "1a:ready 2a:loading 3a:waiting", "nothing"),
        ("3a", "1a:ready 2a:ready 3a:waiting", "unload 1a"),
        ("3a", "2a:waiting", "unload 2a"),
        ("1b", "1a:ready", "add 1"),
        ("1b", "1a:ready 1b:ready", "unload 1a"),
        ("1b", "1a:ready 1b:failed", "nothing"),
        ("1b 2a", "1a:ready 2a:ready 1b:failed", "nothing"),
        ("1b 2a", "1a:ready 2a:ready 1b:ready", "unload 1a"),
        ("1b 3a", "1a:ready 2a:ready 1b:failed", "add 3"),
        ("1b 3a", "1a:ready 2a:ready 1b:failed 3a:ready", "unload 2a"),
        ("1a 2a", "", "add 2"),
        ("1a 2a", "1a:waiting 2a:waiting", "load 2a"),
        ("9a 10a", "9a:waiting 10a:waiting", "load 10a"),
        ("1a", "1a:waiting 2a:ready", "load 1a"),
        ("1a", "1a:ready 2a:ready", "unload 2a"),
        ("", "1a:ready", "unload 1a"),
        ("", "1a:waiting", "unload 1a"),
        ("", "1a:failed", "unload 1a"),
        ("", "1a:loading", "nothing"),
    ],
)
def test_what_comes_next(wanted, held, action):
    assert said(wanted, held) == action


def test_versions_are_numbers_and_not_texts():
    assert sorted(["10", "9", "x", ""], key=number_of) == ["", "x", "9", "10"]


class Shell:
    """Does what is said, as the repository does: a load begins, and ends later, well or not."""

    def __init__(self) -> None:
        self.wanted: dict[str, str] = {}
        self.held: list[Held] = []

    def follow(self) -> None:
        for _ in range(100):
            match next_action(self.wanted, self.held):
                case Add(version):
                    self.held.append(Held(version, self.wanted[version], WAITING))
                case Unload(each):
                    assert each.stage is not LOADING, "a load cannot be taken back"
                    self.held.remove(each)
                case Load(each):
                    assert not any(other.stage is LOADING for other in self.held), "two loads at once"
                    each.stage = LOADING
                case None:
                    return
        raise AssertionError("it never comes to rest")

    def end_load(self, *, is_good: bool) -> None:
        for each in self.held:
            if each.stage is LOADING:
                each.stage = READY if is_good else FAILED
        self.follow()

    def ready(self) -> set[tuple[str, str]]:
        return {(each.version, each.fingerprint) for each in self.held if each.stage is READY}


VERSIONS = st.dictionaries(st.sampled_from("123"), st.sampled_from("abc"), max_size=3)
STEPS = st.lists(
    st.one_of(st.tuples(st.just("want"), VERSIONS), st.tuples(st.just("end load"), st.booleans())), max_size=30
)


@settings(max_examples=500)
@given(STEPS)
def test_whatever_comes_and_goes_no_more_serve_than_are_wanted_and_never_none_while_a_good_one_is_there(steps):
    shell = Shell()
    for step, value in steps:
        before = shell.ready()
        if step == "want":
            shell.wanted = value
            shell.follow()
        else:
            shell.end_load(is_good=value)

        assert len(shell.ready()) <= len(shell.wanted)
        if shell.wanted and before:
            assert shell.ready(), "a gap"
        assert before & shell.wanted.items() <= shell.ready(), "what is wanted and served was dropped"


@settings(max_examples=500)
@given(STEPS, VERSIONS)
def test_once_every_load_succeeds_exactly_what_is_wanted_serves(steps, last):
    shell = Shell()
    for step, value in steps:
        if step == "want":
            shell.wanted = value
            shell.follow()
        else:
            shell.end_load(is_good=value)
    shell.wanted = {version: fingerprint.upper() for version, fingerprint in last.items()}  # none that failed before
    shell.follow()
    for _ in range(10):
        shell.end_load(is_good=True)

    assert shell.ready() == set(shell.wanted.items())
    assert len(shell.held) == len(shell.wanted)


@settings(max_examples=200)
@given(STEPS)
def test_one_wanted_version_never_has_two_serving(steps):
    shell = Shell()
    for step, value in steps:
        if step == "want":
            shell.wanted = dict(list(value.items())[:1])
            shell.follow()
        else:
            shell.end_load(is_good=value)

        assert len(shell.ready()) <= 1
