"""Rollouts: responses drawn from a policy, and their tokens laid out for scoring.

What is drawn for a prompt hangs on the policy and on numbers that are drawn for that prompt alone, from a generator
with a seed of its own. Neither the number of processes nor a run's interruption changes it, beyond the rounding of
probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from instructrec.core.hashing import hashed
from instructrec.evaluation.scoring import Scorer

Messages = list[dict[str, str]]


@dataclass
class Episode:
    """A response to a prompt, and what it is worth.

    Attributes:
        index: its place among the responses of all processes.
        prompt, text: messages, and the response without what ended it.
        prompt_ids, ids: tokens; `ids` are those of the response, the one that ended it included, one at least.
        stopped: whether it ended within the limit.
        rewards: by name, null where one does not apply.
        score: their weighted mean; null where none applies.
    """

    index: int
    prompt: Messages
    text: str
    prompt_ids: list[int]
    ids: list[int]
    stopped: bool
    rewards: dict[str, float | None]
    score: float | None

    @property
    def tokens(self) -> int:
        """Of the prompt with its response."""
        return len(self.prompt_ids) + len(self.ids)


def generator(*parts: object) -> torch.Generator:
    """A generator on the CPU whose numbers hang on the parts alone."""
    return torch.Generator().manual_seed(hashed(*parts) >> 1)


def pick(logits: Tensor, uniforms: Tensor) -> Tensor:
    """(n,): tokens drawn by inversion: the first whose cumulative probability exceeds a number in [0, 1).

    The whole softmax is drawn from, at temperature 1, because that is what is scored.

    Args:
        logits: (n, vocabulary).
        uniforms: (n,), float64.
    """
    cumulative = logits.float().softmax(-1).cumsum(-1, dtype=torch.float64)
    wanted = uniforms.to(logits.device) * cumulative[:, -1]
    found = torch.searchsorted(cumulative, wanted[:, None], right=True)[:, 0]
    return found.clamp(max=logits.shape[-1] - 1)


class Sampler(Scorer):
    """Draws several responses to each prompt from the cache of one encoding of it."""

    @torch.inference_mode()
    def draw(self, prompts: list[list[int]], uniforms: Tensor) -> list[tuple[list[int], bool]]:
        """The tokens of responses, and whether each ended; those of a prompt stand together.

        Args:
            prompts: tokens of each.
            uniforms: (responses, tokens at most), float64 in [0, 1); as many responses for each prompt.
        """
        rows, limit = uniforms.shape
        of_prompt = [row * len(prompts) // rows for row in range(rows)]
        encoded = self._encode(prompts).rows(of_prompt)
        responses: list[list[int]] = [[] for _ in range(rows)]
        stopped = [False] * rows
        alive = list(range(rows))
        for step in range(limit):
            tokens = pick(encoded.logits, uniforms[alive, step])
            kept = []
            for place, (row, token) in enumerate(zip(alive, tokens.tolist(), strict=True)):
                responses[row].append(token)
                stopped[row] = token in self.stops
                if not stopped[row]:
                    kept.append(place)
            if not kept or step + 1 == limit:
                break
            if len(kept) < len(alive):
                encoded = encoded.rows(kept)
                alive = [alive[place] for place in kept]
            following = tokens[kept][:, None]
            encoded.logits = self._step(encoded, following, torch.ones_like(following), keep=1)[:, -1]
        return list(zip(responses, stopped, strict=True))

    def text(self, ids: Sequence[int], stopped: bool) -> str:
        """A response as rewards read it, without the token that ended it."""
        return self.tokenizer.decode(ids[:-1] if stopped else ids, skip_special_tokens=True).strip()


@dataclass(frozen=True)
class Laid:
    """Episodes laid out for a forward pass, right-padded.

    Attributes:
        ids: (episodes, tokens of the longest, less one: after the last token nothing is asked). No mask goes with them:
            no token sees one to its right.
        wanted: of the same shape, true where the next token is one of the response.
        responses: (n,), the tokens of all responses, one response after the other.
        lengths: of the responses.
    """

    ids: Tensor
    wanted: Tensor
    responses: Tensor
    lengths: list[int]


def lay_out(episodes: Sequence[Episode], pad: int, device: Any) -> Laid:
    """Lay out episodes; `pad` fills the rest."""
    longest = max(episode.tokens for episode in episodes) - 1
    shape = (len(episodes), longest)
    ids = torch.full(shape, pad, dtype=torch.long)
    wanted = torch.zeros(shape, dtype=torch.bool)
    for row, episode in enumerate(episodes):
        fed = [*episode.prompt_ids, *episode.ids[:-1]]
        ids[row, : len(fed)] = torch.tensor(fed)
        wanted[row, len(episode.prompt_ids) - 1 : len(fed)] = True
    responses = torch.tensor([token for episode in episodes for token in episode.ids])
    lengths = [len(episode.ids) for episode in episodes]
    return Laid(ids.to(device), wanted.to(device), responses.to(device), lengths)


def padded(rows: Sequence[Tensor]) -> Tensor:
    """(rows, length of the longest), float32, with zeros behind the shorter ones."""
    return torch.nn.utils.rnn.pad_sequence([row.float() for row in rows], batch_first=True)


@contextmanager
def only(model: Any, wanted: Tensor, logits: bool = True) -> Iterator[list[Tensor]]:
    """Within, a forward pass gives logits (1, n, vocabulary) of the n positions that are true in `wanted` only.

    Args:
        wanted: (batch, length).
        logits: false computes those of one position, where only the hidden states are asked for.

    Yields:
        A list that gets the hidden states (n, size) which the output layer was given.
    """
    hidden: list[Tensor] = []

    def select(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        hidden.append(inputs[0][wanted])
        return (hidden[-1][None] if logits else hidden[-1][None, :1],)

    handle = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield hidden
    finally:
        handle.remove()
