"""Decontamination: what must be caught, what must not, and agreement with a naive implementation."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_builders.contamination import Contamination
from instructrec.core.errors import UserError
from instructrec.core.overlap import BLOCK, ngram_hashes, words_only

EVALS = Path(__file__).parents[2] / "shared" / "evals"
LONG = (
    "Tom's two e-mails were lost. Which of the U.S. post offices, if any, should he ask about them, and what would you "
    "advise him to write in his next letter?"
)
SHORT = "Name every planet that has rings"
CHINESE = "如果明天下雨，小明就不会去公园打篮球，而是留在家里看书。请问小明明天会做什么？"

Load = Callable[..., Contamination]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(**files: str) -> Contamination:
        for name, content in files.items():
            stem, suffix = name.rsplit("_", 1)
            (tmp_path / f"{stem}.{suffix}").write_text(content, encoding="utf-8")
        return Contamination.load([str(tmp_path)])

    return load


@pytest.fixture
def loaded(load: Load) -> Contamination:
    rows = [{"instruction": LONG, "output": "He should write at once"}, {"instruction": SHORT}, {"input": CHINESE}]
    return load(suite_jsonl="\n".join(map(json.dumps, rows)))


def repunctuated(text: str) -> str:
    return " — ".join(text.replace(",", "").replace("?", "!").replace("'", "’").split(" "))


@pytest.mark.parametrize("change", [str, str.upper, str.title, repunctuated, lambda t: t.replace(" ", "\n  ")])
@pytest.mark.parametrize("item", [LONG, CHINESE])
def test_a_planted_item_is_caught(loaded: Contamination, change: Callable[[str], str], item: str) -> None:
    for around in ("{}", "Read this and answer.\n\n{}\n\nAnswer:", "前文。{}后文。"):
        assert loaded.reason(around.format(change(item)), "Some answer") == "evaluation_ngram"
        assert loaded.reason("Say it again.", around.format(change(item))) == "evaluation_ngram"


def test_thirteen_words_in_common_are_caught_and_twelve_are_not(loaded: Contamination) -> None:
    words = LONG.split(" ")
    assert loaded.reason("So " + " ".join(words[4:17]) + " so", "x") == "evaluation_ngram"
    assert loaded.reason("So " + " ".join(words[4:16]) + " so", "x") is None
    assert loaded.reason(" ".join(words[4:11]), " ".join(words[11:17])) is None, "n-grams do not span prompt and answer"


def test_scripts_without_spaces_need_twice_as_many_characters(loaded: Contamination) -> None:
    characters = [c for c in CHINESE if c.isalnum()]
    assert loaded.reason("".join(characters[3:29]), "x") == "evaluation_ngram"
    assert loaded.reason("".join(characters[3:28]), "x") is None


@pytest.mark.parametrize("change", [str, str.upper, repunctuated])
def test_a_short_instruction_is_caught_whole_and_in_the_prompt_only(
    loaded: Contamination, change: Callable[[str], str]
) -> None:
    assert loaded.reason(f"Please: {change(SHORT)}. Saturn?", "x") == "evaluation_instruction"
    assert loaded.reason("x", change(SHORT)) is None
    assert loaded.reason(change(SHORT).rsplit(" ", 1)[0] + " moons", "x") is None
    assert loaded.reason("Sur" + change(SHORT) + "ed", "x") is None


def test_answers_are_not_instructions(loaded: Contamination) -> None:
    assert loaded.reason("He should write at once", "x") is None


def test_short_strings_say_nothing(load: Load) -> None:
    contamination = load(a_json=json.dumps(["What is the capital?", SHORT]))
    assert contamination.reason("What is the capital?", "x") is None


def test_formats_and_depth(load: Load) -> None:
    deep: object = "nested question about seven quiet rivers"
    for _ in range(50):
        deep = [{"a": deep}]
    contamination = load(
        a_json="\ufeff" + json.dumps({"examples": deep}),
        b_csv='question,answer\n"a, quoted\nquestion over two whole lines",yes it surely is not so\n',
        c_txt="A wrapped paragraph whose words are spread\nover two lines of the file.\n\nOne more line of five.",
        d_jsonl='\n{"messages": [{"role": "user", "content": "please tell me something very new"},'
        ' {"role": "assistant", "content": "here is something very new"}]}\n',
    )
    assert contamination.files == 4
    assert contamination.reason("nested question about seven quiet rivers", "x") == "evaluation_instruction"
    assert contamination.reason("a quoted question over two whole lines", "x") == "evaluation_instruction"
    assert contamination.reason("yes it surely is not so", "x") is None
    assert contamination.reason("one more line of five", "x") == "evaluation_instruction"
    assert contamination.reason("please tell me something very new", "x") == "evaluation_instruction"
    assert contamination.reason("here is something very new", "x") is None
    wrapped = "a wrapped paragraph whose words are spread over two lines of the file"
    assert contamination.reason(wrapped, "x") == "evaluation_ngram"


def test_fingerprint_depends_on_bytes_and_not_on_order(tmp_path: Path) -> None:
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text("some five words or more\n")
    two.write_text("another five words or more\n")
    both = Contamination.load([str(one), str(two)])
    assert both.fingerprint == Contamination.load([str(two), str(one), str(one)]).fingerprint
    assert both.fingerprint == Contamination.load([str(tmp_path)]).fingerprint
    two.write_text("another five words or more!\n")
    assert both.fingerprint != Contamination.load([str(tmp_path)]).fingerprint


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n{"b": \n', r"a\.jsonl:2: not JSON"),
        ("a.json", b'{\n"a": 1,\n}', r"a\.json:3: not JSON"),
        ("a.json", b"[" * 100_000, r"a\.json:1: not readable JSON"),
        ("a.txt", b"fine\nfine\n\xff\xfe", r"a\.txt:3: not UTF-8"),
        ("a.csv", b'a,b\nc,"d', r"a\.csv:2: not CSV"),
        ("a.json", b'["too short"]', r"a\.json: no text of 5 words"),
        ("a.xlsx", b"", r"a\.xlsx: an evaluation file must end in"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        Contamination.load([str(path)])


def test_missing_and_empty_paths(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such evaluation file"):
        Contamination.load([str(tmp_path / "absent.json")])
    with pytest.raises(UserError, match="no evaluation file below it"):
        Contamination.load([str(tmp_path)])


def test_nothing_named_finds_nothing() -> None:
    assert Contamination.load([]).reason(LONG, SHORT) is None


def test_pickles(loaded: Contamination) -> None:
    again = pickle.loads(pickle.dumps(loaded))
    assert again.reason(LONG, "x") == "evaluation_ngram"
    assert again.fingerprint == loaded.fingerprint


def naive(text: str, n: int) -> set[tuple[str, ...]]:
    """The n-grams by definition: from every word, as many as it takes to weigh `n`; a Chinese character weighs half."""
    tokens = words_only(text).split()
    grams = set()
    for i in range(len(tokens)):
        weight = 0
        for j in range(i, len(tokens)):
            weight += 1 if len(tokens[j]) == 1 and "\u4e00" <= tokens[j] <= "\u9fff" else 2
            if weight >= 2 * n:
                grams.add(tuple(tokens[i : j + 1]))
                break
    return grams


# Few words, so that texts share n-grams often; a short n does the rest.
sentences = st.lists(st.sampled_from(["a", "b", "It's", "ü", "中", "文", "中文字", "x-y", ",", "\n", "𝐚"]), max_size=60)


@given(first=sentences, second=sentences, n=st.integers(1, 6))
@settings(max_examples=400, deadline=None)
def test_hashes_agree_with_sets_of_tuples(first: list[str], second: list[str], n: int) -> None:
    texts = " ".join(first), " ".join(second)
    one, two = (naive(text, n) for text in texts)
    hashed_one, hashed_two = (set(ngram_hashes(words_only(text), n)[0].tolist()) for text in texts)
    assert len(hashed_one) == len(one)
    assert len(hashed_two) == len(two)
    assert len(hashed_one & hashed_two) == len(one & two)


@given(evaluation=sentences, prompt=sentences, completion=sentences)
@settings(max_examples=200, deadline=None)
def test_reason_agrees_with_sets_of_tuples(
    tmp_path_factory: pytest.TempPathFactory, evaluation: list[str], prompt: list[str], completion: list[str]
) -> None:
    text = "one two three four five " + " ".join(evaluation)
    path = tmp_path_factory.getbasetemp() / "evaluation.json"
    path.write_text(json.dumps([{"output": text}]), encoding="utf-8")
    contamination = Contamination.load([str(path)])
    shared = naive(text, 13) & (naive(" ".join(prompt), 13) | naive(" ".join(completion), 13))
    assert (contamination.reason(" ".join(prompt), " ".join(completion)) is not None) == bool(shared)


def test_long_texts_are_hashed_as_short_ones_are() -> None:
    words = [f"w{i % 997}" for i in range(BLOCK + 5000)]
    whole = ngram_hashes(" ".join(words), 13)[0]
    assert len(whole) == len(words) - 12
    for start in (0, BLOCK - 7, BLOCK, BLOCK + 4000):
        assert np.array_equal(whole[start : start + 5], ngram_hashes(" ".join(words[start : start + 17]), 13)[0])
    # Latin words with one that is not ASCII among them must hash as they do elsewhere.
    mixed = ngram_hashes(" ".join([*words[:20], "é", *words[:20]]), 13)[0]
    assert np.array_equal(mixed[:8], whole[:8])


@pytest.mark.skipif(not EVALS.is_dir(), reason="no shared evaluation sets beside the project")
@pytest.mark.parametrize(
    ("folder", "key"), [("bbh", "input"), ("self_instruct_252/human_eval", "instruction"), ("ifeval", "prompt")]
)
def test_real_evaluations_are_caught(folder: str, key: str) -> None:
    contamination = Contamination.load([str(EVALS / folder)])
    items = []
    for path in sorted((EVALS / folder).rglob("*.json*")):
        text = path.read_text(encoding="utf-8")
        rows = map(json.loads, text.splitlines()) if path.suffix == ".jsonl" else json.loads(text)["examples"]
        items += [row[key] for row in rows]
    assert len(items) > 200
    missed = [
        i
        for i in items
        if len(words_only(i).split()) >= 5 and contamination.reason(f"Task. {i.upper()} Go", "x") is None
    ]
    assert not missed
    assert contamination.reason("Which of these headings fits the paragraph best?", "The second one") is None
