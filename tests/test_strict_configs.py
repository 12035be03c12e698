"""Wrong configs, each refused in one line of its own before any weight is loaded; what the checks count and mend."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
from conftest import ROOT, assert_one_line_error, assert_refused, recipe

from instructrec.chat_templates import choose_template
from instructrec.core.errors import UserError
from instructrec.data import NOT_SUPERVISED, load_set, trainable
from instructrec.models import load_tokenizer, stop_tokens
from instructrec.preflight import RowTokens, count, measure, preflight, tokens_of

TURN = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
TEMPLATES = {
    "unended.jinja": "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}",
    "deaf.jinja": "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}<|im_end|>\n{% endfor %}",
    "bare.jinja": TURN.replace("<|im_start|>", "<|im_start|>* "),
    "late.jinja": TURN.replace("{{ m['content'] }}", "{% generation %}{{ m['content'] }}{% endgeneration %}"),
    "broken.jinja": "{% for m in messages %}\n{% if %}",
}
"""Files that the table names: no end of turn, no answers, no marks, marks before the end of turn, no Jinja."""

# What a YAML holds, what the command line adds, and what the line says: where, the key, and the mend.
TABLE: list[tuple[str, str, list[str]]] = [
    ("warmup_ratoi: 0.1", "", ["wrong.yaml: unknown key 'warmup_ratoi'", "'warmup_steps'"]),
    ("warmup_ratio: 0.1", "", ["wrong.yaml: key 'warmup_ratio' is called 'warmup_steps' here"]),
    ("", "--gradient_checkpointing true", ["'--gradient_checkpointing' is called '--activation_checkpointing' here"]),
    ("", "--lora_rank 8", ["'--lora_rank' is called '--lora_r' here"]),
    ("seed: 1\nlora_r: 8\nlora_r: 16", "", ["wrong.yaml:3: key 'lora_r' is given twice", "leave one"]),
    ("lr_scheduler_kwargs: {a: 1, a: 2}", "", ["wrong.yaml:1: key 'a' is given twice"]),
    ("lora_r: 3.5", "", ["wrong.yaml: key 'lora_r' must be int, not 3.5"]),
    ("", "--lora_r 3.5", ["command line", "--lora_r", "invalid int value: '3.5'"]),
    ("learning_rate: fast", "", ["wrong.yaml: key 'learning_rate' must be float, not 'fast'"]),
    ("packing: maybe", "", ["key 'packing' must be bool, not 'maybe'"]),
    ("lora_target_modules: 3", "", ["key 'lora_target_modules' must be", "list[str]", "not 3"]),
    ("dtype: bf16", "", ["wrong.yaml: key 'dtype' must be one of", "'bfloat16'"]),
    ("", "--dtype half", ["command line: key 'dtype' must be one of", "not 'half'"]),
    ("", "--report_to tensorbord", ["key 'report_to'", "'tensorbord'", "'tensorboard'"]),
    ("report_to: [none, wnb]", "", ["wrong.yaml: key 'report_to'", "'wnb'", "'wandb'"]),
    ("lr_scheduler_type: cosin", "", ["key 'lr_scheduler_type'", "'cosin'", "'cosine'"]),
    ("", "--optim adam", ["key 'optim'", "'adam'", "'adamw_torch'"]),
    ("optim: [adamw_torch]", "", ["wrong.yaml: key 'optim'", "not ['adamw_torch']"]),
    ("", "--attn_implementation flash", ["key 'attn_implementation'", "'flash'", "'flash_attention_2'"]),
    ("eval_strategy: no", "", ["key 'eval_strategy'", "YAML reads no as False", "quotes"]),
    ("", "--learning_rate -0.5", ["key 'learning_rate' must be above 0, not -0.5"]),
    ("learning_rate: .nan", "", ["wrong.yaml: key 'learning_rate' must be above 0, not nan"]),
    ("lora_r: 0", "", ["wrong.yaml: key 'lora_r' must be 1 or more, not 0"]),
    ("lora_dropout: 1.5", "", ["key 'lora_dropout' must be 0 or more and below 1, not 1.5"]),
    ("warmup_steps: -2", "", ["key 'warmup_steps' must be 0 or more, not -2"]),
    ("max_steps: 0", "", ["key 'max_steps' must be 1 or more, or -1 for whole epochs"]),
    ("per_device_train_batch_size: 0", "", ["key 'per_device_train_batch_size' must be 1 or more"]),
    ("", "--gradient_accumulation_steps 0", ["key 'gradient_accumulation_steps' must be 1 or more"]),
    ("", "--eval_steps 0", ["key 'eval_steps' must be above 0 (below 1: a share of all steps)"]),
    ("max_length: 1", "", ["key 'max_length' must be 2 or more"]),
    ("seed: -1", "", ["key 'seed' must be between 0 and 4294967295"]),
    ("model_init_kwargs: {dtype: auto}", "", ["model_init_kwargs", "dtype and attn_implementation"]),
    ("resume_from_checkpoint: there", "", ["resume_from_checkpoint", "the same command again"]),
    ("", "--bf16 true --fp16 true", ["bf16 and fp16", "set fp16: false"]),
    ("", "--fp16 true --use_cpu true", ["fp16: needs a GPU"]),
    (
        "use_peft: true\nload_in_4bit: true\nload_in_8bit: true",
        "",
        ["load_in_4bit and load_in_8bit", "set load_in_8bit"],
    ),
    ("load_in_4bit: true", "--use_peft false", ["load_in_4bit: quantized weights", "set use_peft: true"]),
    ("load_in_4bit: true\nuse_peft: true\ndtype: auto", "", ["load_in_4bit: dtype", "set dtype: bfloat16"]),
    ("packing: true\nmax_length: null", "", ["packing: needs a max_length", "set max_length: 1024"]),
    ("packing: true\npacking_strategy: wrapped", "", ["packing_strategy", "see each other", "bfd"]),
    ("padding_free: true", "", ["padding_free", "set packing: true, or max_length: null"]),
    ("", "--attn_implementation flex_attention --use_cpu true", ["flex_attention does not train on a CPU", "sdpa"]),
    ("attn_implementation: flash_attention_2", "", ["dtype: flash_attention_2 computes in 16 bits", "dtype: bfloat16"]),
    ("lora_dropout: 0.1\nlora_alpha: 8", "", ["lora_dropout: all weights are trained", "set use_peft: true"]),
    ("use_peft: true", "--use_peft false --lora_alpha 4", ["lora_alpha: all weights are trained", "or leave it out"]),
    ("save_only_model: true", "", ["save_only_model: after an interruption", "leave it out"]),
    ("ignore_data_skip: true", "", ["ignore_data_skip: after an interruption", "leave it out"]),
    ("fsdp: full_shard", "", ["fsdp: how processes share a model", "accelerate_configs/fsdp2.yaml"]),
    ("", "--deepspeed zero.json", ["deepspeed: how processes share a model", "accelerate_configs/zero3.yaml"]),
    ("truncation_mode: keep_end", "", ["truncation_mode", "left out, not truncated"]),
    ("num_train_epochs: 2\nmax_steps: 40", "", ["num_train_epochs: max_steps, which is 40", "set max_steps: -1"]),
    ("load_best_model_at_end: true", "", ["nothing is evaluated", "set eval_strategy: steps"]),
    ("load_best_model_at_end: true\neval_strategy: epoch", "", ["save_strategy is steps", "save_strategy: epoch"]),
    (
        "load_best_model_at_end: true\neval_strategy: steps\neval_steps: 20\nsave_steps: 30",
        "",
        ["save_steps: 30 is no multiple of eval_steps, 20", "set save_steps: 40"],
    ),
    (
        "load_best_model_at_end: true\neval_strategy: steps\neval_steps: 5\nmetric_for_best_model: gold_nl",
        "",
        ["metric_for_best_model", "not 'gold_nl'", "'gold_nll'"],
    ),
    (
        "load_best_model_at_end: true\neval_strategy: steps\neval_steps: 5\nmetric_for_best_model: gold_nll",
        "",
        ["gold_nll is better when it is lower", "set greater_is_better: false"],
    ),
    ("accelerator_config: nowhere.json", "", ["wrong.yaml", "nowhere.json"]),
    # From here on the model's tokenizer and the rows are read.
    ("", "--max_length 16", ["max_length 16: is shorter than the answer of row", "set --max_length"]),
    ("", "--max_length 200", ["max_length 200:", "of 60 rows are longer (row", "set --max_length"]),
    ("", "--eos_token <|im_edn|>", ["eos_token: '<|im_edn|>'", "'<|im_end|>'"]),
    ("", "--chat_template_path unended.jinja", ["row ", "the end of its answer is not supervised", "--eos_token"]),
    ("", "--chat_template_path deaf.jinja", ["row ", "none of its", "writes nothing of its answer"]),
    ("", "--chat_template_path broken.jinja", ["chat_template_path: broken.jinja:2:"]),
    ("", "--chat_template_path ./nowhere.jinja", ["chat_template_path: nowhere.jinja: No such file"]),
    ("", "--chat_template_path tokenizer", ["chat_template_path: must be a file that ends in .jinja"]),
    (
        "",
        "--assistant_only_loss true --chat_template_path bare.jinja",
        ["assistant_only_loss", "has no generation marks", "{% generation %}"],
    ),
    (
        "",
        "--assistant_only_loss true --chat_template_path late.jinja",
        ["assistant_only_loss", "leave out the token that ends an answer", "before {% endgeneration %}"],
    ),
    ("use_peft: true\nlora_target_modules: [q_proj, v_prj]", "", ["lora_target_modules", "'v_prj'", "'v_proj'"]),
    ("use_peft: true\nlora_target_modules: []", "", ["lora_target_modules: names no module", "`all-linear`"]),
    ("use_peft: true\nlora_target_modules: [lm_head]", "", ["lora_target_modules", "leave it out"]),
]


@pytest.fixture(scope="module")
def sft():
    spec = importlib.util.spec_from_file_location("sft_recipe", ROOT / "recipes" / "sft.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their types
    spec.loader.exec_module(module)
    return module


def test_every_wrong_config_has_a_line_of_its_own():
    assert len(TABLE) >= 25
    assert len({tuple(parts) for _, _, parts in TABLE}) == len(TABLE)


@pytest.mark.parametrize(("yaml", "flags", "parts"), TABLE, ids=lambda value: value if isinstance(value, str) else "")
def test_a_wrong_config_is_one_line(
    yaml, flags, parts, sft, instruction_set, tiny_model, tmp_path, monkeypatch, capsys
):
    for name, text in TEMPLATES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "wrong.yaml").write_text(f"{yaml}\n" if yaml else "{}\n")
    monkeypatch.chdir(tmp_path)
    given = {"config": "wrong.yaml", "model_name_or_path": tiny_model, "dataset_name": instruction_set}
    given |= {"max_train_rows": 60, "output_dir": "out"}
    rest = [text for key, value in given.items() for text in (f"--{key}", str(value))]
    assert_refused(sft.main, ["recipes/sft.py", *rest, *flags.split()], parts, monkeypatch, capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--config", "twice.yaml"], ["twice.yaml:2: key 'lora_r' is given twice"]),
        (["--optim", "adam"], ["key 'optim'", "'adamw_torch'"]),
        (["--max_length", "16"], ["max_length 16: is shorter than the answer of row"]),
    ],
)
def test_the_command_says_the_same(flags, parts, instruction_set, tiny_model, tmp_path):
    (tmp_path / "twice.yaml").write_text("lora_r: 8\nlora_r: 16\n")
    model = ["--model_name_or_path", str(tiny_model), "--dataset_name", str(instruction_set)]
    assert_one_line_error(recipe("sft.py", *flags, *model, cwd=tmp_path), *parts)
    assert not (tmp_path / "outputs").exists()


class TestRows:
    """What is counted, and what of it is refused, mended or told."""

    @pytest.fixture
    def tokenizer(self, tiny_model):
        return load_tokenizer(tiny_model)

    @pytest.fixture
    def args(self):
        """The keys of `SFTConfig` and `ModelConfig` that are read."""
        return SimpleNamespace(
            max_length=40, completion_only_loss=None, assistant_only_loss=False, eos_token=None, pad_token=None
        ), SimpleNamespace(
            load_in_4bit=False, load_in_8bit=False, use_peft=False, lora_target_modules=None, dtype="auto"
        )

    @staticmethod
    def rows(*lengths):
        """Rows whose prompt has so many numbers, and whose completion is one word."""
        return datasets.Dataset.from_list(
            [
                {
                    "prompt": [{"role": "user", "content": " 7" * length}],
                    "completion": [{"role": "assistant", "content": "yes"}],
                }
                for length in lengths
            ]
        )

    def test_tokens_are_those_that_trl_trains_on(self, instruction_set, tiny_model, tokenizer, tmp_path):
        from trl import SFTConfig, SFTTrainer

        rows, _ = trainable(load_set(str(instruction_set), 30)["train"], None, tokenizer)
        measured = measure(tokens_of(rows, tokenizer), stop_tokens(tiny_model, tokenizer))
        choose_template(tokenizer, marked=True)
        for marks in (False, True):  # the shipped marks and the completion are the same tokens
            args = SFTConfig(
                output_dir=str(tmp_path),
                use_cpu=True,
                bf16=False,
                max_length=None,
                report_to=[],
                assistant_only_loss=marks,
            )
            trained = SFTTrainer(str(tiny_model), args, train_dataset=rows, processing_class=tokenizer).train_dataset
            for row, theirs in zip(measured, trained, strict=True):
                kept = [label != NOT_SUPERVISED for label in theirs["labels"]]
                assert row == RowTokens(len(kept), kept.index(True), sum(kept), True)
        counts = count(measured, max_length=100)
        assert (counts.rows, counts.tokens) == (30, sum(row.total for row in measured))
        assert counts.longest >= counts.longest_prompt and counts.unsupervised == 0
        assert counts.too_long == sum(row.total > 100 for row in measured)

    def test_a_few_long_rows_are_left_out_and_told(self, tiny_model, tokenizer, args):
        rows = self.rows(*[3] * 19, 300)
        ids = [f"id{place}" for place in range(20)]
        kept, counts = preflight(rows, ids, tiny_model, tokenizer, *args)
        line = str(counts).splitlines()[-1]
        assert len(kept) == counts.rows == 19 and counts.longest <= 40 and counts.too_long == 0
        assert "1 of 20 rows are longer (row id19 has" in line and "--max_length" in line
        args[0].max_length = None
        kept, counts = preflight(rows, ids, tiny_model, tokenizer, *args)
        assert len(kept) == 20 and counts.longest > 300 and not counts.left_out

    def test_conversations_are_counted_by_their_labels(self, tiny_model, tokenizer, args):
        end = tokenizer.eos_token_id
        ids, labels = [5, 6, end, 7, 8, end, 9], [-100, 6, end, -100, 8, end, -100]
        rows = datasets.Dataset.from_dict({"input_ids": [ids], "labels": [labels]})
        assert measure(tokens_of(rows, tokenizer), {end}) == [RowTokens(7, 1, 4, True)]
        unended = datasets.Dataset.from_dict({"input_ids": [ids], "labels": [[*labels[:5], -100, -100]]})
        with pytest.raises(UserError, match=r"row a: the end of its answer is not supervised .*'<\|im_end\|>'"):
            preflight(unended, ["a"], tiny_model, tokenizer, *args)
        for key, value in (("assistant_only_loss", True), ("completion_only_loss", False)):
            wrong = SimpleNamespace(**vars(args[0]) | {key: value})
            with pytest.raises(UserError, match=f"{key}: of this set's conversations"):
                preflight(rows, ["a"], tiny_model, tokenizer, wrong, args[1])

    def test_an_end_that_the_tokenizer_does_not_name_is_given_as_eos_token(self, tiny_model, args, tmp_path):
        folder = shutil.copytree(tiny_model, tmp_path / "base")
        (folder / "generation_config.json").unlink()
        tokenizer = load_tokenizer(folder)
        tokenizer.eos_token = "<|endoftext|>"  # as with base models whose chat template writes <|im_end|>
        with pytest.raises(UserError, match=r"'<\|endoftext\|>' does not follow it.*--eos_token"):
            preflight(self.rows(3), ["a"], folder, tokenizer, *args)
        args[0].eos_token = "<|im_end|>"
        preflight(self.rows(3), ["a"], folder, tokenizer, *args)
        assert tokenizer.eos_token == "<|im_end|>"

    def test_quantization_that_would_be_ignored_is_refused(self, tiny_model, tokenizer, args, tmp_path):
        from transformers import AutoModelForCausalLM

        args[1].load_in_4bit = True
        loaded = AutoModelForCausalLM.from_pretrained(tiny_model)
        with pytest.raises(UserError, match="load_in_4bit: the model is loaded already"):
            preflight(self.rows(3), ["a"], loaded, tokenizer, *args)
        folder = shutil.copytree(tiny_model, tmp_path / "base")
        config = json.loads((folder / "config.json").read_text()) | {"quantization_config": {"quant_method": "gptq"}}
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(UserError, match=r"load_in_4bit: the weights of base are quantized already \(gptq\)"):
            preflight(self.rows(3), ["a"], folder, tokenizer, *args)

    def test_one_target_module_is_a_name_and_text_is_a_pattern(self, tiny_model, tokenizer, args):
        args[1].use_peft = True
        for given, kept in (("q_proj", ["q_proj"]), (r".*\.(q|v)_proj", r".*\.(q|v)_proj")):
            args[1].lora_target_modules = given  # as TRL leaves a list of one
            preflight(self.rows(3), ["a"], tiny_model, tokenizer, *args)
            assert args[1].lora_target_modules == kept


SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The template of SmolLM2-135M-Instruct."""


class TestChatTemplates:
    @pytest.mark.parametrize("template", [None, SMOLLM2], ids=["chatml", "smollm2"])
    def test_marks_are_around_answers_and_change_nothing_else(self, template, tiny_model):
        tokenizer = load_tokenizer(tiny_model)
        tokenizer.chat_template = template or tokenizer.chat_template
        messages = [
            {"role": role, "content": f"Some {role}, line\n{n}. "}
            for n, role in enumerate(["user", "assistant", "user", "assistant"])
        ]
        before = tokenizer.apply_chat_template(messages, tokenize=False)
        choose_template(tokenizer)
        assert "{%- generation -%}" in tokenizer.chat_template
        assert tokenizer.apply_chat_template(messages, tokenize=False) == before
        marked = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        pairs = zip(marked["input_ids"], marked["assistant_masks"], strict=True)
        said = tokenizer.decode([token for token, kept in pairs if kept])
        assert said == "".join(f"{message['content']}<|im_end|>\n" for message in messages[1::2])

    def test_another_template_is_left_alone(self, tiny_model):
        tokenizer = load_tokenizer(tiny_model)
        tokenizer.chat_template = TEMPLATES["bare.jinja"]
        choose_template(tokenizer)
        assert tokenizer.chat_template == TEMPLATES["bare.jinja"]

    def test_an_adapter_is_asked_in_the_template_it_was_trained_in(self, instruction_set, tiny_model, tmp_path):
        (tmp_path / "mine.jinja").write_text(TEMPLATES["bare.jinja"])
        flags = {"model_name_or_path": tiny_model, "dataset_name": instruction_set, "output_dir": tmp_path / "out"}
        flags |= {"max_steps": 1, "warmup_steps": 0, "eval_strategy": "no", "load_best_model_at_end": "false"}
        flags["dtype"] = "float32"
        flags |= {"chat_template_path": tmp_path / "mine.jinja", "max_train_rows": 30, "lora_target_modules": "q_proj"}
        done = recipe("sft.py", *(text for key, value in flags.items() for text in (f"--{key}", str(value))))
        assert done.returncode == 0, done.stderr
        flags = {"model_name_or_path": tiny_model, "adapter": tmp_path / "out", "output_dir": tmp_path / "eval"}
        flags |= {"suite": instruction_set / "test_tasks", "max_items": 2, "max_new_tokens": 2, "dtype": "float32"}
        done = recipe("evaluate.py", *(text for key, value in flags.items() for text in (f"--{key}", str(value))))
        assert done.returncode == 0, done.stderr
        for line in (tmp_path / "eval" / "predictions.jsonl").read_text().splitlines():
            found = json.loads(line)
            assert ("<|im_start|>* " in found["prompt"]) == (found["model"] != str(tiny_model))

    def test_marks_are_saved_with_the_adapter(self, instruction_set, tiny_model, tmp_path):
        flags = {"model_name_or_path": tiny_model, "dataset_name": instruction_set, "output_dir": tmp_path / "out"}
        flags |= {"max_steps": 1, "warmup_steps": 0, "eval_strategy": "no", "load_best_model_at_end": "false"}
        flags |= {
            "dtype": "float32",
            "assistant_only_loss": "true",
            "max_train_rows": 30,
            "lora_target_modules": "q_proj",
        }
        flags["chat_template_path"] = tmp_path / "mine.jinja"
        flags["chat_template_path"].write_text((tiny_model / "chat_template.jinja").read_text())
        done = recipe("sft.py", *(text for key, value in flags.items() for text in (f"--{key}", str(value))))
        assert done.returncode == 0, done.stderr
        assert "of them supervised; the longest row has" in done.stdout
        assert "generation -%}" in (tmp_path / "out" / "chat_template.jinja").read_text()
        adapter = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
        assert adapter["target_modules"] == ["q_proj"]
        assert "generation -%}" not in (Path(tiny_model) / "chat_template.jinja").read_text()
