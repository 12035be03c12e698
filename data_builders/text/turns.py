"""Dialogue: runs of turns written as `NAME: what is said`, as in plays, interviews and chat logs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from data_builders.documents import Document
from data_builders.layout import Block
from instructrec.core.segmentation import count_words

LEAST_TURNS, MOST_TURNS, MOST_WORDS = 4, 8, 200
_MARK = re.compile("[:：]")
_TURN = re.compile(r"\**([^\W\d_][^\W\d_.' -]*(?:[.' -]+[^\W\d_]+){0,2})\**[:：]\**\s+(\S.*[.!?。！？…][\"”’)]*)$")


@dataclass(frozen=True)
class Dialogue:
    """Consecutive turns of two to four speakers; `start`/`end` are characters of the content."""

    turns: tuple[tuple[str, str], ...]
    start: int
    end: int

    @property
    def speakers(self) -> list[str]:
        """In the order in which they first speak."""
        return list(dict.fromkeys(name for name, _ in self.turns))

    def text(self, turns: int | None = None) -> str:
        """The first `turns` turns, one a line."""
        return "\n".join(f"{name}: {said}" for name, said in self.turns[:turns])


def _turns(document: Document, block: Block) -> list[tuple[str, str]]:
    """The turns of a paragraph: itself, or its lines if each is one; none if it is something else."""
    if not _TURN.match(block.text):
        return []
    lines = document.content[block.start : block.end].splitlines()
    by_line = [_TURN.match(line.strip()) for line in lines]
    matches = by_line if len(lines) > 1 and all(by_line) else [_TURN.match(block.text)]
    return [(match[1], match[2]) for match in matches if match]


@lru_cache(maxsize=1)
def dialogues(document: Document) -> list[Dialogue]:
    """The dialogues of a document in which every speaker speaks at least twice, of a few turns."""
    return list(_dialogues(document))


def _dialogues(document: Document) -> Iterator[Dialogue]:
    run: list[tuple[str, str]] = []
    start = end = 0
    for block in [*document.blocks, Block("heading", "", 0, 0)]:
        turns = _turns(document, block) if block.kind == "paragraph" and _MARK.search(block.text, 0, 40) else []
        if not turns or len(run) + len(turns) > MOST_TURNS:
            if _is_dialogue(run):
                yield Dialogue(tuple(run), start, end)
            run = []
        if turns:
            start = start if run else block.start
            run, end = [*run, *turns], block.end


def _is_dialogue(run: list[tuple[str, str]]) -> bool:
    """Whether these are turns of people, not the fields of a header or entries of a list."""
    speakers = Counter(name for name, _ in run)
    return (
        len(run) >= LEAST_TURNS
        and 2 <= len(speakers) <= 4
        and all(n >= 2 and len(name) > 1 for name, n in speakers.items())
        and sum(count_words(said) for _, said in run) <= MOST_WORDS
    )
