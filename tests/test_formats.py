"""Published evaluation sets, pairs and raw text become suites, and broken files are named."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instructrec.core.errors import UserError
from instructrec.core.schema import PAIR
from instructrec.evaluation.formats import PASSAGE_BYTES, passages, read_items, written_options
from instructrec.evaluation.suites import Item, load_suites

BBH = ROOT.parent / "shared" / "evals" / "bbh" / "bbh"
SUPER_NI = {
    "Definition": ["Say whether the review is positive."],
    "Categories": ["Sentiment Analysis"],
    "Instances": [
        {"id": "t1-a", "input": "It broke at once.", "output": ["negative"]},
        {"id": "t1-b", "input": "I would buy it again.", "output": ["positive", "Positive"]},
    ],
}


IFEVAL = {
    "key": 7,
    "prompt": "Name three trees. Use no commas.",
    "instruction_id_list": ["punctuation:no_comma", "detectable_format:number_bullet_lists"],
    "kwargs": [{"num_bullets": None}, {"num_bullets": 3, "relation": None}],
}
SELF_INSTRUCT = {
    "id": "seed_1",
    "name": "opposites",
    "instruction": "Give the opposite.",
    "instances": [{"input": "hot", "output": "cold"}, {"input": "dry", "output": " "}, {"input": "", "output": "?"}],
}
PROMPT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "A colour?"}]
RED, BLUE = {"role": "assistant", "content": "Red."}, {"role": "assistant", "content": "Blue."}
PREFERENCE = {"prompt": PROMPT, "chosen": [RED], "rejected": [BLUE], "origin": "mentor"}


def write(path: Path, value: object) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def lines(path: Path, *records: object) -> Path:
    return write(path, "\n".join(record if isinstance(record, str) else json.dumps(record) for record in records))


def suite(path: Path) -> list[Item]:
    (items,) = load_suites([str(path)], 0).values()
    return items


def test_options_are_read_from_the_question():
    assert written_options("Which?\nOptions:\n(A) one\n(B) two") == ["(A)", "(B)"]
    assert written_options("Is it?\nOptions:\n- Yes\n- No") == ["Yes", "No"]
    assert written_options("Sort these: b a") == []
    assert written_options("Which?\nOptions:\n(A) the only one left") == []


def test_a_closed_set_of_answers_is_a_choice_and_an_open_one_is_not(tmp_path):
    closed = {"examples": [{"input": f"q{i}", "target": str(i % 2 == 0)} for i in range(30)]}
    assert {tuple(item["choices"]) for item in read_items(write(tmp_path / "a.json", closed))} == {("False", "True")}
    opened = {"examples": [{"input": f"q{i}", "target": str(i)} for i in range(30)]}
    assert {item["choices"] for item in read_items(write(tmp_path / "b.json", opened))} == {None}


def test_a_super_natural_instruction_has_its_definition_and_all_its_references(tmp_path):
    items = list(read_items(write(tmp_path / "task1.json", SUPER_NI)))
    assert [item["id"] for item in items] == ["t1-a", "t1-b"]
    assert items[1]["targets"] == ("positive", "Positive") and items[0]["category"] == "Sentiment Analysis"
    (first, _) = suite(tmp_path / "task1.json")
    assert first.messages[0]["content"] == "Say whether the review is positive.\n\nIt broke at once."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a JSON task file"),
        ([], "neither a BIG-Bench Hard"),
        ({"examples": []}, "no items"),
        ({"examples": [{"input": "q", "target": " "}]}, "item 0: 'target'"),
        ({"examples": [3]}, "item 0: 'input'"),
        (SUPER_NI | {"Instances": [{"input": "x", "output": []}]}, "item 0: 'output'"),
        (SUPER_NI | {"Definition": []}, "'Definition'"),
        (SUPER_NI | {"Instances": SUPER_NI["Instances"] * 2}, "item 2: id 't1-a' was used in .*item 0"),
    ],
)
def test_broken_tasks_are_named(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as caught:
        list(read_items(write(tmp_path / "task.json", content)))
    assert str(tmp_path / "task.json") in str(caught.value)


def test_ifeval_becomes_checks_without_their_nulls(tmp_path):
    (item,) = suite(lines(tmp_path / "ifeval.jsonl", IFEVAL))
    assert (item.id, item.category, item.targets, item.choices) == ("7", "punctuation", (), None)
    assert item.messages == ({"role": "user", "content": IFEVAL["prompt"]},)
    assert json.loads(item.checks) == [
        {"name": "punctuation:no_comma", "args": {}},
        {"name": "detectable_format:number_bullet_lists", "args": {"num_bullets": 3}},
    ]


def test_self_instruct_gives_an_item_for_every_instance_with_an_output(tmp_path):
    items = suite(
        lines(tmp_path / "seed.jsonl", SELF_INSTRUCT, "", SELF_INSTRUCT | {"id": "u", "motivation_app": "Gmail"})
    )
    assert [(item.id, item.category) for item in items] == [
        ("seed_1-0", "seed_1"),
        ("seed_1-2", "seed_1"),
        ("u-0", "Gmail"),
        ("u-2", "Gmail"),
    ]
    assert [item.messages[0]["content"] for item in items[:2]] == ["Give the opposite.\n\nhot", "Give the opposite."]
    assert items[0].targets == ("cold",)


@pytest.mark.parametrize(
    "record",
    [
        PREFERENCE,
        PREFERENCE | {"chosen": "Red.", "rejected": "Blue."},
        PREFERENCE | {"chosen": [*PROMPT, RED], "rejected": [*PROMPT, BLUE]},
    ],
)
def test_a_pair_is_a_choice_between_its_responses(tmp_path, record):
    (item,) = suite(lines(tmp_path / "pairs.jsonl", record))
    assert item == Item("pairs-0", "mentor", tuple(PROMPT), ("Red.",), ("Red.", "Blue."))


def test_a_pair_may_be_plain_text_without_an_origin(tmp_path):
    (item,) = suite(lines(tmp_path / "hh.jsonl", {"prompt": "A colour?", "chosen": "Red.", "rejected": "Blue."}))
    assert item.messages == ({"role": "user", "content": "A colour?"},) and item.category == "hh"


def test_pairs_are_read_from_parquet(tmp_path):
    path = tmp_path / "pairs.parquet"
    rows = [PREFERENCE | {"margin": None, "source": []}, PREFERENCE | {"margin": 0.5, "source": [], "rejected": [RED]}]
    pq.write_table(pa.Table.from_pylist(rows[:1], schema=PAIR), path)
    (item,) = suite(path)
    assert item == Item("pairs-0", "mentor", tuple(PROMPT), ("Red.",), ("Red.", "Blue."))
    pq.write_table(pa.Table.from_pylist(rows, schema=PAIR), path)
    with pytest.raises(UserError, match=r"pairs.parquet, row 1: 'chosen' and 'rejected' are the same"):
        suite(path)


def test_a_broken_parquet_file_is_named(tmp_path):
    path = tmp_path / "p.parquet"
    with pytest.raises(UserError, match=r"p\.parquet: no such file"):
        suite(path)
    path.write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match=r"p\.parquet: not a readable Parquet file"):
        suite(path)
    pq.write_table(pa.table({"prompt": ["a"], "text": ["b"]}), path)
    with pytest.raises(UserError, match=r"p\.parquet: no column 'chosen'"):
        suite(path)
    pq.write_table(pa.Table.from_pylist([], schema=PAIR), path)
    with pytest.raises(UserError, match=r"p\.parquet: no items"):
        suite(path)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([IFEVAL, "{"], "a.jsonl:2: not JSON"),
        ([IFEVAL, "", IFEVAL], "a.jsonl:3: id '7' was used in .*a.jsonl:1"),
        ([IFEVAL, {"key": 8}], "a.jsonl:2: 'prompt'"),
        ([IFEVAL | {"kwargs": [{}]}], "a.jsonl:1: 'kwargs' must be a list of objects, one for each"),
        (
            [IFEVAL | {"kwargs": [{}, {}]}],
            "a.jsonl:1: check 'detectable_format:number_bullet_lists' needs the argument",
        ),
        ([IFEVAL | {"instruction_id_list": ["punctuation:no_coma", "x"]}], "a.jsonl:1: unknown check"),
        ([IFEVAL | {"prompt": "half \ud800"}], "a.jsonl:1: holds half of a surrogate pair"),
        ([IFEVAL | {"key": None}], "a.jsonl:1: 'key'"),
        ([SELF_INSTRUCT | {"instances": [{"input": "x"}]}], "a.jsonl:1: instance 0"),
        ([SELF_INSTRUCT | {"instances": []}], "a.jsonl: no items"),
        ([PREFERENCE, 3], "a.jsonl:2: must be an object"),
        ([{"prompt": "a", "chosen": "b"}], "a.jsonl:1: 'rejected'"),
        ([PREFERENCE | {"chosen": "Blue."}], "a.jsonl:1: 'chosen' and 'rejected' are the same"),
        ([PREFERENCE | {"prompt": [RED]}], "a.jsonl:1: 'prompt' must be a text, or messages that end with"),
        ([PREFERENCE | {"chosen": [BLUE, RED]}], "a.jsonl:1: 'chosen' must be one response"),
        (
            [{"id": "1", "category": "c", "instruction": "i", "input": "", "targets": [], "checks": "[]"}],
            "one check or",
        ),
        (
            [{"id": "1", "category": "c", "instruction": "i", "input": "", "targets": ["a"], "choices": ["a"]}],
            "a.jsonl:1: 'ch",
        ),
        ([], "a.jsonl: no items"),
    ],
)
def test_broken_lines_are_named(tmp_path, records, message):
    with pytest.raises(UserError, match=message):
        suite(lines(tmp_path / "a.jsonl", *records))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
)


@st.composite
def damaged(draw: st.DrawFn, record: dict) -> object:
    """The record, with values of its own replaced by any JSON, down to two levels."""
    changed = json.loads(json.dumps(record))
    for _ in range(draw(st.integers(0, 2))):
        place = changed
        while True:
            key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            if not isinstance(place[key], (dict, list)) or not place[key] or draw(st.booleans()):
                place[key] = draw(JSON)
                break
            place = place[key]
    return changed


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([".json", ".jsonl"]),
    JSON | damaged(IFEVAL) | damaged(SELF_INSTRUCT) | damaged(PREFERENCE) | damaged(SUPER_NI),
)
def test_any_json_gives_items_or_one_clear_line(tmp_path, suffix, record):
    path = write(tmp_path / f"any{suffix}", json.dumps(record))
    try:
        items = suite(path)
    except UserError as error:
        assert str(error).startswith(str(path))
        return
    for item in items:
        assert item.messages and all(isinstance(m["content"], str) and m["content"].strip() for m in item.messages)
        assert item.targets or item.checks


def test_raw_text_is_scored_in_passages(tmp_path):
    folder = tmp_path / "prose"
    folder.mkdir()
    paragraphs = [f"Paragraph {number} has some words. " * 12 for number in range(20)]
    write(folder / "a.md", "\n\n".join(paragraphs))
    write(folder / "b.txt", "short\n")
    items = suite(folder)
    assert [(item.id, item.category) for item in items[:2]] == [("a.md-0", "a.md"), ("b.txt-0", "b.txt")]
    assert all(item.messages == () and len(item.targets) == 1 for item in items)
    assert items[1].targets == ("short",)
    long = [item.targets[0] for item in items if item.category == "a.md"]
    assert "\n\n".join(long) == "\n\n".join(paragraphs)
    assert all(PASSAGE_BYTES / 2 <= len(passage) <= PASSAGE_BYTES * 1.5 for passage in long)
    assert suite(folder / "a.md")[0] == items[0]
    write(tmp_path / "blank.txt", "\n\n")
    with pytest.raises(UserError, match=r"blank\.txt: no items"):
        suite(tmp_path / "blank.txt")
    (folder / "c.bin").write_bytes(b"x")
    with pytest.raises(UserError, match="not an instruction set"):
        suite(folder)


@given(st.text(st.sampled_from("a é海。.\n "), max_size=60), st.integers(1, 200))
def test_passages_lose_nothing_but_blank_space_and_keep_their_size(piece, times):
    text = piece * times
    cut = list(passages(text))
    assert "".join("".join(cut).split()) == "".join(text.split())
    assert all(len(passage.encode()) <= PASSAGE_BYTES * 1.5 for passage in cut)


def test_a_dataset_that_the_hub_does_not_give_is_one_line():
    with pytest.raises(UserError) as raised:
        load_suites(["nobody/no-such-dataset"], 0)
    assert str(raised.value).startswith("--suite nobody/no-such-dataset: no such path, and not readable from the Hub (")
    assert "\n" not in str(raised.value)


def test_a_dataset_of_the_hub_is_read_in_the_generic_form(monkeypatch):
    import datasets

    row = {"id": "1", "category": "c", "instruction": "Say yes.", "input": "", "targets": ["yes"], "choices": None}
    splits = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list([row]), "test": datasets.Dataset.from_list([row] * 2)}
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda name: splits)
    with pytest.raises(UserError, match="user/set, row 1: id '1' was used in user/set, row 0"):
        load_suites(["user/set"], 0)
    for broken in ({"targets": []}, {"targets": [" "]}, {"choices": ["yes"]}):
        splits["test"] = datasets.Dataset.from_list([{**row, **broken}])
        with pytest.raises(UserError, match="user/set, row 0: "):
            load_suites(["user/set"], 0)
    del splits["test"]
    (item,) = load_suites(["user/set"], 0)["set"]
    assert item == Item("1", "c", ({"role": "user", "content": "Say yes."},), ("yes",), None)


def test_examples_come_from_the_category_and_never_are_the_item_itself(tmp_path):
    for name in ("a", "b"):
        task = {"examples": [{"input": f"{name}{i}", "target": f"answer {name}{i}"} for i in range(4)]}
        write(tmp_path / f"{name}.json", task)
    (items,) = load_suites([str(tmp_path)], max_items=0, shots=2).values()
    assert [item.category for item in items] == ["a", "b"] * 4
    for item in items:
        roles = [message["role"] for message in item.messages]
        assert roles == ["user", "assistant"] * 2 + ["user"]
        questions = [message["content"] for message in item.messages if message["role"] == "user"]
        assert len(set(questions)) == 3 and all(question.startswith(item.category) for question in questions)
        assert item.messages[1]["content"] == f"answer {questions[0]}"
    with pytest.raises(UserError, match="--shots 4: category 'a' has only 4"):
        load_suites([str(tmp_path)], max_items=0, shots=4)


@pytest.mark.skipif(not BBH.is_dir(), reason="BIG-Bench Hard is not on this machine")
def test_all_of_big_bench_hard_is_read():
    (items,) = load_suites([str(BBH)], max_items=0).values()
    assert len(items) == 6511 and len({item.category for item in items}) == 27
    choice = {item.category for item in items if item.choices}
    assert len(choice) >= 20 and "word_sorting" not in choice
    (sample,) = load_suites([str(BBH)], max_items=54).values()
    assert len({item.category for item in sample}) == 27
