"""What a model wrote for a set: `synthesis.jsonl`, from which rows are rendered, traced and read by people."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from data_builders.families import Template
from instructrec.core.errors import UserError
from instructrec.core.files import write_text

FILE = "synthesis.jsonl"
SYNTHESIZED = "synthesized"
"""The family of the spans, and the end of a written wording's name."""

KEPT, UNWRITTEN, COPIED, UNLIKELY = "kept", "unwritten", "copied", "unlikely"
"""Verdicts: kept; nothing that asks for something; words of the answer, or an existing wording; the answer's likelihood
does not rise."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a model wrote for one span, or as a new wording.

    Attributes:
        family: `synthesized`, or the family of the wording.
        name: 16 hex digits, the span's key (`data_builders.mining.key_of`); or the wording's name.
        text: the instruction, or the Jinja template of the wording.
        verdict: one of the above.
        instructed, bare, mismatched, original: log-probability (natural, summed over tokens and examples) of the answer
            after this instruction, none, that of another, and that of the wording it was made from; null where not
            scored.
    """

    family: str
    name: str
    text: str
    verdict: str
    instructed: float | None = None
    bare: float | None = None
    mismatched: float | None = None
    original: float | None = None


class Texts:
    """What the renderers look up. Empty for a set that no model wrote for.

    Attributes:
        instructions: key of a span → instruction and verdict.
        wordings: (family, language) → wordings that were kept.
    """

    def __init__(self, written: Iterable[Written] = ()) -> None:
        self.instructions: dict[int, tuple[str, str]] = {}
        self.wordings: dict[tuple[str, str], list[Template]] = {}
        for entry in written:
            if entry.family == SYNTHESIZED:
                self.instructions[int(entry.name, 16)] = entry.text, entry.verdict
            elif entry.verdict == KEPT:
                language = entry.name.split(".")[1]
                self.wordings.setdefault((entry.family, language), []).append(Template(entry.name, entry.text))


def write_written(folder: Path, written: Iterable[Written]) -> None:
    """Write `synthesis.jsonl`."""
    write_text(folder / FILE, "".join(json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in written))


def read_written(folder: Path) -> list[Written]:
    """The lines of a folder's `synthesis.jsonl`; none where it has no such file.

    Raises:
        UserError: a line is not of this form; the message names it.
    """
    path = folder / FILE
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], start=1):
        try:
            found.append(Written(**json.loads(line)))
        except (ValueError, TypeError):
            raise UserError(f"{path}:{number}: not what a build writes there; build the set again") from None
    return found
