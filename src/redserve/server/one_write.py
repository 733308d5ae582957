"""An answer under uvicorn as one write, where ASGI's two messages make two: each a system call, and a packet.

It does what `send` does with both messages, byte for byte, on the httptools protocol as uvicorn ships it; a test lets
uvicorn's own objects do both.
"""

from starlette.types import Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from redserve.server.reply import Reply, lines_of

_MAX_BODY_BYTES = 65_536  # a longer one is not copied behind its head


class OneWrite:
    """Writes the answers of one application."""

    def __init__(self) -> None:
        self._defaults: list[tuple[bytes, bytes]] | None = None
        self._default_lines = b""

    def cycle_of(self, send: Send, reply: Reply) -> RequestResponseCycle | None:
        """What `write` needs; `None` where `send` has to be called.

        It has to where the server is another, somebody has wrapped it, uvicorn logs each request, or the client reads
        too slowly or has left, which uvicorn does not tell those that wait in line behind another.
        """
        cycle = getattr(send, "__self__", None)
        if type(cycle) is not RequestResponseCycle or len(reply.body) > _MAX_BODY_BYTES:
            return None
        if cycle.access_log or cycle.flow.write_paused or cycle.disconnected or cycle.response_started:
            return None
        return None if cycle.transport.is_closing() else cycle

    def write(self, cycle: RequestResponseCycle, reply: Reply) -> None:
        """Send the whole reply, which says its length."""
        if cycle.default_headers is not self._defaults:  # changes once a second, with the date
            self._defaults = cycle.default_headers
            self._default_lines = lines_of(self._defaults)
        end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
        cycle.response_started = cycle.response_complete = True
        cycle.transport.write(
            b"%b%b%b%b%b" % (STATUS_LINE[reply.status], self._default_lines, reply.lines, end, reply.body)
        )
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
