"""Merging: the merged model answers as base and adapters do, chains are checked, and nothing half-written is left."""

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from conftest import assert_one_line_error, cli
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from instructrec.core.errors import UserError
from instructrec.core.files import new_folder
from instructrec.core.schema import read_manifest
from instructrec.evaluation.contamination import held_out_suites
from instructrec.evaluation.scoring import Scorer
from instructrec.evaluation.suites import load_suites
from instructrec.lineage import read_lineage, weights_sha256, write_lineage
from instructrec.merge import Difference, HeldOut, merge


def make_adapter(
    folder: Path, base: Path, seed: int, *, std=0.6, dora=False, dataset=None, parent=None, config=None, lineage=True
) -> Path:
    """What a training recipe leaves, without the training: weights that change the model, tokenizer and lineage."""
    torch.manual_seed(seed)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", use_dora=dora, task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), lora)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=std)
            if "magnitude" in name:
                weight.mul_(10 + 10 * torch.rand_like(weight))
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = "{# of the adapter #}" + tokenizer.chat_template
    tokenizer.save_pretrained(folder)
    if lineage:
        inputs = {"model": {"name": str(base), "sha256": weights_sha256(base)}, "output": weights_sha256(folder)}
        if dataset:
            inputs["dataset"] = {"name": str(dataset), "fingerprint": read_manifest(dataset)["fingerprint"]}
        write_lineage(folder, "sft", config or {}, inputs, time.time(), parent=parent)
    return folder


@pytest.fixture(scope="module")
def sft(tiny_model, instruction_set, tmp_path_factory):
    return make_adapter(tmp_path_factory.mktemp("adapters") / "sft", tiny_model, 1, dataset=instruction_set)


@pytest.fixture(scope="module")
def merged(sft):
    """The first adapter merged, for adapters on top of it."""
    merge([sft], sft.with_name("merged"))
    return sft.with_name("merged")


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_fifty_greedy_answers_of_the_merged_model_are_those_of_base_and_adapter(
    dora, tiny_model, instruction_set, tmp_path
):
    adapter = make_adapter(tmp_path / "adapter", tiny_model, 2, dora=dora, dataset=instruction_set)
    dtype, (difference,) = merge([adapter], tmp_path / "merged")
    assert dtype == "float32" and difference.logits <= 1e-3
    assert difference.held_out.n == 120 and abs(difference.held_out.delta["value"]) < 1e-4

    items = [i for split in load_suites(held_out_suites([adapter]), 25).values() for i in split][:50]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)

    def answers(model):
        return [a.output_ids for a in Scorer(model.eval(), tokenizer, 10).score(items, [12] * 50)]

    alone = answers(base)
    expected = answers(PeftModel.from_pretrained(base, adapter))
    assert len(expected) == 50 and all(a != b for a, b in zip(expected, alone, strict=True))
    assert answers(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")) == expected


def test_everything_goes_with_the_merged_model(merged, sft, tiny_model):
    names = {path.name for path in merged.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "merge.json"} <= names
    assert not any(name.startswith(("adapter", ".")) or name.endswith((".bin", ".pt")) for name in names)
    assert AutoTokenizer.from_pretrained(merged).chat_template.startswith("{# of the adapter #}")
    assert json.loads((merged / "generation_config.json").read_text())["eos_token_id"] is not None
    lineage = read_lineage(merged)
    assert lineage["stage"] == "merge" and lineage["parent"] == read_lineage(sft)
    assert lineage["inputs"]["model"]["sha256"] == weights_sha256(tiny_model)
    assert [part["sha256"] for part in lineage["inputs"]["adapters"]] == [weights_sha256(sft)]
    assert lineage["inputs"]["output"] == weights_sha256(merged)
    assert str(tiny_model) not in (merged / "config.json").read_text()
    measured = json.loads((merged / "merge.json").read_text())
    assert measured["differences"][0]["held_out"]["n"] == 120


def test_the_command_prints_differences_with_bounds_and_interval(sft, tmp_path):
    done = cli("merge", str(sft), "--output", str(tmp_path / "merged"), "--dtype", "bfloat16", "--max-items", "12")
    assert done.returncode == 0, done.stderr
    assert "max |Δlogit|" in done.stdout and "n = 12" in done.stdout and "bound 0.02" in done.stdout
    weights = load_file(tmp_path / "merged" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}


def test_updates_below_the_step_of_bfloat16_are_kept_in_the_mean(tiny_model, tmp_path):
    """Rounded to the nearest, less than half of them would be there."""
    base = tmp_path / "base"
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(base)
    adapter = make_adapter(tmp_path / "adapter", base, 4, std=4e-5)
    for dtype in ("float32", "bfloat16"):
        merge([adapter], tmp_path / dtype, dtype=dtype)
    folders = (base, tmp_path / "float32", tmp_path / "bfloat16")
    before, exact, rounded = (load_file(folder / "model.safetensors") for folder in folders)
    updated = [name for name in before if "proj" in name]
    assert all(rounded[name].equal(before[name]) for name in before.keys() - {*updated})
    wanted = torch.cat([(exact[name] - before[name].float()).flatten() for name in updated])
    kept, nearest = (
        torch.cat([(of[name].to(torch.bfloat16).float() - before[name].float()).flatten() for name in updated])
        for of in (rounded, exact)
    )
    share = [float(found @ wanted / (wanted @ wanted)) for found in (kept, nearest)]
    assert share[0] == pytest.approx(1, abs=0.1) and share[1] < 0.5


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_a_chain_is_each_adapter_merged_into_the_result_of_those_before(dora, sft, merged, tmp_path):
    top = make_adapter(tmp_path / "dpo", merged, 3, dora=dora)
    merge([top], tmp_path / "two_steps")
    _, differences = merge([sft, top], tmp_path / "one_step")
    assert len(differences) == 2 and all(d.logits <= 1e-3 for d in differences)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one_step", "two_steps"))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    # What is trained on that in turn knows all that lies below it, and so does one that merged in memory.
    third = make_adapter(tmp_path / "third", tmp_path / "two_steps", 4)
    merge([sft, top, third], tmp_path / "three")


class TestRefusals:
    def test_adapters_in_another_order(self, sft, merged, tmp_path):
        top = make_adapter(tmp_path / "dpo", merged, 3)
        self.refused([top, sft], tmp_path, f"adapter '{sft}'", "in the order of their training", base=merged)
        tiny = read_lineage(sft)["inputs"]["model"]["name"]
        self.refused([top], tmp_path, f"adapter '{top}'", "other weights", "--model_name_or_path", base=Path(tiny))

    def test_two_adapters_of_the_bare_base_do_not_chain(self, sft, tiny_model, tmp_path):
        other = make_adapter(tmp_path / "other", tiny_model, 5)
        self.refused([sft, other], tmp_path, f"adapter '{other}'", f"was trained on '{tiny_model}'", "by itself")

    def test_an_adapter_that_went_on_from_another_contains_it(self, sft, tiny_model, tmp_path):
        more = make_adapter(tmp_path / "more", tiny_model, 6, parent=read_lineage(sft))
        self.refused([sft, more], tmp_path, f"adapter '{more}'", "contains it already", "leave")

    def test_an_adapter_of_another_base_without_lineage(self, tiny_model, merged, tmp_path):
        adapter = make_adapter(tmp_path / "foreign", tiny_model, 7, lineage=False)
        self.refused([adapter], tmp_path, f"was trained on '{tiny_model}'", "--model_name_or_path", base=merged)

    def test_a_four_bit_base(self, sft, tiny_model, tmp_path):
        base = shutil.copytree(tiny_model, tmp_path / "nf4")
        config = json.loads((base / "config.json").read_text())
        config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
        (base / "config.json").write_text(json.dumps(config))
        self.refused([sft], tmp_path, "quantized (bitsandbytes)", "bf16 or fp32", base=base)

    def test_an_output_that_exists(self, sft, tmp_path):
        (tmp_path / "merged").mkdir()
        (tmp_path / "merged" / "mine.txt").write_text("mine")
        self.refused([sft], tmp_path, "exists already", "--output")
        assert [path.name for path in (tmp_path / "merged").iterdir()] == ["mine.txt"]

    def test_no_adapter_there(self, tmp_path):
        done = cli("merge", str(tmp_path / "nowhere"))
        assert_one_line_error(done, "nowhere", "no adapter_config.json")

    def test_an_unknown_dtype(self, sft, tmp_path):
        self.refused([sft], tmp_path, "--dtype", "float32, bfloat16", dtype="int4")

    def test_weights_that_are_missing_or_of_another_shape(self, sft, tmp_path):
        broken = shutil.copytree(sft, tmp_path / "broken")
        (broken / "lineage.json").unlink()
        config = json.loads((broken / "adapter_config.json").read_text())
        (broken / "adapter_config.json").write_text(json.dumps(config | {"r": 8}))
        self.refused([broken], tmp_path, f"adapter '{broken}'", "does not fit")
        (broken / "adapter_model.safetensors").unlink()
        self.refused([broken], tmp_path, f"adapter '{broken}'", "no adapter_model.safetensors")

    def test_a_difference_beyond_its_bound_leaves_nothing(self, tiny_model, tmp_path):
        """Weights that are not numbers differ from themselves."""
        adapter = make_adapter(tmp_path / "adapter", tiny_model, 8)
        from safetensors.torch import save_file

        weights = load_file(adapter / "adapter_model.safetensors")
        name = next(key for key in weights if "lora_B" in key)
        weights[name] = weights[name] * float("nan")
        save_file(weights, adapter / "adapter_model.safetensors", {"format": "pt"})
        self.refused([adapter], tmp_path, "a logit differs by nan", "nothing was written")

    @staticmethod
    def refused(adapters, tmp_path, *parts, base=None, dtype=None):
        before = sorted(tmp_path.iterdir())
        with pytest.raises(UserError) as caught:
            merge(adapters, tmp_path / "merged", str(base) if base else None, dtype)
        for part in parts:
            assert part in str(caught.value), caught.value
        assert "\n" not in str(caught.value) and sorted(tmp_path.iterdir()) == before


def test_without_the_set_fixed_prompts_are_compared(tiny_model, tmp_path, capsys):
    adapter = make_adapter(tmp_path / "adapter", tiny_model, 9, lineage=False)
    _, (difference,) = merge([adapter], tmp_path / "merged")
    assert difference.logits <= 1e-3 and difference.held_out is None
    assert "no lineage" in capsys.readouterr().err  # what it was trained on could not be checked
    suite = tmp_path / "suite.jsonl"
    item = {"id": "1", "category": "capitals", "instruction": "Name it.", "input": "France", "targets": ["Paris"]}
    suite.write_text(json.dumps(item))
    _, (difference,) = merge([adapter], tmp_path / "again", suites=[str(suite)])
    assert difference.held_out.n == 1 and "[" not in difference.sentence("float32")


def test_an_adapter_of_a_quantized_base_is_also_compared_with_that(tiny_model, instruction_set, tmp_path):
    config = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "dtype": "float32", "learning_rate": 1e-4}
    adapter = make_adapter(tmp_path / "adapter", tiny_model, 10, dataset=instruction_set, config=config)
    full, quantized = None, None
    try:
        _, (full, quantized) = merge([adapter], tmp_path / "merged", max_items=12)
    except UserError as error:  # a random model may lose more than the bound allows, and is then told so
        assert "4-bit base" in str(error) and "held-out gold NLL/token differs by +" in str(error)
    else:
        assert "4-bit base" in quantized.reference and quantized.logits is None
        assert quantized.held_out.reference["value"] != full.held_out.reference["value"]


def test_what_is_beyond_a_bound():
    def fault(logits, delta, low, high, dtype="float32"):
        held_out = HeldOut(9, {"value": 2.0}, {"value": 2.0 + delta}, {"value": delta, "ci95": [low, high]})
        return Difference("base", logits, held_out).fault(dtype)

    assert fault(1e-3, 0.02, 0.01, 0.03) is None
    assert "a logit" in fault(2e-3, 0.0, 0.0, 0.0) and fault(2e-3, 0.0, 0.0, 0.0, "bfloat16") is None
    assert "+0.0300" in fault(0.0, 0.03, 0.01, 0.05) and "-0.0300" in fault(0.0, -0.03, -0.05, -0.01)
    assert fault(0.0, 0.03, -0.01, 0.07) is None  # chance explains it
    assert "+0.0300" in fault(0.0, 0.03, None, None)
    assert fault(None, -0.3, -0.4, -0.2) is None  # better than with the quantized base
    assert "+0.3000" in fault(None, 0.3, 0.2, 0.4)


def test_a_new_folder_appears_complete_or_not_at_all(tmp_path):
    (tmp_path / ".new.partial").mkdir()  # of a process that was killed
    (tmp_path / ".new.partial" / "stale").write_text("")
    with pytest.raises(RuntimeError), new_folder(tmp_path / "new") as work:
        (work / "half").write_text("")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "new") as work:
        (work / "whole").write_text("")
        assert not (tmp_path / "new").exists()
        with pytest.raises(BlockingIOError), new_folder(tmp_path / "new"):
            pass
        assert (work / "whole").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["whole"]
