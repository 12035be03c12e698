"""recipes/reward.py: a model that learns which answer is preferred, and what it leaves behind."""

import json
import math
import shutil
from pathlib import Path

import pytest
from conftest import (
    FOUR_STEPS,
    ROOT,
    assert_one_line_error,
    cli,
    largest_difference,
    losses,
    pair_flags,
    recipe,
    weights,
)


@pytest.fixture(scope="module")
def given(pairs, instruction_set, tiny_model):
    def flags(output: Path, **more: object) -> list[str]:
        return pair_flags(pairs, instruction_set, tiny_model, output, **FOUR_STEPS | {"eval_steps": 2} | more)

    return flags


@pytest.fixture(scope="module")
def trained(given, tmp_path_factory):
    output = tmp_path_factory.mktemp("reward") / "adapter"
    done = recipe("reward.py", *given(output))
    assert done.returncode == 0, done.stderr
    return output, done


def test_learns_to_rank_the_pairs_it_is_shown(given, tmp_path):
    """Begins with ln 2, for both answers of a pair get about the same, and tells them apart in the end."""
    more = {"max_train_rows": 4, "max_steps": 40, "save_steps": 40, "eval_strategy": "no", "ranked_pairs": 0}
    more |= {"learning_rate": 3e-2, "load_best_model_at_end": "false"}
    done = recipe("reward.py", *given(tmp_path / "out", **more))
    assert done.returncode == 0, done.stderr
    first, *_, last = losses(tmp_path / "out", 40)
    assert first == pytest.approx(math.log(2), abs=0.05) and last < first - 0.1


def test_saves_the_new_output_layer_with_the_adapter(trained, tiny_model):
    output, done = trained
    config = json.loads((output / "adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_CLS" and config["base_model_name_or_path"] == str(tiny_model)
    assert [key for key in weights(output) if "score" in key]
    assert "evaluation  loss" in done.stdout and "accuracy" in done.stdout
    assert not list(output.glob("*.bin")) and not (output / "README.md").exists()
    lineage = json.loads((output / "lineage.json").read_text())
    assert lineage["stage"] == "reward" and lineage["training"]["read_back"]["largest_difference"] == 0


def test_what_is_loaded_ranks_as_what_was_trained(trained, pairs):
    output, _ = trained
    done = cli("rank", str(pairs), "--adapter", str(output), "--pairs", "6", "--json")
    assert done.returncode == 0, done.stderr
    found, then = json.loads(done.stdout), json.loads((output / "pairs.json").read_text())
    assert list(found) == ["test_documents", "test_corruptors"] and found.keys() == then.keys()
    for split, one in found.items():
        assert set(one["better_by"]) == {"length", "tokens"} and one["accuracy"] == then[split]["accuracy"]


def test_resumed_equals_uninterrupted(trained, given, tmp_path):
    output = shutil.copytree(trained[0], tmp_path / "adapter")
    for name in ("lineage.json", "adapter_model.safetensors", "checkpoint-4/trainer_state.json"):
        (output / name).unlink()
    done = recipe("reward.py", *given(output))
    assert done.returncode == 0 and "checkpoint-2" in done.stdout, done.stderr
    assert largest_difference(trained[0], output) <= 1e-6


def test_nf4_learns_after_an_evaluation(given, tmp_path):
    """As in test_dpo; both runs begin with the same new output layer."""
    more = {"load_in_4bit": "true", "dtype": "bfloat16", "load_best_model_at_end": "false"}
    for name, on_start in (("asked", "true"), ("fresh", "false")):
        done = recipe("reward.py", *given(tmp_path / name, **more, eval_on_start=on_start))
        assert done.returncode == 0, done.stderr
    assert largest_difference(tmp_path / "asked", tmp_path / "fresh") == 0


def test_the_plan_counts_one_output_in_place_of_a_vocabulary(trained, given, tmp_path):
    yaml = ROOT / "recipes" / "smollm2-135m" / "reward.yaml"
    done = cli("plan", str(yaml), *given(tmp_path / "out"), "--json")
    assert done.returncode == 0, done.stderr
    plan, training = json.loads(done.stdout), json.loads((trained[0] / "lineage.json").read_text())["training"]
    assert plan["run"]["tokens"] == training["tokens"] and plan["model"]["vocabulary"] == 1
    assert plan["model"]["trainable"] == training["trainable_parameters"]
    own = tmp_path / "own.yaml"
    shutil.copy(yaml, own)
    again = cli("plan", str(own), *given(tmp_path / "out"), "--recipe", "reward", "--json")
    assert json.loads(again.stdout)["run"] == plan["run"], again.stderr
    assert_one_line_error(cli("plan", str(own), "--recipe", "rewrad"), "--recipe: must be one of sft, dpo, reward")


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--load_in_4bit", "true"], ["dtype: TRL trains the output layer", "dtype: bfloat16"]),
        (["--metric_for_best_model", "gold_nll"], ["metric_for_best_model: must be one of loss, accuracy, margin"]),
        (["--center_rewards_coefficient", "-1"], ["'center_rewards_coefficient' must be 0 or more"]),
        (["--init_adapter", "there"], ["unknown flag '--init_adapter'"]),
    ],
    ids=["dtype", "metric", "coefficient", "adapter"],
)
def test_wrong_configs_are_one_line(flags, parts, given, tmp_path):
    assert_one_line_error(recipe("reward.py", *given(tmp_path / "out"), *flags), *parts)
    assert not (tmp_path / "out").exists()
