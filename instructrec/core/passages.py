"""Training rows that hold the passage of a held-out row, found from the rows alone, without their documents.

Rows are compared by the 13-grams of their prompts (of 26 characters in scripts without spaces). An n-gram that more
than half, or more than `MANY_ROWS`, of the rows of one wording have is taken for the wording's own and not compared;
which n-grams those are is told with all digits alike, because a wording may give numbers.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt

from instructrec.core.overlap import Hashes, distinct, ngram_hashes_of, normalise

NGRAM = 13
LEAST_SHARE = 0.5
"""A held-out row leaks if more than this share of its compared n-grams is in one training row."""
LEAST_SHARED = 8
"""Shared n-grams (20 words, if in a row) below which two rows have no more than a phrase in common."""
MANY_ROWS = 8
MOST_PLACES = 64
"""Training rows looked at for one n-gram."""

Array = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]
_DIGITS = re.compile("[0-9]+")
BATCH = 512
"""Rows whose n-grams are found in one pass."""


@dataclass(frozen=True, slots=True)
class Leak:
    """A training row, and a held-out row of whose compared n-grams it has the given share."""

    train: str
    held_out: str
    share: float


class _Rows:
    """Rows as their distinct n-grams; of those, if `known` is given, only the ones that it holds with digits alike."""

    def __init__(self, known: Hashes | None = None) -> None:
        self.ids: list[str] = []
        self.wordings: list[int] = []
        self._known = known
        self._texts: list[str] = []
        self._found: list[tuple[Indices, Array, Array]] = []

    def add(self, name: str, wording: int, text: str) -> None:
        self.ids.append(name)
        self.wordings.append(wording)
        self._texts.append(text)
        if len(self._texts) == BATCH:
            self._take_in()

    def _take_in(self) -> None:
        exact, row = ngram_hashes_of(self._texts, NGRAM)
        alike, _ = ngram_hashes_of([_DIGITS.sub("0", text) for text in self._texts], NGRAM)
        if self._known is not None:
            kept = self._known.places(alike)
            row, exact, alike = row[kept], exact[kept], alike[kept]
        order = np.lexsort((exact, row))
        row, exact, alike = row[order], exact[order], alike[order]
        new = np.append(True, (row[1:] != row[:-1]) | (exact[1:] != exact[:-1]))[: len(row)]
        self._found.append((row[new] + len(self.ids) - len(self._texts), exact[new], alike[new]))
        self._texts.clear()

    def flat(self) -> tuple[Indices, Array, Array]:
        """Row, hash and hash with digits alike of every n-gram."""
        if self._texts or not self._found:
            self._take_in()
        row, exact, alike = (np.concatenate(parts) for parts in zip(*self._found, strict=True))
        self._found = [(row, exact, alike)]
        return row, exact, alike

    def forget(self, names: Collection[str]) -> None:
        """Leave these rows out again."""
        row, exact, alike = self.flat()
        kept = np.array([name not in names for name in self.ids], bool)
        within = kept[row]
        self._found = [((np.cumsum(kept) - 1)[row[within]], exact[within], alike[within])]
        self.ids, self.wordings = list(compress(self.ids, kept)), list(compress(self.wordings, kept))


class Passages:
    """Collects a set's rows, the held-out ones first, and finds the passages that are on both sides."""

    def __init__(self) -> None:
        self._held_out = _Rows()
        self._wordings: dict[str, int] = {}

    @cached_property
    def _train(self) -> _Rows:
        """Only what held-out rows have too is kept of the training rows."""
        return _Rows(Hashes(self._held_out.flat()[2]))

    def hold_out(self, row: dict[str, Any]) -> None:
        """Take in a held-out row."""
        self._add(self._held_out, row)

    def train(self, row: dict[str, Any]) -> None:
        """Take in a training row."""
        self._add(self._train, row)

    def forget(self, ids: Collection[str]) -> None:
        """Leave these training rows out again."""
        self._train.forget(ids)

    def _add(self, rows: _Rows, row: dict[str, Any]) -> None:
        messages = row["prompt"]
        if row.get("turn"):  # what a conversation is about is in its first message; the turns between are rows too
            messages = [messages[0], messages[-1]]
        text = normalise("\n".join(message["content"] for message in messages))
        rows.add(row["id"], self._wordings.setdefault(row["template"], len(self._wordings)), text)

    def leaks(self, least_share: float = LEAST_SHARE) -> list[Leak]:
        """The pairs of a training row and a held-out row whose passage it has, worst first.

        With a `least_share` of 0 `LEAST_SHARED` n-grams are enough, however long the passage is.
        """
        held_row, held, held_alike = self._held_out.flat()
        train_row, train, train_alike = self._train.flat()
        wording = self._wording_ngrams()
        compared = ~_among(held_alike, wording)
        held_row, held = held_row[compared], held[compared]
        compared = ~_among(train_alike, wording)
        train_row, train = train_row[compared], train[compared]
        order = np.argsort(train, kind="stable")
        train_row, train = train_row[order], train[order]
        first = np.searchsorted(train, held)
        places = np.minimum(np.searchsorted(train, held, side="right") - first, MOST_PLACES)
        within = np.arange(places.sum()) - np.repeat(np.cumsum(places) - places, places)
        pairs, shared = np.unique(
            np.repeat(held_row, places) * len(self._train.ids) + train_row[np.repeat(first, places) + within],
            return_counts=True,
        )
        row, other = np.divmod(pairs, max(len(self._train.ids), 1))
        share = shared / np.bincount(held_row, minlength=len(self._held_out.ids))[row]
        found = [
            Leak(self._train.ids[other[i]], self._held_out.ids[row[i]], float(share[i]))
            for i in np.flatnonzero((shared >= LEAST_SHARED) & (share > least_share)).tolist()
        ]
        return sorted(found, key=lambda leak: (-leak.share, leak.train, leak.held_out))

    def _wording_ngrams(self) -> Array:
        """The n-grams, with digits alike, that are taken for a wording's own, sorted."""
        held_row, _, held = self._held_out.flat()
        train_row, _, train = self._train.flat()
        wordings = np.array(self._held_out.wordings + self._train.wordings, np.int64)
        known, ngram = np.unique(np.concatenate([held, train]), return_inverse=True)
        rows = np.concatenate([held_row, train_row + len(self._held_out.ids)])
        each = distinct(rows * len(known) + ngram)  # once per row
        rows, ngram = np.divmod(each, max(len(known), 1))
        pairs, counts = np.unique(wordings[rows] * len(known) + ngram, return_counts=True)
        wording, ngram = np.divmod(pairs, max(len(known), 1))
        most = np.minimum(np.bincount(wordings)[wording] / 2, MANY_ROWS) if len(wordings) else counts
        # What a single row has is its passage, even if no other row is worded so.
        return known[np.unique(ngram[(counts > 1) & (counts > most)])]


def _among(values: Array, known: Array) -> npt.NDArray[np.bool_]:
    """For each value, whether it is in the sorted array `known`."""
    if not len(known):
        return np.zeros(len(values), bool)
    return known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values
