"""Constrained quote: a sentence or more of the passage, laid out as asked, under checkable constraints (in English)."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.passages import Passage, tries
from data_builders.text.facts import Fact, facts
from data_builders.text.prose import is_sound, long_words, vocabulary
from instructrec.core.language import identify
from instructrec.core.segmentation import count_words, words

Layout = tuple[str, Fact]
"""A text as it is laid out, and what is to be said about its layout."""

_NUMBERS = {1: "one", 2: "two", 3: "three"}


def _fact(wording: str, name: str, **args: object) -> Fact:
    return Fact(wording, [{"name": name, "args": args}])


def _sentence_count(parts: list[str]) -> Fact:
    n, name = len(parts), "length_constraints:number_sentences"
    bounds = ((n, "at least"), (n + 1, "less than"))
    some = "one sentence" if n == 1 else f"{_NUMBERS[n]} sentences"
    return Fact(f"be exactly {some}", [{"name": name, "args": {"num_sentences": b, "relation": r}} for b, r in bounds])


def _as_title(parts: list[str], title: str) -> Layout:
    fact = _fact(f"have the title <<{title}>> on a line above it", "detectable_format:title")
    return f"<<{title}>>\n{' '.join(parts)}", fact


def _as_bullets(parts: list[str], title: str) -> Layout:
    n = len(parts)
    wording = f"be a list of {n} bullet points, one sentence each, that begin with * and a space"
    return "\n".join(f"* {part}" for part in parts), _fact(
        wording, "detectable_format:number_bullet_lists", num_bullets=n
    )


def _as_sections(parts: list[str], title: str) -> Layout:
    wording = "put every sentence into a section of its own, under a line SECTION 1, SECTION 2 and so on"
    args = {"section_spliter": "SECTION", "num_sections": len(parts)}
    text = "\n".join(f"SECTION {i}\n{part}" for i, part in enumerate(parts, 1))
    return text, _fact(wording, "detectable_format:multiple_sections", **args)


def _as_asterisk_paragraphs(parts: list[str], title: str) -> Layout:
    wording = "have a line of three asterisks, ***, between its sentences, each of which is a paragraph"
    name = "length_constraints:number_paragraphs"
    return "\n***\n".join(parts), _fact(wording, name, num_paragraphs=len(parts))


def _as_paragraphs(parts: list[str], title: str) -> Layout:
    word = parts[-1].split()[0].lower()
    n = len(parts)
    wording = (
        f'have {n} paragraphs, one sentence each, with a blank line between them, the last beginning with "{word}"'
    )
    args = {"num_paragraphs": n, "nth_paragraph": n, "first_word": word.rstrip(",")}
    return "\n\n".join(parts), _fact(wording, "length_constraints:nth_paragraph_first_word", **args)


def _as_two_responses(parts: list[str], title: str) -> Layout:
    wording = "be given in two parts, one sentence each, with a line of six asterisks, ******, between them"
    return "\n******\n".join(parts), _fact(wording, "combination:two_responses")


def _with_postscript(parts: list[str], title: str) -> Layout:
    wording = 'give the last sentence as a postscript, on a line of its own that begins with "P.S. "'
    text = f"{' '.join(parts[:-1])}\nP.S. {parts[-1]}"
    return text, _fact(wording, "detectable_content:postscript", postscript_marker="P.S.")


ONE: tuple[Callable[[list[str], str], Layout], ...] = (
    lambda parts, _: (parts[0].lower(), _fact("be in small letters only", "change_case:english_lowercase")),
    lambda parts, _: (parts[0].upper(), _fact("be in capital letters only", "change_case:english_capital")),
    lambda parts, _: (f'"{parts[0]}"', _fact("stand in double quotation marks", "startend:quotation")),
    lambda parts, _: (
        json.dumps({"quote": parts[0]}, ensure_ascii=False),
        _fact('be a JSON object with the one key "quote"', "detectable_format:json_format"),
    ),
    lambda parts, _: (
        f"*{parts[0]}*",
        _fact(
            "be highlighted as a whole, with one * on either side",
            "detectable_format:number_highlighted_sections",
            num_highlights=1,
        ),
    ),
    lambda parts, _: (
        f"[quote] {parts[0]}",
        _fact("begin with the placeholder [quote]", "detectable_content:number_placeholders", num_placeholders=1),
    ),
    _as_title,
    lambda parts, _: (parts[0], _sentence_count(parts)),
)
"""Layouts of a single sentence."""

MORE: tuple[Callable[[list[str], str], Layout], ...] = (
    _as_bullets,
    _as_sections,
    _as_asterisk_paragraphs,
    _as_paragraphs,
    _with_postscript,
    _as_title,
    lambda parts, _: (" ".join(parts), _sentence_count(parts)),
)
"""Layouts of two sentences or three."""

_END = re.compile("[.!?…]")
_TITLE = re.compile(r"[^<>\n]{3,60}")


def _is_fit(sentence: str, passage: Passage) -> bool:
    """Whether a sentence can be laid out in every way: short, beginning with a word, without quotation marks."""
    opening = sentence.split()[0].rstrip(",")
    return (
        opening.isalpha() and '"' not in sentence and 5 <= count_words(sentence) <= 35 and is_sound(sentence, passage)
    )


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    if document.language != "en":
        return
    for passage in tries(document, rng):
        paragraph = rng.choice(passage.paragraphs)
        heading = passage.section.heading
        title = heading.text if heading is not None and _TITLE.fullmatch(heading.text) else "Quote"
        size = rng.choice((1, 1, 1, 2, 2, 3))
        if len(passage.sentences) < 2 or len(paragraph) < size:
            continue
        place = rng.randrange(len(paragraph)) if size == 1 else 0
        parts = paragraph[place : place + size]
        if not all(_is_fit(sentence, passage) for sentence in parts):
            continue
        # As many marks as sentences, so that every way to tell sentences apart gives the same.
        if sum(map(count_words, parts)) > 50 or len(_END.findall(" ".join(parts))) != size:
            continue
        shown = " ".join(paragraph)
        if size > 1:
            what, layouts = f"the first {_NUMBERS[size]} sentences of the text", MORE
            if size == 2:
                layouts = (*MORE, _as_two_responses)
        else:
            folded = shown.lower()
            only_here = [m[0] for m in long_words(parts[0]) if folded.count(m[0]) == 1]
            if not only_here or len(paragraph) < 2:
                continue
            what, layouts = f'the sentence of the text that contains "{rng.choice(only_here)}"', ONE
        answer, layout = rng.choice(layouts)(parts, title)
        if identify(answer) != "en":
            continue
        found = [layout]
        if words(answer.lower()) == words(" ".join(parts).lower()):  # else what to count would be in doubt
            found += facts(answer, vocabulary(shown), rng.randint(0, 2), rng)
        rng.shuffle(found)
        fields = {"text": shown, "what": what, "constraints": "\n".join(fact.wording for fact in found)}
        checks = [check for fact in found for check in fact.checks]
        yield Example(fields, answer, passage.start, passage.end, checks=checks)


# The same statements as in `constraints`.
FAMILY = Family("constrained_quote", group="realisation", kind="text", mine=mine, extractive=True, computed=True)
