"""Every recipe and every YAML, found by itself: parsed, executed for two steps, resumed, and broken on purpose."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml
from conftest import ROOT, assert_one_line_error, largest_difference, pair_flags, recipe, sft_flags, weights

RECIPES = sorted(path.name for path in (ROOT / "recipes").glob("*.py"))
YAMLS = sorted((ROOT / "recipes").glob("*/*.yaml"))


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_short_and_teach(name):
    text = (ROOT / "recipes" / name).read_text()
    assert len(text.splitlines()) <= 150
    done = recipe(name, "--help")
    assert done.returncode == 0 and f"accelerate launch recipes/{name}" in done.stdout
    assert "--output_dir" in text or "--output_dir" in done.stdout


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_recipe_yaml_runs_for_two_steps(path, instruction_set, pairs, tiny_model_of, start_of, tmp_path):
    """On a tiny model of the same architecture, with whatever quantization the YAML asks for."""
    values = yaml.safe_load(path.read_text())
    stage = f"{path.stem}.py"
    assert stage in RECIPES, f"{path} belongs to no recipe"
    model = tiny_model_of(path.parent.name)
    less = {"dtype": values["dtype"], "gradient_accumulation_steps": 1, "max_train_rows": 100, "eval_items": 2}
    if "init_adapter" in values:
        less["init_adapter"] = start_of(model)
    if "rewards" in values:
        less |= {"rewards": ROOT / values["rewards"], "max_prompt_length": 1024, "max_completion_length": 16}
        less |= {"warmup_steps": 0}
    if "held_out_set" in values:
        less |= {"max_train_rows": 16, "max_length": 1024, "warmup_steps": 0}
        flags = pair_flags(pairs, instruction_set, model, tmp_path / "out", **less)
    else:
        flags = sft_flags(instruction_set, model, tmp_path / "out", **less)
    done = recipe(stage, "--config", str(path), *flags)
    assert done.returncode == 0, done.stderr
    lineage = json.loads((tmp_path / "out" / "lineage.json").read_text())
    assert lineage["training"]["steps"] == 2 and lineage["training"]["tokens"] > 0
    assert str(model) in json.dumps(lineage["inputs"]["model"]) and lineage["inputs"]["model"]["sha256"]
    adapter = weights(tmp_path / "out")
    assert all(tensor.isfinite().all() for tensor in adapter.values())
    assert all(tensor.abs().max() > 0 for key, tensor in adapter.items() if "lora_B" in key)  # every layer learnt
    # TRL trains the adapter in bfloat16 where the base was really quantized, and in float32 elsewhere.
    trained = weights(tmp_path / "out" / "checkpoint-2").items()
    assert {str(tensor.dtype) for key, tensor in trained if "lora_" in key} == {
        "torch.bfloat16" if values.get("load_in_4bit") else "torch.float32"
    }


class TestSft:
    @pytest.fixture(scope="class")
    def adapter(self, instruction_set, tiny_model, tmp_path_factory):
        output = tmp_path_factory.mktemp("sft") / "adapter"
        flags = [*sft_flags(instruction_set, tiny_model, output), "--max_steps", "6", "--save_steps", "2"]
        done = recipe("sft.py", *flags, "--logging_steps", "2")
        assert done.returncode == 0, done.stderr
        assert "step 6/6" in recipe_output(done) and "tok/s" in recipe_output(done)
        return output

    def test_leaves_an_adapter_and_nothing_pickled_beside_it(self, adapter, tiny_model):
        config = json.loads((adapter / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == str(tiny_model)
        assert (
            not list(adapter.glob("*.bin")) and not list(adapter.glob("*.pt")) and not (adapter / "README.md").exists()
        )
        assert all(tensor.isfinite().all() for tensor in weights(adapter).values())
        assert any(tensor.abs().max() > 0 for key, tensor in weights(adapter).items() if "lora_B" in key)

    def test_the_same_command_again_does_nothing(self, adapter, instruction_set, tiny_model):
        before = (adapter / "adapter_model.safetensors").read_bytes()
        flags = [*sft_flags(instruction_set, tiny_model, adapter), "--max_steps", "6", "--save_steps", "2"]
        done = recipe("sft.py", *flags)
        assert done.returncode == 0 and "already trained" in done.stdout
        assert (adapter / "adapter_model.safetensors").read_bytes() == before

    def test_another_config_does_not_overwrite(self, adapter, instruction_set, tiny_model):
        flags = [*sft_flags(instruction_set, tiny_model, adapter), "--max_steps", "6", "--learning_rate", "1e-3"]
        assert_one_line_error(recipe("sft.py", *flags), "another config", "learning_rate: 0.0005 then, 0.001 now")

    def test_killed_at_a_random_step_and_resumed_equals_uninterrupted(
        self, adapter, instruction_set, tiny_model, tmp_path
    ):
        output, step = tmp_path / "adapter", random.randint(3, 5)
        flags = [*sft_flags(instruction_set, tiny_model, output), "--max_steps", "6", "--save_steps", "2"]
        command = [sys.executable, "-u", str(ROOT / "recipes" / "sft.py"), *flags, "--logging_steps", "1"]
        process = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        # Somewhere after the first checkpoint: within a step, an evaluation, or the writing of a checkpoint.
        for line in process.stdout:
            if f"step {step}/6" in line:
                time.sleep(random.uniform(0, 0.1))
                os.killpg(process.pid, signal.SIGKILL)
                break
        process.wait()
        assert process.returncode == -signal.SIGKILL, step
        assert not (output / "lineage.json").exists(), step
        done = recipe("sft.py", *flags)
        assert done.returncode == 0, done.stderr
        assert "resuming from" in done.stdout
        assert largest_difference(adapter, output) <= 1e-6, step

    def test_killed_after_its_last_step_it_trains_no_other(self, adapter, instruction_set, tiny_model, tmp_path):
        output = tmp_path / "adapter"
        shutil.copytree(adapter, output)
        for name in ("lineage.json", "adapter_model.safetensors"):
            (output / name).unlink()
        flags = [*sft_flags(instruction_set, tiny_model, output), "--max_steps", "6", "--save_steps", "2"]
        done = recipe("sft.py", *flags)
        assert done.returncode == 0 and "checkpoint-6" in done.stdout, done.stderr
        assert largest_difference(adapter, output) == 0

    def test_a_half_checkpoint_is_not_resumed_from(self, adapter, instruction_set, tiny_model, tmp_path):
        output = tmp_path / "adapter"
        shutil.copytree(adapter, output)
        for name in ("lineage.json", "adapter_model.safetensors", "checkpoint-6/trainer_state.json"):
            (output / name).unlink()
        flags = [*sft_flags(instruction_set, tiny_model, output), "--max_steps", "6", "--save_steps", "2"]
        done = recipe("sft.py", *flags)
        assert done.returncode == 0 and "resuming from" in done.stdout and "checkpoint-4" in done.stdout
        assert largest_difference(adapter, output) <= 1e-6

    def test_batches_of_one_accumulated_equal_one_batch(self, instruction_set, tiny_model, tmp_path):
        sizes = {"a": ("1", "8"), "b": ("8", "1")}
        losses = {}
        for name, (batch, accumulation) in sizes.items():
            flags = sft_flags(instruction_set, tiny_model, tmp_path / name)
            flags += ["--per_device_train_batch_size", batch, "--gradient_accumulation_steps", accumulation]
            flags += ["--max_steps", "4", "--eval_steps", "4", "--save_steps", "4", "--logging_steps", "1"]
            done = recipe("sft.py", *flags, "--packing", "false")
            assert done.returncode == 0, done.stderr
            state = json.loads((tmp_path / name / "checkpoint-4" / "trainer_state.json").read_text())
            losses[name] = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
        assert len(losses["a"]) == 4 and losses["a"] == pytest.approx(losses["b"], abs=1e-5)
        assert largest_difference(tmp_path / "a", tmp_path / "b") <= 1e-6

    def test_learning_lowers_the_loss(self, instruction_set, tiny_model, tmp_path):
        flags = sft_flags(instruction_set, tiny_model, tmp_path / "out")
        flags += ["--max_steps", "30", "--learning_rate", "1e-2", "--logging_steps", "1", "--max_train_rows", "40"]
        assert recipe("sft.py", *flags).returncode == 0
        state = json.loads((tmp_path / "out" / "checkpoint-30" / "trainer_state.json").read_text())
        losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
        assert max(losses[-5:]) < min(losses[:5]) - 0.03  # seen: 6.16 < 6.23; a random model's adapter learns little

    def test_keeps_the_best_checkpoint_and_stops_when_nothing_improves(self, instruction_set, tiny_model, tmp_path):
        """With a learning rate that ruins the model the first evaluation is the best, and two more are enough."""
        flags = sft_flags(instruction_set, tiny_model, tmp_path / "out")
        flags += ["--max_steps", "20", "--learning_rate", "10", "--warmup_steps", "0", "--eval_items", "6"]
        flags += ["--eval_steps", "2", "--save_steps", "2", "--patience", "2", "--save_total_limit", "9"]
        done = recipe("sft.py", *flags)
        assert done.returncode == 0, done.stderr
        assert "held out    gold_nll" in done.stdout and "stop_rate" in done.stdout
        states = [
            json.loads((path / "trainer_state.json").read_text()) for path in (tmp_path / "out").glob("checkpoint-*")
        ]
        state = max(states, key=lambda state: state["global_step"])
        curve = {e["step"]: e["eval_gold_nll"] for e in state["log_history"] if "eval_gold_nll" in e}
        best = min(curve, key=lambda step: curve[step])
        assert max(curve) == state["global_step"] == best + 4 < 20
        assert state["best_global_step"] == best and state["best_metric"] == pytest.approx(curve[best])
        assert largest_difference(tmp_path / "out", tmp_path / "out" / f"checkpoint-{best}") == 0

        # Killed when its patience had ended, and one evaluation before: patience is no longer than without the kill.
        for lost in ([], [f"checkpoint-{best + 4}/trainer_state.json"]):
            output = shutil.copytree(tmp_path / "out", tmp_path / f"killed{len(lost)}")
            for name in ("lineage.json", "adapter_model.safetensors", *lost):
                (output / name).unlink()
            done = recipe("sft.py", *flags, "--output_dir", str(output))
            assert done.returncode == 0 and "resuming from" in done.stdout, done.stderr
            assert max(int(path.name.rpartition("-")[2]) for path in output.glob("checkpoint-*")) == best + 4
            assert largest_difference(tmp_path / "out", output) == 0

    @pytest.mark.parametrize(
        ("flags", "parts"),
        [
            (
                ["--patience", "2", "--eval_strategy", "no", "--load_best_model_at_end", "false"],
                ["--patience", "--eval_s"],
            ),
            (["--eval_items", "0"], ["--eval_strategy", "no validation rows"]),
            (["--learning_rat", "1"], ["unknown flag '--learning_rat'", "'--learning_rate'"]),
            (["--lora_r", "3.5"], ["lora_r", "3.5"]),
            (["--config", "typo.yaml"], ["typo.yaml", "unknown key 'warmup_ratoi'", "'warmup_steps'"]),
            (["--config", "type.yaml"], ["type.yaml", "'lora_r' must be int", "3.5"]),
            (["--config", "choice.yaml"], ["choice.yaml", "'dtype' must be one of", "'bfloat16'"]),
            (["--config", "token.yaml"], ["hub_token", "HF_TOKEN"]),
            (["--config", "list.yaml"], ["list.yaml", "must be a mapping"]),
            (["--config", "absent.yaml"], ["absent.yaml", "No such file"]),
            (["--trust_remote_code", "true"], ["trust_remote_code", "never"]),
            (["--trust-remote-code", "true"], ["trust_remote_code", "never"]),
            (["--config", "env.yaml"], ["env.yaml", "'env' is not read"]),
            (["--config", "number.yaml"], ["number.yaml", "unknown key 1"]),
            (["--push_to_hub", "true"], ["push_to_hub", "training_args.bin"]),
            (["--model_name_or_path", "./nowhere"], ["model './nowhere'", "no such folder"]),
            (["--model_name_or_path", "nobody/nothing"], ["model 'nobody/nothing'", "smollm2-135m-q4"]),
            (["--dataset_name", "nowhere"], ["nowhere", "not an instruction set", "instructrec build"]),
        ],
    )
    def test_mistakes_are_one_line(self, tmp_path, instruction_set, tiny_model, flags, parts):
        (tmp_path / "typo.yaml").write_text("warmup_ratoi: 0.1\n")
        (tmp_path / "type.yaml").write_text("lora_r: 3.5\n")
        (tmp_path / "choice.yaml").write_text("dtype: bf16\n")
        (tmp_path / "token.yaml").write_text("hub_token: hf_secret\n")
        (tmp_path / "list.yaml").write_text("- a\n")
        (tmp_path / "env.yaml").write_text("env: {HF_TOKEN: hf_secret}\n")
        (tmp_path / "number.yaml").write_text("1: 2\n")
        given = {"--model_name_or_path": tiny_model, "--dataset_name": instruction_set}
        rest = [text for flag, value in given.items() if flag not in flags for text in (flag, str(value))]
        done = recipe("sft.py", *flags, *rest, cwd=tmp_path)
        assert_one_line_error(done, *parts)
        assert "hf_secret" not in done.stdout + done.stderr
        assert not (tmp_path / "outputs").exists()


def recipe_output(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


class TestEvaluate:
    @pytest.fixture(scope="class")
    def adapter(self, instruction_set, tiny_model, tmp_path_factory):
        output = tmp_path_factory.mktemp("evaluate") / "adapter"
        assert recipe("sft.py", *sft_flags(instruction_set, tiny_model, output)).returncode == 0
        return output

    def test_writes_the_contracts_files(self, adapter, instruction_set, tiny_model, tmp_path):
        suite = tmp_path / "mine.jsonl"
        lines = [
            {
                "id": "1",
                "category": "a",
                "instruction": "Yes or no?",
                "input": "",
                "targets": ["no"],
                "choices": ["yes", "no"],
            },
            {"id": "2", "category": "a", "instruction": "Greet.", "input": "Ann", "targets": ["Hi Ann", "Hello Ann"]},
        ]
        suite.write_text("".join(json.dumps(line) + "\n" for line in lines))
        flags = ["--model_name_or_path", str(tiny_model), "--adapter", str(adapter), "--suite", str(instruction_set)]
        flags += ["--suite", str(suite), "--output_dir", str(tmp_path / "eval"), "--max_items", "5"]
        done = recipe("evaluate.py", *flags, "--dtype", "float32")
        assert done.returncode == 0, done.stderr
        scores = json.loads((tmp_path / "eval" / "scores.json").read_text())
        assert scores["models"] == [str(tiny_model), str(adapter)]
        assert list(scores["suites"]) == ["mine", "test_documents", "test_tasks", "test_templates", "train"]
        for entry in scores["suites"].values():
            for metric in entry["metrics"].values():
                assert set(metric) == {"n", "majority", "chance", "values", "deltas"}
                for estimate in metric["values"].values():
                    low, high = estimate["ci95"]
                    assert (low is None and high is None) or low <= estimate["value"] <= high
        assert scores["suites"]["mine"]["metrics"]["accuracy"]["chance"] == 0.5
        predictions = [json.loads(line) for line in (tmp_path / "eval" / "predictions.jsonl").read_text().splitlines()]
        assert len(predictions) == 2 * (4 * 5 + 2)
        assert {"suite", "id", "model", "prompt", "output", "gold_nll", "scores"} <= set(predictions[0])
        assert "data:image/png;base64," in (tmp_path / "eval" / "report.html").read_text()
        assert "unseen documents" in (tmp_path / "eval" / "report.md").read_text()
        assert (tmp_path / "eval" / "ladder.png").read_bytes().startswith(b"\x89PNG")
        lineage = json.loads((tmp_path / "eval" / "lineage.json").read_text())
        assert lineage["inputs"]["adapters"][str(adapter)]["lineage"]["stage"] == "sft"

    def test_killed_resumed_and_in_two_processes_it_scores_the_same(
        self, adapter, instruction_set, tiny_model, tmp_path
    ):
        flags = ["--model_name_or_path", str(tiny_model), "--adapter", str(adapter), "--suite", str(instruction_set)]
        flags += ["--max_items", "6", "--batch_size", "3", "--dtype", "float32"]

        def scores(name: str) -> dict:
            """The summary, and every item's output and scores by model, suite and id."""
            lines = (tmp_path / name / "predictions.jsonl").read_text().splitlines()
            items = {str((p["model"], p["suite"], p["id"])): p for p in map(json.loads, lines)}
            found = {key: {"output": item["output"], **item["scores"]} for key, item in items.items()}
            return {"summary": json.loads((tmp_path / name / "scores.json").read_text()), "items": found}

        def assert_equal(a, b) -> None:
            if isinstance(a, dict):
                assert a.keys() == b.keys()
                for key in a:
                    if key != "p":  # where signs tie, rounding decides which count
                        assert_equal(a[key], b[key])
            else:
                assert a == b or a == pytest.approx(b, abs=1e-4)

        assert recipe("evaluate.py", *flags, "--output_dir", str(tmp_path / "one")).returncode == 0
        command = [
            sys.executable,
            str(ROOT / "recipes" / "evaluate.py"),
            *flags,
            "--output_dir",
            str(tmp_path / "killed"),
        ]
        process = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        answers = tmp_path / "killed" / "answers" / "0.jsonl"
        deadline = time.monotonic() + 300
        while (
            not (answers.exists() and answers.stat().st_size) and process.poll() is None and time.monotonic() < deadline
        ):
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        before = answers.read_bytes()
        assert before and not (tmp_path / "killed" / "scores.json").exists()
        assert recipe("evaluate.py", *flags, "--output_dir", str(tmp_path / "killed")).returncode == 0
        assert answers.read_bytes().startswith(before)  # nothing was asked again
        keys = [json.loads(line)["key"] for line in answers.read_bytes()[len(before) :].splitlines() if line]
        assert len(keys) == len(set(keys)) < 2 * 4 * 6
        assert_equal(scores("one"), scores("killed"))

        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        launched = [*torchrun, *command[1:-1], str(tmp_path / "two")]
        done = subprocess.run(launched, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        shares = sorted((tmp_path / "two" / "answers").glob("*.jsonl"))
        assert [path.name for path in shares] == ["0.jsonl", "1.jsonl"] and all(path.stat().st_size for path in shares)
        assert_equal(scores("one"), scores("two"))

    @pytest.mark.parametrize(
        ("flags", "parts"),
        [
            (["--suite", "nowhere"], ["nowhere", "not an instruction set"]),
            (["--suite", "bad.jsonl"], ["bad.jsonl:1", "'targets' is missing"]),
            (["--suite", "empty.jsonl"], ["empty.jsonl", "no items"]),
            (["--adapter", "nowhere"], ["adapter 'nowhere'", "adapter_config.json"]),
            (["--suite", "unchosen.jsonl"], ["unchosen.jsonl:1", "'choices' needs two distinct options"]),
            (["--suite", "long.jsonl"], ["item 1", "the model's context of 2048"]),
            (["--max_itms", "3"], ["'--max_itms'", "'--max_items'"]),
        ],
    )
    def test_mistakes_are_one_line(self, tmp_path, tiny_model, flags, parts):
        (tmp_path / "bad.jsonl").write_text('{"id": "1", "category": "c", "instruction": "x", "input": ""}\n')
        (tmp_path / "empty.jsonl").write_text("\n")
        good = {"id": "1", "category": "c", "instruction": "x", "input": "", "targets": ["y"]}
        (tmp_path / "good.jsonl").write_text(json.dumps(good) + "\n")
        (tmp_path / "unchosen.jsonl").write_text(json.dumps(good | {"choices": []}) + "\n")
        (tmp_path / "long.jsonl").write_text(json.dumps(good | {"targets": ["far " * 3000]}) + "\n")
        suite = [] if "--suite" in flags else ["--suite", "good.jsonl"]
        done = recipe("evaluate.py", "--model_name_or_path", str(tiny_model), *suite, *flags, cwd=tmp_path)
        assert_one_line_error(done, *parts)
