"""Batch sizes that are really run, where not every one is: a batch is padded up to the next of them."""

from bisect import bisect_left
from collections.abc import Sequence


def padded(rows: int, sizes: Sequence[int]) -> int:
    """The smallest of `sizes`, which ascend, that has room for `rows`; `rows` itself where none has."""
    place = bisect_left(sizes, rows)
    return sizes[place] if place < len(sizes) else rows


def size_below(rows: int, sizes: Sequence[int]) -> int:
    """The largest of `sizes` with fewer than `rows`; 0 where there is none, or where `rows` are one of them."""
    place = bisect_left(sizes, rows)
    return 0 if not place or rows in sizes[place : place + 1] else sizes[place - 1]
