"""The hold-out contract: documents first (near duplicates on one side), then templates, then whole groups of families.

Every choice is by a hash of names and the seed, or by a rank among such hashes: never by an order of arrival.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_builders.families import Family, Template
from instructrec.core.hashing import hashed as hashed
from instructrec.core.minhash import Signatures, clusters
from instructrec.core.schema import TRAIN, VALIDATION

TEST = "test"
"""The side of the documents from which the three held-out splits are made."""


def assign_units(
    names: Sequence[str], kinds: Sequence[str], signatures: Signatures, seed: int, validation: float, test: float
) -> tuple[list[str], list[int]]:
    """Put every unit (a file, or one topic or record of a file) on one side: `train`, `validation` or `test`.

    Clusters of near duplicates go together; within each kind of document clusters are ranked by a hash and the first
    shares go to test and validation. Training keeps at least one cluster of a kind.

    Args:
        names, kinds, signatures: of the units, in one order.
        validation, test: shares of the clusters.

    Returns:
        The side of each unit, and the first member of each unit's cluster.
    """
    first = clusters(signatures)
    heads = first == np.arange(len(first))
    sides = [TRAIN] * len(names)
    for kind in sorted(set(kinds)):
        members = np.flatnonzero(heads & np.fromiter((k == kind for k in kinds), bool, len(kinds)))
        ranks = np.fromiter((hashed(seed, "document", names[i]) for i in members.tolist()), np.uint64, len(members))
        members = members[np.argsort(ranks, kind="stable")]
        # A share that is asked for gets at least one document as soon as training can spare it.
        n_test = min(max(1, round(test * len(members))) if test else 0, max(len(members) - 1, 0))
        n_validation = max(1, round(validation * len(members))) if validation else 0
        n_validation = min(n_validation, max(len(members) - 1 - n_test, 0))
        for rank, i in enumerate(members[: n_test + n_validation]):
            sides[i] = TEST if rank < n_test else VALIDATION
    return [sides[i] for i in first], first.tolist()


def likely_side(name: str, seed: int, validation: float, test: float) -> str:
    """The side on which `assign_units` will put a unit of a large corpus, told from the unit alone.

    The same hash decides, but by its value instead of its rank, so that a few units at the borders change sides.
    """
    place = hashed(seed, "document", name) / 2**64
    return TEST if place < test else VALIDATION if place < test + validation else TRAIN


def held_out_templates(family: Family, language: str, seed: int, share: float) -> set[str]:
    """The names of the wordings kept for `test_templates`: a share of those answered by letter and of the others.

    Splitting both kinds alike keeps an unseen wording from also being an unseen answer format. A kind with a single
    wording is never held out.
    """
    held: set[str] = set()
    for letter in (False, True):
        names = [t.name for t in family.templates.get(language, []) if t.letter == letter]
        names.sort(key=lambda name: hashed(seed, "template", name))
        held.update(names[: min(max(1, round(share * len(names))), len(names) - 1)] if len(names) > 1 and share else [])
    return held


def pick(templates: Sequence[Template], *key: object) -> Template:
    """One of the templates, by a hash of `key`."""
    return templates[hashed(*key) % len(templates)]
