"""One client of a soak: it asks well, badly, slowly and halfway.

Visitor.visit() ─ a kind by lot ─> wire ─> server ─> answer ─ checked ─> Book
"""

import asyncio
import contextlib
import gzip
import random
import socket
import string

from load.known_rows import COUNT, KnownRows
from load.wire import Book, Wire, head, post

MAX_BODY_BYTES = 2**20
"""What the server is told to take."""

GZIP = "Content-Encoding: gzip\r\n"
BOMB = gzip.compress(bytes(100 * MAX_BODY_BYTES))
"""Of 100 kB, and 100 times what the server takes once it is unpacked."""

ANSWER_LIMIT_S = 30.0
UNREAD = 120
"""Answers that are asked for and not read: megabytes, which no kernel keeps; fewer than may wait in one connection."""

GIVEN_UP_S = 3.0
"""By then the server, told to wait for 1 s, has looked twice."""

SERVED, ELSEWHERE = "/predict/{model}", "_other"

QUICK_KINDS = {
    "one_row": 30,
    "several_rows": 12,
    "many_rows_by_column": 2,
    "pipelined": 4,
    "gzipped": 2,
    "hopeless_budget": 2,
    "bad_body": 12,
    "bad_header": 5,
    "declared_too_large": 2,
    "turns_out_too_large": 1,
    "gzip_bomb": 1,
    "unknown_model": 5,
    "unknown_path": 6,
    "wrong_method": 4,
    "poison": 2,
    "garbage": 2,
    "header_flood": 1,
    "leaves_within_headers": 2,
    "leaves_within_body": 3,
    "leaves_after_asking": 3,
    "scrape": 2,
    "look_around": 3,
    "reconnect": 3,
}
"""How often each comes, as shares."""

SLOW_KINDS = {"slow_body": 4, "slow_headers": 2, "slow_but_fine": 4, "idle": 2, "does_not_read": 2}
"""These take a second or so: for visitors of their own."""


class Visitor:
    """Asks over a connection that comes and goes."""

    def __init__(self, port: int, rows: KnownRows, book: Book, *, kinds: dict[str, int], seed: int) -> None:
        self._port = port
        self._wire = Wire(port, book)
        self._rows = rows
        self._book = book
        self._random = random.Random(seed)
        self._kinds = kinds

    async def visit(self, kind: str = "") -> None:
        """One visit, of a kind by lot unless it is named."""
        kind = kind or self._random.choices(list(self._kinds), list(self._kinds.values()))[0]
        self._book.kinds[kind] += 1
        try:
            async with asyncio.timeout(ANSWER_LIMIT_S):
                await getattr(self, kind)()
        except (OSError, EOFError, ValueError, LookupError) as error:  # a TimeoutError is an OSError
            self._wire.wrong(f"{kind}: {error!r}")
            await self.leave()

    async def leave(self) -> None:
        """Close the connection."""
        await self._wire.hang_up()

    async def one_row(self) -> None:
        await self._ask_right(self._some_rows(1))

    async def several_rows(self) -> None:
        await self._ask_right(self._some_rows(self._random.randint(2, 24)))

    async def many_rows_by_column(self) -> None:
        """More than one batch, and more bytes than are decoded on the event loop."""
        chosen = self._some_rows(self._random.randint(150, 400))
        await self._wire.send(post(self._rows.columns(chosen)))
        await self._read_right(chosen)

    async def pipelined(self) -> None:
        asked = [self._some_rows(1) for _ in range(3)]
        await self._wire.send(b"".join(post(self._rows.instances(chosen)) for chosen in asked))
        for chosen in asked:
            await self._read_right(chosen)

    async def gzipped(self) -> None:
        chosen = self._some_rows(5)
        await self._wire.send(post(gzip.compress(self._rows.instances(chosen)), headers=GZIP))
        await self._read_right(chosen)

    async def hopeless_budget(self) -> None:
        """Refused, expired, or, where it was alone, answered late."""
        await self._wire.send(post(self._rows.instances([0]), headers="X-Request-Timeout-Ms: 0.001\r\n"))
        await self._read_right([0], others={503, 504})

    async def slow_but_fine(self) -> None:
        chosen = self._some_rows(1)
        raw = post(self._rows.instances(chosen))
        for start in range(0, len(raw), 200):
            await self._wire.send(raw[start : start + 200])
            await asyncio.sleep(0.05)
        await self._read_right(chosen)

    async def poison(self) -> None:
        raw = self._rows.instances(
            self._some_rows(self._random.randint(1, 3)), pick=self._random.choice([-99, 10, 777])
        )
        await self._wire.ask(post(raw), SERVED, expect={500})

    async def bad_body(self) -> None:
        whole = self._rows.instances([1])
        body = self._random.choice(
            [
                whole[: self._random.randrange(1, len(whole))],
                b"\xff\xfe{}",
                b"[" * 100_000,
                b"{}",
                b'{"instances": []}',
                b'{"instances": [null]}',
                b'{"instances": [{"pixels": [1, 2], "pick": 0}]}',
                whole.replace(b"[", b"[1e999, ", 1),
                whole.replace(b"0.0", b"NaN", 1),
                whole.replace(b'"pick"', b'"%s"' % self._word().encode()),
                whole.replace(b'"pick":', b'"pick":1e30'),
            ]
        )
        await self._wire.ask(post(body), SERVED, expect={400})

    async def bad_header(self) -> None:
        header, status = self._random.choice(
            [
                ("X-Request-Timeout-Ms: -1\r\n", 400),
                (f"X-Request-Timeout-Ms: {self._word()}\r\n", 400),
                ("Content-Encoding: lzh\r\n", 415),
            ]
        )
        await self._wire.ask(post(self._rows.instances([2]), headers=header), SERVED, expect={status})

    async def declared_too_large(self) -> None:
        raw = head("POST", "/predict/digits", f"Content-Length: {MAX_BODY_BYTES + 1}\r\n")
        await self._wire.ask(raw, SERVED, expect={413})
        await self.leave()

    async def turns_out_too_large(self) -> None:
        await self._wire.send(head("POST", "/predict/digits", "Transfer-Encoding: chunked\r\n"))
        for _ in range(MAX_BODY_BYTES // 65_536 + 2):
            await self._wire.send(b"%x\r\n%s\r\n" % (65_536, b" " * 65_536))
        await self._wire.ask(b"0\r\n\r\n", SERVED, expect={413})

    async def gzip_bomb(self) -> None:
        await self._wire.ask(post(BOMB, headers=GZIP), SERVED, expect={413})

    async def slow_body(self) -> None:
        raw = post(self._rows.instances([2]))
        await self._wire.ask(raw[: len(raw) // 2], SERVED, expect={408})
        await self.leave()

    async def unknown_model(self) -> None:
        await self._wire.ask(post(b"{}", path=f"/predict/{self._word()}"), SERVED, expect={404})

    async def unknown_path(self) -> None:
        path = "/".join(self._word() for _ in range(self._random.randint(1, 4)))
        method = self._random.choice(["GET", "POST", "DELETE", "PATCH"])
        raw = head(method, f"/{path}?{self._word()}={self._word()}")
        await self._wire.ask(raw, ELSEWHERE, method=method, expect={404})

    async def wrong_method(self) -> None:
        method = self._random.choice(["GET", "PUT", "DELETE", "OPTIONS", "PROPFIND", "MKCOL", "REPORT"])
        label = method if method in ("GET", "PUT", "DELETE", "OPTIONS") else "_other"
        await self._wire.ask(head(method, "/predict/digits"), SERVED, method=label, expect={405})

    async def garbage(self) -> None:
        raw, method = self._random.choice(
            [
                (b"\x16\x03\x01\x02" * 20, "_other"),
                (b"BREW /pot HTTP/1.1\r\n\r\n", "_other"),
                (b"GET / HTTP/9\r\n\r\n", "GET"),
            ]
        )
        await self._ask_badly(raw, method=method, expect=400)

    async def header_flood(self) -> None:
        await self._ask_badly(b"GET / HTTP/1.1\r\n" + b"X-Flood: y\r\n" * 8_000, method="GET", expect=431)

    async def slow_headers(self) -> None:
        await self._ask_badly(b"GET / HTTP/1.1\r\nHost: so", method="GET", expect=408)

    async def does_not_read(self) -> None:
        """Until the server gives it up; of what is in no count, since nobody knows how much of it was answered."""
        await self.leave()  # its own connection would be idle for so long that the server closes it
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", self._port))
            await loop.sock_sendall(client, head("GET", "/openapi.json") * UNREAD)
            await asyncio.sleep(GIVEN_UP_S)
            answers = b""
            with contextlib.suppress(ConnectionError):
                while chunk := await loop.sock_recv(client, 2**20):
                    answers += chunk
        if answers.count(b"HTTP/1.1 200 ") >= UNREAD:
            self._wire.wrong("answers waited for a client that did not read them")

    async def scrape(self) -> None:
        accept, ending = self._random.choice([("text/plain", b"\n"), ("application/openmetrics-text", b"# EOF\n")])
        _, body = await self._wire.ask(head("GET", "/metrics", f"Accept: {accept}\r\n"), None, expect={200})
        if not body.endswith(ending) or b"inference_requests_in_flight" not in body:
            self._wire.wrong(f"a scrape ends with {body[-50:]!r}")

    async def look_around(self) -> None:
        path = self._random.choice(["/livez", "/readyz", "/openapi.json", "/"])
        await self._wire.ask(head("GET", path), "/" if path == "/" else None, method="GET", expect={200})

    async def leaves_within_headers(self) -> None:
        await self._wire.send(b"POST /predict/digits HTTP/1.1\r\nHos")
        await self.leave()

    async def leaves_within_body(self) -> None:
        await self._wire.send(post(self._rows.instances([3]))[:-20])
        self._book.answered[SERVED, "POST", "499"] += 1
        await self.leave()

    async def leaves_after_asking(self) -> None:
        await self._wire.send(post(self._rows.instances([4])))
        self._book.left_unsure += 1
        await self.leave()

    async def reconnect(self) -> None:
        await self.leave()
        await self._wire.send(b"")

    async def idle(self) -> None:
        await self._wire.send(b"")
        await asyncio.sleep(self._random.uniform(0, 1))
        await self.leave()

    async def _ask_right(self, chosen: list[int]) -> None:
        await self._wire.send(post(self._rows.instances(chosen)))
        await self._read_right(chosen)

    async def _read_right(self, chosen: list[int], *, others: frozenset[int] | set[int] = frozenset()) -> None:
        status, body = await self._wire.answer(SERVED, expect={200, *others})
        if status != 200:
            return
        if self._rows.are_answered(chosen, body):
            self._book.rows_right += len(chosen)
        else:
            self._wire.wrong(f"a wrong answer to rows {chosen}: {body[:100]!r}")

    async def _ask_badly(self, raw: bytes, *, method: str, expect: int) -> None:
        await self.leave()
        await self._wire.ask(raw, ELSEWHERE, method=method, expect={expect})
        await self.leave()

    def _some_rows(self, count: int) -> list[int]:
        return self._random.choices(range(COUNT), k=count)

    def _word(self) -> str:
        return "".join(self._random.choices(string.ascii_lowercase, k=self._random.randint(8, 24)))
