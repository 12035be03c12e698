"""How many examples a family is asked for in one document.

A large corpus gives a family far more examples than the balance keeps, and finding them is most of a build's cost. So
the documents of a shard are asked for fewer, down to one of each family, as it becomes clear that this is enough: the
rows then also come from more documents. A rare family, or a small corpus, is asked for all that `per_document` allows.
"""

from __future__ import annotations

import math
from collections import Counter

from data_builders.config import BuildConfig

REVIEW = 20
"""Documents after which the quota is estimated again, from this shard alone."""

SURPLUS = 2
"""Examples to find for each that the balance can keep: some fall to the gates."""


class Quota:
    """The quota of every family in one shard.

    Args:
        config: of the build.
        size: bytes of the shard; 0 if nobody knows, and then every document is asked for all.
        corpus: bytes of the whole corpus.
    """

    def __init__(self, config: BuildConfig, size: int, corpus: int) -> None:
        self.most, self.size = config.per_document, size
        self.wanted = SURPLUS * config.examples_wanted * size / max(corpus, 1)
        self.documents = self.bytes = 0
        self.found: Counter[str] = Counter()
        self.fruitful: Counter[str] = Counter()
        self._of: dict[str, int] = {}

    def of(self, family: str) -> int:
        """Examples of the family to look for in the next document."""
        return self._of.get(family, self.most)

    def see(self, size: int, found: Counter[str]) -> None:
        """Take in a document of `size` bytes in which so many examples of each family were found."""
        self.documents += 1
        self.bytes += size
        self.found += found
        self.fruitful.update(found.keys())
        if self.size and self.documents % REVIEW == 0:
            left = max(self.size - self.bytes, 0) * self.documents / max(self.bytes, 1)
            for family, n in self.fruitful.items():
                expected = left * n / self.documents
                needed = (self.wanted - self.found[family]) / max(expected, 1)
                self._of[family] = min(max(math.ceil(needed), 1), self.most)
