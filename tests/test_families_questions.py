"""Families whose answers must be right for a reason: each is derived again from its document."""

import json
import random
from itertools import islice
from pathlib import Path

import pytest
import yaml
from conftest import write_corpus

from data_builders.documents import corpus_files, read
from data_builders.families import Example, Template, families, load_templates
from data_builders.text.abbreviations import expansion
from data_builders.text.questions import _ask
from data_builders.text.statements import changed
from data_builders.text.unanswerable import NOT_STATED
from instructrec.core.errors import UserError

FIXTURES = Path(__file__).parent / "fixtures" / "families"


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    corpus = write_corpus(tmp_path_factory.mktemp("questions") / "docs")
    files = [file for folder in (corpus, FIXTURES) for file in corpus_files(str(folder))]
    return [document for path, name in files for document in read(path, name, "PSF-2.0") if document.kind == "text"]


@pytest.fixture(scope="module")
def mined(documents):
    def mine(name):
        family = families()[name]
        asked = [d for d in documents if family.wordings(d.language)]
        return [(d, e) for d in asked for e in islice(family.mine(d, random.Random(d.path)), 30)]

    return mine


@pytest.mark.parametrize(
    ("sentence", "question", "answer"),
    [
        ("The lock must be released by the caller.", "What must be released by the caller?", "The lock"),
        (
            "Objects are held by a table for each object.",
            "What is held by a table for each object?",
            "Objects",
        ),
        ("The tower has three rooms.", "How many rooms does the tower have?", "three"),
        ("There are two kinds of import hooks.", "How many kinds of import hooks are there?", "two"),
        ("The tool is used to strip symbols.", "What is the tool used for?", "to strip symbols"),
        ("The tower was rebuilt in 1871.", "When was the tower rebuilt?", "in 1871"),
        ("The flag is described in section four.", "Where is the flag described?", "in section four"),
        ("A map is slow because it copies every key.", "Why is a map slow?", "it copies every key"),
        ("The first argument is called the receiver.", None, None),
        ("The caller knows the name is wrong in every case.", None, None),
        ("It must be released by the caller.", None, None),
        ("The lock must not be released by the caller.", None, None),
    ],
)
def test_a_sentence_is_turned_into_its_question(sentence, question, answer):
    assert (_ask(sentence, sentence) or (None, None))[:2] == (question, answer)


def test_unanswerable_questions_have_no_answer_in_the_passage(mined):
    found = mined("unanswerable")
    answers = {example.fields["question"]: example.answer for _, example in mined("extractive_question")}
    stated = [example.answer != NOT_STATED for _, example in found]
    assert 0.3 < sum(stated) / len(stated) < 0.7
    for _, example in found:
        right = answers.get(example.fields["question"])
        if right is not None:
            assert (right in example.fields["passage"]) == (example.answer != NOT_STATED)


def test_answerable_agrees_with_the_questions_of_the_passage(mined):
    asked = {(e.fields["passage"], e.fields["question"]) for _, e in mined("extractive_question")}
    for _, example in mined("answerable"):
        if (example.fields["passage"], example.fields["question"]) in asked:
            assert example.answer == "yes"


def test_stated_sentences_stand_in_the_passage_and_others_do_not(mined):
    found = mined("stated")
    yes = [example.answer == "yes" for _, example in found]
    assert 0.35 < sum(yes) / len(yes) < 0.65
    for _, example in found:
        assert (example.fields["statement"] in example.fields["passage"]) == (example.answer == "yes")
    for _, example in mined("stated_choice"):
        assert [option for option in example.options if option in example.fields["passage"]] == [example.answer]


@pytest.mark.parametrize(
    "sentence",
    [
        "The tower has three rooms.",
        "The lens was made in 1823.",
        "The tug cannot work in heavy seas.",
        "It is older than the mole.",
    ],
)
def test_a_changed_sentence_differs_in_one_place(sentence):
    versions = {v for seed in range(8) for v in changed(sentence, sentence, random.Random(seed))}
    assert versions and sentence not in versions
    for version in versions:
        assert abs(len(version.split()) - len(sentence.split())) <= 1


@pytest.mark.parametrize("sentence", ["It returns a valid call.", "No more than this.", "She may leave."])
def test_what_cannot_be_changed_for_certain_is_left_alone(sentence):
    assert not list(changed(sentence, sentence, random.Random(0)))


def test_gaps_are_filled_by_the_passage(mined):
    for name in ("cloze_number", "cloze_name"):
        for _, example in mined(name):
            quote = example.fields["quote"].removeprefix("... ").removesuffix(" ...")
            assert quote.replace("____", example.answer) in example.fields["passage"]


def test_lists_hold_what_the_passage_holds_in_its_order(mined):
    for _, example in mined("entity_list"):
        places = [example.fields["passage"].index(item) for item in example.answer.split("\n")]
        assert len(set(example.answer.split("\n"))) == len(places)
        if "names" in example.fields["what"]:
            assert places == sorted(places)


def test_abbreviations_need_an_initial_for_every_capital():
    assert expansion("We use the Python Package Index", "PyPI") == "Python Package Index"
    assert expansion("a denial of service", "DoS") == "denial of service"
    assert expansion("Software Bill-of-Materials", "SBOM") == "Software Bill-of-Materials"
    assert expansion("some other words", "XYZ") is None
    assert expansion("in another sentence. Quite", "SQ") is None


def test_languages_are_those_of_the_documents(mined):
    names = {d.language: e.answer for d, e in mined("language_identification")}
    assert names == {"en": "English", "zh": "Chinese"}


def test_no_family_falls_over_another_language():
    (document,) = read(FIXTURES / "tide_zh.md", "tide_zh.md", "unknown")
    for family in families().values():
        if family.kind == "text":
            list(islice(family.mine(document, random.Random(0)), 20))


def test_wordings_have_formats_of_their_own(tmp_path):
    example = Example({"q": "Is it?"}, "yes", 0, 1, ["yes", "no"])
    labels = {"yes": "T", "no": "F"}
    assert Template("t", "{{ q }} {{ choices | join('/') }}", labels=labels).render(example) == (
        "Is it? T/F",
        "T",
        ["T", "F"],
    )
    assert Template("t", "{{ options }}", answer="number").render(example) == ("1. yes\n2. no", "1", ["1", "2"])
    prompt, completion, choices = Template("t", "{{ q }}", '{"a": {{ answer | tojson }}}').render(example)
    assert (prompt, json.loads(completion), len(choices)) == ("Is it?", {"a": "yes"}, 2)
    listed = Example({}, "a <b>\nc", 0, 1)
    assert Template("t", "x", "{{ answer.splitlines() | tojson }}").render(listed)[1] == '["a <b>", "c"]'
    path = tmp_path / "f.yaml"
    for wrong in ({"prompt": 1}, {"prompt": "x", "labels": {True: "T"}}, {"prompt": "x", "answer": "{{"}, {"form": ""}):
        path.write_text(yaml.safe_dump({"en": {"01": wrong}}), encoding="utf-8")
        with pytest.raises(UserError, match=r"f\.en\.01"):
            load_templates(path, "f")
