"""Contamination: which items of a suite share text with what a model was trained on.

The suite is the small side: its n-grams are held as hashes and training rows streamed past them, so that a set of a
million rows needs no more memory than one of a thousand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from instructrec.core.files import fingerprint
from instructrec.core.overlap import FEWEST_WORDS, NGRAM, Hashes, Phrases, ngram_hashes, words_only
from instructrec.core.schema import HELD_OUT, TRAIN, read_manifest, read_split
from instructrec.evaluation.suites import Item
from instructrec.lineage import ancestry, read_lineage

NGRAM_OVERLAP, INSTRUCTION_OVERLAP = "ngram", "instruction"

LEAST_ITEMS = 5
"""Items of one wording below which nothing is taken for the wording's own: a few may have a passage in common."""

ROWS = 512
"""Training rows looked through at once."""


@dataclass(frozen=True)
class _Sought:
    """What is looked for of one item: n-gram hashes, and phrases of which each would be an instruction seen."""

    ngrams: npt.NDArray[np.uint64]
    phrases: tuple[str, ...]


def overlap(items: Sequence[Item], sets: Sequence[Path]) -> list[str | None]:
    """What each item of a suite shares with the training rows of instruction sets.

    - `ngram`: 13 words in a row (26 characters of a script without spaces) of its last user message or of its gold
      answer are also in a row's prompt or completion (Brown et al., 2020, appendix C).
    - `instruction`: its message, or the instruction it has in common with others, stands whole in a row's prompt, and
      has five words or more.
    - null: neither.

    The words that all items of one category and wording begin and end with are their instruction. They are no part of
    the n-grams, because they say nothing of one item: a frame of 13 words would condemn every item at once. That such
    an instruction was trained on is told by `instruction`. Texts are compared without case and punctuation.

    Args:
        items: of one suite. Rungs of the sets themselves need not be asked: the hold-out contract covers them.
        sets: folders of instruction sets.

    Raises:
        UserError: a folder has no readable training split.
    """
    sought = _sought(items)
    ngrams = Hashes(np.concatenate([np.zeros(0, np.uint64), *(item.ngrams for item in sought)]))
    phrases = Phrases(phrase for item in sought for phrase in item.phrases)
    shared: set[int] = set()
    seen: set[str] = set()
    for folder in sets:
        stream = read_split(folder, TRAIN, ["prompt", "completion"])
        while rows := list(islice(stream, ROWS)):
            prompts = _apart(message["content"] for row in rows for message in row["prompt"])
            completions = _apart(message["content"] for row in rows for message in row["completion"])
            asked, heads = ngram_hashes(prompts, NGRAM, FEWEST_WORDS)
            (answered,) = ngram_hashes(completions, NGRAM)
            shared.update(ngrams.holding(asked).tolist(), ngrams.holding(answered).tolist())
            seen.update(phrases.within(prompts, heads))
    return [
        NGRAM_OVERLAP
        if not shared.isdisjoint(item.ngrams.tolist())
        else INSTRUCTION_OVERLAP
        if not seen.isdisjoint(item.phrases)
        else None
        for item in sought
    ]


def training_sets(adapters: Sequence[Path]) -> list[Path]:
    """The instruction sets that adapters, and what they were made from, were trained on, as their lineage names them.

    Only those that are still there, with the same rows; of a mixture its instruction sets.
    """
    found: dict[Path, None] = {}
    for lineage in (one for adapter in adapters for one in ancestry(read_lineage(adapter))):
        inputs = lineage["inputs"]
        for dataset in (inputs.get("dataset"), *inputs.get("mixture", ())):
            if dataset and fingerprint(Path(dataset["name"]), "*.parquet") == dataset["fingerprint"]:
                found[Path(dataset["name"])] = None
    return list(found)


def held_out_suites(adapters: Sequence[Path], given: Sequence[str] = ()) -> list[str]:
    """What adapters can be asked that they were not trained on, as names for `suites.load_suites`.

    Args:
        given: names to take instead of the sets that the adapters were trained on.

    Returns:
        The names, in which the held-out splits that hold rows stand for their instruction set.
    """
    # What a lineage names may be preference pairs, which are no held-out instructions.
    names = given or [str(folder) for folder in training_sets(adapters) if (folder / "manifest.json").exists()]
    found: list[str] = []
    for name in names:
        folder = Path(name)
        if (folder / "manifest.json").exists():
            splits = read_manifest(folder)["splits"]
            found += [str(folder / split) for split in HELD_OUT if splits.get(split)]
        else:
            found.append(name)
    return found


def _apart(texts: Iterable[str]) -> str:
    """Texts normalised into one, with between them what no text has: no n-gram or phrase can be found across two."""
    return " \0 ".join(map(words_only, texts))


def _sought(items: Sequence[Item]) -> list[_Sought]:
    messages = [words_only(item.messages[-1]["content"]).split() if item.messages else [] for item in items]
    wordings: dict[tuple[str, str | None], list[list[str]]] = defaultdict(list)
    for item, message in zip(items, messages, strict=True):
        wordings[item.category, item.template].append(message)
    frames = {wording: _frame(found) for wording, found in wordings.items()}
    sought = []
    for item, message in zip(items, messages, strict=True):
        begin, end = frames[item.category, item.template]
        stop = len(message) - end
        texts = [" ".join(message[begin:stop]), *map(words_only, item.targets[:1])]
        hashes = [ngram_hashes(text, NGRAM)[0] for text in texts]
        instruction = max(message[:begin], message[stop:], key=len)
        sought.append(_Sought(np.concatenate(hashes), (" ".join(message), " ".join(instruction))))
    return sought


def _frame(messages: list[list[str]]) -> tuple[int, int]:
    """How many words all messages begin with alike, and how many they end with alike."""
    different = {tuple(message) for message in messages}
    if len(different) < LEAST_ITEMS:
        return 0, 0
    begin = _alike(different)
    return begin, _alike({message[begin:][::-1] for message in different})


def _alike(messages: set[tuple[str, ...]]) -> int:
    """How many words all messages begin with: what the first and the last in order share, all between them share."""
    first, last = min(messages), max(messages)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
