"""One request at a time, outside of any measurement: metadata, trials, scrapes."""

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from redserve.bench.load import Tls, tls_context
from redserve.bench.mistakes import BenchError

TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    body: bytes

    @property
    def is_ok(self) -> bool:
        """Status 2xx."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body as JSON; `None` where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def __str__(self) -> str:
        """Like `404: {"error":"no such model"}`."""
        return f"{self.status}: {self.body[:500].decode('utf-8', 'replace').strip() or 'no body'}"


@dataclass(frozen=True)
class Server:
    """Where to send, and with which headers besides those of the body.

    Attributes:
        scheme: `http` or `https`.
        host: Name or address.
        port: Where it listens.
        headers: Sent with everything, such as `Authorization`.
        is_verified: Whether the certificate is checked.
    """

    scheme: str
    host: str
    port: int
    headers: Mapping[str, str] = field(default_factory=dict)
    is_verified: bool = True

    @classmethod
    def parse(cls, url: str, headers: Mapping[str, str], *, is_verified: bool = True) -> tuple["Server", str]:
        """The server of `url`, and the path and query behind it.

        Raises:
            BenchError: It is no http URL.
        """
        parts = urlsplit(url if "://" in url else f"http://{url}")
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as error:
            raise BenchError(f"{url}: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BenchError(f"write http://HOST:PORT or https://HOST:PORT, not {url!r}")
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        return cls(parts.scheme, parts.hostname, port, headers, is_verified), path

    @property
    def url(self) -> str:
        """Without a path."""
        return f"{self.scheme}://{self.authority}"

    @property
    def authority(self) -> str:
        """For the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def tls(self) -> Tls | None:
        """For https."""
        if self.scheme == "http":
            return None
        return "checked" if self.is_verified else "unchecked"

    def ask(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request on a connection of its own.

        Raises:
            BenchError: Nobody answers, or not in HTTP.
        """
        context = tls_context(self.tls)
        connection = (
            http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_S)
            if context is None
            else http.client.HTTPSConnection(self.host, self.port, timeout=TIMEOUT_S, context=context)
        )
        try:
            given = {name.lower() for name in self.headers}
            kept = {name: value for name, value in (headers or {}).items() if name.lower() not in given}
            connection.request(method, path, body=body, headers=kept | dict(self.headers))
            response = connection.getresponse()
            return Answer(response.status, response.read())
        except ConnectionRefusedError as error:
            raise BenchError(f"nobody listens at {self.url}: connection refused") from error
        except TimeoutError as error:
            raise BenchError(f"{self.url} gave no answer to {method} {path} within {TIMEOUT_S:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise BenchError(f"{self.url} gave no answer to {method} {path}: {error!r}") from error
        finally:
            connection.close()
