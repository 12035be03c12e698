"""Several instructions from one document as one conversation, so that a text is read once and asked about many times.

Conversations are made last, of training rows that have passed every gate as single turns: what is known of a row is
known of its turn too. The first turn is asked as it stands. Others about the same text follow, in the words of a
follow-up (see `data_builders/families.py`) or, where the family has none, saying in place of the text that it is the
one above; then those from other places of the document, as they stand. No row is lost: what fits into no conversation
begins another, and what stays alone is a single turn.

What is said must not give a later turn away. No earlier turn may hold its open answer (unless its own wording names it,
as in "or say: not stated"), some of its options and not others, or the sentence that it asks about; the text that both
ask about may. Turns about different texts share no bytes of the document.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa

from data_builders.families import Example, opening
from data_builders.gates import MOST_PROMPT_WORDS
from instructrec.core.overlap import normalise
from instructrec.core.schema import INSTRUCTION, TRAIN, instruction_id
from instructrec.core.segmentation import count_words

REFERENCES: dict[str, dict[str, str | None]] = {
    "en": {
        "passage": "(the same text as above)",
        "text": "(the same text as above)",
        "table": "(the same table as above)",
        "list": "(the same list as above)",
        "header": "(the same header as above)",
        "dialogue": "(the same dialogue as above)",
        "sentence": None,
        "input": None,
    }
}
"""Language → field that holds a text to be asked about → what later turns say in its place, if they have no follow-up;
null where only a follow-up tells which sentence is meant. In other languages every turn stands as it is."""

RENDERED = pa.schema(
    [
        *INSTRUCTION,
        pa.field("split", pa.string()),
        pa.field("unit", pa.int32()),
        pa.field("text", pa.string()),
        pa.field("reference", pa.string()),
        pa.field(
            "follow_up",
            pa.struct(
                [
                    pa.field("template", pa.string()),
                    pa.field("question", pa.string()),
                    pa.field("completion", pa.string()),
                    pa.field("choices", pa.list_(pa.string())),
                ]
            ),
        ),
        pa.field("secrets", pa.list_(pa.string())),
        pa.field("topics", pa.list_(pa.string())),
    ]
)
"""A row before conversations are made: its split, the index of its unit in the shard, the text that its prompt shows
and what stands for it later, or null, how a follow-up about it asks and is answered, or null, what earlier turns must
not give away (the answer, or the options), and what they must not have spoken of."""

LEAST_TOPIC = 5
"""Words from which a field is something that is asked about."""

LOOKED_AT = 32
"""Conversations of a document that a row is offered to."""

Row = dict[str, Any]


def shown(example: Example, language: str, prompt: str) -> tuple[str | None, str | None]:
    """The text that the prompt shows, once, to be asked about, and what a later turn says in its place; or nulls."""
    found = ((example.fields.get(name), phrase) for name, phrase in REFERENCES.get(language, {}).items())
    return next(((text, phrase) for text, phrase in found if text and prompt.count(text) == 1), (None, None))


def topics(example: Example, text: str | None) -> list[str]:
    """What an example gives besides the text, where it is more than a phrase: a question, statement or quotation."""
    return [given for given in example.fields.values() if given != text and count_words(given) >= LEAST_TOPIC]


def following(row: Row) -> Row:
    """A rendered single turn as it is asked where its text is shown already."""
    follow_up = row["follow_up"]
    if follow_up is None:
        question = row["prompt"][0]["content"].replace(row["text"], row["reference"])
        return row | {"prompt": [{"role": "user", "content": question}]}
    return row | {
        "prompt": [{"role": "user", "content": follow_up["question"]}],
        "completion": [{"role": "assistant", "content": follow_up["completion"]}],
        "template": follow_up["template"],
        "targets": [follow_up["completion"]],
        "choices": follow_up["choices"],
    }


def as_turn(row: Row, conversation: str | None, turn: int, before: list[dict[str, str]]) -> Row:
    """A rendered single turn as a turn after the messages `before` it; a conversation has the id of its first turn."""
    if row["text"] and before and row["text"] in before[0]["content"]:
        row = following(row)
    prompt = [*before, *row["prompt"]]
    name = instruction_id(row["source"], row["family"], row["template"], prompt, row["completion"][0]["content"])
    return row | {"id": name, "prompt": prompt, "conversation": conversation if turn else name, "turn": turn}


class _Turn:
    """A row that may become a turn, and what it says and must not be told."""

    def __init__(self, row: Row) -> None:
        self.row, self.text = row, row["text"]
        self.points = row["reference"] is None  # to a sentence, which may stand in a longer text
        worded = [row, following(row)] if self.text else [row]
        asked = [_spaced(_without(one["prompt"][0]["content"], self.text)) for one in worded]
        answered = [_spaced(_without(one["completion"][0]["content"], self.text)) for one in worded]
        # Whether it will be the first about its text is not known yet: it must not tell, nor be told, in either case.
        self._said = "".join(asked + answered)
        words = [sum(count_words(one[part][0]["content"]) for part in ("prompt", "completion")) for one in worded]
        self.words, self.words_following = words[0], words[-1]
        self._shown = _spaced(self.text or "")
        self._choice = row["choices"] is not None
        secrets = map(_spaced, row["secrets"])
        self._secrets = [secret for secret in secrets if self._choice or not all(secret in own for own in asked)]
        self._topics = [_spaced(topic) for topic in row["topics"]]
        self._spans = [(span["path"], span["start"], span["end"]) for span in row["source"]]

    def is_about(self, other: _Turn) -> bool:
        """Whether it asks about the text of the other, or about a sentence of it that is known by its opening."""
        if self.text is None or other.text is None or not self.points:
            return self.text is not None and self.text == other.text
        return self.text in other.text and other.text.count(opening(self.text)) == 1

    def overlaps(self, other: _Turn) -> bool:
        """Whether both were made from some of the same bytes, or the other shows the text of this one, as an option."""
        if self.text and self.text in other.row["prompt"][0]["content"]:
            return True
        pairs = ((one, two) for one in self._spans for two in other._spans)
        return any(one[0] == two[0] and one[1] < two[2] and two[1] < one[2] for one, two in pairs)

    def reveals(self, later: _Turn) -> bool:
        """Whether what is said in this turn gives away a later one; what both ask about does not."""
        both = later.is_about(self) or self.is_about(later)
        said = self._said if both else self._said + self._shown
        told = [secret in said for secret in later._secrets]
        if any(told) and not (later._choice and all(told)):
            return True
        return any(topic in said for topic in later._topics)


def _spaced(text: str) -> str:
    return f" {normalise(text)} "


def _without(message: str, text: str | None) -> str:
    return message.replace(text, "") if text else message


def _words(turns: list[_Turn]) -> int:
    """The words of all messages."""
    first, *others = turns
    return first.words + sum(one.words_following if one.is_about(first) else one.words for one in others)


class _Conversation:
    """Turns about one text, and after them others of the same document."""

    def __init__(self, first: _Turn) -> None:
        self.turns = [first]

    def takes(self, turn: _Turn, most: int) -> bool:
        """Give a turn the last place where it reveals none after it and is revealed by none before it, if there is one.

        A turn about another text, or about none, can only be the last: "above" must mean one text.
        """
        first, last = self.turns[0], len(self.turns)
        about = turn.is_about(first)
        if last >= most or (not about and any(turn.overlaps(one) for one in self.turns)):
            return False
        earliest = 0 if turn.text == first.text else 1
        for place in range(last, earliest - 1 if about else last - 1, -1):
            before, after = self.turns[:place], self.turns[place:]
            if _words(joined := [*before, turn, *after]) > MOST_PROMPT_WORDS:
                continue
            if not any(one.reveals(turn) for one in before) and not any(turn.reveals(one) for one in after):
                self.turns = joined
                return True
        return False

    def rows(self) -> Iterator[Row]:
        """Its rows in order; of a single turn, the row as it is."""
        if len(self.turns) == 1:
            yield self.turns[0].row
            return
        name: str | None = None
        before: list[dict[str, str]] = []
        for number, turn in enumerate(self.turns):
            row = as_turn(turn.row, name, number, before)
            name, before = row["conversation"], [*row["prompt"], *row["completion"]]
            yield row


def converse(rows: Iterable[Row], most: int) -> Iterator[Row]:
    """The rows of one unit with its training rows joined into conversations of `most` turns at most.

    Rows of other splits come first, as they are; then each conversation, its turns in order.
    """
    about: list[_Turn] = []
    alone: list[_Turn] = []
    for row in rows:
        if row["split"] == TRAIN:
            turn = _Turn(row)
            (about if turn.text else alone).append(turn)
        else:
            yield row
    conversations: list[_Conversation] = []
    for group in _by_text(about):
        found: list[_Conversation] = []
        for turn in group:
            if not any(one.takes(turn, most) for one in found):
                found.append(_Conversation(turn))
        alone += [one.turns[0] for one in found if len(one.turns) == 1]
        conversations += [one for one in found if len(one.turns) > 1]
    waiting = conversations[:]
    for turn in _in_order(alone):
        chosen = next((one for one in waiting[:LOOKED_AT] if one.takes(turn, most)), None)
        if chosen is None:
            chosen = _Conversation(turn)
            conversations.append(chosen)
            waiting.append(chosen)
        if len(chosen.turns) >= most or len(waiting) > LOOKED_AT:
            waiting.remove(chosen if len(chosen.turns) >= most else waiting[0])
    for conversation in conversations:
        yield from conversation.rows()


def _by_text(turns: Iterable[_Turn]) -> Iterator[list[_Turn]]:
    """The turns about each text, and after them those about sentences of it."""
    groups: dict[str, list[_Turn]] = {}
    for turn in sorted(turns, key=lambda turn: (turn.points, turn.row["id"])):
        text = turn.text or ""
        shown = next((other for other in groups if text in other), text) if turn.points else text
        groups.setdefault(shown, []).append(turn)
    yield from groups.values()


def _in_order(turns: Iterable[_Turn]) -> list[_Turn]:
    """By id, which is a hash: in no order of families."""
    return sorted(turns, key=lambda turn: turn.row["id"])


def with_conversations(tables: Iterable[pa.Table], most: int, batch: int) -> Iterator[pa.Table]:
    """Tables of `RENDERED`, whose units stand together, as tables of about `batch` rows with conversations."""
    rows = (row for table in tables for row in table.to_pylist())
    buffer: list[Row] = []
    for _, unit in groupby(rows, key=itemgetter("unit")):
        buffer += converse(unit, most)
        if len(buffer) >= batch:
            yield pa.Table.from_pylist(buffer, RENDERED)
            buffer = []
    if buffer:
        yield pa.Table.from_pylist(buffer, RENDERED)
