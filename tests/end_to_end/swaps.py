"""Versions of a model swapped while requests come at a steady rate: nobody may notice.

    python tests/end_to_end/swaps.py --swaps 100 --rate 200       (20 swaps in the test)

Version `n` adds `n` to each row, so each answer tells who gave it. Every tenth request is so large that it is decoded
in a thread, and so has found its version a while before it is queued.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from served import Served

sys.path.append(str(Path(__file__).parents[1]))

from engine.onnx_models import adding

CONNECTIONS = 16
LARGE_EVERY, LARGE_COLUMNS = 10, 20_000
LIMIT_S = 60.0


def put(repository: Path, name: str, version: int) -> None:
    """Version `n` of a model that adds `n`, there at once."""
    staging = repository.parent / f"staging-{name}-{version}"
    staging.mkdir()
    adding(staging / "model.onnx", version)
    (repository / name).mkdir(exist_ok=True)
    staging.rename(repository / name / str(version))


class Load:
    """Requests at a steady rate, from so many connections that stay open.

    Attributes:
        newest: The newest version that there is; the test raises it.
        seen: The newest version that has answered.
        statuses: How many answers had which status.
        wrong: What was wrong with answers, in words.
        late: Requests that could not be sent in time, because the answer before had not come.
    """

    def __init__(self, port: int, *, rate: float, newest: int) -> None:
        self.newest = self.seen = newest
        self.statuses: Counter[int] = Counter()
        self.wrong: list[str] = []
        self.late = 0
        self.changed = asyncio.Condition()
        self._port = port
        self._every_s = CONNECTIONS / rate
        self._is_over = False
        self._tasks = [asyncio.create_task(self._visit(number)) for number in range(CONNECTIONS)]

    async def until_seen(self, version: int) -> None:
        """Return once this version has answered."""
        async with asyncio.timeout(LIMIT_S), self.changed:
            await self.changed.wait_for(lambda: self.seen >= version or self.wrong)

    async def end(self) -> None:
        """Let what is on its way come in."""
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def _visit(self, number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        due_s = time.perf_counter() + self._every_s * number / CONNECTIONS
        count = number
        while not self._is_over:
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            self.late += time.perf_counter() > due_s + self._every_s
            due_s += self._every_s
            count += 1
            columns = LARGE_COLUMNS if count % LARGE_EVERY == 0 else 3
            oldest = self.seen
            writer.write(_request(rows=2, columns=columns, value=number))
            status, answer = await _answer(reader)
            self.statuses[status] += 1
            self._check(status, answer, value=number, columns=columns, oldest=oldest)
            async with self.changed:
                self.changed.notify_all()
        writer.close()
        await writer.wait_closed()

    def _check(self, status: int, answer: bytes, *, value: int, columns: int, oldest: int) -> None:
        if status != 200:
            self.wrong.append(f"{status} {answer[:200]!r}")
            return
        content = json.loads(answer)
        added = {each - value for each in content["outputs"][0]["data"]}
        version = int(content["model_version"])
        if added != {version} or content["outputs"][0]["shape"] != [2, columns]:
            self.wrong.append(f"version {version} added {sorted(added)[:5]}")
        elif not oldest <= version <= self.newest:
            self.wrong.append(f"version {version} answered, when {oldest} had and {self.newest} was the newest")
        self.seen = max(self.seen, version)


def _request(*, rows: int, columns: int, value: int) -> bytes:
    tensor = {"name": "x", "shape": [rows, columns], "datatype": "FP32", "data": [value] * (rows * columns)}
    body = json.dumps({"inputs": [tensor]}).encode()
    head = f"POST /v2/models/adding/infer HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]
    return int(head.split(b" ", 2)[1]), await reader.readexactly(int(length))


async def swap(served: Served, repository: Path, *, swaps: int, rate: float) -> Load:
    """Swap so many times, each as soon as the one before has answered somebody; the repository has version 1."""
    load = Load(int(served.url.rpartition(":")[2]), rate=rate, newest=1)
    for version in range(2, swaps + 2):
        load.newest = version
        await asyncio.to_thread(put, repository, "adding", version)
        await load.until_seen(version)
        if load.wrong:
            break
    await load.end()
    return load


def resident_bytes(pid: int) -> int:
    """Memory that a process has."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return 1024 * int(line.split()[1])


def main() -> None:
    """Swap, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--rate", type=float, default=200.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "models"
        repository.mkdir()
        put(repository, "adding", 1)
        with Served("--repository", str(repository), "--repository-mode", "poll", "--poll-s", "0.05") as served:
            before, start_s = resident_bytes(served.process.pid), time.perf_counter()
            load = asyncio.run(swap(served, repository, swaps=arguments.swaps, rate=arguments.rate))
            took_s, after = time.perf_counter() - start_s, resident_bytes(served.process.pid)
    sent = load.statuses.total()
    result = {
        "swaps": load.seen - 1,
        "seconds": round(took_s, 1),
        "requests": sent,
        "requests_per_s": round(sent / took_s),
        "sent_late": load.late,
        "statuses": dict(load.statuses),
        "wrong": load.wrong[:5],
        "resident_mib": [before >> 20, after >> 20],
    }
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
