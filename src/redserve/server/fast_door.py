"""The fast door to the service: plain requests for inference, straight from the HTTP parser, past ASGI.

    headers ─ POST, a path of inference, HTTP/1.1, Content-Length ─> FastRequest ─ body ─> service
    service ─ Reply ─> counted ─> one write                       any other ─> ASGI, unchanged

The same service, keys, limits, numbers and log as by the ASGI door (`asgi_door.py`), byte for byte the same answers; a
test sends the same requests through both. What it saves is the scope, the task and the messages of ASGI. Here is what
all requests have in common; each one is in `fast_request.py`.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from redserve.metrics import REDMetrics
from redserve.protocol import Body
from redserve.server.api_keys import ApiKeys, Keyring
from redserve.server.auth import refusal
from redserve.server.bodies import MAX_LENGTH_DIGITS
from redserve.server.call import Call
from redserve.server.known_heads import KnownHeads
from redserve.server.reply import Reply
from redserve.server.service import InferenceService
from redserve.server.targets import Aliases, Target

Infer: TypeAlias = Callable[[Target, dict[bytes, bytes], Body, Callable[[Reply], None], float], Call | None]

_MAX_REMEMBERED_PATHS: Final = 1_000
_UNUSUAL: Final = frozenset({b"expect", b"transfer-encoding", b"upgrade"})


class FastDoor:
    """What all requests through the door of one server have in common.

    Args:
        service: Answers.
        red: Counts.
        keyring: The keys in force.
        aliases: Further paths of requests for inference.
        has_access_log: Whether each request is logged.

    Attributes:
        is_open: Whether it takes any request at all; closed, all go to ASGI.
        infer: Answers, as `service.infer`.
        heads: That need not be parsed again.
    """

    def __init__(
        self, service: InferenceService, *, red: REDMetrics, keyring: Keyring, aliases: Aliases, has_access_log: bool
    ) -> None:
        self.is_open = True
        self.heads = KnownHeads()
        self.service = service
        self.infer: Infer = service.infer
        self.red = red
        self.bodies = service.terms.bodies
        self.has_access_log = has_access_log
        self._keyring = keyring
        self._keys: ApiKeys | None = None  # that `_is_guarded` is of
        self._is_guarded = True
        self._aliases = aliases
        self._targets: dict[bytes, Target] = {}
        self._defaults: list[tuple[bytes, bytes]] | None = None
        self._default_lines = self._ok_lines = b""

    def target_of(self, url: bytes) -> Target | None:
        """Where a POST of `url` goes; `None` is elsewhere, or spelled in a way that is left to ASGI."""
        if not self.is_open:
            return None
        target = self._targets.get(url)
        if target is None and b"%" not in url and b"?" not in url:
            target = self._aliases.target_of(url.decode("latin-1"))
            is_known = target is not None and self.service.model_label(target.model)
            if target is not None and is_known and len(self._targets) < _MAX_REMEMBERED_PATHS:
                self._targets[url] = target
        return target

    def plain_length(self, headers: dict[bytes, bytes]) -> int | None:
        """The length of the body; `None` is left to ASGI, as is whatever is unusual about the headers."""
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or len(length) > MAX_LENGTH_DIGITS or not _UNUSUAL.isdisjoint(headers):
            return None
        return int(length)

    def refusal(self, url: bytes, target: Target, headers: list[tuple[bytes, bytes]]) -> Reply | None:
        """What a request without the key that its path needs is answered."""
        keys = self._keyring.keys
        if keys is not self._keys:
            self._keys, self._is_guarded = keys, keys.guards("inference")
        if not self._is_guarded:
            return None
        return refusal(keys, url.decode("latin-1"), headers, method="POST", aliases=self._aliases)

    def head_of(self, status: int, defaults: list[tuple[bytes, bytes]]) -> bytes:
        """The status line, and the headers that uvicorn adds, which change once a second."""
        if defaults is not self._defaults:
            self._defaults = defaults
            self._default_lines = b"".join([b"%b: %b\r\n" % header for header in defaults])
            self._ok_lines = STATUS_LINE[200] + self._default_lines
        return self._ok_lines if status == 200 else STATUS_LINE[status] + self._default_lines
