"""QLoRA against LoRA on the same weights, through the real base model. `make test-slow` runs this."""

import json
import shutil

import pytest
from conftest import recipe
from test_slow import base_model  # noqa: F401  (a fixture)

pytestmark = pytest.mark.slow


@pytest.mark.timeout(3600)
def test_nf4_trains_like_lora_on_the_same_rounded_weights(base_model, instruction_set, tmp_path, capsys):  # noqa: F811
    """30 steps after an evaluation: NF4, bf16 LoRA on weights through NF4 and back, and bf16 LoRA on the weights."""
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit
    from transformers import AutoModelForCausalLM

    rounded = tmp_path / "rounded-base"
    shutil.copytree(base_model, rounded)
    model = AutoModelForCausalLM.from_pretrained(base_model, dtype=torch.bfloat16)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module is not model.get_output_embeddings():
            packed, state = quantize_4bit(module.weight.data, blocksize=64, quant_type="nf4")
            module.weight.data = dequantize_4bit(packed, state)
    model.save_pretrained(rounded)

    bases = {"nf4": (base_model, ["--load_in_4bit", "true"]), "rounded": (rounded, []), "unquantized": (base_model, [])}
    losses: dict[str, list[float]] = {}
    for name, (base, more) in bases.items():
        output = tmp_path / name
        flags = ["--model_name_or_path", str(base), "--dataset_name", str(instruction_set), "--output_dir", str(output)]
        flags += ["--max_steps", "30", "--save_steps", "30", "--eval_steps", "60", "--eval_on_start", "true"]
        # 512 supervised tokens per step: bf16 rounds logits by 0.06, which the mean over a dozen would not level.
        flags += ["--eval_items", "1", "--logging_steps", "1", "--completion_only_loss", "false"]
        flags += ["--gradient_accumulation_steps", "1", "--load_best_model_at_end", "false"]
        done = recipe("sft.py", *flags, *more)
        assert done.returncode == 0, done.stderr
        history = json.loads((output / "checkpoint-30" / "trainer_state.json").read_text())["log_history"]
        assert history[0]["step"] == 0 and "eval_loss" in history[0]  # which would have cost the gradients
        losses[name] = [entry["loss"] for entry in history if "loss" in entry]
        assert len(losses[name]) == 30
        training = json.loads((output / "lineage.json").read_text())["training"]
        assert training["read_back"]["largest_difference"] <= training["read_back"]["tolerance"]

    def apart(other: str) -> list[float]:
        return [a - b for a, b in zip(losses["nf4"], losses[other], strict=True)]

    largest = max(map(abs, apart("rounded")))
    with capsys.disabled():
        gap = apart("unquantized")
        print(
            f"\nNF4 and LoRA on the rounded weights: step losses at most {largest:.4f} apart; NF4 less unquantized: "
            f"{sum(gap) / len(gap):+.4f} in the mean of 30 steps, {sum(gap[-10:]) / 10:+.4f} of the last 10"
        )
    assert largest <= 0.02, list(zip(losses["nf4"], losses["rounded"], strict=True))
