"""What the instruction sets of a mixture hold out, looked for in everything else that the mixture trains on.

`data.check_hold_out` refuses a set that breaks its own contract, because the build would not have written it. Two sets
were built apart, so that one may well train on what the other holds out: such rows are found here, to be left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from instructrec.core.passages import Passages
from instructrec.core.schema import HELD_OUT, TRAIN, VALIDATION, read_manifest, read_split
from instructrec.core.spans import Spans

FAMILY, WORDING = "of a held-out family", "of a held-out wording"
PROMPT, DOCUMENT, PASSAGE = "with a held-out prompt", "from a held-out document", "with a held-out passage"


class HeldOut:
    """What instruction sets hold out, and which rows of others hold some of it.

    Attributes:
        left_out: for each set the training rows that hold what another one holds out, by `key_of`, with the reason:
            those that `check_hold_out` would refuse if they were in that set.
    """

    def __init__(self, sets: Sequence[Path]) -> None:
        """Read the sets. Raises `UserError` for one that is malformed."""
        self._passages = Passages()
        # Whose family, wording and prompt it is, by number of the set; and of each set, which bytes of which files.
        self._families, self._wordings, self._prompts = (defaultdict[str, set[int]](set) for _ in range(3))
        self._spans = [Spans() for _ in sets]
        for number, folder in enumerate(sets):
            held_out = read_manifest(folder)["held_out"]
            for kept, names in ((self._families, held_out["families"]), (self._wordings, held_out["templates"])):
                for name in names:
                    kept[name].add(number)
            for split in (VALIDATION, *HELD_OUT):
                for row in read_split(folder, split):
                    self._hold_out(row, number)
        self.left_out: list[dict[str, str]] = [{} for _ in sets]
        for number, folder in enumerate(sets):
            for row in read_split(folder, TRAIN):
                if reason := self._reason(row, number):
                    self.left_out[number][key_of(row)] = reason
                for side in _sides(row, f"{number} {key_of(row)}"):
                    self._passages.train(side)
        while found := {leak.train for leak in self._passages.leaks() if _set_of(leak.train) != _set_of(leak.held_out)}:
            self._passages.forget(found)
            for name in found:
                self.left_out[int(_set_of(name))].setdefault(name.partition(" ")[2], PASSAGE)

    def _hold_out(self, row: dict[str, Any], number: int) -> None:
        self._prompts[row["prompt"][-1]["content"]].add(number)
        for source in row["source"]:
            self._spans[number].add(source["sha256"], source["start"], source["end"], row["id"])
        for side in _sides(row, f"{number} {row['id']}"):
            self._passages.hold_out(side)

    def _reason(self, row: dict[str, Any], number: int) -> str | None:
        """What a training row of set `number` has that another set holds out; its passages are looked at later."""
        for reason, holders in (
            (FAMILY, self._families.get(row["family"], ())),
            (WORDING, self._wordings.get(row["template"], ())),
            (PROMPT, self._prompts.get(row["prompt"][-1]["content"], ())),
            (
                DOCUMENT,
                (
                    holder
                    for source in row["source"]
                    for holder, spans in enumerate(self._spans)
                    if spans.overlapping(source["sha256"], source["start"], source["end"]) is not None
                ),
            ),
        ):
            if any(holder != number for holder in holders):
                return reason
        return None

    def within(self, rows: Sequence[Sequence[str]], files: Sequence[str | None] = ()) -> dict[int, str]:
        """Which of some rows that are of no set hold something held out, by place, with the reason.

        Such rows have no wording that could be told from their passages, and what they were cut from is not known. So
        one of them is taken for a leak earlier: if a text of it is a held-out prompt, if it shares 20 words in a row
        (`LEAST_SHARED` 13-grams) with a held-out prompt or answer beside its wording, or if it is a file that
        held-out rows come from.

        Args:
            rows: the texts of each.
            files: for each the SHA-256 of the file that it is, if it is one.
        """
        if not self._prompts:
            return {}
        found = dict.fromkeys(self._passages.leaking(["\n".join(texts) for texts in rows]), PASSAGE)
        found |= {place: PROMPT for place, texts in enumerate(rows) if any(text in self._prompts for text in texts)}
        return found | {
            place: DOCUMENT for place, file in enumerate(files) if any(file in spans for spans in self._spans)
        }


def key_of(row: dict[str, Any]) -> str:
    """What is left out together: a conversation, or else a row."""
    return row["conversation"] or row["id"]


def _set_of(name: str) -> str:
    return name.partition(" ")[0]


def _sides(row: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """A row's prompt and its answer, which may be a passage too, as `Passages` takes rows."""
    yield {**row, "id": name}
    yield {"id": name, "template": f"{row['template']}, answered", "prompt": row["completion"]}
