"""Scores against plain references: a naive forward, the library's own generation, and simulations with known truth."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from instructrec.core.errors import UserError
from instructrec.evaluation.answers import AnswerStore, ask
from instructrec.evaluation.metrics import bleu, chrf, exact_match, rouge_l
from instructrec.evaluation.results import LABELS, calibrated, item_scores, summarise
from instructrec.evaluation.scoring import OPEN_LIMIT, Answered, Scorer
from instructrec.evaluation.statistics import macro_f1, macro_f1_difference, mean_with_interval, paired_difference
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


def question(id: str = "i", targets=("B",), choices=None, category: str = "c", **more) -> Item:
    return Item(id, category, ({"role": "user", "content": "?"},), tuple(targets), choices, **more)


def answered(output: str | None = "B", gold: float | None = -1.0, choices=None, stopped: bool = True) -> Answered:
    return Answered("p", (1,), output, (2,), stopped, gold, 1, choices)


def naive_logprob(model, tokenizer, prompt: str, answer: str) -> float:
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    tail = tokenizer(answer, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([ids + tail])).logits[0].log_softmax(-1)
    return sum(float(logits[len(ids) - 1 + i, token]) for i, token in enumerate(tail))


def test_likelihoods_equal_a_plain_forward(model_and_tokenizer, items):
    """Every answer in a sequence of its own, all its logits in fp32: what sharing the prompt must not change."""
    model, tokenizer = model_and_tokenizer
    options = question("o", ["a cat"], ("a cat", "a dog", "x", "a much longer answer than these"))
    asked = [*items, options]
    for item, found in zip(asked, Scorer(model, tokenizer, 8).score(asked, [0] * len(asked)), strict=True):
        reference = naive_logprob(model, tokenizer, found.prompt, item.targets[0])
        assert found.gold_logprob == pytest.approx(reference, abs=1e-4)
        assert found.output is None and found.output_ids == ()
        for choice, value in zip(item.choices or (), found.choice_logprobs or (), strict=True):
            assert value == pytest.approx(naive_logprob(model, tokenizer, found.prompt, choice), abs=1e-4)


def test_answers_equal_the_librarys_generation(model_and_tokenizer, items):
    model, tokenizer = model_and_tokenizer
    limits = [12, 3, 12, 7, 12, 1, 12, 12]
    scorer = Scorer(model, tokenizer, 8)
    for item, limit, found in zip(items, limits, scorer.score(items[:8], limits), strict=False):
        inputs = tokenizer(scorer.render(item), add_special_tokens=False, return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=limit, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert found.output == tokenizer.decode(tokens, skip_special_tokens=True).strip()
        assert found.stopped == (int(tokens[-1]) in scorer.stops)
        assert found.prompt_ids == tuple(inputs["input_ids"][0].tolist())


def test_batch_size_and_order_do_not_matter(model_and_tokenizer, items):
    model, tokenizer = model_and_tokenizer
    one = Scorer(model, tokenizer, 1).score(items, [4] * len(items))
    eight = Scorer(model, tokenizer, 8).score(items[::-1], [4] * len(items))[::-1]
    for a, b in zip(one, eight, strict=True):
        assert a.gold_logprob == pytest.approx(b.gold_logprob, abs=1e-4)
        assert a.choice_logprobs == pytest.approx(b.choice_logprobs, abs=1e-4)
        assert (a.output, a.prompt, a.stopped) == (b.output, b.prompt, b.stopped)


def test_a_row_that_ends_early_leaves_the_others_alone(model_and_tokenizer, items):
    """The likeliest first tokens of some rows are made stop tokens; the other rows must answer as before."""
    model, tokenizer = model_and_tokenizer
    scorer = Scorer(model, tokenizer, 8)
    before = scorer.score(items[:8], [6] * 8)
    scorer.stops.add(before[0].output_ids[0])
    after = scorer.score(items[:8], [6] * 8)
    assert after[0].stopped and after[0].output == ""
    for a, b in zip(before, after, strict=True):
        assert a.output_ids[: len(b.output_ids)] == b.output_ids
        assert b.stopped == (len(b.output_ids) < 6)


def test_raw_text_is_scored_in_bits_per_byte(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    text = "The night is long. 夜很长。"
    item = Item("t", "file.txt", (), (text,), None)
    scorer = Scorer(model, tokenizer, 4)
    assert scorer.limits([item], None) == scorer.limits([item], 9) == [0]
    (found,) = scorer.score([item], [0])
    reference = naive_logprob(model, tokenizer, tokenizer.eos_token, text)
    assert item_scores(item, found) == {
        "bits_per_byte": pytest.approx(-reference / math.log(2) / len(text.encode()), abs=1e-5)
    }


def test_limits_are_twice_what_gold_answers_need(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    scorer = Scorer(model, tokenizer, 4)
    texts = ["no"] * 20 + ["no " * 50]
    short, free = [question(str(i), [text]) for i, text in enumerate(texts)], question("f", [], None, "free")
    lengths = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    expected = 2 * math.ceil(np.percentile(lengths, 95))
    assert scorer.limits([*short, free], None) == [expected] * 21 + [OPEN_LIMIT]
    assert scorer.limits([*short, free], 5) == [5] * 22


def test_items_that_do_not_fit_are_named(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    long = Item("far", "c", ({"role": "user", "content": "word " * 3000},), ("yes",), None)
    with pytest.raises(UserError, match=r"item far: its prompt of \d+ tokens and an answer of 4 need more .* 2048"):
        Scorer(model, tokenizer, 8).score([long], [4])
    with pytest.raises(UserError, match=r"item i: its prompt of \d+ tokens and an answer of \d{4} need more"):
        Scorer(model, tokenizer, 8).score([question(targets=["word " * 3000])], [4])


class TestStore:
    def test_only_what_is_missing_is_asked(self, model_and_tokenizer, items, tmp_path):
        model, tokenizer = model_and_tokenizer
        scorer, limits = Scorer(model, tokenizer, 4), [3] * len(items)
        asked: list[int] = []
        batches = scorer.batches
        scorer.batches = lambda items, limits: (asked.append(len(items)), batches(items, limits))[1]  # type: ignore

        def answer(folder, share=(0, 1)):
            store = AnswerStore(folder, share[0])
            store.load()
            done: list[int] = []
            keys = ask(scorer, "m", items, limits, store, share, done.append)
            return store, keys, sum(done)

        store, keys, done = answer(tmp_path / "whole")
        assert asked == [len(items)] == [done]
        whole = [store.known[key] for key in keys]
        (path,) = (tmp_path / "whole").iterdir()
        lines = [line for line in path.read_text().splitlines() if line]
        # Killed in the middle of its eighth line.
        (tmp_path / "killed").mkdir()
        (tmp_path / "killed" / "0.jsonl").write_text("\n".join([*lines[:7], lines[7][:40]]))
        store, keys, done = answer(tmp_path / "killed")
        assert asked[1] == len(items) - 7 and done == len(items)
        for a, b in zip(whole, [store.known[key] for key in keys], strict=True):
            assert (a.output, a.prompt_ids) == (b.output, b.prompt_ids)
            assert a.gold_logprob == pytest.approx(b.gold_logprob, abs=1e-4)
        again = AnswerStore(tmp_path / "killed", 0)
        again.load()
        assert {key: again.known[key] for key in keys} == {key: store.known[key] for key in keys}
        # Two processes share the work, whatever each of them knows already.
        shares = [answer(tmp_path / "two", (process, 2))[2] for process in (0, 1)]
        assert sum(shares) == len(items) and abs(shares[0] - shares[1]) <= 1
        together = AnswerStore(tmp_path / "two", 0)
        together.load()
        assert set(keys) == set(together.known)


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
    scores = item_scores(question(choices=("A", "B")), answered("B", math.log(0.3), (math.log(0.2), math.log(0.3))))
    assert scores["accuracy"] == 1 and scores["option_mass"] == pytest.approx(0.5)
    assert scores["gold_nll"] == pytest.approx(-math.log(0.3)) and scores["exact_match"] == 1
    assert "chrf" not in scores and "constraints" not in scores and scores["stop_rate"] == 1
    assert item_scores(question(), answered(stopped=False))["stop_rate"] == 0
    assert set(item_scores(question(), answered(None))) == {"gold_nll"}


def test_constraints_are_scored_strictly_and_loosely():
    checks = json.dumps(
        [{"name": "punctuation:no_comma", "args": {}}, {"name": "change_case:english_lowercase", "args": {}}]
    )
    item = question(targets=(), checks=checks)
    scores = item_scores(item, answered("Sure, here:\nall of it in lower case", None))
    assert "gold_nll" not in scores and "rouge_l" not in scores
    assert (scores["constraints"], scores["all_constraints"]) == (0, 0)
    assert (scores["constraints_loose"], scores["all_constraints_loose"]) == (1, 1)


def test_calibration_takes_out_what_a_model_prefers_anyway():
    """A model that always leans to A, and leans less where B is right: plain accuracy sees nothing, calibrated all."""
    golds = ["A", "B"] * 10
    items = [question(str(i), [gold], ("A", "B") if i % 3 else ("B", "A")) for i, gold in enumerate(golds)]
    answers = []
    for item in items:
        lean = {"A": -0.1 if item.targets[0] == "A" else -0.4, "B": -2.5 if item.targets[0] == "A" else -1.2}
        answers.append(answered("A", -0.1, tuple(lean[choice] for choice in item.choices or ())))
    assert all(
        item_scores(item, answer)["accuracy"] == (item.targets[0] == "A")
        for item, answer in zip(items, answers, strict=True)
    )
    assert calibrated(items, answers) == golds
    scores, _ = summarise({"s": items}, {"m": {"s": answers}}, seed=0)
    metrics = scores["suites"]["s"]["metrics"]
    assert metrics["accuracy"]["values"]["m"]["value"] == 0.5 and metrics["accuracy"]["majority"] == 0.5
    assert metrics["calibrated_accuracy"]["values"]["m"]["value"] == 1
    assert metrics["macro_f1"]["values"]["m"]["value"] == pytest.approx((2 / 3 + 0) / 2)
    few, _ = summarise({"s": items[:9]}, {"m": {"s": answers[:9]}}, seed=0)
    assert "calibrated_accuracy" not in few["suites"]["s"]["metrics"]


def f1_by_hand(gold: list[str], guesses: list[str]) -> float:
    scores = []
    for label in set(gold) | set(guesses):
        hit = sum(g == label == p for g, p in zip(gold, guesses, strict=True))
        precision, recall = hit / max(guesses.count(label), 1), hit / max(gold.count(label), 1)
        scores.append(2 * precision * recall / (precision + recall) if hit else 0.0)
    return sum(scores) / len(scores)


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=2, max_size=30
    )
)
def test_macro_f1_equals_its_definition(rows):
    gold, guesses, reference = (list(column) for column in zip(*rows, strict=True))
    estimate = macro_f1([gold, gold], [guesses, guesses])
    assert estimate["value"] == pytest.approx(f1_by_hand(gold, guesses))
    assert 0 <= estimate["ci95"][0] <= estimate["ci95"][1] <= 1
    difference = macro_f1_difference([gold], [guesses], [reference])
    assert difference["value"] == pytest.approx(f1_by_hand(gold, guesses) - f1_by_hand(gold, reference))
    assert macro_f1_difference([gold], [guesses], [guesses]) == {"value": 0, "ci95": [0, 0], "p": 1.0}


def test_macro_f1_tells_a_better_model_and_no_other():
    rng = np.random.default_rng(0)
    gold = rng.choice(list("abc"), 200)
    weak, other, strong = (
        np.where(rng.random(200) < share, gold, rng.choice(list("abc"), 200)) for share in (0.2, 0.2, 0.6)
    )
    better = macro_f1_difference([gold.tolist()], [strong.tolist()], [weak.tolist()])
    assert better["ci95"][0] > 0 and better["p"] < 0.01
    assert macro_f1_difference([gold.tolist()], [other.tolist()], [weak.tolist()])["p"] > 0.05


def test_text_metrics_equal_their_library():
    import sacrebleu

    output, targets = "the cat sat on a mat", ["the cat sat on the mat", "a cat was sitting there"]
    assert chrf(output, targets) == pytest.approx(sacrebleu.sentence_chrf(output, targets).score / 100)
    assert bleu(output, targets) == pytest.approx(sacrebleu.sentence_bleu(output, targets).score / 100)
    assert bleu("我很爱你们", ["我爱你们"]) == pytest.approx(
        sacrebleu.sentence_bleu("我很爱你们", ["我爱你们"], tokenize="zh").score / 100
    )
    assert bleu("", targets) == chrf("", targets) == 0


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
    items = {
        "s": [question(str(i), choices=("A", "B", "C"), category=f"c{i % 2}", template=f"t{i % 4}") for i in range(8)]
    }
    good, bad = answered("B", -0.1, (-3.0, -0.1, -3.0)), answered("x", -2.0, (-0.5, -2.0, -3.0))
    answers = {"base": {"s": [bad] * 8}, "tuned": {"s": [good] * 4 + [bad] * 4}}
    scores, per_item = summarise(items, answers, seed=0)
    assert scores["models"] == ["base", "tuned"] and scores["suites"]["s"]["n"] == 8
    accuracy = scores["suites"]["s"]["metrics"]["accuracy"]
    assert (accuracy["majority"], accuracy["chance"]) == (1.0, pytest.approx(1 / 3))
    assert accuracy["values"]["base"]["value"] == 0 and accuracy["values"]["tuned"]["value"] == 0.5
    assert accuracy["values"]["tuned"]["templates"] == {"n": 4, "median": 0.5, "quartiles": [0.5, 0.5]}
    assert list(accuracy["deltas"]) == ["tuned"] and set(accuracy["deltas"]["tuned"]) == {"value", "ci95", "p"}
    assert scores["suites"]["s"]["metrics"]["gold_nll"]["majority"] is None
    assert {name: entry["n"] for name, entry in scores["suites"]["s"]["categories"].items()} == {"c0": 4, "c1": 4}
    assert scores["suites"]["s"]["overlap"] is None
    assert set(LABELS) >= set(accuracy_names := scores["suites"]["s"]["metrics"]), accuracy_names
    assert len(per_item["tuned"]["s"]) == 8
    json.dumps(scores, allow_nan=False)


def test_overlapping_items_are_also_left_out():
    items = {"s": [question(str(i)) for i in range(4)]}
    answers = {"m": {"s": [answered(gold=-1.0)] * 3 + [answered(gold=-5.0)]}}
    overlaps = {"s": [None, None, None, "ngram"]}
    suites = summarise(items, answers, 0, overlaps)[0]["suites"]
    assert list(suites) == ["s", "s, clean"]
    assert (suites["s"]["n"], suites["s"]["overlap"]) == (4, {"ngram": 1})
    assert (suites["s, clean"]["n"], suites["s, clean"]["overlap"]) == (3, {})
    assert suites["s"]["metrics"]["gold_nll"]["values"]["m"]["value"] == 2
    assert suites["s, clean"]["metrics"]["gold_nll"]["values"]["m"]["value"] == 1
    assert list(summarise(items, answers, 0, {"s": [None] * 4})[0]["suites"]) == ["s"]


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
