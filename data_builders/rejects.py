"""What the gates turned away: counted by family and gate, and some of it kept for reading."""

from __future__ import annotations

import heapq
import json
from collections import Counter, defaultdict
from typing import Any

KEPT_REJECTS = 10
"""Rejected examples kept for reading, per family and gate."""


class Rejects:
    """Counts rejected examples and keeps those of the smallest keys, whatever the order of arrival."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._kept: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)

    def add(self, family: str, gate: str, key: int, prompt: str, answer: str, source: list[dict[str, Any]]) -> None:
        """Count an example that a gate rejects; `key` is a hash of it."""
        self.counts[family, gate] += 1
        kept = self._kept[family, gate]
        entry = {"family": family, "gate": gate, "prompt": prompt, "answer": answer, "source": source}
        # A heap of the negated keys has the largest key on top.
        item = (-key, json.dumps(entry, ensure_ascii=False))
        if len(kept) < KEPT_REJECTS:
            heapq.heappush(kept, item)
        elif item > kept[0]:
            heapq.heapreplace(kept, item)

    def record(self) -> dict[str, Any]:
        """`rejected`, [family, gate, n], and `samples`, [key, entry as JSON], both sorted."""
        return {
            "rejected": [[*key, n] for key, n in sorted(self.counts.items())],
            "samples": sorted((-key, text) for kept in self._kept.values() for key, text in kept),
        }
