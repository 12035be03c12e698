"""`instructrec plan`: what it says before a weight is read, against what a run and a loaded model then say."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, assert_one_line_error, cli, pair_flags, recipe

YAMLS = sorted((ROOT / "recipes").glob("*/*.yaml"))
SFT = ROOT / "recipes" / "smollm2-135m" / "sft.yaml"


@pytest.fixture(scope="module")
def weightless(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with garbage for weights."""
    folder = tmp_path_factory.mktemp("weightless") / "tiny"
    shutil.copytree(tiny_model, folder)
    size = (folder / "model.safetensors").stat().st_size
    (folder / "model.safetensors").write_bytes(b"\xff" * size)
    return folder


def flags(model: Path, instruction_set: Path, output: Path, *more: str) -> list[str]:
    given = {"model_name_or_path": model, "dataset_name": instruction_set, "output_dir": output, "dtype": "float32"}
    return [*(text for key, value in given.items() for text in (f"--{key}", str(value))), *more]


def planned(*arguments: str) -> dict:
    done = cli("plan", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_recipe_yaml_can_be_planned_without_reading_weights(
    path, weightless, tiny_model, instruction_set, pairs, start_of, tmp_path
):
    given = flags(weightless, instruction_set, tmp_path / "out")
    if "held_out_set" in path.read_text():
        given = pair_flags(pairs, instruction_set, weightless, tmp_path / "out", max_length=1024)
    if "init_adapter" in path.read_text():
        start = shutil.copytree(start_of(tiny_model), tmp_path / "start")
        config = json.loads((start / "adapter_config.json").read_text())
        (start / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(weightless)}))
        given += ["--init_adapter", str(start)]
    if "rewards:" in path.read_text():
        given += ["--rewards", str(ROOT / "recipes" / "rewards.yaml"), "--max_prompt_length", "1024"]
    done = cli("plan", str(path), *given)
    assert done.returncode == 0, done.stderr
    for part in ("Parameters", "Memory of each device", "activations", "peak", "steps", "supervised", path.name):
        assert part in done.stdout
    assert not (tmp_path / "out").exists()


def test_every_value_says_where_it_is_from(weightless, instruction_set, tmp_path):
    (tmp_path / "own.yaml").write_text("lora_r: 4\nuse_peft: true\nbf16: false\n")
    config = planned(str(tmp_path / "own.yaml"), *flags(weightless, instruction_set, tmp_path / "out"))["config"]
    assert config["lora_r"] == {"value": 4, "origin": "own.yaml"}
    assert config["dtype"] == {"value": "float32", "origin": "command line"}
    assert config["lora_alpha"] == {"value": 32, "origin": "default of TRL"}
    assert config["eval_items"] == {"value": 32, "origin": "default of instructrec"}


def test_secrets_are_not_in_a_plan(weightless, instruction_set, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    done = cli("plan", str(SFT), *flags(weightless, instruction_set, tmp_path / "out"), "--json")
    assert done.returncode == 0 and "hf_secret" not in done.stdout


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("--packing", "false", "--per_device_train_batch_size", "3", "--max_length", "512"),
        ("--max_steps", "-1", "--num_train_epochs", "1.5", "--max_train_rows", "37", "--packing", "false"),
        (
            *("--max_steps", "-1", "--num_train_epochs", "2", "--max_train_rows", "11", "--packing", "false"),
            *("--per_device_train_batch_size", "3", "--dataloader_drop_last", "true"),
        ),
    ],
    ids=["packed", "padded", "epochs", "dropped"],
)
def test_tokens_and_steps_are_those_of_the_run(more, tiny_model, instruction_set, tmp_path):
    given = ["--max_steps", "2", "--warmup_steps", "0", "--eval_strategy", "no", "--load_best_model_at_end", "false"]
    given = flags(tiny_model, instruction_set, tmp_path / "out", *given, *more)
    plan = planned(str(SFT), *given)
    done = recipe("sft.py", *given)
    assert done.returncode == 0, done.stderr
    training = json.loads((tmp_path / "out" / "lineage.json").read_text())["training"]
    assert plan["run"]["steps"] == training["steps"]
    assert plan["run"]["tokens"] == training["tokens"]
    assert plan["model"]["trainable"] == training["trainable_parameters"]
    assert (plan["run"]["padding"] > 0) == ("--packing" in more and "3" in more)


@pytest.mark.parametrize("use_peft", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_parameters_and_kept_tensors_are_those_of_the_loaded_model(use_peft, dtype, tiny_model):
    """The same counts of a model with data, and the formula of the docstring, worked out for the tiny Llama."""
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM
    from trl import ModelConfig, SFTConfig, get_peft_config

    from instructrec.memory import Batch, count

    torch.manual_seed(0)
    model = ModelConfig(use_peft=use_peft, lora_r=4, lora_dropout=0.0, lora_target_modules=["all-linear"], dtype=dtype)
    args = SFTConfig(use_cpu=True, bf16=False, activation_checkpointing=False, report_to=[])
    tokens = 64
    batch, peft_config = Batch(1, tokens, 10, packed=True), get_peft_config(model)
    counted = count(tiny_model, model, args, batch, bf16=False, peft_config=peft_config)

    loaded = AutoModelForCausalLM.from_pretrained(str(tiny_model), dtype=getattr(torch, dtype))
    adapted = get_peft_model(loaded, get_peft_config(model)) if use_peft else loaded
    parameters = list(adapted.parameters())
    assert counted.total == sum(p.numel() for p in parameters)
    assert counted.trainable == sum(p.numel() for p in parameters if p.requires_grad)
    assert counted.weights + counted.adapter == sum(p.numel() * p.element_size() for p in parameters)

    given = {t.untyped_storage()._cdata for t in (*parameters, *adapted.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in given:
            kept[storage._cdata] = storage
        return tensor

    positions = torch.cat([torch.arange(40), torch.arange(24)])[None]
    ids = torch.arange(tokens)[None]
    adapted.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = loaded.base_model(input_ids=ids, position_ids=positions, use_cache=False)
    assert counted.activations == pytest.approx(sum(s.nbytes() for s in kept.values()), rel=0.01)
    del output

    h, f, a, d, r, size, layers = 48, 96, 4, 12, 4, 4 if dtype == "float32" else 2, 2
    shared = 4 * h * 2 + (4 * size * a * d + 4 * a) + 3 * size * f
    if not use_peft:
        inputs = size * (2 * h + a * d + f) + (size * 2 * h if size == 2 else 0)
    elif size == 4:
        inputs = 4 * (2 * h + a * d + f) + 4 * 7 * r
    else:
        inputs = 4 * (3 * h + a * d + 2 * h + f) + 4 * 7 * r
    formula = layers * (tokens * (shared + inputs) + size * tokens**2)
    assert counted.activations == pytest.approx(formula, rel=0.15)


def test_the_loss_takes_what_its_formula_says():
    """Bytes alive at once in TRL's loss, forward and backward, followed allocation by allocation."""
    import weakref

    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from trl.kernels import ChunkedLogProbFunction

    from instructrec.memory import BACKWARD_TILE, FORWARD_TILE, VOCABULARY_CHUNK

    class Alive(TorchDispatchMode):
        now = most = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in tree_leaves(out):
                if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in seen:
                    storage = tensor.untyped_storage()
                    key, size = storage._cdata, storage.nbytes()
                    seen.add(key)
                    self.now += size
                    self.most = max(self.most, self.now)
                    weakref.finalize(storage, self.free, key, size)
            return out

        def free(self, key, size):
            seen.discard(key)
            self.now -= size

    tokens, hidden, vocabulary = 32, 8, VOCABULARY_CHUNK
    states = torch.randn(tokens, hidden, requires_grad=True)
    weight = torch.randn(vocabulary, hidden)
    seen = {states.untyped_storage()._cdata, weight.untyped_storage()._cdata}
    targets = torch.arange(tokens)
    with Alive() as forward:
        outputs = ("log_probs", "entropy", "is_top1")
        found = ChunkedLogProbFunction.apply(states, weight, None, targets, 1.0, VOCABULARY_CHUNK, None, 1.0, outputs)
    loss = found[0].sum()
    with Alive() as backward:
        loss.backward()
    logits = tokens * vocabulary
    assert forward.most == pytest.approx(logits * (4 + FORWARD_TILE), rel=0.05)
    assert backward.most == pytest.approx(logits * (4 + BACKWARD_TILE), rel=0.05)


def test_shards_divide_what_they_divide(weightless, instruction_set, tmp_path):
    given = flags(weightless, instruction_set, tmp_path / "out", "--use_peft", "false", "--eval_strategy", "no")
    given += ["--load_best_model_at_end", "false"]
    parts = {
        name: planned(str(SFT), *given, "--accelerate", str(ROOT / "accelerate_configs" / f"{name}.yaml"))
        for name in ("single_gpu", "ddp", "zero3")
    }
    one, ddp, zero = (parts[name]["memory"]["parts"] for name in ("single_gpu", "ddp", "zero3"))
    assert zero["optimizer"] == -(-one["optimizer"] // 8) and zero["gradients"] == -(-one["gradients"] // 8)
    assert ddp["optimizer"] == one["optimizer"] and ddp["gradients"] == 2 * one["gradients"]
    assert parts["ddp"]["run"]["tokens"] > 4 * parts["single_gpu"]["run"]["tokens"]  # eight processes, more each step


def test_checkpointing_keeps_less(weightless, instruction_set, tmp_path):
    given = flags(weightless, instruction_set, tmp_path / "out")
    with_, without = (
        planned(str(SFT), *given, "--activation_checkpointing", value)["memory"]["parts"]["activations"]
        for value in ("true", "false")
    )
    assert with_ < 0.8 * without  # of two layers, one is computed again at a time


def test_supervised_tokens_are_shown(weightless, instruction_set, tmp_path):
    plan = planned(str(SFT), *flags(weightless, instruction_set, tmp_path / "out"))
    assert len(plan["shown"]) == 3
    for row in plan["shown"]:
        (given, first), (answer, second) = row["pieces"]
        assert (first, second) == (False, True)
        assert given.endswith("<|im_start|>assistant\n") and "<|im_end|>" in answer


def test_rows_are_tokenized_once(weightless, instruction_set, tmp_path, monkeypatch):
    from instructrec import preflight
    from instructrec.plan import plan

    asked = []
    completions = preflight._completions
    monkeypatch.setattr(
        preflight, "_completions", lambda rows, tokenizer: (asked.append(len(rows)), completions(rows, tokenizer))[1]
    )
    more = ["--max_train_rows", "40", "--eval_items", "4", "--packing", "false"]
    found = plan(SFT, flags(weightless, instruction_set, tmp_path / "out", *more))
    assert found.run.rows + found.run.left_out == 40 and asked == [40, 4]


def test_a_probe_times_steps(tiny_model, instruction_set, tmp_path):
    given = flags(tiny_model, instruction_set, tmp_path / "out", "--max_train_rows", "40")
    done = cli("plan", str(SFT), *given, "--probe")
    assert done.returncode == 0, done.stderr
    assert "s per step" in done.stdout and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["absent.yaml"], ["absent.yaml", "No such file"]),
        (["--max_steps", "3"], ["the YAML comes first"]),
        ([str(SFT), "--max_stepz", "3"], ["'--max_stepz'", "'--max_steps'"]),
        ([str(SFT), "--accelerate", "odd.yaml"], ["odd.yaml", "distributed_type 'MAGIC'"]),
        ([str(SFT), "--accelerate", "ds.yaml"], ["deepspeed_config_file ds.json", "No such file"]),
        ([str(SFT), "--dataset_name", "nowhere"], ["nowhere", "not an instruction set"]),
        ([str(SFT), "--model_name_or_path", "./nowhere"], ["model './nowhere'", "no such folder"]),
    ],
)
def test_mistakes_are_one_line(arguments, parts, tmp_path):
    (tmp_path / "odd.yaml").write_text("distributed_type: MAGIC\n")
    own = "distributed_type: DEEPSPEED\ndeepspeed_config: {deepspeed_config_file: ds.json}\n"
    (tmp_path / "ds.yaml").write_text(own)
    assert_one_line_error(cli("plan", *arguments, cwd=tmp_path), *parts)
