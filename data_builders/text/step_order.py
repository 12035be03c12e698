"""Step order: the shuffled steps of a procedure; the answer is their order.

English: only a list whose introduction speaks of steps is known to have an order.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn, shuffled
from data_builders.lists import lists

_STEPS = re.compile(r"\b(?:steps?|procedure|algorithm|process|sequence|stages|in (?:this|the following) order)\b", re.I)


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for found in drawn(lists(document), rng):
        if not found.numbered or not _STEPS.search(found.introduction.rpartition(". ")[2]):
            continue
        steps = found.items[:6]
        # Steps that begin alike are cases of one step.
        if max(Counter(step.split()[0].casefold() for step in steps).values()) * 2 > len(steps):
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
