"""Intervals and tests: percentile bootstrap over items, paired differences, sign-flip permutation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from instructrec.core.schema import Estimate

RESAMPLES = 10_000


def _resampled_means(values: npt.NDArray[np.float64], seed: int) -> npt.NDArray[np.float64]:
    rng = np.random.Generator(np.random.PCG64(seed))
    means = [
        values[rng.integers(0, len(values), (part, len(values)))].mean(axis=1)
        for part in _parts(RESAMPLES, 10_000_000 // len(values) + 1)
    ]
    return np.concatenate(means)


def _parts(total: int, most: int) -> list[int]:
    return [min(most, total - done) for done in range(0, total, most)]


def mean_with_interval(values: Sequence[float], seed: int = 0) -> Estimate:
    """The mean of per-item values and its 95 % percentile-bootstrap interval (Efron, 1979), items resampled.

    A single item has no interval: its bounds are null.
    """
    array = np.asarray(values, np.float64)
    if len(array) < 2:
        return {"value": float(array.mean()), "ci95": [None, None]}
    low, high = np.percentile(_resampled_means(array, seed), [2.5, 97.5])
    return {"value": float(array.mean()), "ci95": [float(low), float(high)]}


def paired_difference(values: Sequence[float], reference: Sequence[float], seed: int = 0) -> Estimate:
    """The mean of `values - reference` item by item, its interval, and the `p` of a two-sided sign-flip permutation.

    Raises:
        ValueError: the lengths differ, so that the items are not paired.
    """
    differences = np.asarray(values, np.float64) - np.asarray(reference, np.float64)
    estimate = mean_with_interval(differences.tolist(), seed)
    rng = np.random.Generator(np.random.PCG64(seed + 1))
    observed, extreme = abs(differences.sum()), 1
    for part in _parts(RESAMPLES, 10_000_000 // len(differences) + 1):
        signs = rng.integers(0, 2, (part, len(differences)), np.int8) * 2.0 - 1.0
        extreme += int((np.abs(signs @ differences) >= observed - 1e-12).sum())
    return {**estimate, "p": extreme / (RESAMPLES + 1)}
