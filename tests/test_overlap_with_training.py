"""Overlap of a suite with what was trained on: what must be flagged, what must not, and which sets are compared."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from instructrec.core.errors import UserError
from instructrec.core.files import fingerprint, write_json
from instructrec.core.schema import INSTRUCTION
from instructrec.evaluation.contamination import LEAST_ITEMS, overlap, training_sets
from instructrec.evaluation.suites import Item

LONG = (
    "A ferry leaves the northern pier every forty minutes and needs a quarter of an hour to the island. How many "
    "crossings does its captain make between eight and noon?"
)
SHORT = "Name every river that crosses Vienna"
CHINESE = "小明每天早上七点起床，先跑步半小时，然后吃早饭，再骑自行车去学校。请问他一天中最先做的事情是什么？"
ANSWER = "the lamp goes out because the wind from the open window is stronger than its small flame"
FILLER = "Seven quiet gardeners planted rows of beans behind the old stone wall and waited for rain."


def write_set(folder: Path, *rows: tuple[str, str]) -> Path:
    """An instruction set whose training rows are these prompts and completions, among others."""
    written = [
        {
            "id": str(number),
            "prompt": [{"role": "user", "content": prompt}],
            "completion": [{"role": "assistant", "content": completion}],
            "family": "f",
            "group": "g",
            "template": "f.en.1",
            "language": "en",
            "kind": "text",
            "targets": [completion],
            "source": [],
        }
        for number, (prompt, completion) in enumerate([(FILLER, "Beans"), *rows, *[("How?", "So.")] * 1500])
    ]
    (folder / "train").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(written, INSTRUCTION), folder / "train" / "00000.parquet")
    return folder


def item(text: str, target: str = "Yes", name: str = "0", **others) -> Item:
    return Item(name, others.pop("category", "c"), ({"role": "user", "content": text},), (target,), None, **others)


def changed(text: str) -> str:
    """Other case, punctuation and line breaks."""
    return text.upper().replace(",", " -").replace("。", "\n").replace(" ", "  ")


@pytest.mark.parametrize("text", [LONG, CHINESE])
def test_a_planted_passage_is_an_ngram_overlap_on_either_side(tmp_path: Path, text: str) -> None:
    asked = write_set(tmp_path / "asked", (f"Read.\n{changed(text)}\nAnswer:", "Six"))
    answered = write_set(tmp_path / "answered", ("Write a riddle.", f"Here: {changed(text)}"))
    clean = write_set(tmp_path / "clean")
    for folder in (asked, answered):
        assert overlap([item(text), item(SHORT)], [clean, folder]) == ["ngram", None]
    assert overlap([item(text), item(SHORT)], [clean]) == [None, None]
    assert overlap([item(text)], []) == [None]


def test_thirteen_words_or_twice_as_many_characters_and_no_fewer(tmp_path: Path) -> None:
    words, characters = LONG.split(), [c for c in CHINESE if c.isalnum()]
    enough = write_set(tmp_path / "a", ("So " + " ".join(words[5:18]), "x"), ("x", "".join(characters[5:31])))
    fewer = write_set(
        tmp_path / "b",
        ("So " + " ".join(words[5:17]), " ".join(words[17:20])),  # no n-gram spans prompt and answer, nor two rows
        (" ".join(words[20:26]), "".join(characters[5:30])),
        (" ".join(words[26:]), "x"),
    )
    assert overlap([item(LONG), item(CHINESE)], [enough]) == ["ngram", "ngram"]
    assert overlap([item(LONG), item(CHINESE)], [fewer]) == [None, None]


def test_a_long_gold_answer_counts_and_a_short_one_does_not(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", ("Tell the story.", ANSWER.title()), ("Say it.", "the lamp goes out"))
    assert overlap([item(SHORT, ANSWER)], [folder]) == ["ngram"]
    assert overlap([item(SHORT, "The lamp goes out")], [folder]) == [None]


def test_a_whole_instruction_within_a_prompt(tmp_path: Path) -> None:
    folder = write_set(
        tmp_path / "set", (f"Please: {SHORT}!", "Danube"), ("Say it.", "Name every lake that borders Austria")
    )
    assert overlap([item(SHORT.upper())], [folder]) == ["instruction"]
    assert overlap([item(SHORT + " twice")], [folder]) == [None]
    assert overlap([item("Name every lake that borders Austria")], [folder]) == [None], "it was answered, not asked"
    assert overlap([item("How?")], [folder]) == [None], "too short to say anything"


INSTRUCTION_TEXT = (
    "You are given a short note that a visitor left in the guest book. Decide whether the visitor liked the stay, and "
    "reply with one word.\n\n"
)
NOTES = (
    "Warm bed, cold soup.",
    "We come again in spring!",
    "Too many stairs",
    "The owner sang.",
    "No towels at all?",
    LONG,
)


@pytest.mark.parametrize("end", ["", "\n\nReply with one word and nothing else, please."])
def test_a_common_instruction_is_told_from_a_passage(tmp_path: Path, end: str) -> None:
    items = [item(INSTRUCTION_TEXT + note + end, name=str(i)) for i, note in enumerate(NOTES)]
    assert len(items) >= LEAST_ITEMS
    part = INSTRUCTION_TEXT.split("Decide")[0]
    assert len(part.split()) >= 13
    planted = write_set(tmp_path / "passage", (f"{part}Say hello.", "x"), (LONG, "Six"))
    assert overlap(items, [planted]) == [None] * 5 + ["ngram"], "part of the common frame alone is no overlap"
    trained = write_set(tmp_path / "instruction", (f"{INSTRUCTION_TEXT}The roof leaked.", "no"), (LONG, "Six"))
    assert overlap(items, [trained]) == ["instruction"] * 5 + ["ngram"]
    few = items[: LEAST_ITEMS - 1]
    assert overlap(few, [planted]) == ["ngram"] * len(few), "what a few share may be a passage"
    wordings = [item(i.messages[-1]["content"], name=i.id, template=f"t{i.id}") for i in items]
    assert overlap(wordings, [planted]) == ["ngram"] * 6, "each wording is by itself"


def test_earlier_turns_and_raw_text(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", (LONG, "Six"))
    turns = ({"role": "user", "content": LONG}, {"role": "assistant", "content": "Six"})
    shots = Item("0", "c", (*turns, {"role": "user", "content": SHORT}), ("Danube",), None)
    raw = Item("1", "c", (), (f"{FILLER} {LONG}",), None)
    assert overlap([shots, raw, Item("2", "c", (), (), None)], [folder]) == [None, "ngram", None]


def test_a_folder_that_is_no_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no Parquet file"):
        overlap([item(SHORT)], [tmp_path])


def test_training_sets_are_those_of_all_stages_that_are_unchanged(tmp_path: Path) -> None:
    sets = {name: write_set(tmp_path / name, (name, "x")) for name in ("first", "second", "third", "changed")}

    def dataset(folder: Path) -> dict:
        return {"dataset": {"name": str(folder), "fingerprint": fingerprint(folder, "*.parquet")}}

    parent = {"inputs": dataset(sets["first"]), "parent": None}
    adapters = {
        "a": {"inputs": dataset(sets["second"]), "parent": parent},
        "b": {"inputs": dataset(sets["changed"]), "parent": {"inputs": {}, "parent": parent}},
        "c": {"inputs": dataset(tmp_path / "gone"), "parent": None},
    }
    # A merge: its parent is the last of the adapters that it lists.
    merged = [{"lineage": {"inputs": dataset(sets["third"]), "parent": None}}, {"lineage": adapters["a"]}]
    adapters["d"] = {"inputs": {"adapters": merged}, "parent": adapters["a"]}
    for name, lineage in adapters.items():
        (tmp_path / name).mkdir()
        if name == "c":
            lineage["inputs"]["dataset"]["fingerprint"] = "0" * 64
        write_json(tmp_path / name / "lineage.json", lineage)
    pq.write_table(pa.Table.from_pylist([], INSTRUCTION), sets["changed"] / "train" / "00001.parquet")
    (tmp_path / "none").mkdir()
    found = training_sets([tmp_path / name for name in ("a", "b", "c", "none")])
    assert found == [sets["first"], sets["second"]]
    assert training_sets([tmp_path / "d"]) == [sets["third"], sets["first"], sets["second"]]
