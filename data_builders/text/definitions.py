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
    r"(?P<term>[^\s,;:()]+(?: [^\s,;:()]+){0,5}?) (?:is|means|refers to|is defined as) "
    r"(?P<is>(?:an?|one of the|any|the \w+ (?:of|that|for|which|in|used)) [^.!?]+)[.]"
)
# A definition says of what kind the thing is, and which one of that kind.
_DEFINES = re.compile(
    r"(?:an?|any|one of the|the)(?: (?!(?:in|on|to|an?|the|is|are|was|can|has|may|must|should|will)\b)[\w\-]+){1,4}? "
    r"(?:that|which|who|whose|of|for|used|with|where|made|designed)\b",
    re.I,
)
_SECOND = re.compile(r", (?:and|but|or|so|which|while|although)\b")
# A noun phrase of these kinds judges rather than defines.
_JUDGES = re.compile(
    r"(?:an?|the|any|one of the) (?:[\w\-]+ )??(?:"
    r"bad|benefit|best|better|big|bit|candidate|case|cause|chance|choice|clear|common|complete|concern|"
    r"consequence|different|end|example|fact|feature|few|first|form|full|goal|good|great|huge|idea|important|issue|"
    r"key|kind|lack|large|less|list|lot|main|major|matter|means|mistake|more|most|natural|necessary|need|new|"
    r"nice|number|only|option|part|perfect|pity|place for|point|portion|possible|potential|problem|property|"
    r"proposal|question|quite|rather|real|reason|result|right|risk|same|serious|set|shame|sign|significant|"
    r"similar|simple|solution|sort|source|step|subset|term|thing|useful|valid|very|waste|way|wrong"
    r")\b",
    re.I,
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
_NOT_A_NAME = re.compile(
    r"[`'\[\]\"“”*<>|]|_$|[:(]|\bof\b|\b(?:argument|class|column|field|function|instance|method|object|option|parameter|type|value)s?$",
    re.I,
)
_ARTICLE = re.compile(r"(?:An?|The) ")
_GERUND = re.compile(r"\w+ing \w")
_NOT_IN_ENTRY = re.compile(r"[.;!?](?:\s|$)|[\[\]<>{}|\\:?=#()]|\be\.g\.|\bi\.e\.")

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
            if _GERUND.match(term) or _UNCLEAR.search(meaning) or _JUDGES.match(meaning) or not _DEFINES.match(meaning):
                continue
            if _NOT_A_NAME.search(term) or _SECOND.search(meaning):
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
                meaning = rest.rstrip(".;")
                # A single sentence that says what it is; one that begins with a verb says what it does.
                whole = _DEFINES.match(meaning) and not _NOT_IN_ENTRY.search(meaning)
                if not whole or _NOT_A_NAME.search(term) or _SECOND.search(meaning):
                    continue
                if 4 <= count_words(meaning) <= 40 and term.lower() not in meaning.lower():
                    yield Definition(term, meaning, text, shown[0][2], shown[-1][3])


@lru_cache(maxsize=1)
def definitions(document: Document) -> list[Definition]:
    """The definitions of a document, each term once."""
    found = [*_in_sentences(document), *_in_entries(document)]
    once: dict[str, Definition] = {}
    for one in found:
        once.setdefault(one.term.lower(), one)
    return list(once.values())
