import pytest

from redserve.models import VersionPolicy

VERSIONS = ["1", "9", "10", "2"]


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [
        (VersionPolicy(), ["10"]),
        (VersionPolicy(latest=2), ["10", "9"]),
        (VersionPolicy(latest=9), ["10", "9", "2", "1"]),
        (VersionPolicy(latest=None), ["10", "9", "2", "1"]),
        (VersionPolicy(latest=None, only=frozenset({"2", "9", "77"})), ["9", "2"]),
    ],
)
def test_a_policy_chooses_the_newest_first(policy, chosen):
    assert policy.choose(VERSIONS) == chosen
    assert policy.choose([]) == []


@pytest.mark.parametrize(
    "wrong", [{"latest": 0}, {"latest": 1, "only": frozenset("1")}, {"latest": None, "only": frozenset()}]
)
def test_a_policy_that_means_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match=r"latest must be|no version is named"):
        VersionPolicy(**wrong)
