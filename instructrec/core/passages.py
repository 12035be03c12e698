"""Training rows that hold the passage of a held-out row, found from the rows alone, without their documents.

Rows are compared by the 13-grams of their prompts (of 26 characters in scripts without spaces). An n-gram that more
than half, or more than `MANY_ROWS`, of the rows of one wording have is taken for the wording's own and not compared;
which n-grams those are is told with all digits alike, because a wording may give numbers.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from instructrec.core.overlap import ngram_hashes, normalise

NGRAM = 13
LEAST_SHARE = 0.5
"""A held-out row leaks if more than this share of its compared n-grams is in one training row."""
LEAST_SHARED = 8
"""Shared n-grams (20 words, if in a row) below which two rows have no more than a phrase in common."""
MANY_ROWS = 8
MOST_PLACES = 64
"""Training rows looked at for one n-gram."""

Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Leak:
    """A training row, and a held-out row of whose compared n-grams it has the given share."""

    train: str
    held_out: str
    share: float


@dataclass
class _Rows:
    """Rows as their n-grams: `exact` hashes, and those with all digits alike."""

    ids: list[str] = field(default_factory=list)
    wordings: list[int] = field(default_factory=list)
    exact: list[Hashes] = field(default_factory=list)
    alike: list[Hashes] = field(default_factory=list)

    def add(self, name: str, wording: int, exact: Hashes, alike: Hashes) -> None:
        self.ids.append(name)
        self.wordings.append(wording)
        self.exact.append(exact)
        self.alike.append(alike)

    @cached_property
    def flat(self) -> tuple[Indices, Hashes, Hashes]:
        """Row, hash and hash with digits alike of every n-gram."""
        rows = np.repeat(np.arange(len(self.ids)), [len(hashes) for hashes in self.exact])
        empty = np.zeros(0, np.uint64)
        return rows, np.concatenate([empty, *self.exact]), np.concatenate([empty, *self.alike])


class Passages:
    """Collects a set's rows, the held-out ones first, and finds the passages that are on both sides."""

    def __init__(self) -> None:
        self._held_out, self._train = _Rows(), _Rows()
        self._wordings: dict[str, int] = {}
        self._known: Hashes | None = None

    def hold_out(self, row: dict[str, Any]) -> None:
        """Take in a held-out row."""
        self._add(self._held_out, row, *_ngrams(row))

    def train(self, row: dict[str, Any]) -> None:
        """Take in a training row: only what held-out rows have too is kept of it."""
        if self._known is None:
            self._known = np.unique(self._held_out.flat[2])
        exact, alike = _ngrams(row)
        kept = _among(alike, self._known)
        self._add(self._train, row, exact[kept], alike[kept])

    def forget(self, ids: Collection[str]) -> None:
        """Leave these training rows out again."""
        old = self._train
        self._train = _Rows()
        for name, wording, exact, alike in zip(old.ids, old.wordings, old.exact, old.alike, strict=True):
            if name not in ids:
                self._train.add(name, wording, exact, alike)

    def _add(self, rows: _Rows, row: dict[str, Any], exact: Hashes, alike: Hashes) -> None:
        rows.add(row["id"], self._wordings.setdefault(row["template"], len(self._wordings)), exact, alike)

    def leaks(self) -> list[Leak]:
        """The pairs of a training row and a held-out row whose passage it has, worst first."""
        held_row, held, held_alike = self._held_out.flat
        train_row, train, train_alike = self._train.flat
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
            for i in np.flatnonzero((shared >= LEAST_SHARED) & (share > LEAST_SHARE)).tolist()
        ]
        return sorted(found, key=lambda leak: (-leak.share, leak.train, leak.held_out))

    def _wording_ngrams(self) -> Hashes:
        """The n-grams, with digits alike, that are taken for a wording's own, sorted."""
        held_row, _, held = self._held_out.flat
        train_row, _, train = self._train.flat
        wordings = np.array(self._held_out.wordings + self._train.wordings, np.int64)
        known, ngram = np.unique(np.concatenate([held, train]), return_inverse=True)
        rows = np.concatenate([held_row, train_row + len(self._held_out.ids)])
        each = np.unique(rows * len(known) + ngram)  # once per row
        rows, ngram = np.divmod(each, max(len(known), 1))
        pairs, counts = np.unique(wordings[rows] * len(known) + ngram, return_counts=True)
        wording, ngram = np.divmod(pairs, max(len(known), 1))
        most = np.minimum(np.bincount(wordings)[wording] / 2, MANY_ROWS) if len(wordings) else counts
        # What a single row has is its passage, even if no other row is worded so.
        return known[np.unique(ngram[(counts > 1) & (counts > most)])]


def _ngrams(row: dict[str, Any]) -> tuple[Hashes, Hashes]:
    """The distinct n-grams of a row's prompt, and the same with all digits alike."""
    text = normalise("\n".join(message["content"] for message in row["prompt"]))
    (exact,) = ngram_hashes(text, NGRAM)
    plain = _DIGITS.sub("0", text)
    alike = exact if plain == text else ngram_hashes(plain, NGRAM)[0]
    exact, first = np.unique(exact, return_index=True)
    return exact, alike[first]


def _among(values: Hashes, known: Hashes) -> npt.NDArray[np.bool_]:
    """For each value, whether it is in the sorted array `known`."""
    if not len(known):
        return np.zeros(len(values), bool)
    return known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values
