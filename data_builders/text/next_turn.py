"""Next turn: which of four lines of the same document is said next in a dialogue."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn, with_options
from data_builders.text.turns import LEAST_TURNS, dialogues


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    found = dialogues(document)
    for dialogue in drawn(found, rng):
        place = rng.randrange(LEAST_TURNS - 1, len(dialogue.turns))
        name, said = dialogue.turns[place]
        shown = {line for _, line in dialogue.turns[:place]}
        # The others answer something else, elsewhere in the document.
        others = [line for other in found if other is not dialogue for _, line in other.turns[1:] if line not in shown]
        options = with_options(said, others, rng)
        if options is not None and len(options) >= 3:
            yield Example(
                {"dialogue": dialogue.text(place), "speaker": name}, said, dialogue.start, dialogue.end, options
            )


# As `continuation`, of turns instead of sentences.
FAMILY = Family("next_turn", group="coherence", kind="text", mine=mine)
