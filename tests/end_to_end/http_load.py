"""A closed-loop HTTP/1.1 client in a process of its own: `drive(port, requests, connections=8)` counts what came back.

Its own process, so that it never holds the interpreter of the server that is being measured.

    stdin   {"port": 8000, "connections": 8, "requests": [["narrow", "/narrow?s=0.008"], ...]}
    stdout  {"narrow 200": 6000, ...}                  how many of each kind came back with which status

A request of the kind `left` is sent, and its connection closed before the answer: it is counted as 499.
"""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

LEAVE_AFTER_S = 0.05
LIMIT_S = 60.0

Request = tuple[str, str]  # kind, target
Counts = Counter[tuple[str, int]]  # (kind, status)


def drive(port: int, requests: Sequence[Request], *, connections: int) -> Counts:
    """Send all requests over so many keep-alive connections, in order, each as soon as a connection is free.

    Raises:
        RuntimeError: The client could not finish within `LIMIT_S`.
    """
    plan = json.dumps({"port": port, "connections": connections, "requests": requests})
    done = subprocess.run(
        [sys.executable, str(Path(__file__))], input=plan, capture_output=True, text=True, timeout=LIMIT_S + 10
    )
    if done.returncode != 0:
        raise RuntimeError(f"the client failed:\n{done.stderr[-2000:]}")
    counts: Counts = Counter()
    for name, count in json.loads(done.stdout).items():
        kind, status = name.split()
        counts[kind, int(status)] += count
    return counts


async def _drive(port: int, requests: Sequence[Request], connections: int) -> Counts:
    waiting, counts = iter(requests), Counter[tuple[str, int]]()
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as clients:
        for _ in range(connections):
            clients.create_task(_client(port, waiting, counts))
    return counts


async def _client(port: int, waiting: Iterator[Request], counts: Counts) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for kind, target in waiting:
        writer.write(f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        if kind == "left":
            await asyncio.sleep(LEAVE_AFTER_S)
            status = 499
        else:
            status = await _read_answer(reader)
        counts[kind, status] += 1
        if status in (499, 500):  # uvicorn closes the connection of an application that raised
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    await writer.wait_closed()


async def _read_answer(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]
    await reader.readexactly(int(length))
    return int(head.split(b" ", 2)[1])


def main() -> None:
    """Drive as stdin says."""
    plan = json.load(sys.stdin)
    counts = asyncio.run(_drive(plan["port"], plan["requests"], plan["connections"]))
    json.dump({f"{kind} {status}": count for (kind, status), count in counts.items()}, sys.stdout)


if __name__ == "__main__":
    main()
