"""Several instructions about one text in one conversation: what shares one, what never does, and what is trained on."""

import re
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import assert_one_line_error, cli, recipe

from data_builders.conversations import REFERENCES, RENDERED, converse
from data_builders.families import families
from data_builders.gates import MOST_PROMPT_WORDS
from data_builders.trace import trace
from instructrec.core.errors import UserError
from instructrec.core.schema import HELD_OUT, INSTRUCTION, instruction_id, read_manifest, read_split
from instructrec.core.segmentation import count_words
from instructrec.data import NOT_SUPERVISED, check_hold_out, load_set, trainable
from instructrec.evaluation.suites import load_suites

TURNS = 4
PHRASES = sorted({phrase for phrase in REFERENCES["en"].values() if phrase})
FOLLOW_UPS = {t.name for family in families().values() for ts in family.follow_ups.values() for t in ts}
TEXT = "The pilots wait on the northern pier, where the water is deep enough at any tide, until the lamp is lit."


@pytest.fixture(scope="module")
def talking(corpus, tmp_path_factory):
    """A set with conversations."""
    output = tmp_path_factory.mktemp("talking") / "set"
    done = cli("build", "--corpus", str(corpus), "--output", str(output), "--turns-per-document", str(TURNS))
    assert done.returncode == 0, done.stderr
    return output


def conversations(folder: Path) -> dict[str, list[dict]]:
    found = defaultdict(list)
    for row in read_split(folder, "train"):
        if row["turn"] is not None:
            found[row["conversation"]].append(row)
    return found


def span(start: int, end: int) -> dict:
    return {"path": "a.md", "sha256": "", "start": start, "end": end}


def rendered(question: str, answer: str, **columns) -> dict:
    """A row as the third stage leaves it, whose prompt shows `TEXT`."""
    prompt = [{"role": "user", "content": f"{question}\n\n{TEXT}"}]
    row = dict.fromkeys(RENDERED.names) | {
        "id": question,
        "prompt": prompt,
        "completion": [{"role": "assistant", "content": answer}],
        "family": "f",
        "template": "f.en.1",
        "source": [],
        "split": "train",
        "unit": 0,
        "text": TEXT,
        "reference": PHRASES[0],
        "secrets": [answer],
        "topics": [],
    }
    return row | columns


def talk(*rows: dict, most: int = TURNS) -> list[list[str]]:
    """The conversations that rows are joined into, each as the first words of its questions."""
    found = defaultdict(list)
    for row in converse(rows, most):
        found[row["conversation"] or row["id"]].append(row["prompt"][-1]["content"].split("\n")[0])
    return list(found.values())


def test_rows_are_those_of_single_turns_and_every_conversation_is_whole(talking, instruction_set):
    single = {row["id"]: row for row in read_split(instruction_set, "train")}
    found = conversations(talking)
    assert len(found) > 20 and max(map(len, found.values())) == TURNS
    for name, turns in found.items():
        assert 1 < len(turns) <= TURNS and [row["turn"] for row in turns] == list(range(len(turns)))
        assert turns[0]["id"] == name
        assert turns[0]["prompt"] == single[name]["prompt"]  # the first turn is asked as it would be alone
        assert len({row["source"][0]["path"] for row in turns}) == 1
        assert sum(count_words(m["content"]) for m in turns[-1]["prompt"]) <= MOST_PROMPT_WORDS
        for row in turns:
            answer = row["completion"][0]["content"]
            spans = (row["source"], row["family"], row["template"], row["prompt"], answer)
            assert row["id"] == instruction_id(*spans)

    # No row is lost or made: each asks, answers and comes from what a row of the other set does.
    def asked(row: dict) -> tuple:
        return row["family"], str(row["source"])

    rows = list(read_split(talking, "train"))
    assert sorted(map(asked, rows)) == sorted(map(asked, single.values()))
    alone = Counter((row["template"], row["completion"][0]["content"], *asked(row)) for row in single.values())
    worded = Counter(
        (row["template"], row["completion"][0]["content"], *asked(row))
        for row in rows
        if row["template"] not in FOLLOW_UPS
    )
    assert not worded - alone


def test_a_text_is_shown_once_and_then_asked_about_by_follow_ups(talking, instruction_set):
    prompts = defaultdict(list)
    for row in read_split(instruction_set, "train"):
        assert row["template"] not in FOLLOW_UPS
        prompts[row["family"], str(row["source"])].append(row["prompt"][0]["content"])

    def grams(text: str) -> set[tuple[str, ...]]:
        found = text.split()
        return {tuple(found[i : i + 4]) for i in range(len(found) - 3)}

    following = 0
    for turns in conversations(talking).values():
        first = turns[0]["prompt"][0]["content"]
        assert turns[0]["template"] not in FOLLOW_UPS
        for row in turns[1:]:
            question = row["prompt"][-1]["content"]
            alone = prompts[row["family"], str(row["source"])]
            if row["template"] in FOLLOW_UPS:
                following += 1
                assert row["targets"] == [row["completion"][0]["content"]]
                # It was made from what the first turn shows.
                assert any(grams(prompt) & grams(first) for prompt in alone), (question, first)
            elif not any(phrase in question for phrase in PHRASES):
                assert question in alone
    assert following > 50
    assert not FOLLOW_UPS & set(read_manifest(talking)["held_out"]["templates"])


def test_a_follow_up_stands_for_the_wording_where_the_text_is_shown():
    answers = {"template": "f.en.f1", "question": "Second word?", "completion": "2: pilots", "choices": None}
    rows = [rendered(f"Question {n}?", f"Answer {n}.", follow_up=answers) for n in range(2)]
    first, second = converse(rows, TURNS)
    assert (first["template"], first["targets"]) == ("f.en.1", None) and TEXT in first["prompt"][0]["content"]
    assert [message["content"] for message in second["prompt"][1:]] == [
        first["completion"][0]["content"],
        answers["question"],
    ]
    assert (second["template"], second["targets"]) == ("f.en.f1", ["2: pilots"])
    assert second["completion"] == [{"role": "assistant", "content": "2: pilots"}]


def test_a_sentence_is_asked_about_where_its_text_is_shown_and_only_if_its_follow_up_points_to_it():
    sentence, points = "where the water is deep enough at any tide", {"reference": None}
    prompt = [{"role": "user", "content": f"Longest word?\n{sentence}"}]
    answers = {"template": "f.en.f1", "question": 'Longest word of "where …"?', "completion": "enough", "choices": None}
    part = rendered("", "enough", id="0", prompt=prompt, text=sentence, follow_up=answers, source=[span(0, 9)])
    whole = [rendered(f"Question {n}?", f"Answer {n}.", source=[span(0, 9)]) for n in range(2)]
    (talked,) = talk(part | points, *whole)
    assert talked == ["Question 0?", "Question 1?", 'Longest word of "where …"?']
    # Where two sentences begin alike, the opening does not tell which is meant.
    twice = f"{TEXT} {sentence.replace('tide', 'hour')}"
    alike = [row | {"text": twice, "prompt": [{"role": "user", "content": twice}]} for row in whole]
    assert sorted(map(len, talk(part | points, *alike))) == [1, 2]
    # "The text" of a follow-up that does not point would be taken for the longer one.
    assert sorted(map(len, talk(part | {"reference": PHRASES[0]}, *whole))) == [1, 2]


def test_held_out_splits_are_single_turns_and_equal_to_those_without_conversations(talking, instruction_set):
    for split in ("validation", *HELD_OUT):
        assert list(read_split(talking, split)) == list(read_split(instruction_set, split))
    assert read_manifest(talking)["splits"] == read_manifest(instruction_set)["splits"]
    check_hold_out(talking)


def test_of_a_conversation_only_the_first_turn_is_an_item(talking):
    items = load_suites([str(talking / "train")], 0)["train"]
    rows = list(read_split(talking, "train"))
    assert len(items) == sum(not row["turn"] for row in rows) < len(rows)
    assert all(len(item.messages) == 1 for item in items)


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("the open answer", rendered("Where?", "northern pier")),
        ("some options", rendered("Which?", "A", choices=["A", "B"], secrets=["the northern pier", "the old mill"])),
        ("what is asked", rendered("True?", "yes", choices=["yes", "no"], topics=["It was the NORTHERN pier, then."])),
    ],
)
def test_no_turn_gives_a_later_one_away(earlier, later):
    telling = rendered("Quote.", "It was the northern pier, then.")
    for first, second in (("0", "1"), ("1", "0")):  # whichever is placed first
        assert talk(telling | {"id": first}, later | {"id": second}) == [[later["id"], "Quote."]], earlier


def test_turns_that_give_each_other_away_are_asked_apart():
    rows = [rendered("Is it the old mill?", "northern pier"), rendered("Is it the northern pier?", "old mill")]
    assert sorted(talk(*rows)) == [["Is it the northern pier?"], ["Is it the old mill?"]]


def test_what_gives_nothing_away_is_asked_together():
    both = rendered("All?", "It is the northern pier, not the old mill.")
    options = rendered("Which?", "A", choices=["A", "B"], secrets=["northern pier", "old mill"])
    named, again = (rendered(f"Say {what}, or: not stated.", "not stated") for what in ("where", "when"))
    assert len(talk(both, options)) == 1 and len(talk(named, again)) == 1


def test_other_rows_of_a_document_follow_as_they_stand_unless_they_share_bytes():
    about = [rendered(f"Question {n}?", f"Answer {n}.", source=[span(0, 90)]) for n in range(2)]
    plain = {"text": None, "reference": None}
    prompt = [{"role": "user", "content": "Sort: pier, lamp."}]
    apart = rendered("", "lamp, pier", id="0", prompt=prompt, source=[span(90, 99)], **plain)
    assert talk(*about, apart) == [["Question 0?", "Question 1?", "Sort: pier, lamp."]]
    assert len(talk(*about, apart | {"source": [span(89, 99)]})) == 2
    assert len(talk(*about, apart | {"secrets": ["northern pier"]})) == 2  # the text of the others holds it


def test_conversations_are_no_longer_than_asked_and_than_a_context():
    rows = [rendered(f"Question {n}?", f"Answer {n}.") for n in range(10)]
    assert [len(turns) for turns in talk(*rows)] == [4, 4, 2]
    long = [rendered(f"Question {n}? " + "word " * 150, f"Answer {n}.") for n in range(4)]
    assert [len(turns) for turns in talk(*long)] == [2, 2]
    assert [len(turns) for turns in talk(*rows, *(row | {"split": "validation"} for row in rows), most=10)] == [
        1
    ] * 10 + [10]


def test_workers_do_not_matter(talking, corpus, tmp_path):
    flags = ["--turns-per-document", str(TURNS), "--workers", "2"]
    assert cli("build", "--corpus", str(corpus), "--output", str(tmp_path / "set"), *flags).returncode == 0
    for path in talking.rglob("*.parquet"):
        assert path.read_bytes() == (tmp_path / "set" / path.relative_to(talking)).read_bytes()
    assert (talking / "manifest.json").read_bytes() == (tmp_path / "set" / "manifest.json").read_bytes()


def test_a_turn_and_those_before_it_derive_again(talking, corpus, tmp_path):
    turns = next(
        turns
        for turns in conversations(talking).values()
        if len(turns) == TURNS and turns[1]["template"] in FOLLOW_UPS and turns[-1]["template"] in FOLLOW_UPS
    )
    for row in turns:
        text, identical = trace(talking, row["id"], str(corpus))
        assert identical, text
        assert f"turn       {row['turn']} of conversation {turns[0]['id']}" in text
    folder = tmp_path / "set"
    shutil.copytree(talking, folder)
    rows = list(read_split(folder, "train"))
    number = next(i for i, row in enumerate(rows) if row["id"] == turns[1]["id"])
    answer = [{"role": "assistant", "content": "Not what the bytes say."}]
    rows[number] |= {"completion": answer}
    for row in rows[number + 1 : number + 3]:
        row["prompt"] = [*row["prompt"][:3], *answer, *row["prompt"][4:]]
    pq.write_table(pa.Table.from_pylist(rows, INSTRUCTION), folder / "train" / "00000.parquet")
    text, identical = trace(folder, turns[3]["id"], str(corpus))
    assert not identical and f"turn 1 (row {turns[1]['id']}): completion: 'Not what" in text


def test_a_turn_without_those_before_it_is_refused(talking, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(talking, folder)
    rows = list(read_split(folder, "train"))
    number = next(i for i, row in enumerate(rows) if row["turn"] == 1)
    pq.write_table(
        pa.Table.from_pylist(rows[: number - 1] + rows[number:], INSTRUCTION), folder / "train" / "00000.parquet"
    )
    with pytest.raises(UserError, match=re.escape(f"(id {rows[number]['id']}): turn 1 of conversation")):
        list(read_split(folder, "train"))


class TestTraining:
    @pytest.fixture(scope="class")
    def tokenizer(self, tiny_model):
        from instructrec.models import load_tokenizer

        return load_tokenizer(tiny_model)

    def test_a_conversation_is_one_sequence_whose_answers_alone_are_supervised(self, talking, tokenizer):
        rows = load_set(str(talking))["train"]
        found = conversations(talking)
        singles = sum(row["turn"] is None for row in read_split(talking, "train"))
        assert len(rows) == singles + len(found)
        encoded, _ = trainable(rows, None, tokenizer)
        for row, sequence in zip(rows, encoded, strict=True):
            messages = row["prompt"] + row["completion"]
            assert tokenizer.decode(sequence["input_ids"]) == tokenizer.apply_chat_template(messages, tokenize=False)
            pairs = zip(sequence["input_ids"], sequence["labels"], strict=True)
            assert all(label in (token, NOT_SUPERVISED) for token, label in pairs)
            kept = [label if label != NOT_SUPERVISED else -1 for label in sequence["labels"]]
            answers = [m["content"] for m in messages if m["role"] == "assistant"]
            assert len(answers) == (row["turn"] or 0) + 1
            said, run = [], []
            for label in [*kept, -1]:
                if label >= 0:
                    run.append(label)
                elif run:
                    said.append(tokenizer.decode(run))
                    run = []
            assert said == [f"{answer}<|im_end|>\n" for answer in answers]

    def test_single_turns_are_left_to_trl_and_get_the_same_tokens(
        self, instruction_set, tiny_model, tokenizer, tmp_path
    ):
        from trl import SFTConfig, SFTTrainer

        rows = load_set(str(instruction_set), 40)["train"]
        untouched, _ = trainable(rows, None, tokenizer)
        assert untouched.column_names == ["prompt", "completion"]
        args = SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, max_length=None, report_to=[])
        theirs = SFTTrainer(str(tiny_model), args, train_dataset=untouched, processing_class=tokenizer).train_dataset
        columns = {"conversation": ["c"] * len(rows), "turn": [0] * len(rows)}
        for name, values in columns.items():
            rows = rows.remove_columns(name).add_column(name, values)
        ours, _ = trainable(rows, None, tokenizer)
        for a, b in zip(theirs, ours, strict=True):
            assert (a["input_ids"], a["labels"]) == (b["input_ids"], b["labels"])

    def test_a_template_that_changes_earlier_turns_is_refused(self, talking, tokenizer):
        import copy

        forgetful = copy.deepcopy(tokenizer)
        forgetful.chat_template = forgetful.chat_template.replace(
            "{{ m['content'] }}",
            "{% if loop.last and m['role'] == 'assistant' %}<think></think>{% endif %}{{ m['content'] }}",
        )
        with pytest.raises(UserError, match="--turns-per-document 1"):
            trainable(load_set(str(talking))["train"], None, forgetful)

    def test_the_recipe_trains_on_conversations(self, talking, tiny_model, tmp_path):
        flags = {"model_name_or_path": tiny_model, "dataset_name": talking, "output_dir": tmp_path / "out"}
        flags |= {"max_steps": 2, "save_steps": 2, "dtype": "float32", "max_train_rows": 30, "max_length": 1536}
        flags |= {"eval_strategy": "no", "load_best_model_at_end": "false"}
        done = recipe("sft.py", *(text for key, value in flags.items() for text in (f"--{key}", str(value))))
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "out" / "adapter_model.safetensors").exists()


def test_mistakes_are_one_line(tmp_path):
    done = cli("build", "--output", str(tmp_path / "set"), "--turns-per-document", "0")
    assert_one_line_error(done, "turns_per_document: must be 1 or more")
