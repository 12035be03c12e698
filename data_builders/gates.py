"""Gates: what an example must pass to become a row. Each has a name under which its rejects are counted and kept."""

from __future__ import annotations

import re
from collections.abc import Callable

from data_builders.families import Example, Family
from instructrec.core.language import identify
from instructrec.core.overlap import normalise
from instructrec.core.segmentation import count_words, words

MOST_PROMPT_WORDS = 400
LEAST_PROSE = 60
"""Characters from which the language of an answer can be told."""

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def empty(family: Family, example: Example, prompt: str) -> bool:
    """An answer or a prompt without a single letter or digit."""
    return not words(example.answer) or not words(prompt)


def long(family: Family, example: Example, prompt: str) -> bool:
    """A prompt that a small model's context would cut."""
    return count_words(prompt) > MOST_PROMPT_WORDS


def leak(family: Family, example: Example, prompt: str) -> bool:
    """An open answer that stands in its own prompt, unless the family is extractive."""
    if family.extractive or example.options is not None:
        return False
    return f" {normalise(example.answer)} " in f" {normalise(prompt)} "


def unanswerable(family: Family, example: Example, prompt: str) -> bool:
    """A choice without its answer among the options, or with options that differ only in case."""
    if example.options is None:
        return False
    folded = {option.casefold().strip() for option in example.options}
    return example.answer not in example.options or len(folded) != len(example.options)


def trivial(family: Family, example: Example, prompt: str) -> bool:
    """An answer that copies all of an input, or is many times longer than everything that was given.

    In an extractive family a change of case, punctuation or layout alone may be what is asked for.
    """
    form: Callable[[str], str] = str.strip if family.extractive else normalise
    if form(example.answer) in map(form, example.fields.values()):
        return True
    return len(example.answer) > 4 * sum(map(len, example.fields.values())) + 200


def ungrounded(family: Family, example: Example, prompt: str) -> bool:
    """An open answer in prose with a number that the prompt does not give, unless answers are computed."""
    if family.kind != "text" or family.computed or example.options is not None:
        return False
    given = set(_NUMBER.findall(prompt))
    return any(number not in given for number in _NUMBER.findall(example.answer))


def foreign(family: Family, example: Example, prompt: str, language: str = "en") -> bool:
    """An answer in prose, long enough to tell, in another language than the document's."""
    if family.kind != "text" or len(example.answer) < LEAST_PROSE:
        return False
    return identify(example.answer) not in (language, None)


ROW_GATES: dict[str, Callable[[Family, Example, str], bool]] = {
    "empty": empty,
    "long": long,
    "leak": leak,
    "unanswerable": unanswerable,
    "trivial": trivial,
    "ungrounded": ungrounded,
}
"""Gates that look at one rendered example."""

GATE_NAMES = (*ROW_GATES, "foreign", "majority", "privacy", "contamination", "duplicate", "near_duplicate")
"""Every gate. `majority` thins an answer that would be more than half of its family's, `privacy` masks or drops secrets
and personal data, `contamination` rejects rows that overlap with evaluations, `duplicate` a prompt that came before,
`near_duplicate` a document much like one that comes first."""


def rejected_by(
    family: Family, example: Example, prompt: str, language: str, enabled: frozenset[str] = frozenset(GATE_NAMES)
) -> str | None:
    """The name of the first row gate that rejects the example as worded in `prompt`, or null."""
    for name, gate in ROW_GATES.items():
        if name in enabled and gate(family, example, prompt):
            return name
    if "foreign" in enabled and foreign(family, example, prompt, language):
        return "foreign"
    return None
