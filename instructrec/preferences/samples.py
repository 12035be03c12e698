"""Preference pairs from a model's own answers: of n samples of a prompt, the best against the worst under a reward.

Sampling takes long, so that every prompt's samples are on disk when they are there. What is sampled for a prompt
depends on the model, the prompt, the limit, the number of samples, the temperature and the seed, not on what was
sampled before.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from instructrec.core.errors import check_interrupt
from instructrec.core.files import append_records, read_records
from instructrec.core.hashing import hashed
from instructrec.evaluation.scoring import Scorer
from instructrec.evaluation.suites import from_row
from instructrec.models import stop_tokens
from instructrec.preferences.rows import ROW_SPLITS, rows_of
from instructrec.preferences.write import Pair, pair
from instructrec.rewards.combined import Rewards


class Sampler:
    """Draws answers at temperature 1 or as asked, from the whole distribution (no top-k, no top-p).

    Args:
        model: a causal LM in evaluation mode; tokenizer: with a chat template.
        origin: what tells the model from every other (`evaluation.answers.model_origin`).
        n: answers to each prompt.
    """

    def __init__(self, model: Any, tokenizer: Any, origin: str, n: int, temperature: float, seed: int) -> None:
        self.model, self.tokenizer, self.n, self.temperature, self.seed = model, tokenizer, n, temperature, seed
        self._origin = [origin, n, temperature, seed]
        self._stops = sorted(stop_tokens(model, tokenizer))

    def key(self, row: dict[str, Any], limit: int) -> str:
        """What the samples of a row depend on, as a hash."""
        asked = json.dumps([*self._origin, row["prompt"], limit], ensure_ascii=False)
        return hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    @torch.inference_mode()
    def sample(self, row: dict[str, Any], limit: int) -> list[tuple[str, bool]]:
        """`n` answers of `limit` tokens at most, and whether each has ended; none where they do not fit the context."""
        text = self.tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
        encoded = self.tokenizer(text, add_special_tokens=False, return_tensors="pt").to(self.model.device)
        length = encoded["input_ids"].shape[1]
        context = getattr(self.model.config, "max_position_embeddings", None)
        if context and length + limit > context:
            return []
        torch.manual_seed(hashed(self.seed, "sample", self.key(row, limit)) >> 1)
        outputs = self.model.generate(
            **encoded,
            do_sample=True,
            temperature=self.temperature,
            top_k=0,
            top_p=1.0,
            repetition_penalty=1.0,
            num_return_sequences=self.n,
            max_new_tokens=limit,
            eos_token_id=self._stops,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        answers = outputs[:, length:].tolist()
        return [
            (self.tokenizer.decode(ids, skip_special_tokens=True).strip(), not set(self._stops).isdisjoint(ids))
            for ids in answers
        ]


def chosen_rows(folder: Path, most: int, seed: int) -> list[tuple[str, dict[str, Any]]]:
    """(split, row): up to `most` rows of each split that makes pairs."""
    return [(split, row) for split in ROW_SPLITS for row in rows_of(folder, split, most, seed)]


def limits_of(sampler: Sampler, rows: Sequence[dict[str, Any]], given: int | None) -> list[int]:
    """Tokens of each answer at most, as the evaluation has them: twice what the family's gold answers need."""
    return Scorer(sampler.model, sampler.tokenizer, 1).limits([from_row(row) for row in rows], given)


def sampled(
    rows: Sequence[tuple[str, dict[str, Any]]],
    limits: Sequence[int],
    sampler: Sampler,
    rewards: Rewards,
    kept: Path,
    skipped: Counter[str],
    done: Callable[[], None],
) -> Iterator[tuple[str, Pair]]:
    """(split, pair) of rows of which a sample that ended has more reward than another; the margin is the difference.

    Args:
        rows, limits: (split, row) and the tokens of each answer at most.
        rewards: get a prompt's answers together, with all columns of its row.
        kept: JSONL file of samples; what it has is not sampled again.
        skipped: gets reason → prompts without a pair; at `cut_off` only samples that did not end are better.
        done: called after each row.

    Raises:
        UserError: a reward fails; the message names it, the row and the completion. What was sampled stays.
    """
    known = {record["key"]: record["samples"] for record in read_records(kept)}
    for (split, row), limit in zip(rows, limits, strict=True):
        check_interrupt()
        key = sampler.key(row, limit)
        if key not in known:
            known[key] = sampler.sample(row, limit)
            append_records(kept, [{"key": key, "samples": known[key]}])
        # Blank answers would make blank responses, which nothing is learnt from.
        texts = list(dict.fromkeys(text for text, _ in known[key] if text))
        completions = [[{"role": "assistant", "content": text}] for text in texts]
        columns = {name: [value] * len(texts) for name, value in row.items() if name not in ("prompt", "completion")}
        scores = rewards([row["prompt"]] * len(texts), completions, **columns)
        found = [(score, text) for score, text in zip(scores, texts, strict=True) if score is not None]
        # What was cut off at the limit is no answer to prefer, whatever a reward says of its beginning.
        whole = {text for text, stopped in known[key] if stopped}
        best = max((one for one in found if one[1] in whole), default=None)
        worst = min(found, default=None)
        if best and worst and best[0] > worst[0]:
            yield split, pair(row["prompt"], best[1], worst[1], "samples", row["source"], best[0] - worst[0])
        elif not known[key]:
            skipped["too_long"] += 1
        else:
            skipped["cut_off" if len({score for score, _ in found}) > 1 else "no_difference"] += 1
        done()
