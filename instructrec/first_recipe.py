"""The YAML for recipes/sft.py that `instructrec init` proposes: the smallest recipe here, fitted to a set to be."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from instructrec.core.errors import UserError
from instructrec.core.files import one_line

RECIPES = Path(__file__).parent.parent / "recipes"
"""Beside the package in a clone; an installed package has none."""

BASE = RECIPES / "smollm2-135m" / "sft.yaml"

MEASURED, LONGEST = 1_000, 30
"""Rows whose tokens are counted, and rows among them that are the longest in characters."""

BYTES_PER_TOKEN, CHAT_TOKENS = 4, 20
"""Of text, and what a chat template adds to a row: a rule of thumb, for a tokenizer that is not here."""

LEAST_LENGTH, LENGTH_STEP = 512, 128
"""The smallest `max_length` that is proposed, and what it is a multiple of."""

PACKED = 0.95
"""How full packed sequences are, about."""

EVALUATIONS = 4
"""Evaluations and checkpoints in a run; its warm-up is a tenth of it."""

Message = list[dict[str, str]]


@dataclass(frozen=True)
class Tokens:
    """What the training rows of a set come to.

    Attributes:
        total, longest: tokens of all rows, and of the longest one that was seen.
        by: whose tokens these are, in words.
    """

    total: int
    longest: int
    by: str


@dataclass(frozen=True)
class Epoch:
    """One pass over the rows: `steps` of the optimizer on sequences of `max_length` tokens."""

    max_length: int
    steps: int


def count_tokens(rows: Sequence[tuple[float, Message, Message]], model: str) -> Tokens:
    """Count the tokens of rows by the model's tokenizer if it is on this machine, else by their bytes.

    Args:
        rows: how many rows of the set each stands for, its prompt and its completion.
        model: the embedded one, a Hub name or a folder; nothing is downloaded.

    Raises:
        UserError: no such folder, or a tokenizer without a chat template.
    """
    from instructrec.models import load_tokenizer, tokenizer_at_hand

    folder = tokenizer_at_hand(model)
    sizes = [sum(len(message["content"].encode()) for message in prompt + answer) for _, prompt, answer in rows]
    if folder is None:
        counts = [size / BYTES_PER_TOKEN + CHAT_TOKENS for size in sizes]
        total = sum(weight * n for (weight, *_), n in zip(rows, counts, strict=True))
        by = f"at {BYTES_PER_TOKEN} bytes a token, because the tokenizer of {one_line(model)} is not on this machine"
        return Tokens(round(total), math.ceil(max(counts, default=0)), by)

    from instructrec.runtime import quiet

    quiet()
    from datasets import Dataset

    from instructrec.preflight import tokens_of

    # Every so many-th row in the order of their sizes stands for its neighbours.
    order = sorted(range(len(rows)), key=lambda i: (sizes[i], i))
    step = max(1, math.ceil(len(rows) / MEASURED))
    chosen = order[step // 2 :: step]
    measured = list(dict.fromkeys([*chosen, *order[-LONGEST:]]))
    columns = {"prompt": [rows[i][1] for i in measured], "completion": [rows[i][2] for i in measured]}
    lengths = [len(ids) for ids, _ in tokens_of(Dataset.from_dict(columns), load_tokenizer(folder))]
    length_of = dict(zip(measured, lengths, strict=True))
    bytes_of = sum(rows[i][0] * sizes[i] for i in range(len(rows)))
    per_byte = sum(rows[i][0] * length_of[i] for i in chosen) / max(sum(rows[i][0] * sizes[i] for i in chosen), 1e-9)
    return Tokens(round(bytes_of * per_byte), max(lengths, default=0), f"by the tokenizer of {one_line(model)}")


def epoch(tokens: Tokens, exact: bool) -> Epoch:
    """The length of sequences that holds every row, and the steps of one epoch.

    Args:
        exact: whether the rows were all there are; else longer ones are left room for.
    """
    longest = tokens.longest if exact else tokens.longest * 1.1
    max_length = max(LEAST_LENGTH, math.ceil(longest / LENGTH_STEP) * LENGTH_STEP)
    settings = _settings()
    batch = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"]
    sequences = math.ceil(tokens.total / max_length / PACKED)
    return Epoch(max_length, max(1, math.ceil(sequences / batch)))


def sft_yaml(model: str, folder: Path, run: Epoch, evaluated: bool, notes: Sequence[str]) -> str:
    """A file for `recipes/sft.py --config`: the settings of `BASE` but for what depends on the set.

    Args:
        model: to tune.
        folder: that holds `set` and will hold `adapter`.
        evaluated: whether the set has validation rows.
        notes: comments to begin with, of one line each.
    """
    every = max(1, run.steps // EVALUATIONS)
    changes: dict[str, Any] = {
        "model_name_or_path": model,
        "dataset_name": str(folder / "set"),
        "output_dir": str(folder / "adapter"),
        "num_train_epochs": 1,
        "max_length": run.max_length,
        "warmup_steps": run.steps // 10,
        "eval_steps": every,
        "save_steps": every,
        "logging_steps": max(1, min(5, run.steps // 10), run.steps // 100),
    }
    dropped: set[str] = set()
    if not evaluated:  # nothing to evaluate on
        changes |= {"eval_strategy": "no", "load_best_model_at_end": False}
        dropped = {"eval_steps", "metric_for_best_model", "greater_is_better"}

    def written(key: str) -> str:
        return yaml.safe_dump({key: changes.pop(key)}, width=10**6, allow_unicode=True).rstrip("\n")

    # What stands above the first key is about the other recipe.
    base = re.split(r"^(?=\w)", _base_text(), maxsplit=1, flags=re.M)[1]
    lines = [f"# {note}" for note in notes]
    for line in re.sub(r"^max_steps:", "num_train_epochs:", base, flags=re.M).splitlines():
        key = line.partition(":")[0]
        if key not in dropped:
            lines.append(written(key) if key in changes else line)
    lines += [written(key) for key in sorted(changes.keys() - dropped)]
    return "\n".join(lines) + "\n"


def _base_text() -> str:
    try:
        return BASE.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(
            f"{BASE}: not there, so that no recipe can be proposed; run init from a clone of the repository"
        ) from None


def _settings() -> dict[str, Any]:
    return yaml.safe_load(_base_text())
