"""When requests came once, as a log or a list of times has it."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from redserve.bench.mistakes import BenchError


def read_times(path: Path) -> Sequence[float]:
    """A time a line, in seconds since any moment or in ISO 8601; what stands behind it is passed over.

    Raises:
        BenchError: They cannot be read.
    """
    times_s = []
    kinds = set()
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                words = line.replace(",", " ").split()
                if words:
                    kind, time_s = _time_s(words[0], f"{path}, line {number}")
                    times_s.append(time_s)
                    kinds.add(kind)
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path}: {error}") from error
    if not times_s:
        raise BenchError(f"there is no time in {path}")
    if len(kinds) > 1:
        raise BenchError(f"{path} has times in {' and in '.join(sorted(kinds))}, which do not begin at the same moment")
    return times_s


def _time_s(word: str, where: str) -> tuple[str, float]:
    try:
        return "seconds", float(word)
    except ValueError:
        try:
            return "ISO 8601", datetime.fromisoformat(word).timestamp()
        except ValueError:
            raise BenchError(f"{where}: {word!r} is neither seconds nor a time of ISO 8601") from None
