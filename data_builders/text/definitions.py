"""Terms and what they are, where an English sentence or an entry of a list defines one for certain."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from data_builders.documents import Document
from data_builders.layout import Block
from data_builders.passages import is_clean, passages
from data_builders.text.questions import is_subject
from instructrec.core.segmentation import count_words, unwrap

_SENTENCE = re.compile(
    r"(?P<term>[^\s,;:()]+(?: [^\s,;:()]+){0,5}?) (?:is|are|means|refers to|is defined as) "
    r"(?P<is>(?:an?|one of the|any|the \w+ (?:of|that|for|which|in|used)) [^.!?]+)[.]"
)
# A description says which one, or what it does, not only of what kind it is.
_TELLS = re.compile(r"\b(?:that|which|who|whose|used|called|for|where|when|made|designed|with|to|of|\w{3,}ing)\b")
# A noun phrase of these kinds judges rather than defines.
_JUDGES = re.compile(
    r"\b(?:an? |one of the )(?:\w+ly )?(?:good|better|bad|nice|great|big|large|major|serious|common|natural|matter|lot|"
    r"number|few|bit|reason|problem|shame|pity|mistake|result|consequence|benefit|case|step|first|major|important|"
    r"possible|necessary|useful|similar|different|significant|huge|valid|clear|perfect|potential|real)\b"
)
_UNCLEAR = re.compile(
    r"[\[\]{}<>|\\;:—–]|\b(?:this|these|those|same|such|here|above|below|we|you|our|your|I|so|therefore|"
    r"because|currently|now|PEP)\b|n['’]t\b|http|`_| -- "
)
_TERM = re.compile(r"^(?:[-*+•] +)?(?P<mark>\*\*|``|`|\"|)(?P<term>[^\n*`\"]{2,40}?)(?P=mark)[.:]?$")
_ITEM = re.compile(
    r"^[ \t]*(?:[-*+•]|\d+[.)]) +(?P<mark>\*\*|``|`)(?P<term>[^*`\n]{2,40}?):?(?P=mark)(?::| -| --| –| —) +"
    r"(?P<is>\S[^\n]*(?:\n[ \t]+(?![-*+•] )\S[^\n]*)*)",
    re.M,
)
_ARTICLE = re.compile(r"(?:An?|The) ")
_GERUND = re.compile(r"\w+ing \w")


SHOWN = 4
"""Entries of a glossary that are shown together, so that the right one has to be found."""


@dataclass(frozen=True, slots=True)
class Definition:
    """`term` is what `meaning` says; both stand in `text`, characters `start..end` of the content."""

    term: str
    meaning: str
    text: str
    start: int
    end: int


def _bare(term: str) -> str:
    """The term without the emphasis, backquotes or quotes around it."""
    while len(term) > 2 and term[0] == term[-1] and term[0] in "*_`\"'":
        term = term[1:-1]
    return term


def _in_sentences(document: Document) -> Iterator[Definition]:
    for passage in passages(document):
        for sentence in passage.sentences:
            match = _SENTENCE.fullmatch(sentence)
            if match is None or not is_clean(sentence) or not is_subject(match["term"]):
                continue
            term, meaning = _bare(_ARTICLE.sub("", match["term"], count=1)), match["is"]
            if _GERUND.match(term) or _UNCLEAR.search(meaning) or _JUDGES.match(meaning) or not _TELLS.search(meaning):
                continue
            if 5 <= count_words(meaning) <= 40 and term and term.lower() not in meaning.lower():
                yield Definition(term, meaning, passage.text, passage.start, passage.end)


def _entries(document: Document, block: Block) -> Iterator[tuple[str, str, int, int]]:
    """(term, what follows it, start, end) of the items of a list, or of a block that is one entry of a glossary."""
    raw = document.content[block.start : block.end]
    if block.kind == "list" and ("**" in raw or "`" in raw):
        for item in _ITEM.finditer(raw):
            yield item["term"], unwrap(item["is"]), block.start + item.start(), block.start + item.end()
    elif (
        block.kind == "paragraph" and not raw[0].isspace() and (first := raw.find("\n")) > 0 and raw[first + 1] in " \t"
    ):
        term, lines = _TERM.match(raw[:first]), raw[first + 1 :].split("\n")
        if term and all(line[:1] in " \t" for line in lines) and count_words(term["term"]) <= 5:
            yield term["term"].strip("`*:"), unwrap(raw[first + 1 :]), block.start, block.end


def _in_entries(document: Document) -> Iterator[Definition]:
    for section in document.sections:
        entries = [entry for block in section.body for entry in _entries(document, block)]
        terms = {term.lower() for term, *_ in entries}
        if len(terms) < max(2, len(entries)):
            continue
        for i in range(0, len(entries), SHOWN):
            shown = entries[max(0, min(i, len(entries) - SHOWN)) :][:SHOWN]
            text = "\n".join(f"- {term}: {rest}" for term, rest, _, _ in shown)
            for term, rest, _, _ in shown:
                meaning = re.split(r"(?<=[a-z)`\"]{2})[.;](?: |$)", rest)[0]
                whole = re.fullmatch(r"[\w`\"'][^\[\]<>{}|\\:?=#]*", meaning) and meaning.count("(") == meaning.count(
                    ")"
                )
                if whole and 4 <= count_words(meaning) <= 40 and term.lower() not in meaning.lower():
                    yield Definition(term, meaning.rstrip(".;"), text, shown[0][2], shown[-1][3])


@lru_cache(maxsize=1)
def definitions(document: Document) -> list[Definition]:
    """The definitions of a document, each term once."""
    found = [*_in_sentences(document), *_in_entries(document)]
    once: dict[str, Definition] = {}
    for one in found:
        once.setdefault(one.term.lower(), one)
    return list(once.values())
