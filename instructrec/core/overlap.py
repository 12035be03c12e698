"""Overlap between texts: n-grams, MinHash signatures and near-duplicate clusters.

MinHash (Broder 1997) estimates the Jaccard similarity of two shingle sets as the share of equal signature slots;
banding (LSH) finds candidate pairs without comparing all of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from instructrec.core.segmentation import words

SLOTS, BANDS, SHINGLE = 64, 16, 5
Signature = npt.NDArray[np.uint64]

_generator = np.random.Generator(np.random.PCG64(20240607))
_MULTIPLY = _generator.integers(1, 2**63, SLOTS, dtype=np.uint64) | np.uint64(1)
_ADD = _generator.integers(0, 2**63, SLOTS, dtype=np.uint64)
_POWERS = np.uint64(6364136223846793005) ** np.arange(SHINGLE, dtype=np.uint64)


def normalise(text: str) -> str:
    """Lower-case words joined by single spaces: what remains equal when only case and punctuation change."""
    return " ".join(words(text.lower()))


def ngrams(text: str, n: int = 13) -> set[tuple[str, ...]]:
    """The set of word n-grams of the normalised text; a shorter text is one n-gram of its own length."""
    tokens = words(text.lower())
    if not tokens:
        return set()
    return {tuple(tokens[i : i + n]) for i in range(max(1, len(tokens) - n + 1))}


def signature(text: str) -> Signature:
    """The MinHash signature of `text` over word 5-grams: `SLOTS` unsigned 64-bit integers."""
    tokens = words(text.lower())
    hashes = np.fromiter((zlib.crc32(token.encode()) for token in tokens), np.uint64, len(tokens))
    if len(hashes) < SHINGLE:
        hashes = np.pad(hashes, (0, SHINGLE - len(hashes)))
    with np.errstate(over="ignore"):
        shingles = np.unique(np.lib.stride_tricks.sliding_window_view(hashes, SHINGLE) @ _POWERS)
        minima = np.full(SLOTS, np.iinfo(np.uint64).max, np.uint64)
        for part in np.array_split(shingles, len(shingles) // 4096 + 1):
            mixed = part[:, None] * _MULTIPLY + _ADD
            mixed ^= mixed >> np.uint64(29)
            minima = np.minimum(minima, mixed.min(axis=0))
    return minima


def similarity(a: Signature, b: Signature) -> float:
    """Estimated Jaccard similarity of the shingle sets behind two signatures, in [0, 1]."""
    return float(np.mean(a == b))


def near_duplicate_clusters(signatures: Iterable[Signature], threshold: float = 0.7) -> list[int]:
    """For each signature, the index of the first member of its cluster of near duplicates.

    Candidates share an LSH band and are joined when their estimated Jaccard similarity reaches `threshold`; clusters
    are the connected components, so the result does not depend on the order in which pairs are met.
    """
    rows = list(signatures)
    parent = list(range(len(rows)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    width = SLOTS // BANDS
    buckets: dict[tuple[int, bytes], list[int]] = {}
    for i, row in enumerate(rows):
        for band in range(BANDS):
            members = buckets.setdefault((band, row[band * width : (band + 1) * width].tobytes()), [])
            # A few representatives per bucket are enough: members join them, hence each other.
            for j in members[:8]:
                a, b = root(i), root(j)
                if a != b and similarity(row, rows[j]) >= threshold:
                    parent[max(a, b)] = min(a, b)
            members.append(i)
    return [root(i) for i in range(len(rows))]
