"""Missing word: which of four words of the same document was left out of a sentence."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn, with_options
from data_builders.passages import is_clean, tries
from instructrec.core.segmentation import count_words

# A whole word: a part of a name or an address would hide the rest from the privacy gate.
_WORD = re.compile(r"(?<![^\s(\"'“‘])[a-z]{5,}(?=[\s.,;:!?)\"'’”]|\Z)(?![.:]\w)")


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    found = list(tries(document, rng))
    vocabulary = sorted({word for passage in found[:8] for word in _WORD.findall(passage.text)})
    if len(vocabulary) < 12:
        return
    # Alike in ending, so that grammar alone does not give the answer away.
    alike: dict[str, list[str]] = defaultdict(list)
    for word in vocabulary:
        alike[word[-2:]].append(word)
    for passage in found:
        for sentence in islice(drawn(passage.sentences, rng), 1):
            found_words = list(_WORD.finditer(sentence))
            if not is_clean(sentence) or not 8 <= count_words(sentence) <= 40 or not found_words:
                continue
            gap, inside = rng.choice(found_words), [word[0] for word in found_words]
            answer = gap[0]
            if inside.count(answer) != 1:
                continue
            options = with_options(answer, [word for word in alike[answer[-2:]] if word not in inside], rng)
            if options is not None and len(options) >= 3:
                asked = f"{sentence[: gap.start()]}____{sentence[gap.end() :]}"
                yield Example({"sentence": asked}, answer, passage.start, passage.end, options)


FAMILY = Family("missing_word", group="infilling", kind="text", mine=mine)
