"""Byte ranges of files, asked for one that overlaps with another: by bisection, as a large file may have thousands."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Hashable
from itertools import accumulate


class Spans:
    """Ranges of bytes, each with a name; all are added before the first question about their file."""

    def __init__(self) -> None:
        self._added: dict[Hashable, list[tuple[int, int, str]]] = defaultdict(list)
        self._sorted: dict[Hashable, tuple[list[int], list[tuple[int, str]]]] = {}

    def add(self, file: Hashable, start: int, end: int, name: str) -> None:
        """Add the bytes from `start` up to `end` of a file."""
        self._added[file].append((start, end, name))

    def __contains__(self, file: Hashable) -> bool:
        """Whether any bytes of a file were added."""
        return file in self._added

    def overlapping(self, file: Hashable, start: int, end: int) -> str | None:
        """The name of a range that has some of these bytes; null if none has."""
        if file not in self._added:
            return None
        if file not in self._sorted:
            spans = sorted(self._added[file])
            # The furthest end of all ranges up to each: if it is not beyond `start`, none of theirs is.
            furthest = list(accumulate(((end, name) for _, end, name in spans), max))
            self._sorted[file] = [start for start, *_ in spans], furthest
        starts, furthest = self._sorted[file]
        before = bisect_left(starts, end)
        if before and furthest[before - 1][0] > start:
            return furthest[before - 1][1]
        return None
