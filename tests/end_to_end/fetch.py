"""GET from a server on this machine, past any proxy that the environment names."""

from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

_DIRECT = build_opener(ProxyHandler({}))


class Refused(OSError):
    """The server answered with a status of 400 or above; the message is its body."""


def fetch(url: str, *, timeout_s: float = 10.0) -> str:
    """The body at `url`.

    Raises:
        Refused: The server does not want to answer.
        OSError: Nobody answers there.
    """
    try:
        with _DIRECT.open(url, timeout=timeout_s) as response:
            body: bytes = response.read()
    except HTTPError as refusal:
        with refusal:
            raise Refused(f"{refusal.code}: {refusal.read().decode(errors='replace')}") from None
    return body.decode()
