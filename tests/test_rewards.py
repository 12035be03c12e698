"""Rewards: what each gives, that they add up, that YAMLs are strict, and that a reward which fails is named."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, assert_one_line_error, cli
from hypothesis import given
from hypothesis import strategies as st

from instructrec.core.errors import UserError
from instructrec.evaluation.metrics import last_number
from instructrec.rewards.builtin import BUILT_IN
from instructrec.rewards.combined import Rewards
from instructrec.rewards.component import text_of
from instructrec.rewards.load import load_rewards
from instructrec.rewards.score import score_file
from instructrec.rewards.time_limit import Overrun, within

GERMAN = "Die Fähre verlässt den alten Hafen um zwölf Uhr und erreicht die Insel, bevor die Läden schließen."
CHINESE = "渡轮中午离开老港口，傍晚之前就能到达小岛。"
NORWEGIAN = "Fergen forlater den gamle havnen klokken tolv og når øya før butikkene stenger. Jeg vet ikke hvorfor."
NESTED = {"type": "array", "items": {"$ref": "#"}}
NO_COMMA = {"name": "punctuation:no_comma", "args": {}}
LOWERCASE = {"name": "change_case:english_lowercase", "args": {}}


def rewards_of(folder: Path, *entries: dict, seconds: float = 60) -> Rewards:
    path = folder / "rewards.yaml"
    path.write_text(yaml.safe_dump(list(entries)), encoding="utf-8")
    return load_rewards(path, seconds)


def one(folder: Path, name: str, completion: str, args: dict | None = None, **columns: object) -> float | None:
    """What one reward gives one completion, as a text and as a message."""
    rewards = rewards_of(folder, {"name": name, "args": args or {}})
    lists = {key: [value] for key, value in columns.items()}
    message = [{"role": "assistant", "content": completion}]
    plain, chat = rewards(["p"], [completion], **lists), rewards(["p"], [message], **lists)
    assert plain == chat
    return chat[0]


@pytest.mark.parametrize(
    ("name", "args", "columns", "completion", "expected"),
    [
        ("exact_match", {}, {"targets": ["no", "Storms"]}, " storms. ", 1),
        ("exact_match", {}, {"targets": ["Storms"]}, "storm", 0),
        ("exact_match", {}, {"targets": None}, "storm", None),
        ("exact_match", {}, {}, "storm", None),
        ("fuzzy", {}, {"targets": ["sitting", "x"]}, "kitten", 1 - 3 / 7),
        ("fuzzy", {}, {"targets": ["港口"]}, "港湾", 0.5),
        ("numeric", {}, {"targets": ["#### 1,234.50"]}, "At first 7, then 1234.5 euros.", 1),
        ("numeric", {}, {"targets": ["0.75", "none"]}, "It is 3/4.", 1),
        ("numeric", {}, {"targets": ["3/4"]}, "1/4", 0),
        ("numeric", {}, {"targets": ["一共42个。"]}, "答案是42", 1),
        ("numeric", {}, {"targets": ["5"]}, "five", 0),
        ("numeric", {}, {"targets": ["five"]}, "5", None),
        ("numeric", {"tolerance": 0.1}, {"targets": ["100"]}, "109", 1),
        ("numeric", {"tolerance": 0.1}, {"targets": ["100"]}, "111", 0),
        ("json", {}, {}, '```json\n{"a": [1]}\n```', 1),
        ("json", {}, {}, "{'a': 1}", 0),
        ("json", {}, {}, "[" * 100_000, 0),
        ("json", {}, {}, "[NaN, 1]", 0),
        ("json", {"schema": {"type": "number"}}, {}, "-Infinity", 0),
        ("json", {"schema": NESTED}, {}, "[" * 4 + "]" * 4, 1),
        ("json", {"schema": NESTED}, {}, "[" * 400 + "]" * 400, 0),
        ("json", {"schema": {"type": "object", "required": ["a"]}}, {}, '{"a": 1}', 1),
        ("json", {"schema": {"type": "object", "required": ["a"]}}, {}, '{"b": 1}', 0),
        ("constraints", {}, {"checks": json.dumps([NO_COMMA, LOWERCASE])}, "No comma here at all.", 0.5),
        ("constraints", {}, {"checks": json.dumps([NO_COMMA])}, "", 0),
        ("constraints", {}, {"checks": None}, "No comma.", None),
        ("length", {"at_most": 4}, {}, "one two three four", 1),
        ("length", {"at_most": 4}, {}, "one two three four five", 0.75),
        ("length", {"at_most": 4}, {}, "one " * 8, 0),
        ("length", {"at_most": 4, "at_least": 4}, {}, "one", 0.25),
        ("length", {"at_most": 4}, {}, "中午离开", 1),
        ("language", {}, {"language": "de"}, GERMAN, 1),
        ("language", {}, {"language": "en"}, GERMAN, 0),
        ("language", {"code": "zh"}, {"language": "en"}, CHINESE, 1),
        ("language", {}, {"language": None}, GERMAN, None),
        ("language", {}, {"language": "en"}, "12 + 3", None),
        ("language", {}, {"language": "DE-at"}, GERMAN, 1),
        ("language", {"code": "ZH"}, {}, CHINESE, 1),
        ("language", {}, {"language": "nb"}, NORWEGIAN, 1),
        ("language", {}, {"language": "deu"}, GERMAN, None),
        ("language", {}, {"language": "un"}, GERMAN, None),
    ],
)
def test_a_reward_gives(tmp_path, name, args, columns, completion, expected):
    assert one(tmp_path, name, completion, args, **columns) == (None if expected is None else pytest.approx(expected))


@given(st.floats(-1e12, 1e12).map(lambda x: round(x, 4)))
def test_numbers_are_read_as_they_are_written(number):
    assert last_number(f"First 1, then {number:,}.") == last_number(f"答案是{number:.4f}。") == pytest.approx(number)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1.234,5", 1234.5),
        ("3,5", 3.5),
        ("2020-2024", 2024),
        ("5 kg of CO2", 5),
        ("是-5", -5),
        ("1e3", 1000),
        ("x=.5", 0.5),
        ("１２３", 123),
        ("1/0", None),
        ("1e999", None),
        ("", None),
    ],
)
def test_forms_of_numbers(text, number):
    assert last_number(text) == number


def test_mentor_scores_are_looked_up(tmp_path):
    path = tmp_path / "scored.jsonl"
    ask, say = [{"role": "user", "content": "Ask?"}], [{"role": "assistant", "content": "Say."}]
    records = [
        {"prompt": ask, "completion": say, "rewards": {"anna": 0.8, "bert": None}, "policy": "sft"},
        {"prompt": ask, "completion": say, "rewards": {"bert": 0.4}, "policy": "sft"},
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    mean = rewards_of(tmp_path, {"name": "mentor", "args": {"path": str(path)}})
    assert mean([ask, "Ask?", ask], [say, "Say.", "Else."]) == pytest.approx([0.6, 0.6, None])
    anna = rewards_of(tmp_path, {"name": "mentor", "args": {"path": str(path), "mentor": "anna"}})
    assert anna([ask], [say]) == [0.8]
    with pytest.raises(UserError, match="no value of 'carl'; it has anna, bert"):
        rewards_of(tmp_path, {"name": "mentor", "args": {"path": str(path), "mentor": "carl"}})
    for wrong, part in ((3, "key 'rewards'"), ({"anna": float("nan")}, "anna")):
        path.write_text(json.dumps(records[0] | {"rewards": wrong}))
        with pytest.raises(UserError, match=f"scored.jsonl:1: .*{part}"):
            rewards_of(tmp_path, {"name": "mentor", "args": {"path": str(path)}})


def test_the_whole_is_the_weighted_mean_of_what_applies(tmp_path):
    rewards = rewards_of(
        tmp_path,
        {"name": "fuzzy", "weight": 3},
        {"name": "json", "weight": "1e0"},
        {"name": "length", "args": {"at_most": 1}, "weight": 2},
        {"name": "length", "args": {"at_most": 2}, "weight": 2},
    )
    logged: list[tuple[str, float]] = []
    columns = {"targets": [["a b"], None], "log_metric": lambda *pair: logged.append(pair), "trainer_state": object()}
    found = rewards(["p", "p"], ["a b", "a b"], **columns)
    assert found == pytest.approx([(3 * 1 + 0 + 0 + 2 * 1) / 8, (0 + 0 + 2 * 1) / 5])
    assert rewards.weights == [3 / 8, 1 / 8, 2 / 8, 2 / 8]
    assert [component.__name__ for component in rewards.components] == ["fuzzy", "json", "length", "length_2"]
    assert [value for name, value in logged if name == "rewards/fuzzy"] == [1]
    assert len([value for name, value in logged if name == "rewards/length_2"]) == 2
    assert rewards_of(tmp_path, {"name": "fuzzy"})(["p"], ["a"]) == [None]
    assert rewards([], []) == []


OWN = """
import math, re, time; from typing import Literal

def shout(prompts, completions, bonus, *, factor: float = 1.0, word: str, **columns):
    return [factor * (word.upper() in c[-1]["content"]) + b for c, b in zip(completions, bonus)]

def bare(completions):
    return (0.5 for _ in completions)

class Counter:
    def __init__(self, start: int):
        self.start = start
    def __call__(self, prompts, completions, **columns):
        return [self.start + len(columns)] * len(completions)

def raises(completions, **columns):
    return [1 / len(c) for c in completions]

def leaves(completions, **columns):
    raise SystemExit(0)

def nan(completions, **columns):
    return [math.nan if c == "bad" else 1 for c in completions]

def text(completions, **columns):
    return ["1"] * len(completions)

def few(completions, **columns):
    return [1]

def together(completions, **columns):
    assert len(completions) == 1
    return [1]

def hangs(completions, **columns):
    return [time.sleep(99) if c == "bad" else 1 for c in completions]

def loops(completions, **columns):
    while "bad" in completions:
        try:
            time.sleep(0.01)
        except Exception:
            pass
    return [1] * len(completions)

def backtracks(completions, **columns):
    return [bool(re.match("(a|a)*$", "a" * 99 + "b")) if c == "bad" else 1 for c in completions]

def slow(completions, **columns):
    time.sleep(0.3 * len(completions))
    return [1] * len(completions)

def loose(completions, *, seed: str, weight: float | None, steps: list[float], top: float | Literal["all"]):
    assert (seed, top) == ("5e-1", "all")
    return [weight + sum(steps)] * len(completions)

class Named:
    def __call__(self, prompts, completions, *, language, targets=None):
        return [float(code == "en") for code in language]

class Broken:
    def __init__(self, start: int):
        raise SystemExit(f"cannot start\\nat {start}")

class Uncalled:
    pass

async def later(completions, **columns):
    return [1]
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def test_a_function_of_ones_own(tmp_path, own, monkeypatch):
    shout = {"name": f"{own}:shout", "args": {"factor": "5e-1", "word": "hey"}}
    rewards = rewards_of(tmp_path, shout)
    said = [[{"role": "assistant", "content": text}] for text in ("HEY you", "you")]
    # A column of an argument's name does not take its place.
    assert rewards(["p", "p"], said, bonus=[0, 1], word=["x", "y"]) == [0.5, 1]
    assert rewards.components[0].name == "shout"
    with pytest.raises(UserError, match="'shout': needs the column 'bonus'"):
        rewards(["p", "p"], said)
    assert rewards_of(tmp_path, {"name": f"{own}:bare"})(["p"], ["c"], id=["1"]) == [0.5]
    assert rewards_of(tmp_path, {"name": f"{own}:Counter", "args": {"start": 3}})(["p"], ["c"], id=["1"]) == [4]
    monkeypatch.syspath_prepend(tmp_path)
    assert rewards_of(tmp_path, {"name": "own.bare"})(["p"], ["c"]) == [0.5]


def test_arguments_of_ones_own_mean_what_their_function_says(tmp_path, own):
    """Whatever keys of a training config have their names; and 5e-1, which YAML reads as text, is a number."""
    args = {"seed": "5e-1", "weight": "-5e-1", "steps": ["1e1", 2], "top": "all"}
    assert rewards_of(tmp_path, {"name": f"{own}:loose", "args": args})(["p"], ["c"]) == [-0.5 + 12]


def test_a_class_gets_the_columns_that_it_names_after_a_star(tmp_path, own):
    rewards = rewards_of(tmp_path, {"name": f"{own}:Named"})
    assert rewards(["p", "p"], ["c", "c"], language=["en", "de"], id=["1", "2"]) == [1, 0]
    with pytest.raises(UserError, match="'Named': needs the column 'language'"):
        rewards(["p"], ["c"])


def test_a_message_without_text_is_empty():
    assert text_of([{"role": "assistant", "tool_calls": [{"type": "function"}]}]) == text_of([]) == ""


def test_trls_own_rewards_work(tmp_path):
    rewards = rewards_of(tmp_path, {"name": "trl.rewards.think_format_reward"})
    thought = "<think>\nSo.\n</think>\nYes."
    completions = [[{"role": "assistant", "content": text}] for text in (thought, "Yes.")]
    assert rewards(["p", "p"], completions, id=["1", "2"]) == [1, 0]


@pytest.mark.parametrize("name", ["hangs", "loops", "backtracks"])
@pytest.mark.parametrize("completions", [["good", "bad", "good"], ["bad"]])
def test_what_hangs_is_stopped_and_named(tmp_path, own, name, completions):
    rewards = rewards_of(tmp_path, {"name": f"{own}:{name}"}, seconds=0.2)
    place = f"row i{completions.index('bad')}, completion 'bad'"
    with pytest.raises(UserError, match=f"reward '{name}': {place}: gave nothing within 0.2 s"):
        rewards(["p"] * len(completions), completions, id=[f"i{place}" for place in range(len(completions))])


def test_a_batch_that_is_slow_blames_no_row(tmp_path, own):
    rewards = rewards_of(tmp_path, {"name": f"{own}:slow"}, seconds=0.5)
    with pytest.raises(UserError) as failure:
        rewards(["p"] * 2, ["good", "fine"])
    assert "a batch of 2 of which none fails alone, from row 0" in str(failure.value)
    assert "gave nothing within 0.5 s; give a batch more with --seconds" in str(failure.value)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("raises", ["row i1, completion ''", "ZeroDivisionError: division by zero", "own.py:17)"]),
        ("nan", ["row i2, completion 'bad'", "gave nan"]),
        ("leaves", ["row i0, completion 'good'", "SystemExit: 0"]),
        ("text", ["row i0, completion 'good'", "gave '1'"]),
        ("few", ["gave 1 values for 3 completions"]),
        ("together", ["a batch of 3 of which none fails alone, from row i0", "AssertionError"]),
    ],
)
def test_what_fails_is_named(tmp_path, own, name, parts):
    rewards = rewards_of(tmp_path, {"name": f"{own}:{name}"})
    with pytest.raises(UserError) as failure:
        rewards(["p"] * 3, ["good", "", "bad"], id=["i0", "i1", "i2"])
    assert "\n" not in str(failure.value)
    for part in (f"reward '{name}': ", *parts):
        assert part in str(failure.value)


def test_wrong_checks_name_their_row(tmp_path):
    rewards = rewards_of(tmp_path, {"name": "constraints"})
    with pytest.raises(UserError, match=r"row b, completion 'x': .*unknown check 'punctuation:no_coma'"):
        rewards(
            ["p"] * 2,
            ["x"] * 2,
            id=["a", "b"],
            checks=[None, json.dumps([{"name": "punctuation:no_coma", "args": {}}])],
        )


def test_a_time_limit_leaves_alarms_of_others(tmp_path):
    rang = []
    before = signal.signal(signal.SIGALRM, lambda *_: rang.append(time.monotonic()))
    outer = signal.setitimer(signal.ITIMER_REAL, 30)
    try:
        assert within(5, lambda: 3) == 3
        with pytest.raises(Overrun):
            within(0.05, lambda: time.sleep(9))
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] < 30 and not rang
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *outer)


def test_a_time_limit_outside_the_main_thread():
    found: list[object] = []

    def own_error() -> None:
        raise TimeoutError("its own")

    def run() -> None:
        found.append(within(5, lambda: 3))
        for seconds, call in ((0.05, lambda: time.sleep(9)), (5, own_error)):
            try:
                within(seconds, call)
            except BaseException as error:
                found.append(type(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [3, Overrun, TimeoutError]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("name: fuzzy", ["must be a list"]),
        ("[]", ["must be a list"]),
        ("- fuzzy", ["reward 1", "mapping"]),
        ("- {name: fuzzy, wieght: 1}", ["reward 1", "'wieght'", "'weight'"]),
        ("- {weight: 1}", ["reward 1", "name", "exact_match"]),
        ("- {name: fuzy}", ["'fuzy'", "'fuzzy'"]),
        ("- name: fuzzy\n  name: bleu", ["r.yaml:2", "'name' is given twice"]),
        *(
            (f"- {{name: bleu, weight: {weight}}}", ["bleu", "weight"])
            for weight in ("0", "-1", ".nan", ".inf", "yes", "x")
        ),
        ("- {name: bleu, args: [1]}", ["bleu", "'args'"]),
        ("- {name: bleu, args: {order: 4}}", ["bleu", "'order'", "none"]),
        ("- {name: length}", ["'at_most'"]),
        ("- {name: length, args: {at_mots: 3}}", ["'at_mots'", "'at_most'"]),
        ("- {name: length, args: {at_most: many}}", ["'at_most'", "int", "'many'"]),
        ("- {name: length, args: {at_most: 3, at_least: 4}}", ["length", "at_least"]),
        ("- {name: numeric, args: {tolerance: -1}}", ["'tolerance'", "0 or more"]),
        ("- {name: numeric, args: {tolerance: .nan}}", ["'tolerance'", "0 or more"]),
        ("- {name: language, args: {code: english}}", ["'english'"]),
        ("- {name: json, args: {schema: {type: objekt}}}", ["json", "schema", "objekt"]),
        ("- {name: json, args: {schema: nowhere.json}}", ["nowhere.json", "No such file"]),
        ("- {name: mentor, args: {path: nowhere.jsonl}}", ["mentor", "nowhere.jsonl"]),
        ("- {name: no_module_here.f}", ["no_module_here"]),
        ("- {name: trl.rewards.think_format}", ["'think_format'", "'think_format_reward'"]),
        ("- {name: 'nowhere.py:f'}", ["nowhere.py"]),
        ("- {name: 'own.py:shuot'}", ["'shuot'", "'shout'"]),
        ("- {name: 'own.py:shout'}", ["shout", "'word'"]),
        ("- {name: 'own.py:shout', args: {word: 3}}", ["'word'", "str", "3"]),
        ("- {name: 'own.py:later'}", ["coroutine"]),
        ("- {name: 'own.py:Broken', args: {start: 3}}", ["cannot be made", r"SystemExit: cannot start\nat 3"]),
        ("- {name: 'own.py:Uncalled'}", ["__call__"]),
        ("- {name: builtins.max}", ["does not tell its parameters"]),
    ],
)
def test_a_wrong_yaml_is_one_line(tmp_path, own, monkeypatch, text, parts):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as failure:
        load_rewards(path)
    assert "\n" not in str(failure.value)
    for part in ("r.yaml", *parts):
        assert part in str(failure.value)


def test_a_module_that_cannot_be_imported(tmp_path):
    (tmp_path / "broken.py").write_text("import instructrec\n1 / 0\n")
    with pytest.raises(UserError, match=r"broken.py:f'.*ZeroDivisionError"):
        rewards_of(tmp_path, {"name": f"{tmp_path / 'broken.py'}:f"})


def test_score_prints_every_row_and_the_means(tmp_path):
    rows = [
        {"id": "a", "prompt": "Which?", "completion": "storms", "targets": ["Storms"], "extra": 1},
        {
            "prompt": [{"role": "user", "content": "Which?"}],
            "completion": [{"role": "assistant", "content": "a storm, two"}],
            "targets": ["storms"],
            "checks": json.dumps([NO_COMMA]),
        },
    ]
    (tmp_path / "f.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "r.yaml").write_text("- {name: exact_match, weight: 3}\n- {name: constraints}\n- {name: language}\n")
    done = cli("rewards", "score", "f.jsonl", "--rewards", "r.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    nothing = {"constraints": None, "language": None}
    assert first == {"id": "a", "reward": 1, "rewards": {"exact_match": 1} | nothing}
    assert second == {"id": "f.jsonl:2", "reward": 0, "rewards": {"exact_match": 0, "constraints": 0, "language": None}}
    assert "exact_match: 0.5000 (2 of 2 rows)" in done.stderr and "language: applies to no row" in done.stderr
    assert "R: 0.5000 (2 of 2 rows)" in done.stderr


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("{", ["f.jsonl:2", "JSON"]),
        ("3", ["f.jsonl:2", "object"]),
        ('{"prompt": "p"}', ["f.jsonl:2", "'completion'"]),
        ('{"prompt": "p", "completion": []}', ["f.jsonl:2", "'completion'"]),
        ('{"prompt": "p", "completion": [{"role": "assistant"}]}', ["f.jsonl:2", "content"]),
        ('{"prompt": "p", "completion": "c", "targets": "c"}', ["f.jsonl:2", "'targets'"]),
        ('{"prompt": "p", "completion": "c", "checks": "[]"}', ["f.jsonl:2", "'checks'"]),
        ('{"prompt": "p", "completion": "c", "prompts": "c"}', ["f.jsonl:2", "'prompts'", "rename"]),
        ('{"prompt": "p", "completion": "c", "self": "c"}', ["f.jsonl:2", "'self'", "rename"]),
    ],
)
def test_a_wrong_row_is_one_line(tmp_path, line, parts):
    (tmp_path / "f.jsonl").write_text('{"prompt": "p", "completion": "c"}\n' + line)
    with pytest.raises(UserError) as failure:
        list(score_file(tmp_path / "f.jsonl", rewards_of(tmp_path, {"name": "exact_match"})))
    for part in parts:
        assert part in str(failure.value)


def test_a_reward_that_hangs_ends_the_command(tmp_path, own):
    (tmp_path / "f.jsonl").write_text('{"id": "q7", "prompt": "p", "completion": "never"}\n')
    (tmp_path / "own.py").write_text("def hangs(completions, **columns):\n    while True:\n        pass\n")
    (tmp_path / "r.yaml").write_text("- {name: 'own.py:hangs'}")
    done = cli("rewards", "score", "f.jsonl", "--rewards", "r.yaml", "--seconds", "0.2", cwd=tmp_path)
    assert_one_line_error(done, "reward 'hangs'", "row q7", "'never'", "0.2 s")


def test_the_docs_examples_work(tmp_path, monkeypatch):
    blocks = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs" / "rewards.md").read_text(), re.S)
    code = dict(reversed(blocks))
    monkeypatch.chdir(tmp_path)
    Path("my_rewards").mkdir()
    Path("my_rewards/style.py").write_text(code["python"])
    Path("rewards.yaml").write_text(code["yaml"])
    rewards = load_rewards(Path("rewards.yaml"))
    said = [
        [{"role": "assistant", "content": text}] for text in ("Sit down, would you please?", "Setz dich bitte hin.")
    ]
    found = rewards.each(["p", "p"], said, language=["en", "de"], targets=[["Please sit down."], ["Bitte setz dich."]])
    assert found["polite"] == [1, None] and found["length"] == [1, 0.8] and all(found["chrf"])
    with pytest.raises(UserError) as failure:
        rewards(["p"], ["Yes."], language=["en"], id=["q17"])
    assert f"error: {failure.value}".replace(str(tmp_path), "/home/me") in (ROOT / "docs" / "rewards.md").read_text()


def test_the_built_in_names():
    names = "exact_match fuzzy bleu chrf rouge meteor numeric json constraints length language reward_model mentor"
    assert list(BUILT_IN) == names.split()
    documented = (ROOT / "docs" / "rewards.md").read_text()
    assert all(f"`{name}`" in documented for name in BUILT_IN)


def test_loading_rewards_loads_no_model_library(tmp_path):
    (tmp_path / "r.yaml").write_text("- {name: reward_model, args: {path: nowhere}}")
    code = (
        "import sys; from pathlib import Path; from instructrec.rewards.load import load_rewards;"
        "load_rewards(Path('r.yaml')); print({'torch', 'transformers', 'trl'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == "set()", done.stderr
