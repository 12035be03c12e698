"""Scoring: the likelihood of given answers and the model's own answer, from one encoding of each prompt.

A batch of prompts is encoded once, left-padded; its key-value cache then serves the gold answer, every option and the
greedy generation. Prompts are sorted by length, so that little of a batch is padding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from instructrec.core.errors import UserError
from instructrec.evaluation.suites import Item


@dataclass(frozen=True)
class Answered:
    """What a model made of one item: log-probabilities are sums over the answer's tokens, without the end of turn."""

    prompt: str
    output: str
    gold_logprob: float
    gold_tokens: int
    choice_logprobs: tuple[float, ...] | None


@dataclass
class _Encoded:
    """A batch of prompts in the cache: `mask` is (batch, length), `logits` those of the next token."""

    cache: Any
    mask: torch.Tensor
    logits: torch.Tensor

    def rows(self, indices: Sequence[int]) -> _Encoded:
        """A copy with these rows of the batch, repeated as often as they occur."""
        index = torch.tensor(indices, device=self.mask.device)
        cache = copy.deepcopy(self.cache)
        cache.batch_select_indices(index)
        return _Encoded(cache, self.mask[index], self.logits[index])


class Scorer:
    """Scores items with one model.

    Args:
        model: a causal LM in evaluation mode, with whatever adapter is active.
        tokenizer: with a chat template.
        max_new_tokens: tokens of a generated answer at most.
        batch_size: prompts encoded together; scores do not depend on it beyond rounding.
    """

    def __init__(self, model: Any, tokenizer: Any, max_new_tokens: int, batch_size: int) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.max_new_tokens, self.batch_size = max_new_tokens, batch_size
        stops = getattr(model.generation_config, "eos_token_id", None)
        stops = stops if isinstance(stops, list) else [stops]
        self.stops = {token for token in (*stops, tokenizer.eos_token_id) if token is not None}
        self.context = getattr(model.config, "max_position_embeddings", None)

    def render(self, item: Item) -> str:
        """The prompt as the model sees it: the chat template's text up to where the answer begins."""
        return self.tokenizer.apply_chat_template(list(item.messages), tokenize=False, add_generation_prompt=True)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    @torch.inference_mode()
    def score(self, items: Sequence[Item], done: Callable[[int], None] = lambda n: None) -> list[Answered]:
        """Score items in any order and return the answers in the items' order; `done(n)` is called per batch.

        Raises:
            UserError: an answer has no token, or prompt and answer do not fit the model's context.
        """
        prompts = [self.render(item) for item in items]
        ids = [self._ids(prompt) for prompt in prompts]
        answers = [[self._ids(text) for text in (item.targets[0], *(item.choices or ()))] for item in items]
        for item, prompt, texts in zip(items, ids, answers, strict=True):
            longest = len(prompt) + max(max(map(len, texts)), self.max_new_tokens)
            if not all(texts):
                raise UserError(f"item {item.id}: an answer has no token")
            if self.context and longest > self.context:
                raise UserError(f"item {item.id}: needs {longest} tokens, the model's context has {self.context}")
        results: dict[int, Answered] = {}
        order = sorted(range(len(items)), key=lambda i: -len(ids[i]))
        for batch in _batches(order, self.batch_size):
            encoded = self._encode([ids[i] for i in batch])
            logprobs = self._logprobs(encoded, [answers[i] for i in batch])
            for i, values, output in zip(batch, logprobs, self._generate(encoded), strict=True):
                choices = tuple(values[1:]) if items[i].choices else None
                results[i] = Answered(prompts[i], output, values[0], len(answers[i][0]), choices)
            done(len(batch))
        return [results[i] for i in range(len(items))]

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

    def _encode(self, prompts: list[list[int]]) -> _Encoded:
        length, pad = max(map(len, prompts)), self.tokenizer.pad_token_id or 0
        device = self.model.device
        tokens = torch.tensor([[pad] * (length - len(p)) + p for p in prompts], device=device)
        mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts], device=device)
        encoded = _Encoded(None, mask[:, :0], torch.empty(0))
        encoded.logits = self._step(encoded, tokens, mask, keep=1)[:, -1].float()
        return encoded

    def _logprobs(self, encoded: _Encoded, answers: list[list[list[int]]]) -> list[list[float]]:
        """Summed log-probability of every answer of every row."""
        first = encoded.logits.log_softmax(-1)
        totals = [[float(first[row, answer[0]]) for answer in texts] for row, texts in enumerate(answers)]
        longer = [(r, k) for r, texts in enumerate(answers) for k, answer in enumerate(texts) if len(answer) > 1]
        longer.sort(key=lambda place: -len(answers[place[0]][place[1]]))
        for part in _batches(longer, self.batch_size):
            texts = [answers[r][k] for r, k in part]
            length, pad = len(texts[0]) - 1, self.tokenizer.pad_token_id or 0
            device = encoded.mask.device
            tokens = torch.tensor([t[:-1] + [pad] * (length + 1 - len(t)) for t in texts], device=device)
            mask = torch.tensor([[1] * (len(t) - 1) + [0] * (length + 1 - len(t)) for t in texts], device=device)
            wanted = torch.tensor([t[1:] + [pad] * (length + 1 - len(t)) for t in texts], device=device)
            logits = self._step(encoded.rows([r for r, _ in part]), tokens, mask, keep=length)
            chosen = logits.gather(-1, wanted[..., None])[..., 0].float() - logits.float().logsumexp(-1)
            for (r, k), value in zip(part, (chosen * mask).sum(1).tolist(), strict=True):
                totals[r][k] += value
        return totals

    def _generate(self, encoded: _Encoded) -> list[str]:
        """Greedy answers; a row leaves the batch when it ends its turn."""
        outputs: list[list[int]] = [[] for _ in encoded.mask]
        alive, logits = list(range(len(outputs))), encoded.logits
        for _ in range(self.max_new_tokens):
            following = logits.argmax(-1).tolist()
            kept = [i for i, token in enumerate(following) if token not in self.stops]
            for i in kept:
                outputs[alive[i]].append(following[i])
            if not kept:
                break
            if len(kept) < len(alive):
                encoded = encoded.rows(kept)
                alive = [alive[i] for i in kept]
            tokens = torch.tensor([[following[i]] for i in kept], device=encoded.mask.device)
            logits = self._step(encoded, tokens, torch.ones_like(tokens), keep=1)[:, -1]
        return [self.tokenizer.decode(tokens, skip_special_tokens=True).strip() for tokens in outputs]


def _batches(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
