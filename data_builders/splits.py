"""The hold-out contract: documents first (near duplicates on one side), then templates, then whole groups of families.

Every choice is by a hash of names and the seed, or by a rank among such hashes: never by an order of arrival.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from data_builders.families import Family, Template
from instructrec.core.overlap import Signature, near_duplicate_clusters
from instructrec.core.schema import TRAIN, VALIDATION

TEST = "test"
"""The side of the documents from which the three held-out splits are made."""


def hashed(*parts: object) -> int:
    """A 64-bit integer that depends on the parts alone, the same in every process."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


@dataclass(frozen=True, slots=True)
class Unit:
    """What is held out as one: all documents of a file (or one topic). `kind` is `text` or `code`."""

    name: str
    kind: str
    signature: Signature


def assign_documents(
    units: Sequence[Unit], seed: int, validation: float, test: float
) -> tuple[dict[str, str], list[list[str]]]:
    """Put every unit on one side: `train`, `validation` or `test`.

    Clusters of near duplicates go together; within each kind of document clusters are ranked by a hash and the first
    shares go to test and validation. Training keeps at least one cluster of a kind.

    Returns:
        unit name → side, and the clusters of two or more names.
    """
    units = sorted(units, key=lambda unit: unit.name)
    clusters: dict[int, list[Unit]] = {}
    for unit, cluster in zip(units, near_duplicate_clusters(u.signature for u in units), strict=True):
        clusters.setdefault(cluster, []).append(unit)
    sides: dict[str, str] = {}
    for kind in sorted({unit.kind for unit in units}):
        ranked = sorted(
            (members for members in clusters.values() if members[0].kind == kind),
            key=lambda members: hashed(seed, "document", members[0].name),
        )
        # A share that is asked for gets at least one document as soon as training can spare it.
        n_test = min(max(1, round(test * len(ranked))) if test else 0, len(ranked) - 1)
        n_validation = min(max(1, round(validation * len(ranked))) if validation else 0, len(ranked) - 1 - n_test)
        for rank, members in enumerate(ranked):
            side = TEST if rank < n_test else VALIDATION if rank < n_test + n_validation else TRAIN
            sides.update((unit.name, side) for unit in members)
    return sides, [[unit.name for unit in members] for members in clusters.values() if len(members) > 1]


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
