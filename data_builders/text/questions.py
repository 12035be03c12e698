"""Questions that a sentence of English answers for certain, made by moving its own words; families share them.

Only sentences that open with a plain subject and its auxiliary verb are turned round: "The lock must be released by the
caller" answers "What must be released by the caller?". A sentence of another shape gives no question.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from data_builders.documents import Document
from data_builders.passages import Passage, is_clean, passages
from instructrec.core.segmentation import count_words, words

_CLAUSE = re.compile(
    r"(?P<subject>[^\s,;:()]+(?: [^\s,;:()]+){0,6}?) (?P<verb>is|are|was|were|can|must|should|will|may) (?P<rest>.+)[.]"
)
_OPENERS = frozenset(
    words("the a an each every all most some many this these our its their his her we you he she it they there no")
)
_POINTERS = frozenset(
    # What points elsewhere, joins clauses or asks; a subject that holds one is not the sentence's plain subject.
    words(
        "this that these those it there here he she they we you i one who whom which what when where why how if "
        "whether while because since although though as so then than but and or nor not no none neither both also "
        "either such however therefore thus otherwise instead another other others same former latter following above "
        "below next first second third last previous more less only even is are was were be been has have had do does "
        "did can could must should will would may might still again now today currently finally usually note see "
        "perhaps its their our his her my your problem reason result point idea answer question difference advantage "
        "thing things goal something someone anything everything nothing everyone means says requires allows lets "
        "makes uses needs"
    )
)
_INNER = frozenset(("the", "a", "an"))
_BEFORE_ARTICLE = frozenset(words("of in for on with to from by at between into within"))
_MARKUP = re.compile(r"[\[\]<>{}|\\—–;:?]|::|http|`_| -- | - ")
_NOT = re.compile(r"\b(?:not|never|no|only|neither|nor|also|too|then|therefore|thus|however|instead|but)\b|n't")
_POINTING = re.compile(r"\b(?:it|its|itself|they|their|them|he|his|she|her|this|these|those|such|above|below|here)\b")
_PARTICIPLE = re.compile(
    r"(?:\w+ly )?(?:\w{3,}ed|built|made|given|known|written|used|set|run|held|kept|found|sent|read|bound|shown|taken|"
    r"stored|called|chosen|drawn|put|done|thrown|hidden|left|lost|meant|sold|told|cut)\b"
)
_BECAUSE = re.compile(r"^(?P<what>[^,]+?),? because (?P<answer>(?!of\b).+)$")
_SECOND = re.compile(r"\bbecause\b|, (?:and|but|so|or|which|while|although|though)\b|\bwhereas\b|[()]")
_USED = re.compile(r"^(?P<what>used) (?P<answer>(?:to|for) .+)$")
_CALLED = re.compile(r"^(?:usually |often |sometimes )?(?:called|known as|named) (?P<answer>[^,]+)$")
_WHEN = re.compile(
    r"^(?P<what>[^,]+?) (?P<answer>(?:in|on) (?:early |late |mid-)?"
    r"(?:(?:\d{1,2} )?(?:January|February|March|April|May|June|July|August|September|October|November|December) "
    r"(?:\d{1,2}, )?)?(?:1[5-9]|20)\d\d)$"
)
_WHERE = re.compile(
    r"^(?P<what>defined|found|stored|located|described|documented|kept|implemented|declared|hosted|listed|specified|"
    r"discussed|explained|recorded|shown|given) (?P<answer>(?:in|at|on|under) [^,]+)$"
)
_NUMBER = r"(?:\d+|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|hundred)"
_COUNT = re.compile(
    rf"(?:There (?P<be>are|were|will be) (?P<n>{_NUMBER}) "
    r"(?P<things>[a-z][\w\-]+(?: [\w\-]+){0,8}?)(?=[.:]| that | which )|"
    rf"(?P<subject>(?:The|A|An|Each|Every) [\w\- `]+?) (?P<has>has|had|takes|took|holds|contains) (?P<m>{_NUMBER}) "
    r"(?P<parts>[a-z]\w*s)(?=[.:,]| that | which ))"
)
_HAS = {"has": ("does", "have"), "had": ("did", "have"), "takes": ("does", "take"), "took": ("did", "take")} | {
    "holds": ("does", "hold"),
    "contains": ("does", "contain"),
}
_CHEAP = re.compile(r" (?:is|are|was|were|can|must|should|will|may|has|had|takes|took|holds|contains) ")


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, its answer as it stands in `sentence`, and the passage; `kind` is how the question begins."""

    question: str
    answer: str
    sentence: str
    passage: Passage
    kind: str


def decapitalised(phrase: str, text: str) -> str:
    """A phrase from the start of a sentence, as it would stand within one; `text` shows how its words are written."""
    first = phrase.split(" ", 1)[0]
    lower = first[:1].lower() + first[1:]
    pronoun = lower.replace("’", "'").split("'")[0]
    if pronoun in _OPENERS or (first.isalpha() and f" {lower.removesuffix('s')}" in text):
        return lower + phrase[len(first) :]
    return phrase


def is_subject(subject: str) -> bool:
    """Whether the words before the auxiliary are one noun phrase and name something."""
    tokens = subject.lower().split(" ")
    if not _POINTERS.isdisjoint(tokens) or tokens[-1] in _INNER or tokens[0] in _BEFORE_ARTICLE:
        return False
    if tokens[0].endswith("ly") or (len(tokens) > 1 and tokens[0] == "all"):
        return False
    # "The caller knows the name": a second article without a preposition belongs to a verb.
    return all(word not in _INNER or before in _BEFORE_ARTICLE for before, word in pairwise(tokens))


def _ask(sentence: str, text: str) -> tuple[str, str, str] | None:
    """(question, answer, kind) of a sentence, or null."""
    if count := _COUNT.match(sentence):
        if count["be"] and not _POINTING.search(count["things"]):
            be = {"are": ("are", "there"), "were": ("were", "there"), "will be": ("will", "there be")}[count["be"]]
            return f"How many {count['things']} {be[0]} {be[1]}?", count["n"], "How many"
        if count["subject"] and is_subject(count["subject"]):
            do, verb = _HAS[count["has"]]
            subject = decapitalised(count["subject"], text)
            return f"How many {count['parts']} {do} {subject} {verb}?", count["m"], "How many"
    clause = _CLAUSE.fullmatch(sentence)
    if clause is None or not is_subject(clause["subject"]) or _NOT.search(clause["rest"]):
        return None
    verb, rest = clause["verb"], clause["rest"]
    subject = decapitalised(clause["subject"], text)
    if why := _BECAUSE.match(rest):
        if _SECOND.search(why["answer"]) or _SECOND.search(why["what"]) or len(why["answer"].split()) < 3:
            return None
        return f"Why {verb} {subject} {why['what']}?", why["answer"], "Why"
    if "," in rest or " because" in rest:
        return None
    if verb in {"is", "was", "are", "were"}:
        if called := _CALLED.match(rest):
            return f"What {verb} {subject} called?", called["answer"], "What"
        if used := _USED.match(rest):
            return f"What {verb} {subject} used for?", used["answer"], "What"
        if where := _WHERE.match(rest):
            return f"Where {verb} {subject} {where['what']}?", where["answer"], "Where"
        if when := _WHEN.match(rest):
            return f"When {verb} {subject} {when['what']}?", when["answer"], "When"
        if not _PARTICIPLE.match(rest):
            return None
        verb = {"are": "is", "were": "was"}.get(verb, verb)
    if not 4 <= len(rest.split()) <= 18 or _POINTING.search(rest):
        return None
    who = "What" if subject != clause["subject"] or "`" in subject else "Who or what"
    return f"{who} {verb} {rest}?", clause["subject"], who


def asked(passage: Passage) -> Iterator[Asked]:
    """The questions that the sentences of a passage answer, each once, and only once in the passage."""
    for sentence in passage.sentences:
        if len(sentence) > 300 or not _CHEAP.search(sentence) or _MARKUP.search(sentence) or not is_clean(sentence):
            continue
        found = _ask(sentence, passage.text)
        if found is not None and 1 <= count_words(found[1]) <= 40:
            yield Asked(found[0], found[1], sentence, passage, found[2])


@lru_cache(maxsize=1)
def questions(document: Document) -> list[Asked]:
    """Every question of a document in the order of its passages; several families ask for them."""
    return [one for passage in passages(document) for one in asked(passage)]
