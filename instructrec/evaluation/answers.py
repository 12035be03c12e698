"""Answers kept as they come, so that a kill loses one batch at most and a second run asks only what is new."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from instructrec.core.files import append_records, read_records
from instructrec.evaluation.scoring import Answered, Scorer
from instructrec.evaluation.suites import Item
from instructrec.lineage import weights_sha256


def model_origin(weights: dict[str, str], adapter: Path | None, dtype: str, tokenizer: Any) -> str:
    """A hash of what a model's answers come from: weights, the adapter and its scale, dtype and chat template.

    Args:
        weights: the base's, as `weights_sha256` gives them: reading them takes a while, and many adapters share a base.
    """
    parts = [weights, dtype, tokenizer.chat_template]
    if adapter is not None:
        parts += [weights_sha256(adapter), (adapter / "adapter_config.json").read_text(encoding="utf-8")]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def answer_key(origin: str, item: Item, limit: int) -> str:
    """What an answer depends on, as a hash: the model (`origin`), the prompt, the given answers and the limit."""
    asked = [origin, item.messages, item.targets[:1], item.choices, limit]
    return hashlib.sha256(json.dumps(asked, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()[:32]


class AnswerStore:
    """A folder of JSONL files, one per process, each line an answer under its key.

    Keys name all that an answer depends on, so that lines of other models or suites do no harm, and processes need not
    agree on who asks what.
    """

    def __init__(self, folder: Path, process: int) -> None:
        self.folder, self._path = folder, folder / f"{process}.jsonl"
        self.known: dict[str, Answered] = {}

    def load(self) -> None:
        """Read what all processes have written, but for lines that a kill left unfinished."""
        for path in sorted(self.folder.glob("*.jsonl")):
            for record in read_records(path):
                key = record.pop("key")
                self.known[key] = _answered(record)

    def add(self, answers: Iterable[tuple[str, Answered]]) -> None:
        """Keep a batch, on disk when this returns."""
        self.folder.mkdir(parents=True, exist_ok=True)
        batch = dict(answers)
        self.known |= batch
        append_records(self._path, [{"key": key, **asdict(answered)} for key, answered in batch.items()])


def _answered(record: dict) -> Answered:
    choices = record["choice_logprobs"]
    return Answered(
        **record
        | {
            "prompt_ids": tuple(record["prompt_ids"]),
            "output_ids": tuple(record["output_ids"]),
            "choice_logprobs": None if choices is None else tuple(choices),
        }
    )


def ask(
    scorer: Scorer,
    origin: str,
    items: Sequence[Item],
    limits: Sequence[int],
    store: AnswerStore,
    share: tuple[int, int],
    done: Callable[[int], None],
) -> list[str]:
    """Ask a model what the store lacks and return the items' keys in it.

    Args:
        origin: what tells the model from every other.
        limits: tokens of each answer at most.
        share: this process's number and how many there are: which of the missing items it asks.
        done: called with a number of items whenever so many more of this process's share are answered.
    """
    keys = [answer_key(origin, item, limit) for item, limit in zip(items, limits, strict=True)]
    # Long ones first: every process gets prompts of all lengths, and its batches little padding.
    longest = sorted(range(len(items)), key=lambda i: -sum(len(m["content"]) for m in items[i].messages))
    mine = longest[share[0] :: share[1]]
    missing = [i for i in mine if keys[i] not in store.known]
    done(len(mine) - len(missing))
    for batch in scorer.batches([items[i] for i in missing], [limits[i] for i in missing]):
        store.add((keys[missing[place]], answered) for place, answered in batch)
        done(len(batch))
    return keys
