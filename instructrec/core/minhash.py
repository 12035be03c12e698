"""Near duplicates: signatures of texts and clusters of alike ones, in memory that does not grow with the texts.

One-permutation MinHash (Li, Owen, Zhang 2012): every shingle is hashed once, the hashes are dealt into `SLOTS` bins,
and a bin keeps its minimum; empty bins borrow from the next one (densification, Shrivastava & Li 2014). The share of
equal slots estimates the Jaccard similarity. A shingle is a run of bytes that begins with a word or with a character
beyond ASCII, so that scripts without spaces need no words.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

SLOTS, BANDS, SHINGLE = 64, 16, 24
"""Slots of a signature; bands of candidate search; bytes in a shingle (about five English words)."""

Signatures = npt.NDArray[np.uint32]
_EMPTY = np.uint64(2**64 - 1)
_PLAIN = bytes(ord(chr(b).lower()) if b < 128 and chr(b).isalnum() else b if b >= 128 else 32 for b in range(256))
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def signature(text: str) -> Signatures:
    """`SLOTS` unsigned 32-bit integers, the same for texts that differ in white space or ASCII case and punctuation."""
    raw = np.frombuffer(b" " + text.strip().encode("utf-8", "replace").translate(_PLAIN), np.uint8)
    spaces = raw == 32
    spaces[1:] &= spaces[:-1]
    spaces[0] = False
    raw = raw[~spaces]  # one of each run
    if len(raw) < SHINGLE:
        raw = np.pad(raw, (0, SHINGLE - len(raw)))
    opens = raw[: len(raw) - SHINGLE + 1]
    starts = np.flatnonzero((opens == 32) | (opens >= 0xC0))
    words = np.ndarray((len(raw) - 7,), "<u8", raw, strides=(1,))  # eight bytes from each place on
    hashed = np.zeros(len(starts), np.uint64)
    for offset in range(0, SHINGLE, 8):
        hashed = (hashed ^ (hashed >> np.uint64(32))) * _FACTOR
        hashed ^= words[starts + offset]
    hashed = (hashed ^ (hashed >> np.uint64(29))) * _FACTOR
    hashed = (hashed ^ (hashed >> np.uint64(32))) * _FACTOR
    bins = (hashed >> np.uint64(58)).astype(np.int64)
    minima = np.full(SLOTS, _EMPTY, np.uint64)
    np.minimum.at(minima, bins, hashed << np.uint64(6))
    full = np.flatnonzero(minima != _EMPTY)
    place = np.arange(SLOTS)
    donor = full[np.searchsorted(full, place) % len(full)]
    # The distance is mixed in, so that two texts do not agree merely by borrowing from the same bin.
    distance = ((donor - place) % SLOTS).astype(np.uint64)
    return ((minima[donor] + distance * _FACTOR) >> np.uint64(32)).astype(np.uint32)


def similarity(a: Signatures, b: Signatures) -> float:
    """Estimated Jaccard similarity of the shingle sets behind two signatures, in [0, 1]."""
    return float(np.mean(a == b))


def clusters(signatures: Signatures, threshold: float = 0.7) -> npt.NDArray[np.int64]:
    """For each row of `signatures` (n, SLOTS), the index of the first member of its cluster of near duplicates.

    Rows that agree in one of `BANDS` bands are candidates, and are joined when their estimated similarity reaches
    `threshold`; clusters are the connected components.
    """
    parent = np.arange(len(signatures))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    for group in _candidates(signatures):
        # Comparing each member with the first few of its group joins them all where they belong together.
        for position, i in enumerate(group[1:], start=1):
            for j in group[: min(position, 4)]:
                a, b = root(int(i)), root(int(j))
                if a != b and similarity(signatures[i], signatures[j]) >= threshold:
                    parent[max(a, b)] = min(a, b)
    return np.array([root(i) for i in range(len(parent))], np.int64)


def _candidates(signatures: Signatures) -> Iterator[npt.NDArray[np.int64]]:
    """Groups of two or more rows that agree in a whole band, one band at a time."""
    width = SLOTS // BANDS
    for band in range(BANDS):
        part = np.ascontiguousarray(signatures[:, band * width : (band + 1) * width])
        keys = part.view(np.dtype((np.void, part.dtype.itemsize * width))).ravel()
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        ends = np.append(starts[1:], len(order))
        for run in np.flatnonzero(ends - starts > 1):
            yield order[starts[run] : ends[run]]
