"""Published evaluation sets become suites, with their options, and broken files are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import ROOT

from instructrec.core.errors import UserError
from instructrec.evaluation.formats import read_task, written_options
from instructrec.evaluation.suites import load_suites

BBH = ROOT.parent / "shared" / "evals" / "bbh" / "bbh"
SUPER_NI = {
    "Definition": ["Say whether the review is positive."],
    "Categories": ["Sentiment Analysis"],
    "Instances": [
        {"id": "t1-a", "input": "It broke at once.", "output": ["negative"]},
        {"id": "t1-b", "input": "I would buy it again.", "output": ["positive", "Positive"]},
    ],
}


def write(path: Path, value: object) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def test_options_are_read_from_the_question():
    assert written_options("Which?\nOptions:\n(A) one\n(B) two") == ["(A)", "(B)"]
    assert written_options("Is it?\nOptions:\n- Yes\n- No") == ["Yes", "No"]
    assert written_options("Sort these: b a") == []


def test_a_closed_set_of_answers_is_a_choice_and_an_open_one_is_not(tmp_path):
    closed = {"examples": [{"input": f"q{i}", "target": str(i % 2 == 0)} for i in range(30)]}
    assert {tuple(item["choices"]) for item in read_task(write(tmp_path / "a.json", closed))} == {("False", "True")}
    opened = {"examples": [{"input": f"q{i}", "target": str(i)} for i in range(30)]}
    assert {item["choices"] for item in read_task(write(tmp_path / "b.json", opened))} == {None}


def test_a_super_natural_instruction_has_its_definition_and_all_its_references(tmp_path):
    items = list(read_task(write(tmp_path / "task1.json", SUPER_NI)))
    assert [item["id"] for item in items] == ["t1-a", "t1-b"]
    assert items[1]["targets"] == ["positive", "Positive"] and items[0]["category"] == "Sentiment Analysis"
    suite = load_suites([str(tmp_path / "task1.json")], 0)["task1"]
    assert suite[0].messages[0]["content"] == "Say whether the review is positive.\n\nIt broke at once."


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
    ],
)
def test_broken_tasks_are_named(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as caught:
        list(read_task(write(tmp_path / "task.json", content)))
    assert str(tmp_path / "task.json") in str(caught.value)


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
