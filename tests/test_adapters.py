"""Every kind of training, what is saved of it, and going on from it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import ROOT, assert_one_line_error, cli, log_history, recipe

from instructrec.adapters import read_parent
from instructrec.config import COMMAND_LINE
from instructrec.core.errors import UserError
from instructrec.models import trainable_on_cpu
from instructrec.saved import check_saved, keep_types

KINDS = {  # beside those that the other tests here train: LoRA, rsLoRA, NF4, all weights
    "dora": ["--use_dora", "true"],
    "nf4-nested": ["--load_in_4bit", "true", "--use_bnb_nested_quant", "true", "--dtype", "bfloat16"],
    "int8": ["--load_in_8bit", "true"],
    "full-autocast": ["--use_peft", "false", "--bf16", "true"],
}
ROWS = [list(range(3, 60)), list(range(100, 140))]


@pytest.fixture(scope="module")
def base(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose layers have sizes that bitsandbytes repacks for AVX512: outputs by 32, inputs by 64."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("base") / "small"
    shutil.copytree(tiny_model, folder)
    config = AutoConfig.from_pretrained(folder)
    config.hidden_size, config.intermediate_size, config.head_dim = 64, 128, 16
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(8)
    model.save_pretrained(folder)
    return folder


def flags(instruction_set: Path, base: Path, output: Path, *more: str) -> list[str]:
    given = {"model_name_or_path": base, "dataset_name": instruction_set, "output_dir": output, "dtype": "float32"}
    given |= {"max_steps": 2, "warmup_steps": 0, "save_steps": 2, "eval_steps": 2, "eval_items": 2}
    given |= {"max_train_rows": 30, "logging_steps": 1, "learning_rate": 1e-2, "max_length": 1024}
    return [*(text for key, value in given.items() for text in (f"--{key}", str(value))), *more]


UNWATCHED = ["--eval_strategy", "no", "--load_best_model_at_end", "false"]


def assert_read_back(output: Path) -> None:
    """What was saved was compared with what was trained, without a difference, and is all there is."""
    training = json.loads((output / "lineage.json").read_text())["training"]
    assert training["read_back"]["rows"] == 3 and training["read_back"]["largest_difference"] == 0
    assert training["trainable_parameters"] > 0
    assert not (output / "unchecked").exists()
    assert not [path for path in output.iterdir() if path.suffix in (".bin", ".pt", ".pth")]


class TestKinds:
    @pytest.mark.parametrize("kind", KINDS)
    def test_each_is_trained_saved_and_read_back(self, kind, instruction_set, base, tmp_path):
        output = tmp_path / "out"
        done = recipe("sft.py", *flags(instruction_set, base, output, *UNWATCHED), *KINDS[kind])
        assert done.returncode == 0, done.stderr
        assert_read_back(output)
        if kind == "dora":
            assert json.loads((output / "adapter_config.json").read_text())["use_dora"]

    def test_a_whole_model_is_evaluated_talked_to_and_refused_as_an_adapter(self, instruction_set, base, tmp_path):
        output = tmp_path / "out"
        done = recipe("sft.py", *flags(instruction_set, base, output, *UNWATCHED), "--use_peft", "false")
        assert done.returncode == 0, done.stderr
        assert_read_back(output)
        assert (output / "model.safetensors").exists() and not (output / "adapter_config.json").exists()
        assert f"--model_name_or_path {output} --suite" in done.stdout
        asked = ["--suite", str(instruction_set / "validation"), "--max_items", "2", "--max_new_tokens", "4"]
        done = recipe(
            "evaluate.py", "--model_name_or_path", str(output), *asked, "--output_dir", str(tmp_path / "eval")
        )
        assert done.returncode == 0, done.stderr
        model = json.loads((tmp_path / "eval" / "lineage.json").read_text())["inputs"]["model"]
        assert model["lineage"]["stage"] == "sft"
        chat = cli("chat", "--model_name_or_path", str(output), "--max-new-tokens", "2")
        assert chat.returncode == 0 and chat.stdout.startswith(str(output)), chat.stderr
        chat = cli("chat", "--adapter", str(output))
        assert_one_line_error(chat, "whole model", "--model_name_or_path")

    def test_an_interrupted_nf4_run_ends_as_an_undisturbed_one(self, instruction_set, base, tmp_path):
        """Its adapter trains in bf16; loading the checkpoint in fp32 would change what follows."""
        from safetensors.torch import load_file

        more = ["--load_in_4bit", "true", "--max_steps", "4", *UNWATCHED]
        undisturbed, output = tmp_path / "undisturbed", tmp_path / "out"
        done = recipe("sft.py", *flags(instruction_set, base, undisturbed, *more))
        assert done.returncode == 0, done.stderr
        assert_read_back(undisturbed)
        shutil.copytree(undisturbed, output)
        for name in ("lineage.json", "adapter_model.safetensors", "checkpoint-4/trainer_state.json"):
            (output / name).unlink()
        done = recipe("sft.py", *flags(instruction_set, base, output, *more))
        assert done.returncode == 0 and "checkpoint-2" in done.stdout, done.stderr
        expected, found = (load_file(folder / "adapter_model.safetensors") for folder in (undisturbed, output))
        for key, tensor in expected.items():
            assert found[key].dtype == tensor.dtype
            assert float((found[key].float() - tensor.float()).abs().max()) <= 1e-6, key

    @pytest.mark.parametrize(
        ("more", "parts"),
        [
            (["--max_steps", "1", "--save_steps", "1", "--warmup_steps", "5"], ["lora_B is zero", "--warmup_steps"]),
            (["--learning_rate", "1e38", "--max_steps", "4"], ["NaN or infinity", "lower --learning_rate"]),
        ],
    )
    def test_what_learnt_nothing_or_diverged_is_no_result(self, instruction_set, base, tmp_path, more, parts):
        output = tmp_path / "out"
        done = recipe("sft.py", *flags(instruction_set, base, output, *UNWATCHED), *more)
        assert_one_line_error(done, *parts, "another --output_dir")
        assert not (output / "adapter_model.safetensors").exists() and not (output / "lineage.json").exists()


class TestNf4OnACpu:
    @staticmethod
    def gradients(base: Path, asked_before: bool, cured: bool = True) -> dict:
        """The adapter's gradients in the first layer and the last, with and without an answer given before."""
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig

        nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16, quantization_config=nf4)
        torch.manual_seed(0)
        model = get_peft_model(model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
        if cured:
            trainable_on_cpu(model)
        ids = torch.tensor([ROWS[0]])
        if asked_before:
            with torch.no_grad():
                model.eval()(input_ids=ids)
        model.train()(input_ids=ids, labels=ids).loss.backward()
        return {name: p.grad for name, p in model.named_parameters() if p.requires_grad and "lora_B" in name}

    def test_gradients_do_not_depend_on_what_was_asked_before(self, base):
        asked, fresh = self.gradients(base, True), self.gradients(base, False)
        assert asked.keys() == fresh.keys() and len(asked) == 2 * 7
        for name, gradient in fresh.items():
            assert gradient.abs().max() > 0 and asked[name].equal(gradient), name

    def test_without_the_cure_they_do(self, base):
        from bitsandbytes.functional import has_avx512bf16

        if not has_avx512bf16():
            pytest.skip("bitsandbytes repacks weights only on a CPU with AVX512-BF16")
        asked = self.gradients(base, True, cured=False)
        assert any(gradient is None or not gradient.abs().max() > 0 for gradient in asked.values())


class TestReadingBack:
    @pytest.fixture
    def saved(self, base, tmp_path):
        """A model in memory with an adapter that does something, and the folder it was saved to."""
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
        model = get_peft_model(model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
        keep_types(model)
        torch.manual_seed(0)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.1)
        model.save_pretrained(tmp_path / "saved")
        return model, tmp_path / "saved"

    @staticmethod
    def change(folder: Path, how) -> None:
        """Apply `how` to the first `lora_B` on disk."""
        from safetensors.torch import load_file, save_file

        path = folder / "adapter_model.safetensors"
        tensors = load_file(path)
        key = min(key for key in tensors if "lora_B" in key)
        tensors[key] = how(tensors[key])
        save_file({key: tensor for key, tensor in tensors.items() if tensor is not None}, path)

    def test_what_was_saved_passes_and_leaves_the_model_as_it_was(self, saved):
        model, folder = saved
        before = {name: parameter.clone() for name, parameter in model.named_parameters()}
        found = check_saved(folder, model, ROWS)
        assert found["rows"] == 2 and found["largest_difference"] == 0 < found["tolerance"]
        after = dict(model.named_parameters())
        assert after.keys() == before.keys() and all(after[name].equal(before[name]) for name in before)
        assert model.active_adapter == "default" and list(model.peft_config) == ["default"]

    @pytest.mark.parametrize(
        ("how", "part"),
        [
            (lambda tensor: tensor * 1.001, "differs from that in memory"),
            (lambda tensor: tensor.bfloat16(), "differs from that in memory"),
            (lambda tensor: None, "is missing"),
            (lambda tensor: tensor.fill_(float("nan")), "NaN or infinity"),
            (lambda tensor: tensor.zero_(), "1 of 28 matrices are zero"),
            (lambda tensor: tensor * (torch.arange(len(tensor)) < len(tensor) // 8)[:, None], "zero in half"),
        ],
        ids=["scaled", "rounded", "left out", "not a number", "zero", "one shard of eight"],
    )
    def test_a_changed_tensor_is_found(self, saved, how, part):
        model, folder = saved
        self.change(folder, how)
        with pytest.raises(UserError, match=part):
            check_saved(folder, model, ROWS)

    @pytest.mark.parametrize(("key", "value"), [("lora_alpha", 9), ("use_rslora", True)])
    def test_a_changed_config_is_found(self, saved, key, value):
        model, folder = saved
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | {key: value}))
        with pytest.raises(UserError, match=f"{key} is {value} there and {config[key]} in memory"):
            check_saved(folder, model, ROWS)

    def test_what_neither_tensors_nor_config_tell_is_found_by_the_logits(self, saved):
        model, folder = saved
        for module in model.modules():
            if isinstance(getattr(module, "scaling", None), dict):
                module.scaling["default"] *= 2
        with pytest.raises(UserError, match="its logits differ"):
            check_saved(folder, model, ROWS)

    def test_a_whole_model_is_compared_too(self, base, tmp_path):
        from safetensors.torch import load_file, save_file
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        model.save_pretrained(tmp_path / "saved")
        assert check_saved(tmp_path / "saved", model, ROWS)["largest_difference"] == 0
        path = tmp_path / "saved" / "model.safetensors"
        tensors = load_file(path)
        tensors["model.norm.weight"] *= 1.001
        save_file(tensors, path, metadata={"format": "pt"})
        with pytest.raises(UserError, match=r"norm\.weight differs"):
            check_saved(tmp_path / "saved", model, ROWS)


class TestGoingOn:
    @pytest.fixture(scope="class")
    def parent(self, instruction_set, base, tmp_path_factory):
        output = tmp_path_factory.mktemp("parent") / "adapter"
        done = recipe("sft.py", *flags(instruction_set, base, output), "--lora_r", "4", "--use_rslora", "true")
        assert done.returncode == 0, done.stderr
        return output

    @pytest.fixture(scope="class")
    def child(self, parent, instruction_set, base, tmp_path_factory):
        output = tmp_path_factory.mktemp("child") / "adapter"
        more = ["--init_adapter", str(parent), "--eval_on_start", "true", "--max_steps", "4", "--learning_rate", "1e-3"]
        done = recipe("sft.py", *flags(instruction_set, base, output, *more))
        assert done.returncode == 0, done.stderr
        return output, more

    def test_it_starts_where_the_adapter_ended(self, parent, child):
        assert_read_back(parent)
        assert_read_back(child[0])
        ended = [entry["eval_loss"] for entry in log_history(parent, 2) if "eval_loss" in entry]
        curve = {entry["step"]: entry["eval_loss"] for entry in log_history(child[0], 4) if "eval_loss" in entry}
        assert curve[0] == pytest.approx(ended[-1], abs=1e-5)
        assert curve[4] != pytest.approx(curve[0], abs=1e-5)

    def test_the_adapter_decides_what_it_is_and_the_lineage_says_so(self, parent, child):
        config, lineage = (
            json.loads((child[0] / f"{name}.json").read_text()) for name in ("adapter_config", "lineage")
        )
        assert config["r"] == 4 and config["use_rslora"]
        assert lineage["config"]["lora_r"] == 4 and lineage["config"]["use_rslora"]
        assert lineage["inputs"]["init_adapter"]["name"] == str(parent)
        theirs = json.loads((parent / "lineage.json").read_text())
        assert lineage["parent"] == theirs
        assert lineage["inputs"]["init_adapter"]["sha256"].items() <= theirs["inputs"]["output"].items()

    def test_resuming_goes_on_from_the_checkpoint_not_from_the_adapter(self, child, instruction_set, base, tmp_path):
        from safetensors.torch import load_file

        output = tmp_path / "adapter"
        shutil.copytree(child[0], output)
        for name in ("lineage.json", "adapter_model.safetensors", "checkpoint-4/trainer_state.json"):
            (output / name).unlink()
        done = recipe("sft.py", *flags(instruction_set, base, output, *child[1]))
        assert done.returncode == 0 and "checkpoint-2" in done.stdout, done.stderr
        expected, found = (load_file(folder / "adapter_model.safetensors") for folder in (child[0], output))
        assert max(float((expected[key] - found[key]).abs().max()) for key in expected) <= 1e-6

    def test_the_plan_counts_the_adapter(self, parent, instruction_set, base, tmp_path):
        yaml = ROOT / "recipes" / "smollm2-135m" / "sft.yaml"
        planned = cli(
            "plan", str(yaml), *flags(instruction_set, base, tmp_path), "--init_adapter", str(parent), "--json"
        )
        assert planned.returncode == 0, planned.stderr
        found = json.loads(planned.stdout)
        assert found["config"]["lora_r"] == {"value": 4, "origin": "init_adapter"}
        training = json.loads((parent / "lineage.json").read_text())["training"]
        assert found["model"]["trainable"] == training["trainable_parameters"]

    @pytest.mark.parametrize(
        ("more", "parts"),
        [
            (["--init_adapter", "nowhere"], ["nowhere", "no adapter_config.json"]),
            (["--lora_r", "8"], ["--lora_r", "has 4", "leave the flag out"]),
            (["--use_peft", "false"], ["init_adapter", "set use_peft: true"]),
            (["--chat_template_path", "other.jinja"], ["another chat template", "--chat_template_path"]),
        ],
    )
    def test_mistakes_are_one_line(self, parent, instruction_set, base, tmp_path, more, parts):
        (tmp_path / "other.jinja").write_text(
            "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}<|im_end|>{% endfor %}"
            "{% if add_generation_prompt %}[assistant] {% endif %}"
        )
        given = flags(instruction_set, base, tmp_path / "out", "--init_adapter", str(parent), *more)
        assert_one_line_error(recipe("sft.py", *given, cwd=tmp_path), *parts)
        assert not (tmp_path / "out").exists()

    def test_only_its_own_base_will_do(self, parent, base, tiny_model, tmp_path):
        from transformers import AutoModelForCausalLM

        with pytest.raises(UserError, match=f"belongs to .*give --model_name_or_path {base}"):
            read_parent(str(parent), str(tiny_model), tiny_model)
        moved, changed = tmp_path / "moved", tmp_path / "changed"
        shutil.copytree(base, moved)
        assert read_parent(str(parent), str(moved), moved).sha256  # the same weights under another name
        shutil.copytree(base, changed)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        with torch.no_grad():
            model.model.norm.weight.mul_(2)
        model.save_pretrained(changed)
        with pytest.raises(UserError, match="are not those that it was trained on"):
            read_parent(str(parent), str(base), changed)  # the same name with other weights
        (tmp_path / "bare").mkdir()
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copy(parent / name, tmp_path / "bare")
        assert read_parent(str(tmp_path / "bare"), str(base), base).lineage is None
        with pytest.raises(UserError, match="belongs to"):
            read_parent(str(tmp_path / "bare"), str(moved), moved)  # without a lineage the name decides

    @pytest.mark.parametrize(
        ("key", "value", "part"),
        [
            ("peft_type", "IA3", "only LoRA"),
            ("task_type", "SEQ_CLS", "only LoRA"),
            ("init_lora_weights", "pissa", "changes the base's weights"),
        ],
    )
    def test_other_kinds_are_refused(self, parent, base, tmp_path, key, value, part):
        shutil.copytree(parent, tmp_path / "other")
        path = tmp_path / "other" / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
        with pytest.raises(UserError, match=part):
            read_parent(str(path.parent), str(base), base)

    def test_weights_must_be_safetensors_and_fit(self, parent, base, tmp_path):
        from peft import get_peft_model
        from safetensors.torch import load_file, save_file
        from transformers import AutoModelForCausalLM

        other = tmp_path / "other"
        shutil.copytree(parent, other)
        weights = other / "adapter_model.safetensors"
        tensors = load_file(weights)
        for kept, part in ((sorted(tensors)[1:], "lacks"), (sorted(tensors), "does not fit")):
            cut = 1 if part == "lacks" else 2
            save_file({key: tensors[key][::cut].contiguous() for key in kept}, weights)
            start = read_parent(str(other), str(base), base)
            model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
            with pytest.raises(UserError, match=part):
                start.load_into(get_peft_model(model, start.config))
        weights.rename(other / "adapter_model.bin")
        with pytest.raises(UserError, match="pickled weights are not read"):
            read_parent(str(other), str(base), base)

    def test_dpo_starts_from_it_and_compares_with_it(self, parent, base, tmp_path):
        """What recipes share serves other trainers: the first loss is ln 2, and the frozen copy does not go out."""
        import math

        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer, ModelConfig

        from instructrec.models import load_tokenizer
        from instructrec.saved import save_checked
        from instructrec.training import ending, make_trainer

        def said(text: str, role: str = "assistant") -> list[dict[str, str]]:
            return [{"role": role, "content": text}]

        rows = Dataset.from_list([{"prompt": said("Ask?", "user"), "chosen": said("Yes."), "rejected": said("No")}] * 4)
        start, output = read_parent(str(parent), str(base), base), tmp_path / "dpo"
        args = DPOConfig(
            output_dir=str(output), use_cpu=True, bf16=False, max_steps=2, logging_steps=1, save_steps=2, report_to=[]
        )
        trainer = make_trainer(
            DPOTrainer, base, args, ModelConfig(), load_tokenizer(base), start.config, train_dataset=rows
        )
        start.load_into(trainer.model)
        start.load_into(trainer.model, "ref")
        with ending(trainer):
            trainer.train()
            read_back = save_checked(trainer, output, iter(ROWS))
        assert log_history(output, 2)[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
        assert read_back["rows"] == 2 and read_back["largest_difference"] == 0
        names = {path.name for path in output.iterdir()}
        assert "adapter_model.safetensors" in names
        assert not names & {"ref", "unchecked", "training_args.bin", "README.md"}

    def test_flags_that_say_the_same_are_no_conflict(self, parent, base):
        from trl import ModelConfig

        start = read_parent(str(parent), str(base), base)
        model = ModelConfig(lora_r=4, lora_dropout=0.25, use_rslora=True)
        origins = {"lora_r": COMMAND_LINE, "use_rslora": COMMAND_LINE, "lora_alpha": "sft.yaml"}
        taken = start.take_over(model, origins)
        assert model.lora_r == 4 and set(origins.values()) == {"init_adapter"}
        assert start.config.lora_dropout == 0.25  # of the run, not of the adapter
        assert set(taken["lora_target_modules"]) == set(start.config.target_modules)
