"""Who said it: which speaker of a dialogue says a given line."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn, shuffled
from data_builders.text.turns import dialogues


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for dialogue in drawn(dialogues(document), rng):
        for name, said in list(drawn(dialogue.turns, rng))[:2]:
            if sum(said == other for _, other in dialogue.turns) == 1:
                fields = {"dialogue": dialogue.text(), "line": said}
                yield Example(fields, name, dialogue.start, dialogue.end, shuffled(dialogue.speakers, rng))


# Of `turns` too, but a look-up: no twin of `next_turn`.
FAMILY = Family("who_said", group="dialogue", kind="text", mine=mine)
