"""Gates: what a rendered example must pass to become a row. Each has a name under which its rejects are counted."""

from __future__ import annotations

from collections.abc import Callable

from data_builders.families import Example, Family
from instructrec.core.overlap import normalise
from instructrec.core.segmentation import words

MOST_PROMPT_WORDS = 400

Gate = Callable[[Family, Example, str], bool]


def empty(family: Family, example: Example, prompt: str) -> bool:
    """Reject an answer or a prompt without a single letter or digit."""
    return not words(example.answer) or not words(prompt)


def long(family: Family, example: Example, prompt: str) -> bool:
    """Reject a prompt that a small model's context would cut."""
    return len(words(prompt)) > MOST_PROMPT_WORDS


def leak(family: Family, example: Example, prompt: str) -> bool:
    """Reject an open answer that stands in its own prompt, unless the family is extractive."""
    if family.extractive or example.options is not None:
        return False
    answer = normalise(example.answer)
    return f" {answer} " in f" {normalise(prompt)} "


def unanswerable(family: Family, example: Example, prompt: str) -> bool:
    """Reject a choice without its answer among the options, or with options that differ only in case."""
    if example.options is None:
        return False
    folded = {option.casefold().strip() for option in example.options}
    return example.answer not in example.options or len(folded) != len(example.options)


def unseparated(family: Family, example: Example, prompt: str) -> bool:
    """Reject an extractive answer that is all of what it was extracted from."""
    return family.extractive and any(normalise(v) == normalise(example.answer) for v in example.fields.values())


GATES: dict[str, Gate] = {
    "empty": empty,
    "long": long,
    "leak": leak,
    "unanswerable": unanswerable,
    "unseparated": unseparated,
}


def rejected_by(family: Family, example: Example, prompt: str) -> str | None:
    """The name of the first gate that rejects the example as worded in `prompt`, or null."""
    return next((name for name, gate in GATES.items() if gate(family, example, prompt)), None)
