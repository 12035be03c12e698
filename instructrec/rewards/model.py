"""A reward model: what a sequence classifier with one output gives to a conversation."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from instructrec.core.errors import UserError
from instructrec.models import adapter_config, load_tokenizer, resolve_model, with_adapter
from instructrec.rewards.component import Messages
from instructrec.runtime import quiet

BATCH = 16


class RewardModel:
    """The logit of a sequence classifier for prompt and completion, rendered by its chat template.

    It is loaded on the first call, on the first accelerator or else the CPU. Of a conversation that is longer than the
    model's positions the end counts.

    Args:
        path: a folder, or a Hub name, of a model with weights in safetensors; or the folder of a PEFT adapter of one.

    Raises:
        UserError: it is not there, or no classifier with one output.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._adapter = Path(path) if (Path(path) / "adapter_config.json").is_file() else None
        if self._adapter and adapter_config(self._adapter).get("task_type") != "SEQ_CLS":
            raise UserError(f"{path}: the adapter is of no reward model (its task_type is not SEQ_CLS)")

    def load(self) -> None:
        """Load the weights, unless they are there."""
        _ = self.loaded

    @cached_property
    def loaded(self) -> tuple[Any, Any]:
        """The tokenizer and the model."""
        import torch
        from transformers import AutoModelForSequenceClassification

        quiet()
        config = adapter_config(self._adapter) if self._adapter else {}
        base = resolve_model(config.get("base_model_name_or_path", self.path), config.get("revision"))
        tokenizer = load_tokenizer(base, self._adapter)
        outputs = {"num_labels": 1} if self._adapter else {}  # a base is a language model, the head is the adapter's
        try:
            model, report = AutoModelForSequenceClassification.from_pretrained(
                str(base), dtype="auto", use_safetensors=True, output_loading_info=True, **outputs
            )
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path}: no reward model ({str(error).splitlines()[0]})") from None
        trained = not report["missing_keys"] or (self._adapter and config.get("modules_to_save"))
        if not trained or model.config.num_labels != 1:
            raise UserError(f"{self.path}: no reward model, for it lacks a trained head with one output")
        if self._adapter:
            model = with_adapter(model, self._adapter)
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
        return tokenizer, model.to("cuda" if torch.cuda.is_available() else "cpu").eval()

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
        tokenizer, model = self.loaded
        asked = [
            _messages(prompt, "user") + _messages(completion, "assistant")
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        return [*rewards_of(model, tokenizer, asked, BATCH)]


def rewards_of(model: Any, tokenizer: Any, conversations: list[Messages], batch_size: int) -> list[float]:
    """The logit of a sequence classifier with one output for each conversation; of a longer one the end counts.

    Args:
        model: in evaluation mode, with a `pad_token_id` in its config.
        tokenizer: with the chat template that the model was trained with.
        conversations: prompts with their answers.
        batch_size: conversations read together.
    """
    import torch

    ids = tokenizer.apply_chat_template(conversations, return_dict=True)["input_ids"] if conversations else []
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 0
    ids = [tokens[-longest:] for tokens in ids]  # all of them where no limit is known
    rewards = [0.0] * len(ids)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))  # of one length together: little padding
    for batch in (order[start : start + batch_size] for start in range(0, len(order), batch_size)):
        padded = tokenizer.pad({"input_ids": [ids[i] for i in batch]}, padding_side="right", return_tensors="pt")
        with torch.inference_mode():
            logits = model(**padded.to(model.device), use_cache=False).logits[:, 0].float()
        for i, value in zip(batch, logits.tolist(), strict=True):
            rewards[i] = value
    return rewards


def _messages(value: Any, role: str) -> Messages:
    return [{"role": role, "content": value}] if isinstance(value, str) else list(value)
