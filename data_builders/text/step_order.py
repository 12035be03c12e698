"""Step order: the shuffled steps of a procedure; the answer is their order.

English: only a list whose introduction speaks of steps is known to have an order.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

from data_builders.cohesion import terms
from data_builders.documents import Document
from data_builders.families import Example, Family, drawn, shuffled
from data_builders.lists import lists

_STEPS = re.compile(r"\b(?:steps?|procedure|algorithm|process|sequence|stages|in (?:this|the following) order)\b", re.I)

# Tells the place of a step by its number or by another step.
_POINTS = re.compile(
    r"\bsteps?\b|\(\d+\)|\b(?:above|below|earlier|previous|preceding|following|first|second|last)\b", re.I
)


def _takes_up(steps: Sequence[str]) -> bool:
    """Whether each step after the first names something that an earlier one named."""
    known = terms(steps[0])
    for step in steps[1:]:
        if known.isdisjoint(terms(step)):
            return False
        known |= terms(step)
    return True


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for found in drawn(lists(document), rng):
        if not found.numbered or not _STEPS.search(found.introduction.rpartition(". ")[2]):
            continue
        steps = found.items[:6]
        # Steps that begin alike are cases of one step.
        if max(Counter(step.split()[0].casefold() for step in steps).values()) * 2 > len(steps):
            continue
        alike = any(a.split()[:2] == b.split()[:2] for a, b in pairwise(steps))
        if alike or any(map(_POINTS.search, steps)) or not _takes_up(steps):
            continue
        order = shuffled(range(len(steps)), rng)
        if order == sorted(order):
            order.reverse()
        shown = "\n".join(f"{number}. {steps[i]}" for number, i in enumerate(order, start=1))
        answer = ", ".join(str(order.index(i) + 1) for i in range(len(steps)))
        fields = {"introduction": found.introduction, "steps": shown, "count": str(len(steps))}
        yield Example(fields, answer, found.start, found.end)


# Held out with `sentence_order`, its near twin.
FAMILY = Family("step_order", group="coherence", kind="text", mine=mine, computed=True)
