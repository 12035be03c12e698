"""Answers that are surely wrong, made from right ones: one corruptor per kind of answer.

A corruptor is a small pure function of a task and a seeded generator that yields corrupted answers, nothing where the
answer is not of its kind. `@corruptor` registers it under its name; `corrupt` takes one of what it yields. What could
be right after all is never taken: whatever `is_wrong` cannot vouch for.
"""

from __future__ import annotations

import json
import random
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TypeVar

import yaml

from instructrec.core import checks
from instructrec.core.language import identify
from instructrec.core.segmentation import SPACED, UNSPACED, sentences, unwrap, words
from instructrec.evaluation.metrics import exact_match

MOST_CANDIDATES = 48
"""Corrupted answers that are looked at for one row and corruptor."""

OPEN_ENDED = frozenset({"paraphrase", "summary", "synthesis"})
"""Groups whose prompts more than one text may answer, so that another text or some text more need not be worse."""

ORDERED = frozenset({"list_sort", "sentence_order", "sort_words", "step_order"})
"""Families all of whose wordings say which order a list must have. Others have one, but a wording or two only name what
is listed (`list_head`), or where the list begins (`sort_by_length`), so that another order is no mistake."""


@dataclass(frozen=True)
class Task:
    """What a corruptor sees of a row.

    Attributes:
        prompt: all of the prompt's messages, a blank line between them.
        answer: the completion; targets: all accepted answers.
        choices: the options, or null.
        checks: JSON of the constraints on the answer, or null.
        others: answers to rows of the same family and language from other places.
        foreign: answers to rows of the same family in other languages.
    """

    prompt: str
    answer: str
    targets: tuple[str, ...]
    choices: tuple[str, ...] | None = None
    checks: str | None = None
    family: str = ""
    group: str = ""
    language: str = "en"
    others: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()


T = TypeVar("T")

Corruptor = Callable[[Task, random.Random], Iterator[str]]

CORRUPTORS: dict[str, Corruptor] = {}
"""Name → `function(task, rng)`."""


def corruptor(function: Corruptor) -> Corruptor:
    """Register the function below under its name."""
    CORRUPTORS[function.__name__] = function
    return function


def normalised(text: str) -> str:
    """Letters and digits alone, without case; of a text that has none, all but white space."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(filter(str.isalnum, folded)) or "".join(folded.split())


def is_wrong(task: Task, candidate: str) -> bool:
    """Whether a corrupted answer is surely none of the accepted ones.

    It must differ from them by its letters and digits. Where there are checks it must break one, which can be a matter
    of marks; then it must differ as `metrics.exact_match` sees it. Checks are taken as met where they are in the loose
    sense (`checks.satisfied_loose`).
    """
    accepted = (task.answer, *task.targets)
    if not candidate.strip():
        return False
    if task.checks is None:
        return normalised(candidate) not in map(normalised, accepted)
    return not exact_match(candidate, accepted) and not all(checks.satisfied_loose(task.checks, candidate))


def corrupt(name: str, task: Task, rng: random.Random) -> str | None:
    """A wrong answer that a corruptor makes of the task's, or null.

    Longer or shorter than the answer is drawn first, and then taken what comes nearest to its length, so that length
    tells little about which answer is right.
    """
    longer, length = rng.random() < 0.5, len(task.answer)
    found = (c.strip() for c in islice(CORRUPTORS[name](task, rng), MOST_CANDIDATES))  # white space would tell it
    candidates = [c for c in found if is_wrong(task, c)]
    return min(
        candidates,
        key=lambda c: (len(c) != length and (len(c) > length) != longer, abs(len(c) - length)),
        default=None,
    )


@corruptor
def wrong_option(task: Task, rng: random.Random) -> Iterator[str]:
    """Another of the options."""
    if task.choices and task.answer in task.choices:
        yield from _shuffled([option for option in task.choices if option not in task.targets], rng)


_NAME = rf"[A-Z](?:{SPACED}|-)+"
_ENTITIES = (
    re.compile(rf"`[^`\n]+`|(?<!{SPACED})(?:[A-Za-z]{SPACED}*(?:[._]{SPACED}+)+(?:\(\))?|[a-z]+[A-Z]{SPACED}*)"),
    re.compile(rf"(?<=[a-z,;{UNSPACED}] ){_NAME}(?: {_NAME})*|(?<=[{UNSPACED}]){_NAME}"),
)
"""Pieces of code, and names, as far as their form tells them."""


@corruptor
def wrong_entity(task: Task, rng: random.Random) -> Iterator[str]:
    """A name or a piece of code gives way to another one of the text."""
    if task.choices:
        return
    for pattern in _ENTITIES:
        shown = list(dict.fromkeys(match for match in pattern.findall(task.prompt) if len(match) > 2))
        found = [entity for entity in shown if _whole(entity).search(task.answer)]
        # A name alone is known by its form; the first word of a sentence would have it too.
        if not found and len(task.answer.split()) < 3 and pattern.fullmatch(f"of {task.answer}", 3):
            found = [task.answer]
        folded = task.answer.casefold()
        others = [entity for entity in shown if entity.casefold() not in folded and folded not in entity.casefold()]
        for entity in _shuffled(found, rng)[:3]:
            for other in _shuffled(others, rng)[:8]:
                yield other.join(_whole(entity).split(task.answer))


def _whole(part: str) -> re.Pattern[str]:
    """A pattern of `part` where it is no part of a longer word."""
    return re.compile(rf"(?<!{SPACED}){re.escape(part)}(?!{SPACED})")


_NUMBER = re.compile(rf"(?<!{SPACED})(?<!\.)\d+(?:[.,]\d+)*(?!{SPACED})")


@corruptor
def wrong_number(task: Task, rng: random.Random) -> Iterator[str]:
    """A number gives way to another one of the text, or to one that is off by a little."""
    if task.choices:
        return
    others = _shuffled(list(dict.fromkeys(_NUMBER.findall(task.prompt))), rng)[:6]
    for match in _shuffled(list(_NUMBER.finditer(task.answer)), rng)[:4]:
        number = match[0]
        near = (
            [str(int(number) + step) for step in (1, -1, 2, 10) if int(number) + step >= 0] if number.isdigit() else []
        )
        for other in (*others, *near):
            if _value(other) != _value(number):
                yield task.answer[: match.start()] + other + task.answer[match.end() :]


def _value(number: str) -> float | str:
    try:
        return float(number.replace(",", ""))
    except ValueError:  # a version
        return number


@corruptor
def wrong_item(task: Task, rng: random.Random) -> Iterator[str]:
    """One item of a list gives way to other words of the text, or to another item."""
    found = None if task.choices else _as_list(task.answer)
    if found is None or not all(isinstance(item, str) for item in found.items):
        return
    lines = [line.split() for line in task.prompt.split("\n")]
    folded = {item.casefold() for item in found.items}
    for place in _shuffled(range(len(found.items)), rng)[:4]:
        size = len(found.items[place].split())
        long = [line for line in lines if len(line) >= size]
        drawn = []
        for line in (rng.choice(long) for _ in range(8 if long else 0)):
            start = rng.randint(0, len(line) - size)
            drawn.append(" ".join(line[start : start + size]).strip("\"'`*_#|.,;:!?()[]{}"))
        for other in (*drawn, rng.choice(found.items)):
            if other and (other.casefold() not in folded or other in found.items):
                yield found.write([*found.items[:place], other, *found.items[place + 1 :]])


@corruptor
def shuffled_order(task: Task, rng: random.Random) -> Iterator[str]:
    """The items in another order, where all wordings of the family ask for an order."""
    found = _as_list(task.answer) if task.family in ORDERED and not task.choices else None
    if found:
        yield from (found.write(_shuffled(found.items, rng)) for _ in range(6))


@corruptor
def other_answer(task: Task, rng: random.Random) -> Iterator[str]:
    """The answer to another prompt of the family, which this prompt does not show.

    One that has the answer in it, or is part of it, could be right too.
    """
    # `unanswerable` says in many words that there is no answer: another way to say so is as right.
    if task.choices or task.group in OPEN_ENDED or task.family == "unanswerable":
        return
    shown, answer = normalised(task.prompt), normalised(task.answer)
    for other in task.others:
        text = normalised(other)
        if text not in shown and text not in answer and answer not in text:
            yield other


@corruptor
def off_language(task: Task, rng: random.Random) -> Iterator[str]:
    """An answer that is mostly in another language, where the right one is in the language of its row.

    Answers of the family in other languages, where the set has them; else the answer with its small words translated
    (`glosses.yaml`), so that the language identifier takes it for another one's.
    """
    if task.choices or identify(task.answer) != task.language:
        return
    found = list(task.foreign)
    if task.language == "en":
        found += [_glossed(task.answer, gloss) for gloss in _glosses()]
    yield from (other for other in found if identify(other) not in (None, task.language))


@cache
def _glosses() -> list[dict[str, str]]:
    text = Path(__file__).with_name("glosses.yaml").read_text(encoding="utf-8")
    return list(yaml.load(text, Loader=yaml.BaseLoader).values())  # where `no` is a word


def _glossed(text: str, gloss: dict[str, str]) -> str:
    def translated(match: re.Match[str]) -> str:
        word = match[0]
        found = gloss.get(word.lower(), word)
        return found[0].upper() + found[1:] if word[0].isupper() else found

    return re.sub(r"[A-Za-z]+", translated, text)


@corruptor
def constraint_broken(task: Task, rng: random.Random) -> Iterator[str]:
    """The answer after a small edit, which `is_wrong` lets through where it breaks a constraint."""
    if task.checks is None:
        return
    text, found = task.answer, task.answer.split(" ")
    lines, end = text.split("\n"), text[-1]
    edits = [text.strip('"'), f'"{text}"', text.replace(",", "")]
    edits += [
        "\n".join(lines[1:]),
        "\n".join(lines[:-1]),
        re.sub(r"^(?:\* |\*\*\*|- |SECTION \d+|<<.*>>)\n?", "", text, flags=re.M),
    ]
    edits += [" ".join(lines), f"{text}\n{text}", " ".join(sentences(unwrap(text), task.language)[:-1])]
    for place in _shuffled(range(len(found)), rng)[:10]:
        before, word, after = found[:place], found[place], found[place + 1 :]
        edits += [" ".join([*before, *after]), " ".join([*before, word, word, *after])]
        if place + 1 < len(found) and word[-1:].isalnum():
            edits.append(" ".join([*before, f"{word},", *after]))
    half = len(found) // 2
    edits += [" ".join(found[:half]) + end, " ".join(found[half:]), " ".join([*found, *found[half:]])]
    yield from _shuffled(edits, rng)


@corruptor
def over_long_or_cut(task: Task, rng: random.Random) -> Iterator[str]:
    """The answer with a sentence of the prompt after it, or without its end: both, so that length tells nothing."""
    if task.choices or task.group in OPEN_ENDED:
        return
    answer, shown = task.answer, normalised(task.answer)
    more = [
        s for s in _sentences(task) if len(words(s)) >= 4 and normalised(s) not in shown and shown not in normalised(s)
    ]
    if more:
        yield f"{answer}{' ' if answer[-1] in '.!?。！？' else chr(10)}{rng.choice(more)}"
    # Places where a word ends, or a character of a script that is written without spaces.
    ends = [match.end() for match in re.finditer(rf"[{UNSPACED}]|[^\s{UNSPACED}]+", answer)]
    if len(ends) >= 5:
        yield answer[: ends[rng.randint(len(ends) * 3 // 10, len(ends) * 7 // 10)]].rstrip(",;:、，")


@corruptor
def evidence_swapped(task: Task, rng: random.Random) -> Iterator[str]:
    """A quoted sentence or line gives way to another one of the same text."""
    if task.choices or task.group in OPEN_ENDED:
        return
    quote, write = _quoted(task.answer)
    key = normalised(quote)
    for other in _shuffled(_beside(task, quote), rng):
        text = normalised(other)
        # A line can hold several sentences: neither may be part of the other. A label before a text is not its own.
        if len(words(other)) >= 3 and key not in text and text not in key and not _LABEL.match(other):
            yield write(other)


_LABEL = re.compile(r"[A-Z][\w ]{0,24}:\s")


def _beside(task: Task, quote: str) -> list[str]:
    """The sentences or list items that stand with a quoted one in the prompt; none where nothing is quoted whole."""
    for line in task.prompt.split("\n"):
        found = sentences(line, task.language)
        if quote in found and len(found) > 1:
            return found
    for block in _blocks(task.prompt):
        found = [line for line in block.split("\n") if _MARK.match(line)]
        if quote in (items := [*map(_unmarked, found)]) or quote in (items := sentences(unwrap(block), task.language)):
            return items
    return []


def _shuffled(items: Sequence[T], rng: random.Random) -> list[T]:
    return rng.sample(items, len(items))


def _blocks(text: str) -> list[str]:
    return re.split(r"\n\s*\n", text)


def _sentences(task: Task) -> list[str]:
    """The sentences of the prompt: of its lines, each of which may be an item of a list."""
    lines = task.prompt.split("\n")
    return list(dict.fromkeys(sentence for line in lines for sentence in sentences(_unmarked(line), task.language)))


_MARK = re.compile(r"\s*(?:[-*•]|\d+[.)])\s+")


def _unmarked(line: str) -> str:
    match = _MARK.match(line)
    return line[match.end() if match else 0 :].strip()


def _quoted(answer: str) -> tuple[str, Callable[[str], str]]:
    """What an answer quotes, as it is, in quotation marks or in JSON, and how to quote something else."""
    if answer.startswith("{"):
        try:
            record = json.loads(answer)
        except ValueError:
            record = None
        if isinstance(record, dict) and len(record) == 1 and isinstance(text := next(iter(record.values())), str):
            return text, lambda other: json.dumps(dict.fromkeys(record, other), ensure_ascii=False)
    if len(answer) > 2 and (answer[0], answer[-1]) in (('"', '"'), ("“", "”"), ("「", "」"), ("'", "'")):
        return answer[1:-1], lambda other: f"{answer[0]}{other}{answer[-1]}"
    return answer, lambda other: other


@dataclass(frozen=True)
class _List:
    """The items of a list, and how they are written."""

    items: list[str]
    write: Callable[[Sequence[str]], str]


def _as_list(answer: str) -> _List | None:
    """An answer that lists two things or more: a JSON list, lines (with marks or without), or items between marks."""
    if answer.startswith("["):
        try:
            items = json.loads(answer)
        except ValueError:
            items = None
        if isinstance(items, list) and len(items) > 1 and all(isinstance(item, (str, int)) for item in items):
            return _List(items, lambda new: json.dumps(list(new), ensure_ascii=False))
    if len(lines := answer.split("\n")) > 1:
        marks = [match[0] if (match := _MARK.match(line)) else "" for line in lines]
        items = [line[len(mark) :] for line, mark in zip(lines, marks, strict=True)]
        if all(items):
            return _List(items, lambda new: "\n".join(m + item for m, item in zip(marks, new, strict=True)))
        return None
    for mark in ("; ", " / ", " | ", " → ", " -> ", " > ", ", ", "、", "；", "，"):
        items = answer.split(mark)
        # A sentence has commas too.
        least, most = (3, 3) if mark in (", ", "，") else (2, 12)
        if len(items) >= least and all(items) and all(len(words(item)) <= most for item in items):
            return _List(items, mark.join)
    return None
