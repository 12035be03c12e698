"""How far a policy has moved from its reference, measured on answers that it samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from instructrec.adapters import reference
from instructrec.core.hashing import hashed
from instructrec.models import stop_tokens


@torch.no_grad()
def sequence_kl(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[dict[str, str]]], samples: int, limit: int, seed: int = 0
) -> list[float]:
    """The KL divergence of a policy's answers from its reference's, in nats of a whole answer.

    Answers y are sampled from the policy at temperature 1, and of each the divergence of the next token's distribution
    is summed over its tokens: KL(π ‖ π_ref) = E_y Σ_t KL(π(·|y_<t) ‖ π_ref(·|y_<t)), by the chain rule. That is never
    negative, and varies less than the mean of log π(y) − log π_ref(y), which has the same expectation.

    Args:
        model: a PEFT model in evaluation mode whose active adapter is the policy; its adapter `ref`, else its base, is
            the reference.
        tokenizer: with the chat template that the policy was trained with.
        prompts: messages.
        samples: answers to each prompt.
        limit: tokens of an answer at most.

    Returns:
        For each prompt the mean over its answers.
    """
    stops = torch.tensor(sorted(stop_tokens(model, tokenizer)), device=model.device)
    found = []
    for number, prompt in enumerate(prompts):
        asked = tokenizer.apply_chat_template(
            list(prompt), add_generation_prompt=True, return_dict=True, return_tensors="pt"
        ).to(model.device)
        torch.manual_seed(hashed(seed, "divergence", number) >> 1)
        whole = model.generate(
            **asked,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            repetition_penalty=1.0,
            num_return_sequences=samples,
            max_new_tokens=limit,
            eos_token_id=stops.tolist(),
            pad_token_id=tokenizer.pad_token_id,
        )
        answers = whole[:, asked["input_ids"].shape[1] :]
        ends = torch.isin(answers, stops).long()
        counts = ends.cumsum(1) - ends == 0  # up to the first end of turn, which belongs to the answer
        policy = _log_probabilities(model, whole, answers.shape[1])
        with reference(model):
            other = _log_probabilities(model, whole, answers.shape[1])
        by_token = (policy.exp() * (policy - other)).sum(-1)
        found.append(float((by_token * counts).sum(1).mean()))
    return found


def _log_probabilities(model: Any, tokens: torch.Tensor, last: int) -> torch.Tensor:
    """(rows, last, vocabulary): the distributions that the last tokens of rows were drawn from."""
    output = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), logits_to_keep=last + 1, use_cache=False)
    return output.logits[:, :-1].float().log_softmax(-1)
