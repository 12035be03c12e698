"""Decontamination: which rows overlap with named evaluation files, so that a build can leave them out and count them.

Two tests, both on words without case and punctuation: a shared 13-gram (Brown et al. 2020, appendix C; in scripts
without spaces 26 characters) with any text of the evaluation, and a whole evaluation instruction within the prompt.
N-grams are kept as 64-bit hashes, 12 to 16 bytes each.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from instructrec.core.errors import UserError
from instructrec.core.overlap import FEWEST_WORDS, NGRAM, Hashes, Phrases, ngram_hashes, words_only

SUFFIXES = (".json", ".jsonl", ".txt", ".csv")
NGRAM_REASON, INSTRUCTION_REASON = "evaluation_ngram", "evaluation_instruction"

# Keys whose strings are answers or notes about an item: their n-grams count, but to share one whole is no overlap with
# a question ("Answer: yes, it is"). Every other string may be an instruction.
_NOT_INSTRUCTION = re.compile(
    r"(?:answer|target|output|response|completion|reference|label|choice|option|source|url|tag)s?|explanation|rationale"
    r"|chosen|rejected|id|key|name|category|licen[cs]e|author|description|motivation_app|canary|kwargs|metadata|role",
    re.IGNORECASE,
)


@dataclass(frozen=True, eq=False)
class Contamination:
    """What evaluation files hold. Plain data: it can be pickled, and workers that fork share its memory.

    Attributes:
        ngrams: distinct hashes of all 13-grams.
        instructions: the instructions that are shorter than an n-gram. (A longer one is found by its n-grams.)
        fingerprint: hex SHA-256 of the evaluation files' bytes; neither their names nor their order matter.
        files: how many files were read.
    """

    ngrams: Hashes
    instructions: Phrases
    fingerprint: str
    files: int

    @classmethod
    def load(cls, paths: Sequence[str]) -> Contamination:
        """Read evaluation files, or all of them below folders: `.jsonl`, `.json`, `.csv` and `.txt`.

        Every string of five words or more counts, at any depth of JSON and in any cell of a CSV.

        Raises:
            UserError: a path does not exist, holds no evaluation text, or is not what its suffix says; the message
                names the file and, where there is one, the line.
        """
        digests: set[str] = set()
        hashes: list[npt.NDArray[np.uint64]] = []
        instructions: set[str] = set()
        read: dict[Path, int] = {}
        for path in paths:
            files = _files(Path(path))
            for file in files:
                if file.resolve() in read:
                    continue
                data = _read(file)
                digests.add(hashlib.sha256(data).hexdigest())
                texts = 0
                for text, is_instruction in _texts(file, data):
                    normalised = words_only(text)
                    grams, head = ngram_hashes(normalised, NGRAM, FEWEST_WORDS)
                    if not len(head):
                        continue
                    texts += 1
                    hashes.append(grams)
                    if is_instruction and not len(grams):
                        instructions.add(normalised)
                read[file.resolve()] = texts
            if not any(read[file.resolve()] for file in files):
                raise UserError(f"{path}: no text of {FEWEST_WORDS} words or more to keep out of the set")
        return cls(
            ngrams=Hashes(np.concatenate([np.zeros(0, np.uint64), *hashes])),
            instructions=Phrases(instructions),
            fingerprint=hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest(),
            files=len(read),
        )

    def reason(self, prompt: str, completion: str) -> str | None:
        """Why a row must go: `evaluation_ngram`, `evaluation_instruction`, or null where it may stay."""
        asked = words_only(prompt)
        # One pass over both: no evaluation text has a null character, so no n-gram across the two can be found.
        both = f"{asked} \0 {words_only(completion)}"
        grams, heads = ngram_hashes(both, NGRAM, FEWEST_WORDS)
        if len(self.ngrams.holding(grams)):
            return NGRAM_REASON
        return INSTRUCTION_REASON if any(self.instructions.within(asked, heads)) else None


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        if not found:
            raise UserError(f"{path}: no evaluation file below it; they end in {', '.join(SUFFIXES)}")
        return found
    if not path.exists():
        raise UserError(f"{path}: no such evaluation file or folder")
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: an evaluation file must end in {', '.join(SUFFIXES)}")
    return [path]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def _texts(path: Path, data: bytes) -> Iterator[tuple[str, bool]]:
    """Every string of an evaluation file, and whether it may be an instruction."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    suffix = path.suffix.lower()
    if suffix == ".txt":
        # N-grams run across line ends, because lines may be wrapped; an instruction is a line or a paragraph.
        yield text, False
        for paragraph in text.replace("\r\n", "\n").split("\n\n"):
            yield paragraph, True
            for single in paragraph.split("\n"):
                yield single, True
    elif suffix == ".csv":
        yield from _cells(path, text)
    elif suffix == ".jsonl":
        for number, record in enumerate(text.split("\n"), start=1):
            if record.strip():
                yield from _strings(_parsed(path, record, number))
    else:
        yield from _strings(_parsed(path, text, None))


def _parsed(path: Path, text: str, line: int | None) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{line or error.lineno}: not JSON ({error.msg}, column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}:{line or 1}: not readable JSON ({error})") from None


def _strings(value: Any) -> Iterator[tuple[str, bool]]:
    """Every string below a JSON value and whether it may be an instruction, which the nearest key above it tells."""
    waiting: list[tuple[Any, bool]] = [(value, True)]
    while waiting:
        item, is_instruction = waiting.pop()
        if isinstance(item, str):
            yield item, is_instruction
        elif isinstance(item, list):
            waiting.extend((element, is_instruction) for element in item)
        elif isinstance(item, dict):
            spoken = item.get("role") in (None, "user", "human")
            waiting.extend((v, spoken and not _NOT_INSTRUCTION.fullmatch(k)) for k, v in item.items())


def _cells(path: Path, text: str) -> Iterator[tuple[str, bool]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    try:
        for row in reader:
            if header is None:
                header = row
            for index, cell in enumerate(row):
                column = header[index].strip() if index < len(header) else ""
                yield cell, not _NOT_INSTRUCTION.fullmatch(column)
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not CSV ({error})") from None
