"""Exported tasks: they hold what was exported, and lm-evaluation-harness, where it is installed, asks what we ask."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from conftest import assert_one_line_error, cli
from hypothesis import given, settings
from hypothesis import strategies as st

from instructrec.core.errors import UserError
from instructrec.evaluation.export import SAMPLER_MODULE, export
from instructrec.evaluation.suites import Item, load_suites

COLOURS = ("red", "deep blue", "绿色")
CHOICE_LINES = [
    {
        "id": f"c{number}",
        "category": "colour",
        "instruction": "Which colour is meant?",
        "input": f"{thing} {{{{ not a template }}}}",
        "targets": [colour],
        "choices": list(COLOURS),
    }
    for number, (thing, colour) in enumerate(
        [("blood", "red"), ("the night sea", "deep blue"), ("草地", "绿色"), ("a ripe tomato", "red"), ("123", "red")]
    )
]
OPEN_LINES = [
    {"id": f"o{number}", "category": "sum", "instruction": f"What is {number} + 1?", "input": "", "targets": targets}
    for number, targets in enumerate([["1"], ["2"], ["3"]])
]

CHECKS = json.dumps([{"name": "keywords:existence", "args": {"keywords": ["yes"]}}])


class Loader(yaml.SafeLoader):
    """Reads `!function` as a plain string."""


Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


def read_task(folder: Path, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    task = yaml.load((folder / f"{name}.yaml").read_text(encoding="utf-8"), Loader)
    data = Path(task["dataset_kwargs"]["data_files"]["test"])
    assert data.is_absolute()
    return task, pq.read_table(data).to_pylist()


def messages_of(task: dict[str, Any], row: dict[str, Any]) -> list[dict[str, str]]:
    """What the harness says to a model, read off the task as its documentation describes it."""
    said = [{"role": "system", "content": row["system"]}] if "description" in task and row["system"] else []
    for turn in row["turns"] if "num_fewshot" in task else []:
        said.append({"role": "user", "content": turn[task["doc_to_text"]]})
        said.append({"role": "assistant", "content": turn[task["fewshot_config"]["doc_to_target"]]})
    return [*said, {"role": "user", "content": row[task["doc_to_text"]]}]


def write_suite(path: Path, lines: list[dict]) -> Path:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@settings(max_examples=50, deadline=None)
@given(
    system=st.none() | texts,
    turns=st.lists(st.tuples(texts, texts), max_size=3),
    prompt=texts,
    choices=st.none() | st.lists(texts, min_size=2, max_size=5, unique=True),
    answers=st.lists(texts, min_size=1, max_size=3),
)
def test_a_task_says_what_the_item_says(tmp_path_factory, system, turns, prompt, choices, answers) -> None:
    messages = [{"role": "system", "content": system}] if system else []
    for asked, answered in turns:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    messages.append({"role": "user", "content": prompt})
    targets = tuple(choices[:1] if choices else answers)
    item = Item("1", "c", tuple(messages), targets, tuple(choices) if choices else None)
    folder = tmp_path_factory.getbasetemp() / "round-trip"
    (exported,) = export({"s": [item]}, folder)
    task, (row,) = read_task(folder, exported.task)
    assert messages_of(task, row) == messages
    if choices:
        assert task["output_type"] == "multiple_choice"
        assert row[task["doc_to_choice"]] == choices
        assert row[task["doc_to_target"]] == [0]
    else:
        assert task["output_type"] == "generate_until"
        assert row[task["doc_to_target"]] == (answers if len(answers) > 1 else answers[0])


def test_two_kinds_are_two_tasks_and_a_group(tmp_path: Path) -> None:
    checked = {"id": "k", "category": "sum", "instruction": "Say it in one word.", "input": "", "targets": []}
    lines = [*CHOICE_LINES, *OPEN_LINES, checked | {"checks": CHECKS}]
    suites = load_suites([str(write_suite(tmp_path / "my suite.jsonl", lines))], 0)
    (exported,) = export(suites, tmp_path / "tasks")
    assert exported.task == "instructrec_my_suite"
    assert (exported.items, exported.left_out) == ({"choice": 5, "open": 3}, 1)
    group = yaml.safe_load((tmp_path / "tasks" / "instructrec_my_suite.yaml").read_text())
    assert group["task"] == ["instructrec_my_suite_choice", "instructrec_my_suite_open"]
    for name, count in zip(group["task"], (5, 3), strict=True):
        task, rows = read_task(tmp_path / "tasks", name)
        assert task["task"] == name and len(rows) == count
    assert not (tmp_path / "tasks" / f"{SAMPLER_MODULE}.py").exists(), "nothing has earlier turns"


@pytest.mark.parametrize(
    ("targets", "metrics"),
    [
        ([["one"], ["two"]], ["exact_match", "bleu", "chrf"]),
        ([["one"], ["两只猫"]], ["exact_match", "chrf"]),
        ([["one"], ["two", "2"]], ["exact_match"]),
    ],
)
def test_only_metrics_that_the_harness_can_compute(tmp_path: Path, targets: list, metrics: list[str]) -> None:
    items = [Item(str(i), "c", ({"role": "user", "content": "?"},), tuple(t), None) for i, t in enumerate(targets)]
    (exported,) = export({"s": items}, tmp_path)
    task, _ = read_task(tmp_path, exported.task)
    assert [metric["metric"] for metric in task["metric_list"]] == metrics


def test_what_cannot_be_exported_is_named(tmp_path: Path) -> None:
    user = {"role": "user", "content": "?"}
    for messages in ((user, user), (user, {"role": "assistant", "content": "!"}), (user, user | {"role": "system"})):
        with pytest.raises(UserError, match=r"item 7: .* one after the other"):
            export({"s": [Item("7", "c", messages, ("x",), None)]}, tmp_path)
    with pytest.raises(UserError, match="only checks can judge"):
        export({"s": [Item("7", "c", (user,), (), None, checks="[]")]}, tmp_path)
    item = Item("7", "c", (user,), ("x",), None)
    with pytest.raises(UserError, match="rename one"):
        export({"a b": [item], "a_b": [item]}, tmp_path)


def test_the_command(tmp_path: Path) -> None:
    write_suite(tmp_path / "colours.jsonl", CHOICE_LINES)
    done = cli("export", "colours.jsonl", "--output", "tasks", "--shots", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "instructrec_colours: 5 choice" in done.stdout
    assert "--include_path tasks --tasks instructrec_colours" in done.stdout
    task, rows = read_task(tmp_path / "tasks", "instructrec_colours")
    expected = load_suites([str(tmp_path / "colours.jsonl")], 0, 2)["colours"]
    assert [messages_of(task, row) for row in rows] == [list(item.messages) for item in expected]
    assert_one_line_error(cli("export", "absent.jsonl", "--output", "tasks", cwd=tmp_path), "absent.jsonl")
    assert_one_line_error(
        cli("export", "colours.jsonl", "--output", "tasks", "--shots", "9", cwd=tmp_path), "has only 5 items"
    )


needs_harness = pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm-evaluation-harness is not installed")


@needs_harness
@pytest.mark.parametrize("shots", [0, 2])
def test_the_harness_scores_as_we_do(tmp_path: Path, tiny_model: Path, shots: int) -> None:
    import torch
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from instructrec.evaluation.scoring import Scorer
    from instructrec.models import load_model, load_tokenizer

    items = load_suites([str(write_suite(tmp_path / "colours.jsonl", CHOICE_LINES))], 0, shots)["colours"]
    (exported,) = export({"colours": items}, tmp_path / "tasks")
    tokenizer = load_tokenizer(tiny_model)
    model = load_model(tiny_model, "float32").eval()
    ours = Scorer(model, tokenizer, 4).score(items, [0] * len(items))
    tasks = TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False).load([exported.task])
    harness = HFLM(pretrained=model, tokenizer=tokenizer, add_bos_token=False)
    evaluate(harness, tasks, bootstrap_iters=0, apply_chat_template=True, fewshot_as_multiturn=True)
    for instance in tasks["tasks"][exported.task].instances:
        answered = ours[instance.doc_id]
        prompt, option = instance.args
        assert prompt == answered.prompt
        assert option == items[instance.doc_id].choices[instance.idx]
        # The harness counts the white space at the prompt's end as part of every option.
        given, asked = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt.rstrip(), prompt))
        assert asked[: len(given)] == given != asked
        with torch.no_grad():
            logits = model(torch.tensor([asked], device=model.device)).logits[0].log_softmax(-1)
        shared = sum(float(logits[i - 1, asked[i]]) for i in range(len(given), len(asked)))
        assert instance.resps[0][0] - shared == pytest.approx(answered.choice_logprobs[instance.idx], abs=1e-3)


@needs_harness
def test_the_harness_runs_every_kind(tmp_path: Path, tiny_model: Path) -> None:
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from instructrec.evaluation.scoring import Scorer
    from instructrec.models import load_model, load_tokenizer

    def item(name: str, messages: list[tuple[str, str]], *targets: str) -> Item:
        return Item(name, "c", tuple({"role": r, "content": c} for r, c in messages), targets, None)

    turns = [("system", "Be brief."), ("user", "One?"), ("assistant", "1"), ("user", "Two?")]
    raw = item("raw", [], "The northern pier is closed. 北码头关闭了。")
    (choice,) = load_suites([str(write_suite(tmp_path / "colours.jsonl", CHOICE_LINES))], 1).values()
    suites = {"mixed": [*choice, item("1", turns, "2"), raw], "many": [item("1", turns[-1:], "2", "two")]}
    exported = export(suites, tmp_path / "tasks")
    model, tokenizer = load_model(tiny_model, "float32").eval(), load_tokenizer(tiny_model)
    tasks = TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False).load([e.task for e in exported])
    harness = HFLM(pretrained=model, tokenizer=tokenizer, add_bos_token=False)
    results = evaluate(harness, tasks, bootstrap_iters=0, apply_chat_template=True, fewshot_as_multiturn=True)
    json.dumps(results["configs"], default=str)
    found = {name: set(values) for name, values in results["results"].items()}
    assert found["instructrec_mixed_choice"] >= {"acc,none"}
    assert found["instructrec_mixed_open"] >= {"exact_match,none", "bleu,none", "chrf,none"}
    assert found["instructrec_many"] >= {"exact_match,none"}
    scorer = Scorer(model, tokenizer, 4)
    (asked,) = tasks["tasks"]["instructrec_mixed_open"].instances
    assert asked.args[0] == scorer.render(suites["mixed"][1])
    (answered,) = scorer.score([raw], [0])
    bits = -answered.gold_logprob / math.log(2) / len(raw.targets[0].encode())
    assert results["results"]["instructrec_mixed_text"]["bits_per_byte,none"] == pytest.approx(bits, rel=1e-4)


def test_answers_that_look_like_dates_stay_texts(tmp_path: Path) -> None:
    """JSONL would not do: `datasets`, which the harness reads tasks with, makes times of them."""
    import datasets

    question = ({"role": "user", "content": "2020-01-01"},)
    (exported,) = export({"s": [Item("1", "c", question, ("2020-01-02",), ("2020-01-02", "2020-01-03"))]}, tmp_path)
    task, rows = read_task(tmp_path, exported.task)
    loaded = datasets.load_dataset(
        task["dataset_path"], **task["dataset_kwargs"], cache_dir=str(tmp_path / "cache"), split=task["test_split"]
    )
    assert list(loaded) == rows
    assert rows[0]["prompt"] == "2020-01-01" and rows[0]["choices"] == ["2020-01-02", "2020-01-03"]
