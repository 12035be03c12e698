"""A reward model as a reward: whole, as an adapter, refused where it is none; and rewards inside TRL's GRPO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import CHATML

from instructrec.core.errors import UserError
from instructrec.rewards.load import load_rewards

PROMPTS = [[{"role": "user", "content": text}] for text in ("Ask?", "Ask at length, please?", "Now?")]
COMPLETIONS = [[{"role": "assistant", "content": text}] for text in ("Yes.", "It depends on a good deal.", "")]


def config(**changes: Any) -> Any:
    from transformers import LlamaConfig

    sizes = {
        "vocab_size": 259,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 128,
        "pad_token_id": 256,
        "eos_token_id": 258,
    }
    return LlamaConfig(**sizes | changes)


def save_tokenizer(folder: Path) -> Any:
    """One of bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {byte: i for i, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    base = Tokenizer(models.BPE(vocabulary, []))
    base.pre_tokenizer, base.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    base.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=base, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
    return tokenizer


def reward_of(path: Path) -> Any:
    yaml = path.with_suffix(".yaml")
    yaml.write_text(json.dumps([{"name": "reward_model", "args": {"path": str(path)}}]))
    return load_rewards(yaml)


def logits(model: Any, tokenizer: Any) -> list[float]:
    """Of every conversation alone."""
    import torch

    values = []
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        ids = tokenizer.apply_chat_template(prompt + completion, return_dict=True, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            values.append(model.eval()(input_ids=ids).logits.item())
    return values


@pytest.fixture
def classifier(tmp_path: Path) -> tuple[Path, list[float]]:
    """A classifier of random weights, and its logits."""
    import torch
    from transformers import LlamaForSequenceClassification

    torch.manual_seed(0)
    model = LlamaForSequenceClassification(config(num_labels=1))
    folder = tmp_path / "classifier"
    model.save_pretrained(folder)
    return folder, logits(model, save_tokenizer(folder))


def test_it_gives_the_logit_of_each_row(classifier):
    folder, expected = classifier
    assert len({round(value, 6) for value in expected}) == 3
    assert reward_of(folder)(PROMPTS, COMPLETIONS) == pytest.approx(expected, abs=1e-5)
    assert reward_of(folder)(PROMPTS[2:], COMPLETIONS[2:]) == pytest.approx(expected[2:], abs=1e-5)


def test_of_a_long_conversation_the_end_counts(classifier):
    reward = reward_of(classifier[0])
    ask = [[{"role": "user", "content": "word " * 99 + end}] for end in ("?", "?")]
    first, second = reward(ask, COMPLETIONS[:2])
    assert first != second


def test_an_adapter_gives_the_logit_with_its_head(tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification, LlamaForCausalLM

    base, adapter = tmp_path / "base", tmp_path / "adapter"
    torch.manual_seed(0)
    LlamaForCausalLM(config()).save_pretrained(base)
    tokenizer = save_tokenizer(base)
    with pytest.raises(UserError, match="lacks a trained head"):
        reward_of(base)(PROMPTS, COMPLETIONS)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    model.config.pad_token_id = 256
    model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", init_lora_weights=False))
    model.save_pretrained(adapter)
    assert reward_of(adapter)(PROMPTS, COMPLETIONS) == pytest.approx(logits(model, tokenizer), abs=1e-5)
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(UserError, match=r"no adapter_model.safetensors"):
        reward_of(adapter)(PROMPTS, COMPLETIONS)


def test_what_is_no_reward_model_is_refused(classifier, tmp_path):
    from transformers import LlamaForSequenceClassification

    folder, _ = classifier
    with pytest.raises(UserError, match="no such folder"):
        reward_of(tmp_path / "nowhere")(PROMPTS, COMPLETIONS)
    two = tmp_path / "two"
    LlamaForSequenceClassification(config(num_labels=2)).save_pretrained(two)
    save_tokenizer(two)
    with pytest.raises(UserError, match="one output"):
        reward_of(two)(PROMPTS, COMPLETIONS)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="no reward model"):
        reward_of(folder)(PROMPTS, COMPLETIONS)
    (two / "adapter_config.json").write_text('{"base_model_name_or_path": "x", "task_type": "CAUSAL_LM"}')
    with pytest.raises(UserError, match="SEQ_CLS"):
        reward_of(two)


def test_rewards_drive_grpo(classifier, tmp_path):
    """One step of TRL's trainer: it logs R and each component, and gives the columns of the rows."""
    from datasets import Dataset
    from transformers import LlamaForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    (tmp_path / "own.py").write_text(
        "seen = []\n"
        "def own(prompts, completions, targets, trainer_state, **columns):\n"
        "    seen.append((targets, columns['id'], trainer_state.global_step))\n"
        "    return [len(c[0]['content']) / 100 if i == 'a' else None for c, i in zip(completions, columns['id'])]\n"
    )
    path = tmp_path / "rewards.yaml"
    model = {"name": "reward_model", "args": {"path": str(classifier[0])}}
    path.write_text(json.dumps([{"name": "chrf", "weight": 2}, {"name": f"{tmp_path / 'own.py'}:own"}, model]))
    rewards = load_rewards(path)
    rows = [{"id": i, "prompt": PROMPTS[0], "targets": ["Yes, it is."]} for i in "ab"]
    arguments = GRPOConfig(
        output_dir=str(tmp_path / "out"),
        per_device_train_batch_size=4,
        num_generations=2,
        max_completion_length=6,
        max_steps=1,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        bf16=False,
    )
    tokenizer = save_tokenizer(tmp_path / "policy")
    for functions in (rewards, list(rewards.components)):
        trainer = GRPOTrainer(
            LlamaForCausalLM(config()),
            functions,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        trainer.train()
        logged = trainer.state.log_history[0]
        if functions is rewards:
            assert {"rewards/reward/mean", "rewards/chrf", "rewards/own", "rewards/reward_model"} <= logged.keys()
        else:
            assert {"rewards/chrf/mean", "rewards/own/mean", "rewards/reward_model/mean"} <= logged.keys()
    seen = rewards.components[1].function.__globals__["seen"]
    assert seen[0] == ([["Yes, it is."]] * 4, ["a", "a", "b", "b"], 0) or seen[0][1] == ["b", "b", "a", "a"]
