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
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                words = line.replace(",", " ").split()
                if words:
                    times_s.append(_time_s(words[0], f"{path}, line {number}"))
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path}: {error}") from error
    if not times_s:
        raise BenchError(f"there is no time in {path}")
    return times_s


def _time_s(word: str, where: str) -> float:
    try:
        return float(word)
    except ValueError:
        try:
            return datetime.fromisoformat(word).timestamp()
        except ValueError:
            raise BenchError(f"{where}: {word!r} is neither seconds nor a time of ISO 8601") from None
