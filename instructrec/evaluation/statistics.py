"""Intervals and tests: bootstraps over items and over clusters of items, sign-flip permutation, Holm's correction."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from instructrec.core.schema import Estimate

RESAMPLES = 10_000
F1_RESAMPLES = 2_000
EXACT_GROUPS = 12
"""Up to so many groups all signs are tried."""


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


def clustered_mean(values: Sequence[float], groups: Sequence[str], seed: int = 0) -> Estimate:
    """The mean of per-item values and its 95 % interval, groups of items resampled as `compare_clustered` does.

    With a single group it is the interval over items.

    Args:
        groups: the group of each item.
    """
    array, (names, place) = np.asarray(values, np.float64), np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        return mean_with_interval(values, seed)
    value, sums = float(array.mean()), np.bincount(place, array, len(names)).astype(np.float64)[None]
    return {"value": value, "ci95": list(_clustered_interval(sums, np.bincount(place), value, seed))}


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


Groups = Sequence[Sequence[str]]
"""Labels of items that come in groups, each group with labels of its own."""


def macro_f1(gold: Groups, guesses: Groups, seed: int = 0) -> Estimate:
    """F1 averaged over the labels of each group, then over groups by size; its interval resamples items in groups.

    A label that is neither given nor right does not count (as in scikit-learn).
    """
    value, resampled = _macro_f1(gold, guesses, seed)
    low, high = np.percentile(resampled, [2.5, 97.5])
    return {"value": value, "ci95": [float(low), float(high)]}


def macro_f1_difference(gold: Groups, guesses: Groups, reference: Groups, seed: int = 0) -> Estimate:
    """The difference of two macro-F1 on the same items, its interval, and the `p` of swapping the two models' guesses.

    Under the null hypothesis any item's two guesses could be swapped, which is tried at random.
    """
    value, resampled = _macro_f1(gold, guesses, seed)
    other, others = _macro_f1(gold, reference, seed)
    low, high = np.percentile(resampled - others, [2.5, 97.5])
    rng = np.random.Generator(np.random.PCG64(seed + 1))
    swapped = np.zeros(F1_RESAMPLES)
    for group in zip(gold, guesses, reference, strict=True):
        right, a, b = _coded(*group)
        swap = rng.integers(0, 2, (F1_RESAMPLES, len(right)), np.int8) == 1
        swapped += len(right) * (_f1(right, np.where(swap, b, a)) - _f1(right, np.where(swap, a, b)))
    extreme = 1 + int((np.abs(swapped / sum(map(len, gold))) >= abs(value - other) - 1e-12).sum())
    return {"value": value - other, "ci95": [float(low), float(high)], "p": extreme / (F1_RESAMPLES + 1)}


def _macro_f1(gold: Groups, guesses: Groups, seed: int) -> tuple[float, npt.NDArray[np.float64]]:
    """The value, and (F1_RESAMPLES,) values of resampled items: the same items for every model of one seed."""
    rng = np.random.Generator(np.random.PCG64(seed))
    value, resampled = 0.0, np.zeros(F1_RESAMPLES)
    for group in zip(gold, guesses, strict=True):
        right, guessed = _coded(*group)
        drawn = rng.integers(0, len(right), (F1_RESAMPLES, len(right)))
        value += len(right) * float(_f1(right, guessed[None])[0])
        resampled += len(right) * _f1(right[drawn], guessed[drawn])
    total = sum(map(len, gold))
    return value / total, resampled / total


def _coded(*labels: Sequence[str]) -> list[npt.NDArray[np.intp]]:
    """Parallel sequences of labels as numbers, the same number for the same label."""
    codes = np.unique(np.concatenate([np.asarray(each) for each in labels]), return_inverse=True)[1]
    return np.split(codes, len(labels))


def _f1(right: npt.NDArray[np.intp], guessed: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """(draws,) macro-F1 of guesses (draws, items) for answers (items,) or (draws, items)."""
    totals, present = np.zeros(len(guessed)), np.zeros(len(guessed))
    for label in range(1 + max(int(right.max()), int(guessed.max()))):
        is_right, is_guess = np.broadcast_to(right == label, guessed.shape), guessed == label
        twice = 2.0 * (is_right & is_guess).sum(axis=1)
        either = is_right.sum(axis=1) + is_guess.sum(axis=1)
        totals += np.divide(twice, either, out=np.zeros_like(twice), where=either > 0)
        present += either > 0
    return totals / present


@dataclass(frozen=True)
class Comparison:
    """A paired difference between two models over clustered items.

    Attributes:
        value: mean difference over items and seeds.
        ci95: its hierarchical-bootstrap interval; null with fewer than two groups.
        p: of the sign-flip permutation of whole groups; at least 2 / 2**groups.
        items, groups, seeds: how many there were.
        needed: items that would show half this difference with 80 % power at the 5 % level, if they came in groups like
            these; null where nothing differs.
    """

    value: float
    ci95: tuple[float, float] | None
    p: float
    items: int
    groups: int
    seeds: int
    needed: int | None


def compare_clustered(
    values: Sequence[Sequence[float]], reference: Sequence[Sequence[float]], groups: Sequence[str], seed: int = 0
) -> Comparison:
    """Compare a model with a reference on the same items, which come in groups (families, categories).

    The bootstrap draws seeds, and groups with all their items: the same groups for every seed, since the seeds answer
    the same items. Drawing items again within a drawn group would count their noise twice (Davison & Hinkley, 1997,
    §3.8): with 6 groups such intervals held the truth in 99 of 100 simulations. With few groups the percentile interval
    is too narrow, so its distance from the estimate is widened by √(K/(K − 1)) · t(K − 1)/z, as for a mean of K group
    means. The test flips the sign of all of a group's differences together: under the null hypothesis a group favours
    either model alike.

    Args:
        values, reference: (seeds, items) scores; runs of one training seed are paired.
        groups: the group of each item.

    Raises:
        ValueError: the shapes differ, or nothing is there.
    """
    differences = np.asarray(values, np.float64) - np.asarray(reference, np.float64)
    if differences.ndim != 2 or differences.shape[1] != len(groups) or not differences.size:
        raise ValueError(f"{differences.shape} differences for {len(groups)} items")
    names, place = np.unique(np.asarray(groups), return_inverse=True)
    sizes = np.bincount(place)
    value = float(differences.mean())
    sums = np.stack([np.bincount(place, row, len(names)).astype(np.float64) for row in differences])
    by_group = sums.mean(axis=0)
    return Comparison(
        value=value,
        ci95=_clustered_interval(sums, sizes, value, seed) if len(names) > 1 else None,
        p=_sign_flip(by_group, seed + 1),
        items=len(groups),
        groups=len(names),
        seeds=len(differences),
        needed=_items_needed(by_group, sizes, value),
    )


def _clustered_interval(
    sums: npt.NDArray[np.float64], sizes: npt.NDArray[np.intp], value: float, seed: int
) -> tuple[float, float]:
    """The widened percentile interval around `value`, from the sums (seeds, groups) and the sizes of the groups."""
    low, high = np.percentile(_hierarchical_means(sums, sizes, seed), [2.5, 97.5])
    k = len(sizes)
    widen = math.sqrt(k / (k - 1)) * stats.t.ppf(0.975, k - 1) / stats.norm.ppf(0.975)
    return value + (float(low) - value) * widen, value + (float(high) - value) * widen


def _hierarchical_means(
    sums: npt.NDArray[np.float64], sizes: npt.NDArray[np.intp], seed: int
) -> npt.NDArray[np.float64]:
    """(RESAMPLES,) means over items, from the sums (seeds, groups) and the sizes of the groups."""
    rng = np.random.Generator(np.random.PCG64(seed))
    seeds, groups = sums.shape
    means = []
    for part in _parts(RESAMPLES, 5_000_000 // (seeds * groups) + 1):
        runs = rng.integers(0, seeds, (part, seeds, 1))
        chosen = rng.integers(0, groups, (part, 1, groups))
        means.append(sums[runs, chosen].sum(axis=(1, 2)) / (seeds * sizes[chosen].sum(axis=(1, 2))))
    return np.concatenate(means)


def _sign_flip(totals: npt.NDArray[np.float64], seed: int) -> float:
    """Two-sided p of the sum of `totals` when each one's sign is arbitrary: over all signs, or a sample of them."""
    observed = abs(totals.sum()) - 1e-12
    if len(totals) <= EXACT_GROUPS:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(totals))))
        return float((np.abs(signs @ totals) >= observed).mean())
    rng = np.random.Generator(np.random.PCG64(seed))
    extreme = 1
    for part in _parts(RESAMPLES, 10_000_000 // len(totals) + 1):
        signs = rng.integers(0, 2, (part, len(totals)), np.int8) * 2.0 - 1.0
        extreme += int((np.abs(signs @ totals) >= observed).sum())
    return extreme / (RESAMPLES + 1)


def _items_needed(totals: npt.NDArray[np.float64], sizes: npt.NDArray[np.intp], value: float) -> int | None:
    """Items for 80 % power to find half of `value`, from the spread between groups (Miller, 2024, for clusters)."""
    if len(totals) < 2 or not value:
        return None
    # The variance of a mean over clusters, times the items it came from.
    variance = float(((totals - value * sizes) ** 2).sum()) / sizes.sum() * len(totals) / (len(totals) - 1)
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    return math.ceil(variance * (z / (value / 2)) ** 2)


def holm(p: Sequence[float]) -> list[float]:
    """P-values adjusted for all comparisons made (Holm, 1979): the chance that any of them is a false alarm."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = highest
    return adjusted
