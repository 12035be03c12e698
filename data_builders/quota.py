"""How many examples a family is asked for in one document.

A large corpus gives a family far more examples than the balance keeps, and finding them is most of a build's cost. So
the documents of a shard are asked for fewer, or only some of them for any, as it becomes clear that this is enough.
Training rows come from most documents and held-out rows from few: each side has a rate of its own. A rare family, or a
small corpus, is asked for all that `per_document` allows.
"""

from __future__ import annotations

import math
from collections import Counter
from zlib import crc32

from data_builders.config import BuildConfig
from data_builders.splits import likely_side
from instructrec.core.schema import TRAIN

REVIEW = 20
"""Documents after which the quota is estimated again, from this shard alone."""

SURPLUS = 1.25
"""Examples to find for each that a side can keep: some fall to the gates, and a document may change sides."""

CHOICE = 4
"""Times as many for the training side of conversations: all of few documents is an uneven yield, and of what is found
those examples are kept that other families have company for."""

_GOLDEN = (math.sqrt(5) - 1) / 2


class Quota:
    """The quota of every family in one shard.

    Args:
        config: of the build.
        size: bytes of the shard that can be read; 0 if nobody knows, and then every document is asked for all.
        corpus: bytes of the whole corpus that can be read.
    """

    def __init__(self, config: BuildConfig, size: int, corpus: int) -> None:
        self.config, self.most, self.size = config, config.per_document, size
        choice = {TRAIN: CHOICE} if config.turns_per_document > 1 else {}
        self.sides = {
            side: (share, SURPLUS * choice.get(side, 1) * rows * size / max(corpus, 1))
            for side, share, rows in config.examples_wanted
        }
        self.documents = self.bytes = 0
        self._found: dict[str, Counter[str]] = {side: Counter() for side in self.sides}
        self.fruitful: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self._rates: dict[tuple[str, str], float] = {}

    @property
    def found(self) -> Counter[str]:
        """The examples of each family that were found, whatever the side."""
        return sum(self._found.values(), Counter())

    def side(self, unit: str) -> str:
        """The side that a document of a unit is probably on."""
        return likely_side(unit, self.config.seed, self.config.validation_documents, self.config.test_documents)

    def of(self, family: str, side: str) -> int:
        """Examples of the family to look for in the next document, which is probably on `side`."""
        rate = self._rates.get((family, side))
        if rate is None:
            return self.most
        # The fractions of multiples of the golden ratio are even over any run and any regular part of the documents.
        place = crc32(family.encode()) / 2**32 + self.documents * _GOLDEN
        return math.floor(rate + place % 1)

    def see(self, size: int, found: Counter[str], side: str) -> None:
        """Take in a document of `size` bytes, asked as one of `side`, in which so many of each family were found."""
        self.skipped.update(family for family, of in self._rates if of == side and not self.of(family, side))
        self.documents += 1
        self.bytes += size
        self._found[side] += found
        self.fruitful.update((+found).keys())
        if self.size and self.documents % REVIEW == 0:
            left = max(self.size - self.bytes, 0) * self.documents / max(self.bytes, 1)
            for family, n in self.fruitful.items():
                expected = left * n / (self.documents - self.skipped[family])
                for name, (share, wanted) in self.sides.items():
                    needed = (wanted - self._found[name][family] + 1) / max(share * expected, 1)
                    self._rates[family, name] = min(max(needed, 0), self.most)
