"""Missing word: which of four words of the same document was left out of a sentence."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, with_options
from data_builders.passages import is_clean, tries
from instructrec.core.segmentation import count_words

# A whole word between spaces: a part of an address would hide the rest of it from the privacy gate.
_WORD = re.compile(r"(?<= )[a-z]{5,}(?= )")


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
        sentence = rng.choice(passage.sentences)
        words = list(_WORD.finditer(sentence))
        if not words or not 8 <= count_words(sentence) <= 40 or not is_clean(sentence):
            continue
        gap = rng.choice(words)
        if sentence.count(gap[0]) != 1:
            continue
        options = with_options(gap[0], [word for word in alike[gap[0][-2:]] if word not in sentence], rng)
        if options is not None and len(options) >= 3:
            asked = f"{sentence[: gap.start()]}____{sentence[gap.end() :]}"
            yield Example({"sentence": asked}, gap[0], passage.start, passage.end, options)


FAMILY = Family("missing_word", group="infilling", kind="text", mine=mine)
