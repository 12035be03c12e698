"""Training rows that hold the passage of a held-out row, found from the rows alone, without their documents.

Rows are compared by the 13-grams of their prompts (of 26 characters in scripts without spaces). An n-gram that more
than half, or more than `MANY_ROWS`, of the rows of one wording have is taken for the wording's own and not compared;
which n-grams those are is told with all digits alike, because a wording may give numbers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
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
        self._compared: tuple[Array, Indices, Array] | None = None

    @cached_property
    def _known(self) -> Hashes:
        """Only what held-out rows have too is kept of the others."""
        return Hashes(self._held_out.flat()[2])

    @cached_property
    def _train(self) -> _Rows:
        return _Rows(self._known)

    def hold_out(self, row: dict[str, Any]) -> None:
        """Take in a held-out row."""
        self._add(self._held_out, row)

    def train(self, row: dict[str, Any]) -> None:
        """Take in a training row."""
        self._add(self._train, row)

    def forget(self, ids: Collection[str]) -> None:
        """Leave these training rows out again."""
        self._train.forget(ids)
        self._compared = None

    def _add(self, rows: _Rows, row: dict[str, Any]) -> None:
        self._compared = None
        messages = row["prompt"]
        if row.get("turn"):  # what a conversation is about is in its first message; the turns between are rows too
            messages = [messages[0], messages[-1]]
        text = normalise("\n".join(message["content"] for message in messages))
        rows.add(row["id"], self._wordings.setdefault(row["template"], len(self._wordings)), text)

    def leaks(self) -> list[Leak]:
        """The pairs of a training row and a held-out row whose passage it has, worst first."""
        return self._leaks(self._train, LEAST_SHARE)

    def leaking(self, texts: Sequence[str]) -> set[int]:
        """The places of those texts, of no set and in nobody's wording, that share a passage with a held-out row.

        `LEAST_SHARED` n-grams are enough, however long the passage is.
        """
        rows = _Rows(self._known)
        for place, text in enumerate(texts):
            rows.add(str(place), -1, normalise(text))
        found: set[str] = set()
        while names := {leak.train for leak in self._leaks(rows, 0)}:
            rows.forget(names)
            found |= names
        return set(map(int, found))

    def _held_out_compared(self) -> tuple[Array, Indices, Array]:
        """The wordings' own n-grams, and row and hash of every other n-gram of the held-out rows."""
        if self._compared is None:
            wording = self._wording_ngrams()
            row, exact, alike = self._held_out.flat()
            compared = ~_among(alike, wording)
            self._compared = wording, row[compared], exact[compared]
        return self._compared

    def _leaks(self, rows: _Rows, least_share: float) -> list[Leak]:
        wording, held_row, held = self._held_out_compared()
        train_row, train, train_alike = rows.flat()
        compared = ~_among(train_alike, wording)
        train_row, train = train_row[compared], train[compared]
        per_row = np.bincount(held_row, minlength=len(self._held_out.ids))
        shared_too = _among(held, np.unique(train))
        held_row, held = held_row[shared_too], held[shared_too]
        order = np.argsort(train, kind="stable")
        train_row, train = train_row[order], train[order]
        first = np.searchsorted(train, held)
        places = np.minimum(np.searchsorted(train, held, side="right") - first, MOST_PLACES)
        within = np.arange(places.sum()) - np.repeat(np.cumsum(places) - places, places)
        pairs, shared = np.unique(
            np.repeat(held_row, places) * len(rows.ids) + train_row[np.repeat(first, places) + within],
            return_counts=True,
        )
        row, other = np.divmod(pairs, max(len(rows.ids), 1))
        share = shared / per_row[row]
        found = [
            Leak(rows.ids[other[i]], self._held_out.ids[row[i]], float(share[i]))
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
