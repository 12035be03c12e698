"""Scoring: the likelihood of given answers and the model's own answer, from one encoding of each prompt.

A batch of prompts is encoded once, what all of them begin with only for one; the key-value cache then serves the gold
answer, every option and the greedy generation. Prompts are sorted by length, so that little of a batch is padding, and
the output layer sees only the positions whose distribution is asked for: with a vocabulary of 49,152 it costs a small
model a fifth of a pass.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import torch

from instructrec.core.errors import UserError
from instructrec.evaluation.suites import Item

OPEN_LIMIT = 512
"""Tokens of an answer at most, where no gold answer says how long one is."""

ANSWER_TOKENS = 2048
"""Tokens of given answers whose distributions are held together, unless one answer has more."""


@dataclass(frozen=True)
class Answered:
    """What a model made of one item.

    Attributes:
        prompt, prompt_ids: as the model saw it.
        output, output_ids: its greedy answer; null where none was asked for.
        stopped: whether it ended its turn within the limit.
        gold_logprob: sum over the gold answer's tokens, without the end of turn; null without a gold answer.
        gold_tokens: how many these are.
        choice_logprobs: the same sum for every option.
    """

    prompt: str
    prompt_ids: tuple[int, ...]
    output: str | None
    output_ids: tuple[int, ...]
    stopped: bool
    gold_logprob: float | None
    gold_tokens: int
    choice_logprobs: tuple[float, ...] | None


@dataclass(frozen=True)
class _Question:
    """An item in tokens. `answers` are the gold answer, if there is one, and the options; `limit` tokens of an own."""

    prompt: str
    ids: list[int]
    answers: list[list[int]]
    has_gold: bool
    limit: int


@dataclass
class _Encoded:
    """A batch of prompts in the cache: `mask` is (batch, length), `logits` (batch, vocabulary) of the next token."""

    cache: Any
    mask: torch.Tensor
    logits: torch.Tensor

    def rows(self, indices: Sequence[int]) -> _Encoded:
        """A copy with these rows of the batch, repeated as often as they occur."""
        index = torch.tensor(indices, device=self.mask.device)
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in cache.layers]  # selecting rows makes new tensors in them
        cache.batch_select_indices(index)
        return _Encoded(cache, self.mask[index], self.logits[index])


class Scorer:
    """Scores items with one model.

    Args:
        model: a causal LM in evaluation mode, with whatever adapter is active.
        tokenizer: with a chat template.
        batch_size: prompts encoded together; scores do not depend on it beyond rounding.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_size: int) -> None:
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        stops = getattr(model.generation_config, "eos_token_id", None)
        stops = stops if isinstance(stops, list) else [stops]
        self.stops = {token for token in (*stops, tokenizer.eos_token_id) if token is not None}
        self.context = getattr(model.config, "max_position_embeddings", None)

    def render(self, item: Item) -> str:
        """The prompt as the model sees it: the chat template's text up to where the answer begins.

        Raw text has no prompt but the token that texts begin with.
        """
        if not item.messages:
            return self.tokenizer.bos_token or self.tokenizer.eos_token
        return self.tokenizer.apply_chat_template(list(item.messages), tokenize=False, add_generation_prompt=True)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def limits(self, items: Sequence[Item], given: int | None) -> list[int]:
        """Tokens that each answer may have: `given`, else twice the 95th percentile of its category's gold answers.

        Raw text gets none.
        """
        lengths: dict[str, list[int]] = defaultdict(list)
        for item in items:
            if item.targets and given is None:
                lengths[item.category].append(len(self._ids(item.targets[0])))
        by_category = {name: 2 * int(np.ceil(np.percentile(found, 95))) for name, found in lengths.items()}
        most = {item.category: by_category.get(item.category, OPEN_LIMIT) if given is None else given for item in items}
        return [most[item.category] if item.messages else 0 for item in items]

    def score(self, items: Sequence[Item], limits: Sequence[int]) -> list[Answered]:
        """Score all items and return the answers in the items' order; see `batches`."""
        found = dict(pair for batch in self.batches(items, limits) for pair in batch)
        return [found[i] for i in range(len(items))]

    def batches(self, items: Sequence[Item], limits: Sequence[int]) -> Iterator[list[tuple[int, Answered]]]:
        """Score items, longest first, and yield each batch when it is done: the items' indices and their answers.

        Args:
            limits: tokens of each item's own answer at most; 0 asks for none.

        Raises:
            UserError: an answer has no token, or prompt and answer do not fit the model's context.
        """
        questions = [self._question(item, limit) for item, limit in zip(items, limits, strict=True)]
        order = sorted(range(len(items)), key=lambda i: -len(questions[i].ids))
        for batch in _parts(order, self.batch_size):
            answered = self._answer([questions[i] for i in batch], [bool(items[i].choices) for i in batch])
            yield list(zip(batch, answered, strict=True))

    def _question(self, item: Item, limit: int) -> _Question:
        prompt = self.render(item)
        ids = self._ids(prompt)
        answers = [self._ids(text) for text in (*item.targets[:1], *(item.choices or ()))]
        if not all(answers):
            raise UserError(f"item {item.id}: an answer has no token")
        longest = len(ids) + max([limit, *map(len, answers)])
        if self.context and longest > self.context:
            raise UserError(
                f"item {item.id}: its prompt of {len(ids)} tokens and an answer of {longest - len(ids)} need more than "
                f"the model's context of {self.context}; shorten it, or give fewer --shots or --max_new_tokens"
            )
        return _Question(prompt, ids, answers, bool(item.targets), limit)

    @torch.inference_mode()
    def _answer(self, questions: list[_Question], has_choices: list[bool]) -> list[Answered]:
        encoded = self._encode([question.ids for question in questions])
        logprobs = self._logprobs(encoded, [question.answers for question in questions])
        outputs = self._generate(encoded, [question.limit for question in questions])
        found = []
        for question, chosen, values, (tokens, stopped) in zip(questions, has_choices, logprobs, outputs, strict=True):
            gold, options = (values[0], values[1:]) if question.has_gold else (None, values)
            output = self.tokenizer.decode(tokens, skip_special_tokens=True).strip() if question.limit else None
            found.append(
                Answered(
                    prompt=question.prompt,
                    prompt_ids=tuple(question.ids),
                    output=output,
                    output_ids=tuple(tokens),
                    stopped=stopped,
                    gold_logprob=gold,
                    gold_tokens=len(question.answers[0]) if question.has_gold else 0,
                    choice_logprobs=tuple(options) if chosen else None,
                )
            )
        return found

    def _step(self, encoded: _Encoded, tokens: torch.Tensor, mask: torch.Tensor, keep: int) -> torch.Tensor:
        """Feed `tokens` (batch, n) after the cache; logits of the last `keep` positions. `mask` covers `tokens`."""
        encoded.mask = torch.cat([encoded.mask, mask], dim=1)
        positions = (encoded.mask.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        output = self.model(
            input_ids=tokens,
            attention_mask=encoded.mask,
            position_ids=positions,
            past_key_values=encoded.cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        encoded.cache = output.past_key_values
        return output.logits

    @contextmanager
    def _only(self, wanted: torch.Tensor) -> Iterator[None]:
        """Within, logits come as (1, n, vocabulary): of the n positions that are true in `wanted` (batch, length)."""
        head = self.model.get_output_embeddings()
        handle = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][wanted][None],))
        try:
            yield
        finally:
            handle.remove()

    def _tensor(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        return torch.tensor(rows, device=self.model.device)

    def _encode(self, prompts: list[list[int]]) -> _Encoded:
        """What all prompts begin with (a system prompt, a task's instruction) is encoded once, the rest left-padded."""
        alike = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*prompts, strict=False))
        shared = min(sum(1 for _ in alike), min(map(len, prompts)) - 1)
        encoded = _Encoded(None, self._tensor([[]]).long(), torch.empty(0))
        if shared:
            first = self._tensor([prompts[0][:shared]])
            encoded.logits = self._step(encoded, first, torch.ones_like(first), keep=1)[:, -1]
            encoded = encoded.rows([0] * len(prompts))
        else:
            encoded.mask = encoded.mask.expand(len(prompts), 0)
        rests = [prompt[shared:] for prompt in prompts]
        length, pad = max(map(len, rests)), self.tokenizer.pad_token_id or 0
        tokens = self._tensor([[pad] * (length - len(rest)) + rest for rest in rests])
        mask = self._tensor([[0] * (length - len(rest)) + [1] * len(rest) for rest in rests])
        encoded.logits = self._step(encoded, tokens, mask, keep=1)[:, -1].float()
        return encoded

    def _logprobs(self, encoded: _Encoded, answers: list[list[list[int]]]) -> list[list[float]]:
        """Summed log-probability of every answer of every row."""
        first = encoded.logits.log_softmax(-1)
        totals = [[float(first[row, answer[0]]) for answer in texts] for row, texts in enumerate(answers)]
        # The gold answer is often one of the options: what is asked twice is scored once.
        places: dict[tuple[int, tuple[int, ...]], list[int]] = defaultdict(list)
        for row, texts in enumerate(answers):
            for k, answer in enumerate(texts):
                if len(answer) > 1:
                    places[row, tuple(answer)].append(k)
        longest_first = sorted(places, key=lambda place: -len(place[1]))
        size = max(1, min(4 * self.batch_size, ANSWER_TOKENS // len(longest_first[0][1]))) if places else 1
        for part in _parts(longest_first, size):
            texts = [answer for _, answer in part]
            length, pad = len(texts[0]) - 1, self.tokenizer.pad_token_id or 0
            tokens = self._tensor([[*t[:-1], *[pad] * (length + 1 - len(t))] for t in texts])
            mask = self._tensor([[1] * (len(t) - 1) + [0] * (length + 1 - len(t)) for t in texts])
            following = torch.tensor([token for t in texts for token in t[1:]], device=mask.device)
            with self._only(mask.bool()):
                logits = self._step(encoded.rows([row for row, _ in part]), tokens, mask, keep=length)[0].float()
            values = logits.gather(-1, following[:, None])[:, 0] - logits.logsumexp(-1)
            for place, own in zip(part, values.split([len(t) - 1 for t in texts]), strict=True):
                for k in places[place]:
                    totals[place[0]][k] += float(own.sum())
        return totals

    def _generate(self, encoded: _Encoded, limits: list[int]) -> list[tuple[list[int], bool]]:
        """Greedy answers and whether they ended; a row leaves the batch when it ends its turn or reaches its limit."""
        outputs: list[list[int]] = [[] for _ in limits]
        stopped = [False] * len(limits)
        alive, logits = list(range(len(limits))), encoded.logits
        while alive:
            following = logits.argmax(-1).tolist()
            kept = []
            for place, (row, token) in enumerate(zip(alive, following, strict=True)):
                if len(outputs[row]) == limits[row]:
                    continue
                if token in self.stops:
                    stopped[row] = True
                    continue
                outputs[row].append(token)
                if len(outputs[row]) < limits[row]:
                    kept.append(place)
            if not kept:
                break
            if len(kept) < len(alive):
                encoded = encoded.rows(kept)
                alive = [alive[place] for place in kept]
            tokens = self._tensor([[following[place]] for place in kept])
            logits = self._step(encoded, tokens, torch.ones_like(tokens), keep=1)[:, -1]
        return list(zip(outputs, stopped, strict=True))


def _parts(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
