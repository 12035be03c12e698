"""Entity list: everything of one kind that a passage holds, in its order; each kind is told by its form alone."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.passages import tries


@dataclass(frozen=True, slots=True)
class Kind:
    """What is asked for, how it is found, and what makes a passage unfit because a reader could count it in or not."""

    what: str
    found: re.Pattern[str]
    unclear: re.Pattern[str]


KINDS = (
    Kind(
        "words written in capital letters only",
        re.compile(r"(?<![\w./\-])[A-Z]{2,}(?![\w/\-])"),
        re.compile(r"[A-Z]{2,}\w|\w[A-Z]{2}|[A-Z]{2,}[/\-]|[/\-][A-Z]{2}"),
    ),
    Kind(
        "years",
        re.compile(r"[12](?<![\d.,:/\-].)(?:(?<=1)[6-9]|(?<=2)0)\d\d(?![\d/:\-]|[.,]\d)"),
        re.compile(r"\d{5}|\d[/:\-]\d|\d[.,]\d{3}|'\d\d|\d{4}s|\d[Kk]?B\b"),
    ),
    Kind(
        "numbers written in digits",
        re.compile(r"\d(?<![\w.,/\-:].)\d*(?:[.,]\d+)*(?![\w/:\-])"),
        re.compile(r"[A-Za-z_/:\-]\d|\d[A-Za-z_/:\-]|\d+\.\d+\.\d|[`\[]"),
    ),
    Kind(
        "expressions in single or double backquotes",
        re.compile(r"(?<!`)(``|`)(?! )([^`\n]+?)(?<! )\1(?![`_])"),
        re.compile(r":\w+:`|`_|```|`<|(?:^|\n)>"),
    ),
    Kind(
        "phrases in double quotes",
        re.compile(r"\"(?<![\w\"].)([^\"\n]{2,60}?)\"(?!\w)"),
        re.compile(r"\"\"|``[^`]*\""),
    ),
    Kind(
        "remarks in round brackets",
        re.compile(r"\((?<=[\w`,;.] .)([^()\n]{4,80})\)"),
        re.compile(r"\w\(|\([^()]*\(|\([^()]{0,3}\)|`[^`]*\(|\["),
    ),
    Kind(
        "function names followed by empty parentheses",
        re.compile(r"(?<![\w.])[A-Za-z_][\w.]*\(\)"),
        re.compile(r"\w\([^)]|\)\.|\w\$\("),
    ),
    Kind(
        "names of two or more capitalised words",
        re.compile(r"(?<=[a-z,;] )[A-Z][a-z]+(?: [A-Z][a-z]+)+\b(?![\-_/’'])"),
        re.compile(
            r"(?:^|[.!?:\n\"(] ?)[A-Z][a-z]* [A-Z]|[A-Z]\w* (?:of|the|and|for|de|van|von) [A-Z]|"
            r"[A-Z][a-z]*[A-Z]\w* [A-Z]|[A-Z][a-z]+ [A-Z](?:\.|[A-Z])|[A-Z]{2,} [A-Z][a-z]|\d [A-Z][a-z]|[`*]"
        ),
    ),
)
LEAST, MOST = 2, 8
TRIED = 2
"""Kinds that are looked for in one passage: with all of them, the most frequent kind would leave little to the rest."""


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage in tries(document, rng):
        for kind in islice(drawn(KINDS, rng), TRIED):
            items = [match[match.lastindex or 0] for match in kind.found.finditer(passage.text)]
            if LEAST <= len(dict.fromkeys(items)) <= MOST and not kind.unclear.search(passage.text):
                answer = "\n".join(dict.fromkeys(items))
                yield Example({"passage": passage.text, "what": kind.what}, answer, passage.start, passage.end)
                break


FAMILY = Family("entity_list", group="listing", kind="text", mine=mine, extractive=True)
