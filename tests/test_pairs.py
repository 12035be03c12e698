"""Preference pairs: answers corrupted so that they are surely wrong, samples under a reward, scores of mentors."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
from conftest import assert_one_line_error, cli, said
from peft import LoraConfig, get_peft_model

from data_builders.families import families
from instructrec.core.checks import satisfied_loose
from instructrec.core.errors import UserError
from instructrec.core.schema import PAIR, PAIR_SPLITS, TEST_DOCUMENTS, TRAIN, read_split
from instructrec.evaluation.metrics import exact_match
from instructrec.lineage import read_lineage
from instructrec.model_card import training_data
from instructrec.models import load_model, load_tokenizer, load_tuned
from instructrec.preferences.build import Request, make
from instructrec.preferences.corrupted import HELD_OUT_CORRUPTORS
from instructrec.preferences.corruptors import CORRUPTORS, ORDERED, Task, corrupt, is_wrong, normalised
from instructrec.preferences.model_rankings import rank_with_policy, rank_with_reference
from instructrec.preferences.rank import RANKINGS, rank_folder
from instructrec.preferences.rankings import LENGTH, summarise
from instructrec.preferences.read import drawn, read_pairs
from instructrec.preferences.rows import ROW_SPLITS
from instructrec.preferences.samples import Sampler, chosen_rows, limits_of, sampled
from instructrec.preferences.write import Limits, pair, write_pairs
from instructrec.rewards.load import load_rewards

PASSAGE = (
    "Ada lives in Rome. Since 1912 she has met Bob Stone there, who has 7 boats. They sail with Carl Voss on Sundays."
)
NO_COMMA = json.dumps([{"name": "punctuation:no_comma", "args": {}}])


def task(answer: str, prompt: str = PASSAGE, **more) -> Task:
    return Task(prompt=prompt, answer=answer, **{"targets": (answer,), **more})


def all_of(name: str, one: Task) -> set[str]:
    """What a corruptor gives for a task over many seeds."""
    return {found for seed in range(40) if (found := corrupt(name, one, random.Random(seed))) is not None}


def pairs_of(folder: Path, split: str) -> list[dict]:
    return list(read_pairs(folder, split))


@pytest.mark.parametrize(
    ("name", "one", "expected"),
    [
        ("wrong_option", task("B", choices=("A", "B", "C")), {"A", "C"}),
        ("wrong_option", task("B", choices=("A", "B", "C"), targets=("B", "A")), {"C"}),
        ("wrong_entity", task("She has met Bob Stone."), {"She has met Carl Voss."}),
        ("wrong_entity", task("Rome"), {"Bob Stone", "Carl Voss", "Sundays"}),
        (
            "wrong_entity",
            task("使用`foo_a`函数。", prompt="使用`foo_a`函数，`bar_b`函数。"),
            {"使用`bar_b`函数。"},
        ),
        (
            "wrong_entity",
            task("他在Python中使用它。", prompt="他在Python中使用它，不在Rust中。"),
            {"他在Rust中使用它。"},
        ),
        ("wrong_number", task("7"), {"1912", "8", "6", "9", "17"}),
        (
            "wrong_number",
            task("始于1912年。", prompt="始于1912年，止于1920年。"),
            {f"始于{year}年。" for year in (1911, 1913, 1914, 1920, 1922)},
        ),
        (
            "shuffled_order",
            task("b, a, c", family="sort_words"),
            {"b, c, a", "a, b, c", "a, c, b", "c, a, b", "c, b, a"},
        ),
        ("shuffled_order", task("1. x\n2. y", family="list_sort"), {"1. y\n2. x"}),
        ("shuffled_order", task('["x", "y"]', family="sort_words"), {'["y", "x"]'}),
        (
            "other_answer",
            task("in Rome", others=("Since 1912", "in Pisa", "IN ROME!", "she lives in Rome")),
            {"in Pisa"},
        ),
        (
            "off_language",
            task("The boat is in the harbour."),
            {"El boat es en el harbour.", "Die boat ist im die harbour."},
        ),
        ("constraint_broken", task("No comma", checks=NO_COMMA), {"No, comma"}),
        ("over_long_or_cut", task("1912"), {f"1912\n{s}." for s in PASSAGE[:-1].split(". ")[::2]}),
        (
            "evidence_swapped",
            task('"Ada lives in Rome."'),
            {f'"{s}."' for s in PASSAGE[:-1].split(". ")[1:]},
        ),
        ("evidence_swapped", task("has two", prompt="Quote.\n\n- one is here\n- has two"), {"one is here"}),
    ],
)
def test_a_corruptor_spoils_what_it_is_for(name, one, expected):
    found = all_of(name, one)
    assert found and found <= expected, found - expected


def test_an_item_of_a_list_gives_way_to_words_of_the_text():
    for wrong in all_of("wrong_item", task("Ada\nBob\nCarl")):
        before, after = Counter(["Ada", "Bob", "Carl"]), Counter(wrong.split("\n"))
        assert (before - after).total() == 1 == (after - before).total()


@pytest.mark.parametrize(
    ("name", "one"),
    [
        ("wrong_option", task("maybe", choices=("yes", "no"))),
        ("wrong_number", task("7", choices=("7", "8"))),
        ("wrong_number", task("7", prompt="7.0", targets=("7", "6", "8", "9", "17"))),
        ("shuffled_order", task("b, a, c", family="entity_list")),  # not all its wordings ask for an order
        ("other_answer", task("in Rome", others=("since 1912", "rome"))),  # shown in the prompt, part of the answer
        ("other_answer", task("in Rome", others=("in Pisa",), group="synthesis")),
        ("other_answer", task("not stated", others=("unanswerable", "N/A"), family="unanswerable")),
        ("off_language", task("Das Boot liegt im Hafen.")),
        ("constraint_broken", task("Nothing is asked of this")),
        ("evidence_swapped", task("lives in Rome")),  # not a whole sentence
    ],
)
def test_a_corruptor_leaves_alone_what_it_cannot_be_sure_of(name, one):
    assert all_of(name, one) == set()


def test_families_whose_order_is_shuffled_are_there():
    assert families().keys() >= ORDERED


def test_what_could_be_right_is_not_wrong():
    one = task("In Rome.", targets=("In Rome.", "Rome"))
    assert not any(is_wrong(one, text) for text in ("in rome", "  **ROME** ", "`Rome`", "", " \n"))
    assert is_wrong(one, "In Pisa.")
    # In the loose sense a check is met without the last line.
    assert not is_wrong(task("No comma", checks=NO_COMMA), "Another text\nwith, commas below")
    assert is_wrong(task("No comma", checks=NO_COMMA), "One, two")


def test_length_is_drawn_before_the_answer():
    one = task("Rome", others=("Pi", "Oslo, Bergen", "Bonn, Trier"))
    found = Counter(corrupt("other_answer", one, random.Random(seed)) for seed in range(200))
    assert set(found) == {"Pi", "Bonn, Trier"} and min(found.values()) > 60


@pytest.fixture(scope="module")
def made(instruction_set, tmp_path_factory):
    output = tmp_path_factory.mktemp("pairs") / "pairs"
    done = cli("pairs", str(instruction_set), "--output", str(output), "--heldout-per-corruptor", "20")
    assert done.returncode == 0, done.stderr
    return output, done.stdout


def test_pairs_keep_the_contract(made, instruction_set):
    folder, _ = made
    manifest = json.loads((folder / "manifest.json").read_text())
    rows = {split: list(read_split(instruction_set, split)) for split in ROW_SPLITS}
    seen = set()
    for split in PAIR_SPLITS:
        pairs = pairs_of(folder, split)
        assert len(pairs) == manifest["splits"][split]
        own = {
            (r["prompt"][-1]["content"], r["completion"][0]["content"]): r
            for r in rows.get(split, rows[TEST_DOCUMENTS])
        }
        for one in pairs:
            assert [*one] == [*PAIR.names, "name"]  # checked as it was read
            (chosen,), (rejected,) = one["chosen"], one["rejected"]
            row = own[one["prompt"][-1]["content"], chosen["content"]]  # of the same split
            assert one["prompt"] == row["prompt"] and one["source"] == row["source"] and one["margin"] is None
            assert not exact_match(rejected["content"], row["targets"])
            assert rejected["content"] == rejected["content"].strip()
            if row["checks"]:
                assert not all(satisfied_loose(row["checks"], rejected["content"]))
            else:
                assert normalised(rejected["content"]) not in {normalised(text) for text in row["targets"]}
            assert (one["origin"] in HELD_OUT_CORRUPTORS) == (split == "test_corruptors")
            key = (json.dumps(one["prompt"]), chosen["content"], rejected["content"])
            assert key not in seen
            seen.add(key)
    assert manifest["splits"][TRAIN] > 500 and manifest["splits"]["test_corruptors"] > 10
    assert {*manifest["origins"]} == {*CORRUPTORS} and all(manifest["origins"].values())
    lineage = read_lineage(folder)
    assert lineage["stage"] == "pairs" and lineage["parent"]["stage"] == "build"
    assert lineage["inputs"] == {"plan": manifest["plan"], "output": manifest["fingerprint"]}
    trained = {"stage": "dpo", "inputs": {"pairs": {"name": "pairs", "splits": {}, "lineage": lineage}}, "parent": None}
    assert training_data(trained)[0]["set"] is None  # what a card takes for a set's own inventory


def test_no_rule_of_length_beats_a_coin_and_quotas_hold(made):
    folder, printed = made
    for split in PAIR_SPLITS:
        signs = defaultdict(Counter)
        for one in pairs_of(folder, split):
            a, b = (len(one[key][0]["content"]) for key in ("chosen", "rejected"))
            signs[one["origin"]][(a > b) - (a < b)] += 1
        for origin, found in signs.items():
            assert found[1] == found[-1], (split, origin)
            assert found.total() <= (2000 if split == TRAIN else 20)
    assert "50.0 [" in printed and "length_balance" in printed


def test_load_dataset_finds_the_splits(made, tmp_path):
    found = datasets.load_dataset(str(made[0]), cache_dir=str(tmp_path))
    assert [*found] == [*PAIR_SPLITS]


def test_equal_inputs_give_equal_bytes_and_pairs_that_are_there_are_left_alone(made, instruction_set, tmp_path):
    folder, _ = made
    again = tmp_path / "again"
    request = Request(folder=instruction_set, heldout_per_corruptor=20)
    make(request, again)
    for name in ("manifest.json", "README.md", *(f"{split}/00000.parquet" for split in PAIR_SPLITS)):
        assert (again / name).read_bytes() == (folder / name).read_bytes()
    before = (again / "lineage.json").stat().st_mtime_ns
    make(request, again)
    assert (again / "lineage.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="holds something else"):
        make(Request(folder=instruction_set, seed=1), again)
    assert not list(tmp_path.glob(".*"))  # nothing half-written


def test_other_corruptors_can_be_held_out(instruction_set, tmp_path):
    make(Request(folder=instruction_set, held_out_corruptors=("wrong_option",), rows=150), tmp_path / "pairs")
    assert {one["origin"] for one in pairs_of(tmp_path / "pairs", "test_corruptors")} == {"wrong_option"}
    trained = {one["origin"] for one in pairs_of(tmp_path / "pairs", TRAIN)}
    assert "shuffled_order" in trained and "wrong_option" not in trained


def test_repeats_and_contradictions_are_left_out(tmp_path):
    prompt = said("Which?", "user")

    def one(chosen, rejected, origin="a"):
        return TRAIN, pair(prompt, chosen, rejected, origin, [], None)

    pairs = [one("b", "c"), one("b", "c"), one("b", "c", "other"), one("x", "y"), one("y", "x"), one("long", "l")]
    found = write_pairs(pairs, tmp_path, {}, [], Limits(), 0, Counter())
    assert found["dropped"] == {"contradicted": 2, "length_balance": 1, "repeated": 2} and found["splits"][TRAIN] == 1
    loose = tmp_path / "loose"
    loose.mkdir()
    assert write_pairs(pairs, loose, {}, [], Limits(balanced=False), 0, Counter())["splits"][TRAIN] == 2
    few = tmp_path / "few"
    few.mkdir()
    assert write_pairs(pairs, few, {}, [], Limits(1, balanced=False), 0, Counter())["splits"][TRAIN] == 1


def test_a_quota_is_met_to_the_pair(tmp_path):
    pairs = [(TRAIN, pair(said(str(i), "user"), "good", "poor", "a", [], None)) for i in range(100)]
    assert write_pairs(pairs, tmp_path, {}, [], Limits(train=29), 0, Counter())["splits"][TRAIN] == 29


# --- Mentors


def scored(prompt: str, completion: str, **rewards: float | None) -> dict:
    return {"prompt": said(prompt, "user"), "completion": said(completion), "rewards": rewards, "policy": "sft"}


def write_lines(path: Path, records: list) -> Path:
    path.write_text("".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in records), encoding="utf-8")
    return path


def test_a_mentors_scores_become_pairs_where_mentors_agree(tmp_path):
    records = [
        scored("o", "good", ann=1.0, bob=0.5),
        scored("o", "poor", ann=0.0, bob=0.5),
        scored("o", "odd!", ann=0.0, bob=1.0),
        scored("q", "lone", ann=1.0),
        scored("q", "else", bob=0.0),
        scored("r", "some", ann=1.0),
        scored("r", " some ", ann=0.0),
        scored("r", " ", ann=0.5),
    ]
    mentor = write_lines(tmp_path / "scored.jsonl", records)
    done = cli("pairs", "--mentor", str(mentor), "--output", str(tmp_path / "pairs"))
    assert done.returncode == 0, done.stderr
    found = {
        (one["chosen"][0]["content"], one["rejected"][0]["content"], one["margin"], one["origin"])
        for split in PAIR_SPLITS
        for one in pairs_of(tmp_path / "pairs", split)
    }
    assert found == {("good", "poor", 1.0, "mentor:ann"), ("odd!", "poor", 0.5, "mentor:bob")}
    assert json.loads((tmp_path / "pairs/manifest.json").read_text())["dropped"] == {
        "empty_answer": 2,
        "mentors_disagree": 1,
        "no_difference": 2,
    }


def test_names_are_shown_as_they_are(tmp_path):
    records = [scored("o", text, **{"[/b]": score}) for text, score in (("good", 1.0), ("poor", 0.0))]
    mentor = write_lines(tmp_path / "scored.jsonl", records)
    done = cli("pairs", "--mentor", str(mentor), "--output", str(tmp_path / "[/i]"))
    assert done.returncode == 0 and "mentor:[/b]" in done.stdout, done.stderr


def test_conversations_that_ask_the_same_last_stay_on_one_side(tmp_path):
    turns = [said(f"Tell me of {i}.", "user") + said("Gladly.") for i in range(40)]
    records = [
        scored("Go on.", text, ann=score) | {"prompt": before + said("Go on.", "user")}
        for before in turns
        for text, score in (("good", 1), ("poor", 0))
    ]
    records += [scored(f"Ask {i}?", text, ann=score) for i in range(40) for text, score in (("good", 1), ("poor", 0))]
    make(Request(mentor=write_lines(tmp_path / "s.jsonl", records)), tmp_path / "pairs")
    asked = [{one["prompt"][-1]["content"] for one in pairs_of(tmp_path / "pairs", s)} for s in (TRAIN, "validation")]
    assert all(asked) and not asked[0] & asked[1]


def test_scored_prompts_of_a_set_keep_their_split(instruction_set, tmp_path):
    chosen = {split: next(read_split(instruction_set, split)) for split in (TRAIN, TEST_DOCUMENTS, "test_tasks")}
    records = [
        scored(row["prompt"][-1]["content"], text, ann=score)
        for row in chosen.values()
        for text, score in (("good", 1), ("poor", 0))
    ]
    make(Request(folder=instruction_set, mentor=write_lines(tmp_path / "s.jsonl", records)), tmp_path / "pairs")
    for split in (TRAIN, TEST_DOCUMENTS):
        (one,) = pairs_of(tmp_path / "pairs", split)
        assert one["source"] == chosen[split]["source"] and one["prompt"] == chosen[split]["prompt"]
    dropped = json.loads((tmp_path / "pairs/manifest.json").read_text())["dropped"]
    assert dropped == {"held_out_prompt": 1}


def test_what_is_said_before_a_held_out_question_does_not_make_it_a_training_one(instruction_set, tmp_path):
    rows = {split: next(read_split(instruction_set, split)) for split in (TRAIN, TEST_DOCUMENTS, "test_templates")}
    records = [
        scored(row["prompt"][-1]["content"], text, ann=score)
        | {"prompt": said("Be brief.", "system") + said(row["prompt"][-1]["content"], "user")}
        for row in rows.values()
        for text, score in (("good", 1), ("poor", 0))
    ]
    make(Request(folder=instruction_set, mentor=write_lines(tmp_path / "s.jsonl", records)), tmp_path / "pairs")
    for split in (TRAIN, TEST_DOCUMENTS):
        (one,) = pairs_of(tmp_path / "pairs", split)
        assert one["source"] == rows[split]["source"] and len(one["prompt"]) == 2
    manifest = json.loads((tmp_path / "pairs/manifest.json").read_text())
    assert manifest["dropped"] == {"held_out_prompt": 1} and not manifest["splits"]["validation"]


# --- Samples


@pytest.fixture(scope="module")
def stopping(tiny_model, tmp_path_factory):
    """The tiny model, whose turns every other token ends: random weights would hardly end one."""
    folder = shutil.copytree(tiny_model, tmp_path_factory.mktemp("model") / "stopping")
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": [*range(0, size, 2)]}))
    return folder


@pytest.fixture(scope="module")
def sampler(stopping):
    return Sampler(load_model(stopping, "float32").eval(), load_tokenizer(stopping), "tiny", 4, 1.0, 0)


def by_vowels(prompts, completions, *, id, targets, **columns):
    assert len(prompts) == len(completions) == len(id) == len(targets) == len(columns["checks"])
    return [sum(c in "aeiou" for c in one[-1]["content"]) / 10 for one in completions]


def run_samples(sampler, rows, kept, rewards=by_vowels):
    skipped: Counter[str] = Counter()
    limits = [min(12, limit) for limit in limits_of(sampler, [row for _, row in rows], None)]
    return list(sampled(rows, limits, sampler, rewards, kept, skipped, lambda: None)), skipped


def test_the_best_sample_is_paired_with_the_worst_and_sampling_resumes(sampler, instruction_set, tmp_path, monkeypatch):
    rows = chosen_rows(instruction_set, 3, seed=0)
    assert len(rows) == 9
    whole, skipped = run_samples(sampler, rows, tmp_path / "a.jsonl")
    assert len(whole) + skipped.total() == len(rows) and whole
    for split, one in whole:
        better, worse = (
            by_vowels([0], [one[key]], id=[0], targets=[0], checks=[0])[0] for key in ("chosen", "rejected")
        )
        assert one["margin"] == pytest.approx(better - worse) and better > worse
        assert (split, one["prompt"]) in [(s, row["prompt"]) for s, row in rows]

    asked = []
    real = Sampler.sample

    def dies(self, row, limit):
        if len(asked) == 4:
            raise KeyboardInterrupt
        asked.append(row["id"])
        return real(self, row, limit)

    monkeypatch.setattr(Sampler, "sample", dies)
    with pytest.raises(KeyboardInterrupt):
        run_samples(sampler, rows, tmp_path / "b.jsonl")
    monkeypatch.setattr(Sampler, "sample", lambda self, row, limit: asked.append(row["id"]) or real(self, row, limit))
    assert run_samples(sampler, rows, tmp_path / "b.jsonl")[0] == whole
    assert asked == [row["id"] for _, row in rows]  # none twice


def test_a_sample_tells_whether_it_has_ended(sampler, instruction_set):
    rows = chosen_rows(instruction_set, 3, seed=0)
    assert {stopped for _, row in rows for _, stopped in sampler.sample(row, 1)} == {True, False}


def test_an_answer_that_was_cut_off_is_never_the_better_one(instruction_set, tmp_path):
    rows, skipped = chosen_rows(instruction_set, 1, seed=0), Counter()
    samples = iter(
        [
            [("aaa", False), ("aa", True), ("b", True)],
            [("aaa", False), ("b", False)],
            [("b", True), ("b", False)],
        ]
    )
    fixed = SimpleNamespace(key=lambda row, limit: row["id"], sample=lambda row, limit: next(samples))
    ((_, one),) = sampled(rows, [8] * 3, fixed, by_vowels, tmp_path / "kept.jsonl", skipped, lambda: None)
    assert (one["chosen"], one["rejected"]) == (said("aa"), said("b"))
    assert skipped == {"cut_off": 1, "no_difference": 1}


def test_a_reward_that_fails_is_named_and_the_samples_stay(sampler, instruction_set, tmp_path):
    rows = chosen_rows(instruction_set, 1, seed=0)
    (tmp_path / "own.py").write_text(
        "def broken(prompts, completions, **columns):\n    return [float('nan')] * len(prompts)"
    )
    (tmp_path / "rewards.yaml").write_text(f"- {{name: '{tmp_path / 'own.py'}:broken'}}\n")
    with pytest.raises(UserError, match=rf"reward 'broken': row {rows[0][1]['id']}, completion .*: gave nan"):
        run_samples(sampler, rows, tmp_path / "kept.jsonl", load_rewards(tmp_path / "rewards.yaml"))
    assert (tmp_path / "kept.jsonl").stat().st_size
    pairs, skipped = run_samples(
        sampler, rows, tmp_path / "kept.jsonl", lambda prompts, *_, **__: [None] * len(prompts)
    )
    assert not pairs and skipped == {"no_difference": 3}


def test_a_prompt_that_is_too_long_for_samples_makes_no_pair(sampler, instruction_set, tmp_path):
    rows, skipped = chosen_rows(instruction_set, 1, seed=0), Counter()
    limits = [sampler.model.config.max_position_embeddings] * len(rows)
    assert not list(sampled(rows, limits, sampler, by_vowels, tmp_path / "kept.jsonl", skipped, lambda: None))
    assert skipped == {"too_long": 3}


def test_samples_through_the_door(instruction_set, stopping, tmp_path):
    yaml, own, note, adapter = (tmp_path / name for name in ("rewards.yaml", "own.py", "note.txt", "adapter"))
    note.write_text("a note")
    own.write_text(
        "def size(prompts, completions, *, notes):\n    return [len(c[-1]['content']) / 100 for c in completions]\n"
    )
    args = {"notes": [{"of": str(note)}, "too long for a path " * 500]}
    yaml.write_text(json.dumps([{"name": "chrf"}, {"name": f"{own}:size", "args": args}]))
    get_peft_model(load_model(stopping, "float32"), LoraConfig(task_type="CAUSAL_LM")).save_pretrained(adapter)
    flags = ["--samples", str(stopping), "--adapter", str(adapter), "--rewards", str(yaml)]
    flags += ["-n", "3", "--rows", "3", "--max-new-tokens", "8"]
    command = ["pairs", str(instruction_set), *flags, "--no-balance", "--output", str(tmp_path / "pairs")]
    done = cli(*command)
    assert done.returncode == 0, done.stderr
    found = pairs_of(tmp_path / "pairs", TRAIN)
    assert found and all(one["origin"] == "samples" and one["margin"] > 0 for one in found)
    assert not (tmp_path / "pairs.samples.jsonl").exists()
    assert cli(*command).returncode == 0  # they are there
    config = adapter / "adapter_config.json"
    for file, old, new in ((own, "100", "10"), (note, "a", "b"), (config, '"lora_alpha": 8', '"lora_alpha": 16')):
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))
        assert_one_line_error(cli(*command), "holds something else than these pairs")
        file.write_text(text)


def test_the_base_is_of_the_revision_that_an_adapter_names(instruction_set, tmp_path, monkeypatch):
    asked = []

    def hub(name, revision, weights):
        asked.append((name, revision))
        raise UserError("not there")

    monkeypatch.setattr("instructrec.models._from_hub", hub)
    (tmp_path / "rewards.yaml").write_text("- {name: chrf}\n")
    config = {"base_model_name_or_path": "owner/name", "revision": "v2"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    request = Request(instruction_set, "owner/name", tmp_path, tmp_path / "rewards.yaml")
    with pytest.raises(UserError, match="not there"):
        make(request, tmp_path / "pairs")
    with pytest.raises(UserError, match="not there"):
        load_tuned("owner/name", tmp_path, "float32")
    assert asked == [("owner/name", "v2")] * 2


# --- Rankings


def test_pairs_are_ranked_by_a_references_likelihood(made, tiny_model, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "pairs")
    found = rank_folder(folder, str(tiny_model), 3)
    assert found == json.loads((folder / RANKINGS).read_text())
    for split in (TRAIN, "test_corruptors"):
        whole, asked = found["length"][split], found["reference"]["splits"][split]
        assert whole["pairs"] == len(pairs_of(folder, split)) and whole["accuracy"]["length"]["value"] == 0.5
        assert {one["accuracy"]["length"]["value"] for one in whole["origins"].values()} == {0.5}
        assert asked["pairs"] + asked["too_long"] == 3
        assert set(asked["accuracy"]) == {"length", "tokens", "likelihood", "likelihood_per_token"}
        assert all(0 <= one["value"] <= 1 for one in asked["accuracy"].values())
    # Without a reference what an earlier one gave stays.
    assert rank_folder(folder, None, 3) == found


def test_rankings_are_compared_pair_by_pair():
    where = [("a", "first"), ("a", "second"), ("b", "third")]
    found = summarise({"new": [(2, 1), (1, 1), (3, 0)], "old": [(0, 1), (1, 0), (0, 0)]}, where, "new")
    assert found["pairs"] == 3 and found["accuracy"]["new"]["value"] == pytest.approx(2.5 / 3)
    assert found["better_by"].keys() == {"old"} and found["better_by"]["old"]["value"] == pytest.approx(1 / 3)
    assert found["origins"]["a"]["pairs"] == 2 and found["origins"]["a"]["accuracy"]["old"]["value"] == 0.5
    # Never worse is not surely better: the interval of a difference is not cut at 0.
    once = summarise({"new": [(1, 0)] * 3, "old": [(1, 0), (1, 0), (0, 1)]}, where, "new")["better_by"]["old"]
    assert once["ci95"][0] < 0 < once["value"] < once["ci95"][1] <= 1


def test_length_is_read_as_is_best_for_the_pairs_of_a_line():
    where = [("a", "first"), ("a", "second"), ("b", "third")]
    found = summarise({LENGTH: [(1, 2), (2, 3), (5, 4)]}, where)
    assert found["accuracy"][LENGTH]["value"] == pytest.approx(2 / 3)
    assert [one["accuracy"][LENGTH]["value"] for one in found["origins"].values()] == [1, 1]


def test_the_gold_nll_is_that_of_every_prompt_whatever_it_ends_with(made, tiny_model):
    one = pairs_of(made[0], TRAIN)[0] | {"prompt": said("Go on.", "user")}
    other = one | {"prompt": said("Tell me of boats.", "system") + said("Go on.", "user")}
    model, tokenizer = load_model(tiny_model, "float32"), load_tokenizer(tiny_model)
    policy = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM"))
    first, second, both = (
        rank_with_policy(policy, tokenizer, its)["gold_nll"]["before"] for its in ([one], [other], [one, other])
    )
    assert first != second and both == pytest.approx((first + second) / 2)


def test_pairs_that_do_not_fit_the_context_are_counted(made, tiny_model):
    short = min(pairs_of(made[0], TRAIN), key=lambda one: len(json.dumps(one["prompt"])))
    long = short | {"prompt": said("word " * 5000, "user")}
    model, tokenizer = load_model(tiny_model, "float32").eval(), load_tokenizer(tiny_model)
    told: list[int] = []
    found = rank_with_reference(model, tokenizer, [long, short], done=told.append)
    assert sum(told) == 2
    assert (found["pairs"], found["too_long"]) == (1, 1) and found["accuracy"]["tokens"]["ci95"] == [None, None]
    none = rank_with_reference(model, tokenizer, [long])
    assert (none["pairs"], none["too_long"], none["accuracy"]) == (0, 1, {})


def test_the_same_pairs_are_drawn_whatever_else_is_read(made):
    pairs = pairs_of(made[0], TRAIN)
    few, many = drawn(pairs, 5), drawn(reversed(pairs), 50)
    assert many[:5] == few and len({one["name"] for one in many}) == 50


def test_changed_pairs_are_not_ranked(made, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "pairs")
    shutil.copy(folder / TRAIN / "00000.parquet", folder / TRAIN / "00001.parquet")
    done = cli("rank", str(folder), "--adapter", "nowhere")
    assert_one_line_error(done, "its Parquet files changed")


def test_a_reward_model_has_a_dtype_of_its_own(made, tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "m", "task_type": "SEQ_CLS"}')
    done = cli("rank", str(made[0]), "--adapter", str(tmp_path), "--dtype", "float32")
    assert_one_line_error(done, "--dtype: goes with an adapter of a language model")


# --- Mistakes


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--adapter", "x"], "--samples"),
        (["--samples", "m"], "--rewards"),
        (["--held-out-corruptors", "wrong_optoin"], "Did you mean 'wrong_option'?"),
        (["--held-out-corruptors", ",".join(CORRUPTORS)], "names all of them"),
        (["--mentor", "nowhere.jsonl"], "no such file"),
        (["--per-corruptor", "1"], "--per-corruptor 1: balanced pairs come in twos"),
        (["--mentor", "m", "--samples", "m"], "--mentor"),
        (["--temperature", "0"], "--temperature"),
        (["-n", "4"], "-n: goes with --samples"),
        (["--reference", "smollm2-135m-q4:nowhere"], "MODEL:ADAPTER"),
        (["--samples", "m", "--adapter", "nowhere", "--rewards", "R"], "no adapter_config.json"),
    ],
)
def test_a_mistake_is_one_line(flags, part, instruction_set, tmp_path):
    output = ["--output", str(tmp_path / "pairs")]
    assert_one_line_error(cli("pairs", str(instruction_set), *output, *flags), part)
    assert not (tmp_path / "pairs").exists()


@pytest.mark.parametrize(
    ("record", "part"),
    [
        ("{", "not JSON"),
        ({"prompt": []}, "'completion' is missing"),
        (scored("p", "c") | {"rewards": {"ann": "high"}}, "'rewards'"),
        (scored("p", "c") | {"rewards": [["ann", 1]]}, "'rewards' must be object of numbers"),
        (scored("p", "c", ann=float("nan")), "mentor 'ann' gives nan"),
        (scored("p", "c") | {"completion": []}, "'completion' must be one message"),
        (scored("p", "c") | {"completion": said("a") + said("b")}, "'completion' must be one message"),
        (scored("p", "c") | {"prompt": said("p")}, "'prompt' must end with a message of role 'user'"),
        (scored("p", "\ud800"), "half of a surrogate pair"),
    ],
)
def test_a_broken_line_is_named(record, part, tmp_path):
    mentor = write_lines(tmp_path / "m.jsonl", [scored("p", "good", ann=1.0), record])
    with pytest.raises(UserError, match=rf"m\.jsonl:2: .*{part}"):
        make(Request(mentor=mentor), tmp_path / "pairs")
    assert list(tmp_path.iterdir()) == [mentor]
