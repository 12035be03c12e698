"""The YAMLs of models that no test can load: planned at their real size, and what recipes/README.md says of them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, cli

from instructrec.chat_templates import choose_template
from instructrec.memory import Batch, Counted, count
from instructrec.models import load_tokenizer
from instructrec.plan import Plan, plan

RECIPES = ROOT / "recipes"
CONFIGS = sorted((ROOT / "accelerate_configs").glob("*.yaml"))

SIZES = {
    "smollm3-3b": ("smollm3", {}),  # whose defaults in transformers are the model's own
    "qwen3-8b": ("qwen3", {"intermediate_size": 12288, "num_hidden_layers": 36, "num_key_value_heads": 8}),
    "llama-3.1-8b": ("llama", {"vocab_size": 128256, "intermediate_size": 14336, "num_key_value_heads": 8}),
}
"""Architecture, and what of the published config differs from transformers' defaults and changes a size."""

PARAMETERS = {
    "smollm3-3b": (3_075_098_624, 30_228_480),
    "qwen3-8b": (8_190_735_360, 43_646_976),
    "llama-3.1-8b": (8_030_261_248, 41_943_040),
}
"""Of the published weights, and of a LoRA adapter of rank 16 on every linear layer."""

GiB = 2**30
CARD = 24 * GiB
SPARE = 2 * GiB
"""What CUDA's context, its libraries' buffers and fragmentation may take of a card; none of it is in a plan."""


@pytest.fixture(scope="module")
def planned(instruction_set, tiny_model_of, tmp_path_factory):
    """Plan a YAML of recipes/ at the real size of its model, with a tiny tokenizer of its family."""
    from transformers import AutoConfig

    def base(name: str) -> Path:
        folder = tmp_path_factory.mktemp("large") / name
        shutil.copytree(tiny_model_of(name), folder, ignore=shutil.ignore_patterns("*.safetensors"))
        model_type, sizes = SIZES[name]
        AutoConfig.for_model(model_type, dtype="bfloat16", **sizes).save_pretrained(folder)
        return folder

    folders = {name: base(name) for name in SIZES}

    known: dict[tuple, Counted] = {}

    def count_once(folder: Path, model: object, args: object, batch: Batch, bf16: bool, adapter: object) -> Counted:
        if (folder, batch, bf16) not in known:
            known[folder, batch, bf16] = count(folder, model, args, batch, bf16, adapter)
        return known[folder, batch, bf16]

    def run(name: str, accelerate: Path, recipe: str = "sft", **more: object) -> Plan:
        given = {"model_name_or_path": folders[name], "dataset_name": instruction_set, **more}
        if recipe == "dpo":
            given |= {"held_out_set": instruction_set, "init_adapter": start(folders[name])}
        overrides = [text for key, value in given.items() for text in (f"--{key}", str(value))]
        return plan(RECIPES / name / f"{recipe}.yaml", overrides, accelerate)

    def start(base: Path) -> Path:
        """What a plan reads of an adapter of rank 16 on every linear layer."""
        from peft import LoraConfig

        folder = tmp_path_factory.mktemp("start")
        config = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
        config.base_model_name_or_path = str(base)
        config.save_pretrained(folder)
        (folder / "adapter_model.safetensors").touch()
        return folder

    with pytest.MonkeyPatch.context() as patch:  # a launch divides what was counted, and does not change it
        patch.setattr("instructrec.plan.count", count_once)
        yield run


@pytest.mark.parametrize("name", SIZES)
def test_a_plan_counts_the_real_model_and_fits_the_card(name, planned):
    found = planned(name, ROOT / "accelerate_configs" / "single_gpu.yaml", max_train_rows=40)
    total, adapter = PARAMETERS[name]
    assert (found.model.total, found.model.trainable) == (total + adapter, adapter)
    assert found.run.largest > 1900  # of 2,048 tokens
    assert found.memory.peak < CARD - SPARE

    row = next(line for line in (RECIPES / "README.md").read_text().splitlines() if f"{name}/sft.yaml" in line)
    weights, peak = (float(number) for number in re.findall(r"(\d+\.\d) GiB", row))
    assert weights == pytest.approx(found.memory.parts["weights"] / GiB, abs=0.05)
    assert peak == pytest.approx(found.memory.peak / GiB, abs=0.15)
    assert "never run" in row


@pytest.mark.parametrize("name", SIZES)
def test_dpo_takes_no_second_base_model(name, planned, pairs):
    found = planned(name, ROOT / "accelerate_configs" / "single_gpu.yaml", "dpo", dataset_name=pairs, max_train_rows=8)
    assert found.model.trainable == PARAMETERS[name][1] and found.memory.peak < CARD - SPARE
    assert found.memory.parts["reference"] == found.memory.parts["adapter"] < found.memory.parts["weights"] / 20


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("name", SIZES)
def test_every_way_to_run_can_be_planned(name, path, planned):
    unwatched = {"eval_strategy": "no", "load_best_model_at_end": "false"}  # nothing is scored on shards
    found = planned(name, path, max_train_rows=40, **unwatched)
    assert found.launch.processes == yaml.safe_load(path.read_text())["num_processes"]
    whole = found.model.weights
    sharded = found.launch.strategy in ("fsdp", "zero")
    assert (found.memory.parts["weights"] < whole / 4) if sharded else (found.memory.parts["weights"] == whole)


@pytest.mark.parametrize("name", SIZES)
def test_the_revision_is_a_commit(name):
    values = yaml.safe_load((RECIPES / name / "sft.yaml").read_text())
    assert re.fullmatch(r"[0-9a-f]{40}", values["model_revision"])


@pytest.mark.parametrize(("name", "end"), [("qwen3-8b", "\n\n"), ("smollm3-3b", "\n")])
def test_models_that_can_think_answer_at_once(name, end, instruction_set, tiny_model_of, tmp_path):
    """An answer is supervised alone: the empty thought belongs to the prompt, as it does when the model is scored."""
    tokenizer = load_tokenizer(tiny_model_of(name))
    question, answer = {"role": "user", "content": "Ask?"}, {"role": "assistant", "content": "Say."}
    asked = tokenizer.apply_chat_template([question], tokenize=False, add_generation_prompt=True)
    assert asked.endswith(thought := f"<|im_start|>assistant\n<think>\n\n</think>{end}")
    assert tokenizer.apply_chat_template([question, answer], tokenize=False) == f"{asked}Say.<|im_end|>\n"

    flags = ["--model_name_or_path", str(tiny_model_of(name)), "--dataset_name", str(instruction_set), "--json"]
    done = cli("plan", str(RECIPES / name / "sft.yaml"), *flags, "--output_dir", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    for row in json.loads(done.stdout)["shown"]:
        (given, _), (said, supervised) = row["pieces"]
        assert given.endswith(thought) and supervised and "think" not in said


def test_marks_and_no_thoughts_go_together(tiny_model_of):
    """Of Qwen3's template TRL has a version with marks, which it knows by the text of the original."""
    tokenizer = load_tokenizer(tiny_model_of("qwen3-8b"))
    messages = [{"role": "user", "content": "Ask?"}, {"role": "assistant", "content": "Say."}]
    asked = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    choose_template(tokenizer, marked=True)
    assert tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True) == asked
    assert tokenizer.apply_chat_template(messages, tokenize=False) == f"{asked}Say.<|im_end|>\n"
    marked = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    pairs = zip(marked["input_ids"], marked["assistant_masks"], strict=True)
    assert "Say.<|im_end|>" in tokenizer.decode([token for token, kept in pairs if kept])
