"""Several instructions from one document as one conversation, so that a text is read once and asked about many times.

Conversations are made last, of training rows that have passed every gate as single turns: what is known of a row is
known of its turn too. The first turn is asked as it stands. Others about the same text follow and say in its place that
it is the one above; then those from other places of the document, as they stand. No row is lost: what fits into no
conversation begins another, and what stays alone is a single turn.

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

from data_builders.families import Example
from data_builders.gates import MOST_PROMPT_WORDS
from instructrec.core.overlap import normalise
from instructrec.core.schema import INSTRUCTION, TRAIN, instruction_id
from instructrec.core.segmentation import count_words

REFERENCES = {
    "en": {
        "passage": "(the same text as above)",
        "text": "(the same text as above)",
        "table": "(the same table as above)",
        "list": "(the same list as above)",
        "header": "(the same header as above)",
        "dialogue": "(the same dialogue as above)",
    }
}
"""Language → field that holds a text to be asked about → what later turns say in its place. In other languages every
turn stands as it is."""

RENDERED = pa.schema(
    [
        *INSTRUCTION,
        pa.field("split", pa.string()),
        pa.field("unit", pa.int32()),
        pa.field("text", pa.string()),
        pa.field("reference", pa.string()),
        pa.field("secrets", pa.list_(pa.string())),
        pa.field("topics", pa.list_(pa.string())),
    ]
)
"""A row before conversations are made: its split, the index of its unit in the shard, the text that its prompt shows
and what stands for it later, or null, what earlier turns must not give away (the answer, or the options), and what they
must not have spoken of."""

LEAST_TOPIC = 5
"""Words from which a field is something that is asked about."""

LOOKED_AT = 32
"""Conversations of a document that a row is offered to."""

Row = dict[str, Any]


def text_of(example: Example, language: str) -> tuple[str, str] | None:
    """The text that an example asks about, and what a later turn says in its place; null where there is none."""
    found = ((example.fields.get(name), phrase) for name, phrase in REFERENCES.get(language, {}).items())
    return next(((text, phrase) for text, phrase in found if text), None)


def shown(example: Example, language: str, prompt: str) -> tuple[str, str] | None:
    """What `text_of` gives, if the prompt shows the text exactly once."""
    found = text_of(example, language)
    return found if found and prompt.count(found[0]) == 1 else None


def topics(example: Example, text: str | None) -> list[str]:
    """What an example gives besides the text, where it is more than a phrase: a question, statement or quotation."""
    return [given for given in example.fields.values() if given != text and count_words(given) >= LEAST_TOPIC]


def as_turn(row: Row, conversation: str | None, turn: int, before: list[dict[str, str]]) -> Row:
    """A rendered single turn as a turn after the messages `before` it; a conversation has the id of its first turn."""
    question = row["prompt"][0]["content"]
    if row["text"] and any(row["text"] in message["content"] for message in before):
        question = question.replace(row["text"], row["reference"])
    prompt = [*before, {"role": "user", "content": question}]
    name = instruction_id(row["source"], row["family"], row["template"], prompt, row["completion"][0]["content"])
    return row | {"id": name, "prompt": prompt, "conversation": conversation if turn else name, "turn": turn}


class _Turn:
    """A row that may become a turn, and what it says and must not be told."""

    def __init__(self, row: Row) -> None:
        self.row, self.text = row, row["text"]
        question, answer = row["prompt"][0]["content"], row["completion"][0]["content"]
        own = _spaced(_without(question, self.text))
        self.words = count_words(question) + count_words(answer)
        self.words_saved = count_words(self.text) - count_words(row["reference"]) if self.text else 0
        self._said = own + _spaced(_without(answer, self.text))
        self._shown = _spaced(self.text or "")
        self._choice = row["choices"] is not None
        secrets = map(_spaced, row["secrets"])
        self._secrets = [secret for secret in secrets if self._choice or secret not in own]
        self._topics = [_spaced(topic) for topic in row["topics"]]
        self._spans = [(span["path"], span["start"], span["end"]) for span in row["source"]]

    def is_about(self, other: _Turn) -> bool:
        """Whether both ask about the same text."""
        return self.text is not None and self.text == other.text

    def overlaps(self, other: _Turn) -> bool:
        """Whether both were made from some of the same bytes."""
        pairs = ((one, two) for one in self._spans for two in other._spans)
        return any(one[0] == two[0] and one[1] < two[2] and two[1] < one[2] for one, two in pairs)

    def reveals(self, later: _Turn) -> bool:
        """Whether what is said in this turn gives away a later one; what both ask about does not."""
        said = self._said if later.is_about(self) else self._said + self._shown
        told = [secret in said for secret in later._secrets]
        if any(told) and not (later._choice and all(told)):
            return True
        return any(topic in said for topic in later._topics)


def _spaced(text: str) -> str:
    return f" {normalise(text)} "


def _without(message: str, text: str | None) -> str:
    return message.replace(text, "") if text else message


class _Conversation:
    """Turns about one text, and after them others of the same document."""

    def __init__(self, first: _Turn) -> None:
        self.turns, self.words = [first], first.words

    def takes(self, turn: _Turn, most: int) -> bool:
        """Give a turn the last place where it reveals none after it and is revealed by none before it, if there is one.

        A turn about another text, or about none, can only be the last: "above" must mean one text.
        """
        about = turn.is_about(self.turns[0])
        words = turn.words - turn.words_saved * about
        if len(self.turns) >= most or self.words + words > MOST_PROMPT_WORDS:
            return False
        if not about and any(turn.overlaps(one) for one in self.turns):
            return False
        for place in range(len(self.turns), -1 if about else len(self.turns) - 1, -1):
            before, after = self.turns[:place], self.turns[place:]
            if not any(one.reveals(turn) for one in before) and not any(turn.reveals(one) for one in after):
                self.turns.insert(place, turn)
                self.words += words
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
    about: dict[str | None, list[_Turn]] = {}
    for row in rows:
        if row["split"] == TRAIN:
            about.setdefault(row["text"], []).append(_Turn(row))
        else:
            yield row
    alone = about.pop(None, [])
    conversations: list[_Conversation] = []
    for group in about.values():
        found: list[_Conversation] = []
        for turn in _in_order(group):
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
