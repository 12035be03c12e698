"""Overlap between texts: normal forms, n-grams and their hashes, and what to look up in another text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from instructrec.core.segmentation import UNSPACED, words

BLOCK = 1 << 15
NGRAM = 13
"""Words in an n-gram that tells an overlap; a character of a script without spaces is half a word."""
FEWEST_WORDS = 5
"""Words (likewise) below which a phrase is too common to say anything."""

_INNER = "'’-_."


def normalise(text: str) -> str:
    """Lower-case words joined by single spaces: what remains equal when only case and punctuation change."""
    return " ".join(words(text.lower()))


def words_only(text: str) -> str:
    """The words of `text` joined by single spaces, without case, punctuation, and compatibility forms (NFKC).

    Marks inside a word go too, so that `don't` is `don’t` and `U.S.` is `US`.
    """
    normalised = normalise(unicodedata.normalize("NFKC", text))
    for mark in _INNER:
        normalised = normalised.replace(mark, "")
    return normalised


def ngrams(text: str, n: int = 13) -> set[tuple[str, ...]]:
    """The set of word n-grams of the normalised text; a shorter text is one n-gram of its own length."""
    tokens = words(text.lower())
    if not tokens:
        return set()
    return {tuple(tokens[i : i + n]) for i in range(max(1, len(tokens) - n + 1))}


@cache
def _unspaced() -> npt.NDArray[np.bool_]:
    """For every code point of the basic plane, whether it counts as a word by itself (see `words`)."""
    table = np.zeros(0x10000, bool)
    table[[ord(c) for c in re.findall(f"[{UNSPACED}]", "".join(map(chr, range(0x10000))))]] = True
    return table


@cache
def _powers(size: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """The first `size` powers of an odd base modulo 2**64, and of its inverse. Few sizes are asked for."""
    base = 0x9E3779B97F4A7C15
    forth, back = (np.full(size, b, np.uint64) for b in (base, pow(base, -1, 2**64)))
    forth[0] = back[0] = 1
    return np.multiply.accumulate(forth), np.multiply.accumulate(back)


def _code(points: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """A random-looking number per character."""
    return _mixed(points.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15))


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """A bijection that spreads every bit (the finaliser of splitmix64), because powers alone leave low bits related."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@cache
def _plane_codes() -> npt.NDArray[np.uint64]:
    """`_code` of the basic plane, which nearly every text stays within."""
    return _code(np.arange(0x10000, dtype=np.uint32))


def ngram_hashes(normalised: str, *sizes: int) -> list[npt.NDArray[np.uint64]]:
    """For every size, 64-bit hashes of the n-grams of a normalised text (words joined by single spaces), in order.

    A character of a script without spaces counts as half a word, so that 13 words are 26 Chinese characters: from its
    first word, an n-gram takes as many words as it needs to weigh `n`. A text that weighs less has none. The hash is
    that of the n-gram's characters, a polynomial modulo 2**64 found for all of them from prefix sums, so equal n-grams
    have equal hashes in every text and every process.
    """
    return [hashes for hashes, _ in _ngrams(normalised, sizes)]


def ngram_hashes_of(texts: Sequence[str], n: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """The hashes of all n-grams of many normalised texts, and the number of the text that each stands in.

    One pass over all of them: for texts of a few hundred words several times as fast as one after the other.
    """
    ((hashes, last),) = _ngrams(" ".join(texts), (n,))
    words_of = np.fromiter((text.count(" ") + 1 for text in texts), np.int64, len(texts))
    text = np.repeat(np.arange(len(texts)), words_of)
    first = text[: len(hashes)]
    within = first == text[last]
    return hashes[within], first[within]


def _ngrams(normalised: str, sizes: Sequence[int]) -> list[tuple[npt.NDArray[np.uint64], Any]]:
    """For every size, the hash and the number of the last word of the n-gram that begins with each word."""
    if not normalised:
        return [(np.zeros(0, np.uint64), slice(0)) for _ in sizes]
    ascii_only = normalised.isascii()
    encoded = normalised.encode() if ascii_only else normalised.encode("utf-32-le", "surrogatepass")
    codes: npt.NDArray[Any] = np.frombuffer(encoded, np.uint8 if ascii_only else np.uint32)
    ends = np.append(np.flatnonzero(codes == 32), len(codes))
    starts = np.empty_like(ends)
    starts[0] = 0
    np.add(ends[:-1], 1, out=starts[1:])
    if not ascii_only:
        first = codes[np.minimum(starts, len(codes) - 1)]
        unspaced = (ends - starts == 1) & (first < 0x10000) & _unspaced()[np.minimum(first, 0xFFFF)]
        weight = np.append(0, np.cumsum(2 - unspaced.astype(np.int64)))
    found = []
    for n in sizes:
        last: Any = slice(n - 1, None)
        if not ascii_only:
            last = np.searchsorted(weight, weight[:-1] + 2 * n) - 1
            last = last[last < len(ends)]
        stops = ends[last]
        hashes = np.empty(len(stops), np.uint64)
        # In blocks, so that a long text needs no more memory than a short one.
        for block in range(0, len(stops), BLOCK):
            begin, stop = starts[block : min(block + BLOCK, len(stops))], stops[block : block + BLOCK]
            hashes[block : block + BLOCK] = _span_hashes(codes[begin[0] : stop[-1]], begin - begin[0], stop - begin[0])
        found.append((hashes, last))
    return found


def _span_hashes(
    codes: npt.NDArray[Any], starts: npt.NDArray[np.intp], ends: npt.NDArray[np.intp]
) -> npt.NDArray[np.uint64]:
    """A hash of every range of characters."""
    forth, back = _powers(1 << max(12, len(codes).bit_length()))
    sums = np.empty(len(codes) + 1, np.uint64)
    sums[0] = 0
    values = _plane_codes()[codes] if codes.dtype == np.uint8 or codes.max() < 0x10000 else _code(codes)
    np.cumsum(values * forth[: len(codes)], out=sums[1:])
    hashes = (sums[ends] - sums[starts]) * back[starts]
    # Powers of an odd number leave the low bits related to each other; spread the high ones.
    hashes ^= hashes >> np.uint64(32)
    hashes *= np.uint64(0xBF58476D1CE4E5B9)
    return hashes


def distinct(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The distinct values, sorted: `np.unique`, which by its hash table is several times slower on millions."""
    values = np.sort(values)
    return values[np.append(True, values[1:] != values[:-1])] if len(values) else values


class Hashes:
    """A set of 64-bit hashes: sorted, with one byte for every value of their leading bits that says if any is there.

    Most hashes asked for are not in the set, and the byte tells so in one step; 8 bytes and 4 to 8 more each.
    """

    def __init__(self, hashes: npt.NDArray[np.uint64]) -> None:
        self.sorted = distinct(hashes)
        bits = max(10, (4 * len(self.sorted)).bit_length())
        self._shift = np.uint64(64 - bits)
        self._some = np.zeros(1 << bits, bool)
        self._some[self.sorted >> self._shift] = True

    def __len__(self) -> int:
        return len(self.sorted)

    def holding(self, values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """Those of `values` that are in the set."""
        return values[self.places(values)]

    def places(self, values: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
        """Where in `values` those stand that are in the set."""
        likely = np.flatnonzero(self._some[values >> self._shift])
        if not len(likely):
            return likely
        asked = values[likely]
        found = np.searchsorted(self.sorted, asked)
        return likely[self.sorted[np.minimum(found, len(self.sorted) - 1)] == asked]


class Phrases:
    """Normalised phrases to be found whole in texts; those of fewer than `FEWEST_WORDS` words are left out."""

    def __init__(self, normalised: Iterable[str]) -> None:
        self._beginning: dict[int, list[str]] = {}
        for phrase in sorted(set(normalised)):
            (heads,) = ngram_hashes(phrase, FEWEST_WORDS)
            if len(heads):
                self._beginning.setdefault(int(heads[0]), []).append(phrase)
        self._heads = Hashes(np.array(list(self._beginning), np.uint64))

    def within(self, text: str, heads: npt.NDArray[np.uint64]) -> Iterator[str]:
        """The phrases that stand in a normalised text, which has the n-gram hashes `heads` of `FEWEST_WORDS` words."""
        padded = f" {text} "
        for head in np.unique(self._heads.holding(heads)).tolist():
            yield from (phrase for phrase in self._beginning[head] if f" {phrase} " in padded)
