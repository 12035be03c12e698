"""Checkable statements that are true of a text: what `constraints` and `constrained_quote` ask for.

A statement is worded in English, as what an answer "must" do, and comes with the checks of `instructrec.core.checks`
that say the same. Where one can count in two ways, the statement holds for both.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from data_builders.families import shuffled
from data_builders.text.count_occurrences import counted
from data_builders.text.prose import is_simple, long_words, vocabulary
from instructrec.core.segmentation import words

Check = dict[str, Any]
_WORD = re.compile(r"\w+")
_COMMA = re.compile("[,，﹐、،]")


class Fact(NamedTuple):
    """A statement that completes "The answer must …", and the checks that a text of which it is true passes."""

    wording: str
    checks: list[Check]


def _check(name: str, **args: Any) -> Check:
    return {"name": name, "args": args}


def _contains(text: str, others: Sequence[str], rng: random.Random) -> Fact | None:
    found = [match[0] for match in long_words(text)]
    if not found:
        return None
    word = rng.choice(found)
    return Fact(f'contain the word "{word}"', [_check("keywords:existence", keywords=[word])])


def _contains_both(text: str, others: Sequence[str], rng: random.Random) -> Fact | None:
    found = vocabulary(text)
    if len(found) < 2:
        return None
    both = rng.sample(found, 2)
    return Fact(f'use both "{both[0]}" and "{both[1]}"', [_check("keywords:existence", keywords=both)])


def _avoids(text: str, others: Sequence[str], rng: random.Random) -> Fact | None:
    absent = [word for word in others if word not in text.lower()]
    if not absent:
        return None
    chosen = rng.sample(absent, min(len(absent), rng.randint(1, 3)))
    named = '" or "'.join(chosen)
    return Fact(f'not use "{named}"', [_check("keywords:forbidden_words", forbidden_words=chosen)])


def _uses_often(text: str, others: Sequence[str], rng: random.Random) -> Fact | None:
    often = [(word, n) for word, n in counted(text).items() if n >= 2]
    if not often:
        return None
    word, n = rng.choice(often)
    args = {"keyword": word, "frequency": n, "relation": "at least"}
    return Fact(f'use the word "{word}" at least {n} times', [_check("keywords:frequency", **args)])


def _uses_seldom(text: str, others: Sequence[str], rng: random.Random) -> Fact | None:
    counts = counted(text)
    if not counts:
        return None
    word, n = rng.choice(sorted(counts.items()))
    args = {"keyword": word, "frequency": n + 1, "relation": "less than"}
    return Fact(f'use the word "{word}" fewer than {n + 1} times', [_check("keywords:frequency", **args)])


def _has_letter(text: str, others: Sequence[str], rng: random.Random) -> Fact | None:
    counts = {letter: text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"}
    letter = rng.choice([letter for letter, n in counts.items() if n >= 2] or ["e"])
    n = counts[letter] - rng.randrange(2)
    if n < 1:
        return None
    args = {"letter": letter, "let_frequency": n, "let_relation": "at least"}
    times = "once" if n == 1 else f"{n} times"
    return Fact(f'have the letter "{letter}" at least {times}', [_check("keywords:letter_frequency", **args)])


def _few_letters(text: str, others: Sequence[str], rng: random.Random) -> Fact | None:
    letter = rng.choice("abcdefghijklmnoprstuvwy")
    n = text.lower().count(letter) + rng.randint(1, 2)
    if n < 2:
        return None
    args = {"letter": letter, "let_frequency": n, "let_relation": "less than"}
    return Fact(f'have fewer than {n} letters "{letter}"', [_check("keywords:letter_frequency", **args)])


def _without_letter(text: str, others: Sequence[str], rng: random.Random) -> Fact | None:
    absent = [letter for letter in "abcdefghijklmnopqrstuvwxyz" if letter not in text.lower()]
    if not absent:
        return None
    args = {"letter": (letter := rng.choice(absent)), "let_frequency": 1, "let_relation": "less than"}
    return Fact(f'do without the letter "{letter}"', [_check("keywords:letter_frequency", **args)])


def _counts(text: str) -> tuple[int, int]:
    """The least and the most words that one can count."""
    both = len(_WORD.findall(text)), len(text.split())
    return min(both), max(both)


def _at_least_words(text: str, others: Sequence[str], rng: random.Random) -> Fact | None:
    n = _counts(text)[0] - rng.randint(0, 4)
    args = {"num_words": n, "relation": "at least"}
    return Fact(f"have at least {n} words", [_check("length_constraints:number_words", **args)]) if n > 3 else None


def _fewer_words(text: str, others: Sequence[str], rng: random.Random) -> Fact | None:
    n = _counts(text)[1] + rng.randint(1, 6)
    return Fact(
        f"have fewer than {n} words", [_check("length_constraints:number_words", num_words=n, relation="less than")]
    )


def _exact_words(text: str, others: Sequence[str], rng: random.Random) -> Fact | None:
    least, most = _counts(text)
    bounds = ((most, "at least"), (most + 1, "less than"))
    checks = [_check("length_constraints:number_words", num_words=n, relation=relation) for n, relation in bounds]
    return Fact(f"have exactly {most} words", checks) if least == most else None


def _no_comma(text: str, others: Sequence[str], rng: random.Random) -> Fact | None:
    wording = rng.choice(["have no comma", "do without commas", "not contain a comma"])
    return None if _COMMA.search(text) else Fact(wording, [_check("punctuation:no_comma")])


def _begins(text: str, others: Sequence[str], rng: random.Random) -> Fact | None:
    opening = " ".join(text.split()[: rng.randint(1, 3)]).rstrip(",;:")
    if not opening[0].isalnum() or '"' in opening or not text.startswith(opening):
        return None
    return Fact(f'begin with "{opening}"', [_check("combination:repeat_prompt", prompt_to_repeat=opening)])


def _ends(text: str, others: Sequence[str], rng: random.Random) -> Fact | None:
    ending = " ".join(text.split()[-rng.randint(1, 3) :])
    if not words(ending) or '"' in ending or not text.endswith(ending):
        return None
    return Fact(f'end with "{ending}"', [_check("startend:end_checker", end_phrase=ending)])


def _few_capitals(text: str, others: Sequence[str], rng: random.Random) -> Fact | None:
    if not is_simple(text):  # what a word is must not be in doubt
        return None
    n = sum(map(str.isupper, words(text)))
    relation, bound = ("at least", n) if n and rng.random() < 0.7 else ("less than", n + 1)
    some = "word" if bound == 1 else "words"
    said = (
        "no word" if bound == 1 and relation == "less than" else f"{relation.replace('less', 'fewer')} {bound} {some}"
    )
    args = {"capital_frequency": bound, "capital_relation": relation}
    return Fact(f"have {said} all in capital letters", [_check("change_case:capital_word_frequency", **args)])


def _english(text: str, others: Sequence[str], rng: random.Random) -> Fact | None:
    return Fact("be in English", [_check("language:response_language", language="en")])


TOPICS: tuple[tuple[Callable[[str, Sequence[str], random.Random], Fact | None], ...], ...] = (
    (_contains, _contains_both),
    (_avoids,),
    (_uses_often, _uses_seldom),
    (_has_letter, _few_letters, _without_letter),
    (_at_least_words, _fewer_words, _exact_words),
    (_no_comma,),
    (_begins,),
    (_ends,),
    (_few_capitals,),
    (_english,),
)
"""Kinds of statements by what they are about; two about the same would repeat each other."""


def facts(text: str, others: Sequence[str], most: int, rng: random.Random) -> list[Fact]:
    """Up to `most` statements about different things that are true of an English text.

    Args:
        others: words in lower case that may be forbidden, if the text does not have them.
    """
    found: list[Fact] = []
    for kinds in shuffled(TOPICS, rng):
        if len(found) < most and (fact := rng.choice(kinds)(text, others, rng)) is not None:
            found.append(fact)
    return found
