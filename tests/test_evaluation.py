"""Scores against plain references: a naive forward, the library's own generation, and simulations with known truth."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from instructrec.core.errors import UserError
from instructrec.evaluation.metrics import exact_match, rouge_l
from instructrec.evaluation.results import item_scores, summarise
from instructrec.evaluation.scoring import Answered, Scorer
from instructrec.evaluation.statistics import mean_with_interval, paired_difference
from instructrec.evaluation.suites import RUNGS, Item, load_suites
from instructrec.models import load_model, load_tokenizer


@pytest.fixture(scope="module")
def model_and_tokenizer(tiny_model):
    return load_model(tiny_model, "float32").eval(), load_tokenizer(tiny_model)


@pytest.fixture(scope="module")
def items(instruction_set):
    suites = load_suites([str(instruction_set)], max_items=6)
    assert list(suites) == list(RUNGS)
    return [item for rung in suites.values() for item in rung]


def naive_logprob(model, tokenizer, prompt: str, answer: str) -> float:
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    tail = tokenizer(answer, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([ids + tail])).logits[0].log_softmax(-1)
    return sum(float(logits[len(ids) - 1 + i, token]) for i, token in enumerate(tail))


def test_likelihoods_equal_a_plain_forward(model_and_tokenizer, items):
    model, tokenizer = model_and_tokenizer
    for item, answered in zip(items, Scorer(model, tokenizer, 4, 8).score(items), strict=True):
        reference = naive_logprob(model, tokenizer, answered.prompt, item.targets[0])
        assert answered.gold_logprob == pytest.approx(reference, abs=1e-4)
        for choice, value in zip(item.choices or (), answered.choice_logprobs or (), strict=True):
            assert value == pytest.approx(naive_logprob(model, tokenizer, answered.prompt, choice), abs=1e-4)


def test_answers_equal_the_librarys_generation(model_and_tokenizer, items):
    model, tokenizer = model_and_tokenizer
    for item, answered in zip(items[:8], Scorer(model, tokenizer, 12, 8).score(items[:8]), strict=True):
        inputs = tokenizer(Scorer(model, tokenizer, 1, 1).render(item), add_special_tokens=False, return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert answered.output == tokenizer.decode(tokens, skip_special_tokens=True).strip()


def test_batch_size_and_order_do_not_matter(model_and_tokenizer, items):
    model, tokenizer = model_and_tokenizer
    one = Scorer(model, tokenizer, 4, 1).score(items)
    eight = Scorer(model, tokenizer, 4, 8).score(items[::-1])[::-1]
    for a, b in zip(one, eight, strict=True):
        assert a.gold_logprob == pytest.approx(b.gold_logprob, abs=1e-4)
        assert a.output == b.output and a.prompt == b.prompt


def test_a_row_that_ends_early_leaves_the_others_alone(model_and_tokenizer, items):
    """The likeliest first tokens of some rows are made stop tokens; the other rows must answer as before."""
    model, tokenizer = model_and_tokenizer
    scorer = Scorer(model, tokenizer, 6, 8)
    before = scorer.score(items[:8])
    stop = tokenizer(before[0].output, add_special_tokens=False)["input_ids"][0]
    scorer.stops.add(stop)
    for a, b in zip(before, scorer.score(items[:8]), strict=True):
        assert a.output.startswith(b.output)


def test_items_that_do_not_fit_are_named(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    long = Item("far", "c", ({"role": "user", "content": "word " * 3000},), ("yes",), None)
    with pytest.raises(UserError, match=r"item far: needs \d+ tokens, the model's context has 2048"):
        Scorer(model, tokenizer, 4, 8).score([long])


def test_rouge_l_and_exact_match():
    assert rouge_l("the cat sat", ["the cat sat on the mat", "dogs"]) == pytest.approx(2 * 3 / 9)
    assert rouge_l("cats", ["cat"]) == 1 and rouge_l("jumping cats", ["jumped dog"]) == pytest.approx(0.5)
    assert rouge_l("我爱你", ["我很爱你"]) == pytest.approx(2 * 3 / 7)
    assert rouge_l("", ["x"]) == 0
    assert exact_match(" Storms.\n", ["storms"]) == 1 and exact_match("storm", ["storms"]) == 0


@settings(max_examples=60)
@given(st.text(max_size=30), st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=3))
def test_metrics_are_shares(output, targets):
    assert 0 <= rouge_l(output, targets) <= 1
    assert exact_match(targets[0], targets) == 1
    assert exact_match(output, targets) in (0, 1)


def test_choice_scores():
    item = Item("i", "c", ({"role": "user", "content": "?"},), ("B",), ("A", "B"))
    answered = Answered("p", "B", math.log(0.3), 1, (math.log(0.2), math.log(0.3)))
    scores = item_scores(item, answered)
    assert scores["accuracy"] == 1 and scores["option_mass"] == pytest.approx(0.5)
    assert scores["gold_nll"] == pytest.approx(-math.log(0.3)) and scores["exact_match"] == 1


def test_intervals_cover_the_truth():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        low, high = mean_with_interval(rng.normal(1.0, 2.0, 60).tolist())["ci95"]
        covered += low <= 1.0 <= high
    assert 0.90 <= covered / 300 <= 0.98  # 95 % give or take 4 standard errors, and the bootstrap's own bias


def test_paired_differences():
    rng = np.random.default_rng(0)
    base = rng.normal(0, 5, 50)
    better = paired_difference((base - 1 + rng.normal(0, 0.1, 50)).tolist(), base.tolist())
    assert better["value"] == pytest.approx(-1, abs=0.1) and better["ci95"][1] < 0 and better["p"] < 0.001
    same = paired_difference(base.tolist(), base.tolist())
    assert same["value"] == 0 and same["p"] == 1.0
    positives = sum(paired_difference(rng.normal(0, 1, 20).tolist(), [0.0] * 20)["p"] <= 0.05 for _ in range(200))
    assert positives <= 0.05 * 200 + 4 * math.sqrt(200 * 0.05 * 0.95)


def test_summary_has_the_contracts_form():
    items = {"s": [Item(str(i), "c", ({"role": "user", "content": "?"},), ("B",), ("A", "B", "C")) for i in range(4)]}
    good = [Answered("p", "B", -0.1, 1, (-3.0, -0.1, -3.0))] * 4
    bad = [Answered("p", "x", -2.0, 1, (-0.5, -2.0, -3.0))] * 4
    scores, per_item = summarise(items, {"base": {"s": bad}, "tuned": {"s": good}}, seed=0)
    assert scores["models"] == ["base", "tuned"] and scores["suites"]["s"]["n"] == 4
    accuracy = scores["suites"]["s"]["metrics"]["accuracy"]
    assert (accuracy["majority"], accuracy["chance"]) == (1.0, pytest.approx(1 / 3))
    assert accuracy["values"]["base"]["value"] == 0 and accuracy["values"]["tuned"]["value"] == 1
    assert list(accuracy["deltas"]) == ["tuned"] and set(accuracy["deltas"]["tuned"]) == {"value", "ci95", "p"}
    assert scores["suites"]["s"]["metrics"]["gold_nll"]["majority"] is None
    assert len(per_item["tuned"]["s"]) == 4
    json.dumps(scores, allow_nan=False)


def test_suites_are_found_by_folder_split_and_file(instruction_set, tmp_path):
    assert list(load_suites([str(instruction_set / "validation")], 3)) == ["validation"]
    path = tmp_path / "mine.jsonl"
    item = {"id": "1", "category": "c", "instruction": "Say yes.", "input": "Now.", "targets": ["yes"]}
    path.write_text(json.dumps(item) + "\n")
    (only,) = load_suites([str(path)], 0)["mine"]
    assert only.messages[0]["content"] == "Say yes.\n\nNow." and only.choices is None
    with pytest.raises(UserError, match="two suites are called 'mine'"):
        load_suites([str(path), str(path)], 0)
    with pytest.raises(UserError, match=r"no manifest\.json"):
        load_suites([str(tmp_path)], 0)
