"""Training rows that hold the passage of a held-out row, found from the rows alone, without their documents.

Rows are compared by the 13-grams of their prompts (of 26 characters in scripts without spaces). An n-gram that more
than half, or more than `MANY_ROWS`, of the rows of one wording have is taken for the wording's own and not compared;
which n-grams those are is told with all digits alike, because a wording may give numbers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from typing import Any, NamedTuple

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


class Ngrams(NamedTuple):
    """Distinct n-grams of rows, (n,) each.

    Equal ones have equal digits too, so that all that is asked here can be asked of one range of `alike` after another.

    Attributes:
        row: number of the row.
        exact: hash.
        alike: hash with all digits alike.
    """

    row: Indices
    exact: Array
    alike: Array

    def at(self, places: npt.NDArray[Any]) -> Ngrams:
        """Those at some places, or where a mask is true."""
        return Ngrams(*(values[places] for values in self))

    def without(self, wording: Array) -> Ngrams:
        """Those that are none of `wording_ngrams`."""
        return self.at(~_among(self.alike, wording))


def joined(parts: Iterable[Ngrams]) -> Ngrams:
    return Ngrams(*map(np.concatenate, zip(*parts, strict=True)))


def ngrams_of(texts: Sequence[str], first: int = 0, known: Hashes | None = None) -> Ngrams:
    """The n-grams of normalised texts, which are the rows `first`, `first` + 1, …; in the order of rows.

    Args:
        known: if given, only n-grams that are in it with digits alike.
    """
    exact, row = ngram_hashes_of(texts, NGRAM)
    alike, _ = ngram_hashes_of([_DIGITS.sub("0", text) for text in texts], NGRAM)
    found = Ngrams(row + first, exact, alike)
    if known is not None:
        found = found.at(known.places(alike))
    found = found.at(np.lexsort((found.exact, found.row)))
    repeated = (found.row[1:] == found.row[:-1]) & (found.exact[1:] == found.exact[:-1])
    return found.at(np.append(True, ~repeated)[: len(found.row)])


def passage_of(row: dict[str, Any]) -> str:
    """The normalised text of a row's prompt, of which the n-grams are compared."""
    messages = row["prompt"]
    if row.get("turn"):  # what a conversation is about is in its first message; the turns between are rows too
        messages = [messages[0], messages[-1]]
    return normalise("\n".join(message["content"] for message in messages))


def wording_ngrams(ngrams: Ngrams, wordings: Indices, totals: Indices) -> Array:
    """The n-grams, with digits alike, that are taken for a wording's own, sorted.

    Args:
        wordings: number of every row's wording.
        totals: how many rows each wording has.
    """
    known, ngram = np.unique(ngrams.alike, return_inverse=True)
    each = distinct(ngrams.row * len(known) + ngram)  # once per row
    rows, ngram = np.divmod(each, max(len(known), 1))
    pairs, counts = np.unique(wordings[rows] * len(known) + ngram, return_counts=True)
    wording, ngram = np.divmod(pairs, max(len(known), 1))
    most = np.minimum(totals[wording] / 2, MANY_ROWS)
    # What a single row has is its passage, even if no other row is worded so.
    return known[np.unique(ngram[(counts > 1) & (counts > most)])]


def shared_ngrams(held_out: Ngrams, train: Ngrams) -> tuple[Indices, Indices, Indices]:
    """Every held-out row and training row that share n-grams, and how many they share; (pairs,) each.

    Of the training rows with one n-gram the first `MOST_PLACES` count.
    """
    held_out = held_out.at(_among(held_out.exact, np.unique(train.exact)))
    train = train.at(np.argsort(train.exact, kind="stable"))
    first = np.searchsorted(train.exact, held_out.exact)
    places = np.minimum(np.searchsorted(train.exact, held_out.exact, side="right") - first, MOST_PLACES)
    within = np.arange(places.sum()) - np.repeat(np.cumsum(places) - places, places)
    rows = int(train.row.max(initial=0)) + 1
    pairs, shared = np.unique(
        np.repeat(held_out.row, places) * rows + train.row[np.repeat(first, places) + within], return_counts=True
    )
    return *np.divmod(pairs, rows), shared


class _Rows:
    """Rows as their distinct n-grams; of those, if `known` is given, only the ones that it holds with digits alike."""

    def __init__(self, known: Hashes | None = None) -> None:
        self.ids: list[str] = []
        self.wordings: list[int] = []
        self._known = known
        self._texts: list[str] = []
        self._found: list[Ngrams] = []

    def add(self, name: str, wording: int, text: str) -> None:
        self.ids.append(name)
        self.wordings.append(wording)
        self._texts.append(text)
        if len(self._texts) == BATCH:
            self._take_in()

    def _take_in(self) -> None:
        self._found.append(ngrams_of(self._texts, len(self.ids) - len(self._texts), self._known))
        self._texts.clear()

    def ngrams(self) -> Ngrams:
        if self._texts or not self._found:
            self._take_in()
        self._found = [joined(self._found)]
        return self._found[0]

    def forget(self, names: Collection[str]) -> None:
        """Leave these rows out again."""
        kept = np.array([name not in names for name in self.ids], bool)
        ngrams = self.ngrams()
        ngrams = ngrams.at(kept[ngrams.row])
        self._found = [ngrams._replace(row=(np.cumsum(kept) - 1)[ngrams.row])]
        self.ids, self.wordings = list(compress(self.ids, kept)), list(compress(self.wordings, kept))


class Passages:
    """Collects a set's rows, the held-out ones first, and finds the passages that are on both sides."""

    def __init__(self) -> None:
        self._held_out = _Rows()
        self._wordings: dict[str, int] = {}
        self._wording: Array | None = None

    @cached_property
    def _known(self) -> Hashes:
        """Only what held-out rows have too is kept of the others."""
        return Hashes(self._held_out.ngrams().alike)

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
        self._wording = None

    def _add(self, rows: _Rows, row: dict[str, Any]) -> None:
        self._wording = None
        rows.add(row["id"], self._wordings.setdefault(row["template"], len(self._wordings)), passage_of(row))

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

    def _wording_ngrams(self) -> Array:
        if self._wording is None:
            wordings = np.array(self._held_out.wordings + self._train.wordings, np.int64)
            train = self._train.ngrams()
            both = joined([self._held_out.ngrams(), train._replace(row=train.row + len(self._held_out.ids))])
            self._wording = wording_ngrams(both, wordings, np.bincount(wordings))
        return self._wording

    def _leaks(self, rows: _Rows, least_share: float) -> list[Leak]:
        wording = self._wording_ngrams()
        held_out = self._held_out.ngrams().without(wording)
        per_row = np.bincount(held_out.row, minlength=len(self._held_out.ids))
        row, other, shared = shared_ngrams(held_out, rows.ngrams().without(wording))
        share = shared / per_row[row]
        found = [
            Leak(rows.ids[other[i]], self._held_out.ids[row[i]], float(share[i]))
            for i in np.flatnonzero(is_leak(shared, share, least_share)).tolist()
        ]
        return sorted(found, key=lambda leak: (-leak.share, leak.train, leak.held_out))


def is_leak(shared: Indices, share: npt.NDArray[np.float64], least_share: float = LEAST_SHARE) -> npt.NDArray[np.bool_]:
    """Whether pairs of rows have a passage in common, by how many n-grams they share and which share that is."""
    return (shared >= LEAST_SHARED) & (share > least_share)


def _among(values: Array, known: Array) -> npt.NDArray[np.bool_]:
    """For each value, whether it is in the sorted array `known`."""
    if not len(known):
        return np.zeros(len(values), bool)
    return known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values
