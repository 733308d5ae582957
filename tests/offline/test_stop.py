import signal

import pytest

from redserve.offline.stop import Stopped, StopSignals


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_an_exception_with_the_status_of_the_process(number, status):
    before = signal.getsignal(number)

    with pytest.raises(Stopped) as stopped, StopSignals():
        signal.raise_signal(number)

    assert stopped.value.status == status
    assert signal.getsignal(number) is before


def hold(done: list[str], *, error: Exception | None = None) -> None:
    with StopSignals() as stop:
        with stop.held():
            signal.raise_signal(signal.SIGTERM)
            done.append("inside")
            if error is not None:
                raise error
        done.append("behind")


def test_a_signal_waits_until_what_is_held_is_done():
    done: list[str] = []

    with pytest.raises(Stopped):
        hold(done)

    assert done == ["inside"]


def test_what_goes_wrong_while_a_signal_waits_is_told():
    with pytest.raises(OSError, match="full"):
        hold([], error=OSError("full"))
