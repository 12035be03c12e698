"""Merging adapters of the real base: LoRA, and one of a 4-bit base. `make test-slow` runs these."""

import json
from pathlib import Path

import pytest
from conftest import cli, recipe
from test_slow import base_model  # noqa: F401  (a fixture)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(base_model, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("quickstart") / "set"
    assert cli("build", "--output", str(folder)).returncode == 0
    return folder


def train(dataset: Path, adapter: Path, *flags: str) -> Path:
    """Eight steps of one packed sequence."""
    short = ["--max_steps", "8", "--warmup_steps", "1", "--save_steps", "8", "--eval_strategy", "no"]
    short += ["--per_device_train_batch_size", "1", "--gradient_accumulation_steps", "1"]
    short += ["--load_best_model_at_end", "false"]
    done = recipe("sft.py", "--dataset_name", str(dataset), "--output_dir", str(adapter), *short, *flags)
    assert done.returncode == 0, done.stderr
    return adapter


def merge(output: Path, *arguments: str) -> tuple[str, list[dict]]:
    """What the command prints, and the differences that it measured."""
    done = cli("merge", *arguments, "--max-items", "40", "--output", str(output))
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    return done.stdout, json.loads((output / "merge.json").read_text())["differences"]


def test_fifty_of_fifty_greedy_answers_are_equal_in_float32(base_model, dataset, tmp_path):  # noqa: F811
    from transformers import AutoTokenizer

    from instructrec.evaluation.scoring import Scorer
    from instructrec.evaluation.suites import load_suites
    from instructrec.models import load_model, with_adapter

    adapter = train(dataset, tmp_path / "adapter")
    _, (difference,) = merge(tmp_path / "merged", str(adapter))
    assert difference["logits"] <= 1e-3 and abs(difference["held_out"]["delta"]["value"]) <= 1e-3
    items = load_suites([f"{dataset}/test_documents"], 50)["test_documents"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    unmerged = with_adapter(load_model(Path(base_model), "float32"), adapter)
    models = (load_model(tmp_path / "merged", "float32"), unmerged)
    merged, expected = (Scorer(model.eval(), tokenizer, 10).score(items, [24] * len(items)) for model in models)
    assert len(merged) == 50 and [a.output_ids for a in merged] == [a.output_ids for a in expected]


def test_an_adapter_of_a_four_bit_base_loses_nothing_on_the_full_one(base_model, dataset, tmp_path):  # noqa: F811
    adapter = train(dataset, tmp_path / "adapter", "--load_in_4bit", "true")
    printed, (full, quantized) = merge(tmp_path / "merged", str(adapter), "--dtype", "bfloat16")
    assert "4-bit base" in printed and printed.count("bound 0.02") == 2
    assert abs(full["held_out"]["delta"]["value"]) <= 0.02
    assert quantized["held_out"]["delta"]["value"] <= 0.02
