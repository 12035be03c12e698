"""recipes/grpo.py: what it asks, what it learns, what it is held to, and that it goes on as if nothing had been."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import (
    ROOT,
    assert_one_line_error,
    cli,
    largest_difference,
    log_history,
    losses,
    recipe,
    sft_flags,
    weights,
    without,
)

from instructrec.core.errors import UserError
from instructrec.core.schema import read_split
from instructrec.losses import FirstKl
from instructrec.models import load_tokenizer, load_tuned
from instructrec.prompts import PromptsArguments, load_prompts

OWN = """
def many_es(prompts, completions, **columns):
    return [min(1.0, completion[-1]["content"].count("e") / 8) for completion in completions]


def breaks(prompts, completions, trainer_state, **columns):
    if trainer_state.global_step >= 3:
        raise RuntimeError("no such luck")
    return [float(len(completion[-1]["content"])) for completion in completions]


def of_one_family(prompts, completions, family, *, name: str, **columns):
    return [1.0 if one == name else None for one in family]
"""

MADE_UP = '''
import runpy, sys, torch
from trl import GRPOTrainer

def answers(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
    """The same for a place in the batch of all processes, whatever process has it."""
    first, found = self.accelerator.process_index * len(prompt_ids), []
    for place, ids in enumerate(prompt_ids, first):
        generator = torch.Generator().manual_seed(31 * sum(ids) + 1000 * self.state.global_step + place)
        found.append(torch.randint(10, 400, (4 + place % 3,), generator=generator).tolist())
    return found, None

GRPOTrainer._generate_single_turn = answers
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
'''


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """A file of rewards."""
    path = tmp_path_factory.mktemp("rewards") / "own.py"
    path.write_text(OWN)
    return path


def rewards_of(path: Path, *entries: dict) -> Path:
    path.write_text(json.dumps(entries))
    return path


@pytest.fixture(scope="module")
def given(instruction_set, tiny_model, start_of, own):
    """Flags of recipes/grpo.py for the tiny model and its adapter: six steps are two epochs."""
    rewards = rewards_of(own.with_name("rewards.yaml"), {"name": f"{own}:many_es", "weight": 3}, {"name": "chrf"})

    def flags(output: Path, **more: object) -> list[str]:
        known = {"rewards": rewards, "init_adapter": start_of(tiny_model), "max_train_rows": 6, "max_steps": 6}
        known |= {"save_steps": 2, "eval_steps": 6, "logging_steps": 1, "learning_rate": 1e-2, "warmup_steps": 0}
        known |= {"num_generations": 4, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
        known |= {"max_prompt_length": 1024, "max_completion_length": 8}
        return sft_flags(instruction_set, tiny_model, output, **known | more)

    return flags


@pytest.fixture(scope="module")
def trained(given, tmp_path_factory):
    output = tmp_path_factory.mktemp("grpo") / "adapter"
    done = recipe("grpo.py", *given(output))
    assert done.returncode == 0, done.stderr
    return output, done


def logged(folder: Path, key: str, step: int = 6) -> list[float]:
    return [entry[key] for entry in log_history(folder, step) if key in entry]


class TestGrpo:
    def test_begins_at_its_reference_and_leaves_it(self, trained):
        output, done = trained
        kl = logged(output, "kl")
        assert len(kl) == 6 and abs(kl[0]) <= 1e-6 < kl[-1]
        assert "asking 6 rows, whose own answers have a reward of 0." in done.stdout
        assert "  reward 0." in done.stdout and "  kl 0." in done.stdout

    def test_every_reward_is_logged_and_held_out_rows_are_asked(self, trained):
        output, _ = trained
        steps = {key: logged(output, key) for key in ("reward", "rewards/many_es", "rewards/chrf")}
        assert all(len(values) == 6 for values in steps.values())
        for reward, many_es, chrf in zip(*steps.values(), strict=True):
            assert reward == pytest.approx((3 * many_es + chrf) / 4, abs=1e-5)
        history = log_history(output, 6)
        for key in ("eval_reward", "eval_rewards/many_es", "eval_gold_nll", "eval_stop_rate"):
            assert [entry["step"] for entry in history if key in entry] == [0, 6], key

    def test_the_reference_is_the_adapter_that_it_started_from(self, trained, start_of, tiny_model):
        output, _ = trained
        frozen, began = weights(output / "checkpoint-6" / "ref"), weights(start_of(tiny_model))
        assert all(frozen[key].equal(tensor) for key, tensor in began.items())
        assert largest_difference(output, start_of(tiny_model)) > 1e-3
        assert not (output / "ref").exists() and not list(output.glob("*.bin")) and not (output / "README.md").exists()

    def test_its_lineage_tells_what_it_came_from(self, trained, instruction_set, start_of, tiny_model):
        lineage = json.loads((trained[0] / "lineage.json").read_text())
        assert lineage["stage"] == "grpo" and lineage["inputs"]["dataset"]["name"] == str(instruction_set)
        assert lineage["inputs"]["rewards"]["weights"] == {"many_es": 0.75, "chrf": 0.25}
        assert lineage["inputs"]["init_adapter"]["name"] == str(start_of(tiny_model))
        assert lineage["training"]["rows"] == 6 and lineage["training"]["tokens"] > 6 * 8
        assert lineage["training"]["read_back"]["largest_difference"] == 0

    @pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
    def test_learns_what_is_rewarded(self, algorithm, given, own, sharp, start_of, tmp_path):
        rewards = rewards_of(tmp_path / "rewards.yaml", {"name": f"{own}:many_es"})
        more = {"model_name_or_path": sharp, "init_adapter": start_of(sharp), "algorithm": algorithm}
        more |= {"rewards": rewards, "beta": 0.001, "max_train_rows": 2, "max_steps": 20, "save_steps": 20}
        more |= {"num_generations": 8, "per_device_train_batch_size": 16, "learning_rate": 2e-2}
        done = recipe("grpo.py", *given(tmp_path / "out", **more, eval_strategy="no", eval_on_start="false"))
        assert done.returncode == 0, done.stderr
        reward = logged(tmp_path / "out", "reward", 20)
        assert sum(reward[-5:]) / 5 > sum(reward[:5]) / 5 + 0.1
        assert json.loads((tmp_path / "out" / "lineage.json").read_text())["stage"] == algorithm

    def test_killed_in_its_second_epoch_and_resumed_equals_uninterrupted(self, trained, given, tmp_path):
        output = tmp_path / "adapter"
        command = [sys.executable, "-u", str(ROOT / "recipes" / "grpo.py"), *given(output)]
        process = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        for line in process.stdout:
            if "step 5/6" in line:
                os.killpg(process.pid, signal.SIGKILL)
                break
        assert process.wait() == -signal.SIGKILL and not (output / "lineage.json").exists()
        done = recipe("grpo.py", *given(output))
        assert done.returncode == 0 and "checkpoint-4" in done.stdout, done.stderr
        assert largest_difference(trained[0], output) <= 1e-6
        assert logged(output, "reward") == pytest.approx(logged(trained[0], "reward"), abs=1e-6)
        one, two = (json.loads((folder / "lineage.json").read_text()) for folder in (trained[0], output))
        assert one["training"]["tokens"] == two["training"]["tokens"]

    def test_two_processes_equal_one(self, given, start_of, tiny_model, tmp_path):
        """As far as TRL lets them: they sample otherwise, so that answers are made up here."""
        script = tmp_path / "made_up.py"
        script.write_text(MADE_UP)
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        for name, launcher, batch in (("one", [sys.executable], 8), ("two", torchrun, 4)):
            flags = given(tmp_path / name, per_device_train_batch_size=batch, eval_strategy="no", eval_on_start="false")
            command = [*launcher, str(script), str(ROOT / "recipes" / "grpo.py"), *flags]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600)
            assert done.returncode == 0, done.stderr
            lineage = json.loads((tmp_path / name / "lineage.json").read_text())
            assert lineage["training"]["processes"] == {"one": 1, "two": 2}[name]
        for key in ("reward", "rewards/many_es", "kl"):
            assert logged(tmp_path / "two", key) == pytest.approx(logged(tmp_path / "one", key), abs=1e-5), key
        assert losses(tmp_path / "two", 6) == pytest.approx(losses(tmp_path / "one", 6), abs=1e-5)
        moved = largest_difference(tmp_path / "one", start_of(tiny_model))
        assert largest_difference(tmp_path / "one", tmp_path / "two") <= 1e-3 * moved

    def test_nf4_learns_in_every_layer(self, given, tmp_path):
        """Sampling and evaluation would take the gradients away, without the cure of `trainable_on_cpu`."""
        more = {"load_in_4bit": "true", "dtype": "bfloat16", "max_steps": 4, "eval_steps": 4}
        done = recipe("grpo.py", *given(tmp_path / "out", **more))
        assert done.returncode == 0, done.stderr
        before, moved = weights(tmp_path / "out" / "checkpoint-4" / "ref"), weights(tmp_path / "out")
        assert all((moved[key].float() - before[key].float()).abs().max() > 0 for key in moved if "lora_B" in key)

    def test_a_reward_that_fails_ends_the_run_and_leaves_the_checkpoint(self, given, own, tmp_path):
        mine = shutil.copy(own, tmp_path / "mine.py")
        rewards = rewards_of(tmp_path / "rewards.yaml", {"name": f"{mine}:breaks"})
        flags = given(tmp_path / "out", rewards=rewards, eval_strategy="no", eval_on_start="false")
        done = recipe("grpo.py", *flags)
        assert_one_line_error(done, "reward 'breaks': row ", ", completion ", "RuntimeError: no such luck", "mine.py:")
        assert (tmp_path / "out" / "checkpoint-2" / "trainer_state.json").exists()
        assert not (tmp_path / "out" / "lineage.json").exists()
        (tmp_path / "mine.py").write_text(OWN.replace(">= 3", ">= 99"))
        done = recipe("grpo.py", *flags)
        assert done.returncode == 0 and "resuming from" in done.stdout, done.stderr

    def test_other_rewards_do_not_resume_a_run(self, trained, given, own, tmp_path):
        rewards = rewards_of(tmp_path / "rewards.yaml", {"name": f"{own}:many_es"})
        place = tmp_path / "adapter"
        shutil.copytree(trained[0], place)
        assert_one_line_error(recipe("grpo.py", *given(place, rewards=rewards)), "another config", "reward")

    @pytest.mark.parametrize(
        "more",
        [{"beta": 0}, {"init_adapter": None}, {"num_iterations": 2, "steps_per_generation": 1}],
        ids=["no reference", "a new adapter", "answers used twice"],
    )
    def test_other_starts(self, more, given, tmp_path):
        less = {"max_steps": 2, "eval_strategy": "no", "eval_on_start": "false"}
        flags = given(tmp_path / "out", **less | more)
        if "init_adapter" in more:
            place = flags.index("--init_adapter")
            yaml = "use_peft: true\nlora_target_modules: all-linear\nbeta: 0.04\nbf16: false\ndisable_dropout: true\n"
            (tmp_path / "own.yaml").write_text(yaml)
            flags[place : place + 2] = ["--config", str(tmp_path / "own.yaml")]
        done = recipe("grpo.py", *flags)
        assert done.returncode == 0, done.stderr
        kl = logged(tmp_path / "out", "kl", 2)
        assert kl == [] if more == {"beta": 0} else abs(kl[0]) <= 1e-6
        assert (tmp_path / "out" / "checkpoint-2" / "ref").exists() == ("num_iterations" in more)

    def test_the_plan_counts_what_the_run_trains_on(self, trained, given, tmp_path):
        command = ["plan", str(ROOT / "recipes" / "smollm2-135m" / "grpo.yaml"), *given(tmp_path / "out")]
        done = cli(*command, "--json")
        assert done.returncode == 0, done.stderr
        plan, training = json.loads(done.stdout), json.loads((trained[0] / "lineage.json").read_text())["training"]
        assert plan["run"]["rows"] == training["rows"] == 6 and plan["run"]["sequences"] == 24
        assert plan["run"]["steps"] == training["steps"] and plan["run"]["epochs"] == 2
        assert plan["run"]["tokens"] >= training["tokens"]  # every answer as long as it may be
        assert plan["model"]["trainable"] == training["trainable_parameters"]
        assert plan["memory"]["parts"]["reference"] == plan["memory"]["parts"]["adapter"] > 0
        done = cli(*command, "--beta", "0")
        assert done.returncode == 0 and "reference" not in done.stdout, done.stderr


WRONG = [
    (["--algorithm", "ppo"], ["algorithm: must be one of grpo, rloo, not 'ppo'"]),
    (["--beta", "-1"], ["beta: must be 0 or more"]),
    (["--use_peft", "false"], ["use_peft: with all weights trained the reference would be a second model"]),
    (["--sync_ref_model", "true"], ["sync_ref_model", "frozen copy"]),
    (["--top_k", "50"], ["top_k: answers would be sampled from another distribution"]),
    (["--disable_dropout", "false"], ["disable_dropout: with dropout"]),
    (["--reward_weights", "1"], ["reward_weights: the YAML of the rewards"]),
    (["--remove_unused_columns", "true"], ["remove_unused_columns: rewards read"]),
    (["--generation_batch_size", "8"], ["generation_batch_size", "set steps_per_generation"]),
    (["--num_generations", "1"], ["num_generations: must be 2 or more"]),
    (["--num_generations", "3"], ["must be divisible by num_generations (3)"]),
    (["--temperature", "0"], ["'temperature' must be above 0"]),
    (["--num_iterations", "2", "--save_steps", "3"], ["save_steps: the same answers", "2 steps", "set save_steps: 4"]),
    (["--use_vllm", "true"], ["use_vllm: vllm is not installed"]),
    (
        ["--load_best_model_at_end", "true", "--metric_for_best_model", "reward", "--save_steps", "6"],
        ["metric_for_best_model: must be one of gold_nll", "not 'reward'"],
    ),
    (["--max_completion_length", "4000"], ["4000 tokens after a prompt of 1024 do not fit", "context of 2048"]),
    (["--max_prompt_length", "5"], ["no row of train can be asked", "with a prompt of more than", "(5) tokens"]),
    (["--per_device_train_batch_size", "400"], ["6 rows can be asked, fewer than the 100"]),
    (["--rewards", "nowhere.yaml"], ["nowhere.yaml: No such file"]),
    (["--dataset_name", "nowhere"], ["nowhere", "not an instruction set"]),
    (["--held_out_set", "nowhere"], ["nowhere", "not an instruction set"]),
    (["--init_adapter", "nowhere"], ["nowhere", "no adapter_config.json"]),
    (["--eval_items", "0"], ["no validation rows to evaluate on"]),
    (["--max_train_rows", "0"], ["'max_train_rows' must be 1 or more"]),
]


@pytest.mark.parametrize(("flags", "parts"), WRONG, ids=lambda value: " ".join(value)[:40])
def test_wrong_configs_are_one_line(flags, parts, given, tmp_path):
    rest = without(given(tmp_path / "out"), flags)
    assert_one_line_error(recipe("grpo.py", *rest, *flags, cwd=tmp_path), *parts)
    assert not (tmp_path / "out").exists()


class TestPrompts:
    def test_rows_that_no_reward_applies_to_are_left_out_and_counted(self, instruction_set, tiny_model, own, tmp_path):
        rows = list(read_split(instruction_set, "train"))
        families = [row["family"] for row in rows]
        name = max(set(families), key=families.count)
        entry = {"name": f"{own}:of_one_family", "args": {"name": name}}
        rewards = rewards_of(tmp_path / "rewards.yaml", entry)
        prompts = load_prompts(PromptsArguments(str(instruction_set), str(rewards), max_prompt_length=100_000))
        asked, told = prompts.asked("train", None, load_tokenizer(tiny_model))
        assert {*asked["family"]} == {name} and len(asked) == families.count(name)
        assert f"asking {len(asked):,} rows" in told and "a reward of 1.000" in told
        assert f"left out: {len(rows) - len(asked):,} rows to which no reward applies, 0 with" in told
        few, _ = prompts.asked("train", 3, load_tokenizer(tiny_model))
        assert len(few) == 3 and {*few["id"]} < {*asked["id"]}

    def test_a_set_that_asks_what_another_holds_out_is_refused(self, instruction_set, own, tmp_path):
        """Its training rows are the test rows of the other."""
        import pyarrow.parquet as pq

        from instructrec.core.files import fingerprint

        swapped = shutil.copytree(instruction_set, tmp_path / "set")
        for path in (swapped / "train").glob("*.parquet"):
            path.unlink()
        for path in (swapped / "test_documents").glob("*.parquet"):
            shutil.copy(path, swapped / "train")
            pq.write_table(pq.read_table(path).slice(0, 0), path)
        for split in ("test_templates", "test_tasks"):  # which are of the same documents
            for path in (swapped / split).glob("*.parquet"):
                pq.write_table(pq.read_table(path).slice(0, 0), path)
        manifest = json.loads((swapped / "manifest.json").read_text())
        manifest["splits"] |= {"train": manifest["splits"]["test_documents"], "test_documents": 0}
        manifest["splits"] |= {"test_templates": 0, "test_tasks": 0}
        manifest["fingerprint"] = fingerprint(swapped, "*.parquet")
        (swapped / "manifest.json").write_text(json.dumps(manifest))
        rewards = rewards_of(tmp_path / "rewards.yaml", {"name": "rouge"})
        load_prompts(PromptsArguments(str(swapped), str(rewards)))
        with pytest.raises(UserError, match=r"training row \S+ overlaps with .*test_documents row"):
            load_prompts(PromptsArguments(str(swapped), str(rewards), held_out_set=str(instruction_set)))


class TestFirstKl:
    @pytest.mark.parametrize(("kl", "cause"), [(0.02, "--init_adapter"), (math.nan, "not finite")])
    def test_another_one_ends_the_run(self, kl, cause):
        args = SimpleNamespace(logging_first_step=False)
        watch, state = FirstKl(args, coarse=False), SimpleNamespace(global_step=1)
        assert args.logging_first_step
        watch.on_log(args, state, None, {"kl": 5e-5})
        watch.on_log(args, state, None, {"loss": 0.1})  # without a reference
        watch.on_log(args, SimpleNamespace(global_step=2), None, {"kl": kl})
        with pytest.raises(UserError, match=cause):
            watch.on_log(args, state, None, {"kl": kl})


class TestSequenceKl:
    PROMPTS = ([{"role": "user", "content": "Ask?"}], [{"role": "user", "content": "Ask at length, please?"}])

    def test_is_0_for_the_reference_itself_and_more_for_its_base(self, sharp, start_of):
        from instructrec.evaluation.divergence import sequence_kl

        start = start_of(sharp)
        same, tokenizer, _ = load_tuned(str(sharp), start, "float32", reference=start)
        assert sequence_kl(same, tokenizer, self.PROMPTS, samples=2, limit=8) == pytest.approx([0, 0], abs=1e-5)
        moved, _, _ = load_tuned(str(sharp), start, "float32")
        found = sequence_kl(moved, tokenizer, self.PROMPTS, samples=2, limit=8)
        assert all(kl > 0.01 for kl in found)  # so that a first KL of 0 tells the adapter from its base
        assert found == sequence_kl(moved, tokenizer, self.PROMPTS, samples=2, limit=8)

    def test_of_one_token_is_that_of_its_distribution(self, tiny_model, start_of):
        from instructrec.evaluation.divergence import sequence_kl

        model, tokenizer, _ = load_tuned(str(tiny_model), start_of(tiny_model), "float32")
        for prompt, found in zip(
            self.PROMPTS, sequence_kl(model, tokenizer, self.PROMPTS, samples=3, limit=1), strict=True
        ):
            ids = tokenizer.apply_chat_template(
                prompt, add_generation_prompt=True, return_dict=True, return_tensors="pt"
            )["input_ids"]
            with torch.no_grad():
                policy = model(ids).logits[0, -1].log_softmax(-1)
                with model.disable_adapter():
                    base = model(ids).logits[0, -1].log_softmax(-1)
            assert found == pytest.approx(float((policy.exp() * (policy - base)).sum()), abs=1e-5)
