"""The proof that a published adapter is the one on this machine: the same tokens in, the same logits out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from instructrec.core.errors import UserError
from instructrec.models import load_model, load_tokenizer, with_adapter

QUESTIONS = (
    "Give this text a title: The lamp was lit at dusk, and the ships found their way into the harbour.",
    "Which word is missing? The baker puts the bread into the ____.",
    "List three colours.",
)
"""What both are asked. What the answers are does not matter, only that they are the same."""


def logit_difference(base: Path, dtype: str, local: Path, published: Path) -> float:
    """The largest absolute difference of a logit between two copies of an adapter on one base model.

    The base is loaded once and both adapters are put on it in turn, so that nothing but they can differ.

    Args:
        base: its folder.
        dtype: `float32`, `bfloat16` or `float16`.
        local, published: folders of the copies, each with its tokenizer.

    Raises:
        UserError: their tokenizers or chat templates make different tokens of the same question, or one of them does
            not fit the base.
    """
    from instructrec.runtime import quiet, use_all_cores

    quiet()
    use_all_cores()
    import torch

    prompts = [_tokens(load_tokenizer(base, copy)) for copy in (local, published)]
    if prompts[0] != prompts[1]:
        raise UserError(f"{published}: its tokenizer or chat template makes other tokens than that of {local}")
    model = with_adapter(load_model(base, dtype), local, "local")
    model = with_adapter(model, published, "published")

    def logits(adapter: str, ids: list[int]) -> Any:
        model.set_adapter(adapter)
        with torch.no_grad():
            return model(input_ids=torch.tensor([ids], device=model.device)).logits.float()

    differences = [(logits("local", ids) - logits("published", ids)).abs().max() for ids in prompts[0]]
    return float(torch.stack(differences).max())  # NaN if any is; Python's `max` may pass over it


def _tokens(tokenizer: Any) -> list[list[int]]:
    ask: Callable[..., Any] = tokenizer.apply_chat_template
    asked = [[{"role": "user", "content": question}] for question in QUESTIONS]
    return [list(ask(messages, add_generation_prompt=True, return_dict=True)["input_ids"]) for messages in asked]
