"""What is left of an unloaded model."""

import platform

import pytest

from puppet_engine import PuppetEngine
from redserve.models import free as freeing
from redserve.models.free import free, malloc_trim


class Closed(PuppetEngine):
    def __init__(self, events):
        super().__init__()
        self.events = events

    def close(self):
        self.events.append("closed")


def test_the_engines_are_closed_and_then_their_memory_is_given_back(monkeypatch):
    events = []
    monkeypatch.setattr(freeing, "malloc_trim", lambda: events.append)

    free([Closed(events), Closed(events)])

    assert events == ["closed", "closed", 0]


def test_an_allocator_that_cannot_is_left_alone(monkeypatch):
    events = []
    monkeypatch.setattr(freeing, "malloc_trim", lambda: None)

    free([Closed(events)])

    assert events == ["closed"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's")
def test_glibc_can():
    trim = malloc_trim()

    assert trim is not None
    assert trim(0) in (0, 1)
