"""That computed answers are right: each is worked out again here, from what the instruction shows."""

import json
import random
import re
from itertools import islice, pairwise
from pathlib import Path

import pytest
from conftest import cli, write_corpus
from hypothesis import given
from hypothesis import strategies as st

from data_builders.config import BuildConfig
from data_builders.documents import Document, corpus_files, read
from data_builders.families import families
from data_builders.text.keywords import FUNCTION_WORDS
from data_builders.text.repair_spelling import misspelt
from data_builders.text.transformations import TRANSFORMATIONS
from data_builders.written import SYNTHESIZED

FIXTURES = Path(__file__).parent / "fixtures" / "families"


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    corpus = write_corpus(tmp_path_factory.mktemp("computed") / "docs")
    files = [file for folder in (corpus, FIXTURES) for file in corpus_files(str(folder))]
    found = [document for path, name in files for document in read(path, name, "PSF-2.0")]
    return [document for document in found if document.kind == "text" and document.language == "en"]


@pytest.fixture
def mined(documents):
    def mine(name):
        examples = [
            example
            for document in documents
            for example in islice(families()[name].mine(document, random.Random(document.path)), 20)
        ]
        assert examples
        return examples

    return mine


def of_page(name, content, seeds=20):
    """What a family finds on a page of Markdown, with any of some seeds."""
    page = Document(content, "markdown", "page", "page", "0" * 64, 0, len(content.encode()), "utf8/1", "CC0-1.0")
    return [example for seed in range(seeds) for example in families()[name].mine(page, random.Random(seed))]


def test_a_family_that_is_off_is_mined_by_name_alone():
    off = {name for name, family in families().items() if family.off}
    assert {family.name for family in BuildConfig().mined_families} == set(families()) - off - {SYNTHESIZED}
    assert "summary_sentence" in off
    assert [family.name for family in BuildConfig(families=("summary_sentence",)).mined_families] == [
        "summary_sentence"
    ]
    assert cli("families").stdout.count("off: ") == len(off)


def test_a_title_is_made_of_the_words_given(mined):
    for example in mined("title"):
        given_words = example.fields["words"].split(", ")
        assert sorted(given_words) == sorted(example.answer.split()) and " ".join(given_words) != example.answer


@pytest.mark.parametrize("name", ["keywords_to_text", "constraints"])
def test_nothing_but_small_words_is_missing_from_the_keywords(mined, name):
    for example in mined(name):
        kept = iter(example.fields["keywords"].split(", "))
        expected = next(kept)
        for word in re.findall(r"\w+", example.answer):
            if word == expected:
                expected = next(kept, None)
            else:
                assert word.lower() in FUNCTION_WORDS
        assert expected is None


def test_the_missing_word_stands_twice_in_the_text_and_no_other_option_does(mined):
    for example in mined("missing_word"):
        text = example.fields["text"].lower()
        assert len(re.findall(rf"\b{example.answer}\b", text)) >= 2
        assert not any(option in text for option in example.options if option != example.answer)


def test_the_missing_phrase_stands_elsewhere_in_the_text_and_no_word_of_another_does(mined):
    for example in mined("missing_phrase"):
        text = " ".join(example.fields["text"].lower().split())
        assert re.search(rf"\b{example.answer}\b", text)
        others = [word for option in example.options if option != example.answer for word in option.split()]
        assert not any(word in text for word in others)


def test_keywords_and_small_words_are_all_of_a_sentence(mined):
    for example in mined("text_to_keywords"):
        small = set(example.fields["small"].split(", "))
        kept = [word for word in re.findall(r"\w+", example.fields["sentence"]) if word.lower() not in small]
        assert ", ".join(kept) == example.answer and small <= FUNCTION_WORDS


def test_a_topic_is_the_heading_one_level_above(mined):
    pages = [path.read_text(encoding="utf-8") for path in FIXTURES.glob("*.md")]
    for example in mined("topic"):
        line = f"\n### {example.fields['heading']}\n"
        above = next((page[: page.index(line)] for page in pages if line in page), None)
        if above is not None:
            assert re.findall(r"^## (.*)$", above, re.M)[-1] == example.answer


CHAIN = (
    "The river drives a wheel of oak with forty paddles and a hub of iron, and has done so since the last flood. "
    "However, the paddles would break in high water without a sluice. {third} gate of iron is lowered by the miller."
)


@pytest.mark.parametrize(("third", "found"), [("This sluice or", True), ("A", False), ("This door or", False)])
def test_sentences_are_ordered_only_where_each_takes_up_the_one_before(third, found):
    assert bool(of_page("sentence_order", f"# The mill\n\n{CHAIN.format(third=third)}")) == found


STEPS = "To make tea, follow these steps:\n\n1. Boil the water.\n2. {second}\n3. Serve what the teapot holds.\n"


@pytest.mark.parametrize(
    ("second", "found"),
    [
        ("Pour the water into the teapot.", True),
        ("Warm the teapot.", False),
        ("Pour the water of the first step into the teapot.", False),
        ("Boil the teapot in water.", False),
    ],
)
def test_steps_are_ordered_only_where_each_takes_up_an_earlier_one(second, found):
    assert bool(of_page("step_order", f"# Tea\n\n{STEPS.format(second=second)}")) == found


@pytest.mark.parametrize(
    ("sentence", "term"),
    [
        ("A lighter is a flat boat that carries goods from large ships to the quay.", "lighter"),
        ("A lighter is a good choice of boat for goods that come with large ships.", None),
        ("A lighter is a flat boat that carries goods, and its skipper is paid by the load.", None),
        ("The boat column is a flat row of numbers that carries the goods.", None),
        ("The shape of a lighter is a flat outline that suits goods from large ships.", None),
    ],
)
def test_only_what_is_defined_is_a_definition(sentence, term):
    rest = (
        "Boats come and go all day long, and the office writes down when they came and what they brought to the quay."
    )
    found = {example.answer for example in of_page("defined_term", f"# Boats\n\n{sentence} {rest}")}
    assert found == ({term} if term else set())


def test_a_reason_without_a_comma_may_belong_to_a_part_of_the_sentence():
    rest = "The crew waits at the quay every morning, and nobody knows when the fog will lift and the bridge will open."
    for comma, found in ((",", True), ("", False)):
        sentence = f"The old ferry cannot leave the harbour{comma} due to a storm in the western channel."
        assert bool(of_page("cause", f"# Ferry\n\n{sentence} {rest}")) == found


def test_words_are_counted(mined):
    for example in mined("count_words"):
        assert len(re.findall(r"\S+", example.fields["sentence"])) == int(example.answer)


def test_sentences_are_counted(mined):
    for example in mined("count_sentences"):
        assert len(re.findall(r"[.!?][”\"')]*(?:\s|$)", example.fields["passage"])) == int(example.answer)


def test_occurrences_are_counted_alike_as_words_and_as_strings(mined):
    for example in mined("count_occurrences"):
        passage, word = example.fields["passage"], example.fields["word"]
        assert passage.count(word) == passage.lower().count(word) == int(example.answer)
        assert len(re.findall(rf"\b{word}\b", passage)) == int(example.answer)


def test_letters_are_counted(mined):
    for example in mined("count_letters"):
        assert sum(letter == example.fields["letter"] for letter in example.fields["word"]) == int(example.answer)
    assert all(len(example.fields["word"]) == int(example.answer) for example in mined("word_length"))


def test_the_most_frequent_word_is_more_frequent_than_every_other_option(mined):
    for example in mined("most_frequent_word"):
        passage = example.fields["passage"].lower()
        counts = {option: passage.count(option) for option in example.options}
        assert all(counts[example.answer] > n for option, n in counts.items() if option != example.answer)


@pytest.mark.parametrize(("name", "key"), [("sort_words", str.lower), ("sort_by_length", len)])
def test_words_are_sorted(mined, name, key):
    for example in mined(name):
        given_words, ordered = example.fields["words"].split(", "), example.answer.splitlines()
        assert sorted(given_words) == sorted(ordered)
        assert all(key(a) < key(b) for a, b in pairwise(ordered))


def test_a_misspelt_sentence_differs_in_as_many_words_as_it_says(mined):
    for example in mined("repair_spelling"):
        pairs = list(zip(example.fields["sentence"].split(), example.answer.split(), strict=True))
        assert sum(a != b for a, b in pairs) == int(example.fields["count"])
    for example in mined("error_spotting"):
        assert example.fields["sentence"].split().count(example.answer) <= 1
        assert example.answer in example.fields["sentence"] and example.fields["correct"] != example.answer


def test_repairs_change_what_they_say_and_nothing_else(mined):
    for example in mined("repair_case"):
        assert example.fields["sentence"] != example.answer
        assert example.fields["sentence"].lower() == example.answer.lower()
    for example in mined("repair_spacing"):
        lost = len(example.answer) - len(example.fields["sentence"])
        assert example.fields["sentence"].replace(" ", "") == example.answer.replace(" ", "")
        assert lost == int(example.fields["count"]) > 0
    for example in mined("repair_punctuation"):
        rest = example.answer
        for mark in example.fields["marks"].split():
            rest = rest[rest.index(mark) + 1 :]
        assert re.sub(r"[,;:.!?](?=\s|$)", "", example.answer) == example.fields["sentence"]


def test_a_quoted_sentence_alone_has_the_clue(mined):
    for example in mined("evidence"):
        passage, clue = example.fields["passage"], example.fields["clue"].casefold()
        assert clue in example.answer.casefold()
        assert clue not in passage.replace(example.answer, "").casefold()


def test_a_gap_question_is_solved_by_its_word(mined):
    for example in mined("gap_question"):
        assert example.answer.replace("____", example.fields["word"]) in example.fields["passage"].replace("\n\n", " ")


def test_a_right_answer_completes_the_sentence_and_a_wrong_one_does_not(mined):
    answers = {example.answer for example in mined("answer_grading")}
    assert answers == {"yes", "no"}
    for example in mined("answer_grading"):
        completed = example.fields["question"].replace("____", example.fields["proposed"])
        assert (completed in example.fields["passage"].replace("\n\n", " ")) == (example.answer == "yes")


def test_only_the_right_instruction_gives_the_output(mined):
    by_wording = {
        wording.format(it="the sentence"): rule.apply for rule in TRANSFORMATIONS for wording in rule.wordings
    }
    for example in mined("instruction_choice"):
        outputs = {o: by_wording[o[0].lower() + o[1:-1]](example.fields["input"]) for o in example.options}
        assert [o for o, output in outputs.items() if output == example.fields["output"]] == [example.answer]


def test_replacing_back_restores_the_sentence(mined):
    for example in mined("replace_term"):
        old, new = example.fields["old"], example.fields["new"]
        assert re.sub(rf"\b{new}\b", old, example.answer) == example.fields["sentence"]


def test_the_speaker_stands_before_the_line(mined):
    for example in mined("who_said"):
        assert f"{example.answer}: {example.fields['line']}" in example.fields["dialogue"].splitlines()


def test_reviews_do_not_show_their_stars(mined):
    examples = mined("review_rating")
    assert {example.answer for example in examples} == {"positive", "negative"}
    assert not any("★" in example.fields["review"] or "/5" in example.fields["review"] for example in examples)


ROPES = (
    "Ropes of hemp swell in salt water and shrink in the sun. {between}{again} ropes grow in salt water and shrink in "
    "the sun. The office lends them by the day."
)
ELSEWHERE = (
    "## {name}\n\nThe {name} is opened at nine by a volunteer, who lives in a house next door. He keeps a large key of "
    "iron on a nail behind his own door, and nobody else may touch it.\n"
)


@pytest.mark.parametrize(
    ("between", "again", "found"),
    [
        ("", "In other words,", True),
        ("", "Put differently:", True),
        ("", "In this case,", False),
        ("Nobody knows why.\n\n    a = rope()\n\n", "In other words,", False),
        ("Nobody knows why. ", "In other words,", False),
    ],
)
def test_a_paraphrase_says_again_what_its_writer_says_it_does(between, again, found):
    names = "\n".join(ELSEWHERE.format(name=name) for name in ("chapel", "boathouse", "bakery"))
    page = f"# Ropes\n\n{ROPES.format(between=between, again=again)}\n\n{names}"
    answers = {example.answer for example in of_page("paraphrase_choice", page)}
    assert answers == ({"Ropes grow in salt water and shrink in the sun."} if found else set())


@pytest.mark.parametrize("name", ["paraphrase_choice", "summary_choice"])
def test_what_is_said_again_follows_its_phrase_in_the_document(name, documents):
    found = [(d, e) for d in documents for e in families()[name].mine(d, random.Random(d.path))]
    assert found
    for document, example in found:
        flat = " ".join(document.content.split())
        phrase = flat.split(example.fields["text"], 1)[1].split(example.answer[1:], 1)[0]
        assert re.fullmatch(r" (?:In|To|Put|Simply) [\w ]{2,16}, \w", phrase)
        assert not any(option[1:] in phrase for option in example.options)


HIGH = "The administration prohibited the utilisation of the northern harbour throughout the entire winter season."


@pytest.mark.parametrize(
    ("simple", "found"),
    [
        ("The northern harbour could not be used during the winter season.", True),
        ("The northern harbour could not be used during the winter season of 1912.", False),
        ("The northern harbour of Skarn could not be used during the winter season.", False),
        ("Boats were not allowed to go in there when it was cold and dark.", False),
        (HIGH, False),
        ("No northern harbour.", False),
        ("", False),
    ],
)
def test_a_version_says_nothing_that_its_text_does_not(tmp_path, simple, found):
    path = tmp_path / "pages.jsonl"
    path.write_text(json.dumps({"title": "The harbour", "text": HIGH, "easy": simple}), encoding="utf-8")
    fields = BuildConfig(fields={"simple": "easy"}).record_fields
    (document,) = read(path, "pages.jsonl", "CC0-1.0", fields=fields)
    assert document.content == f"The harbour\n\n{HIGH}"
    answers = [example.answer for example in families()["simplify"].mine(document, random.Random(0))]
    assert answers == ([simple] if found else [])


@pytest.mark.parametrize("name", ["paraphrase", "simplify", "summary"])
def test_the_words_given_are_those_that_a_version_adds(mined, name):
    for example in mined(name):
        assert len(example.answer.split()) == int(example.fields["length"])
        text = re.findall(r"\w+", example.fields["text"].lower())
        new = [word for word in re.findall(r"\w+", example.answer.lower()) if word not in text]
        assert list(dict.fromkeys(new)) == example.fields["words"].split(", ")


@pytest.mark.parametrize("name", ["mail_reply", "mail_quote", "mail_own_words"])
def test_mails_are_told_apart_by_their_marks_and_name_nobody(mined, name):
    raw = (FIXTURES / "garden.mbox").read_text(encoding="utf-8")
    flat = " ".join(line.removeprefix("> ") for line in raw.split("\n") if line.strip()) + " "
    names = set(re.findall(r"[A-Z]\w+", " ".join(re.findall(r"^(?:From|To|Cc): .*", raw, re.M))))
    assert {"Ilse", "Brandvold", "Marek", "Tomke"} <= names
    for example in mined(name):
        said = " ".join([*example.fields.values(), example.answer, *(example.options or ())])
        assert "@" not in said and "<" not in said and names.isdisjoint(re.findall(r"\w+", said))
        if name == "mail_own_words":
            marked = [line for line in example.fields["message"].split("\n") if line.startswith(">")]
            kept = "\n".join(line for line in example.fields["message"].split("\n") if not line.startswith(">"))
            assert marked and re.sub(r"\n{2,}", "\n\n", kept).strip() == example.answer
        else:
            quoted = example.fields.get("quoted", example.answer)
            reply = example.fields.get("reply", example.answer)
            assert f"{quoted} {reply} " in flat
            others = [option for option in example.options if option != example.answer]
            pairs = [(quoted, other) if name == "mail_reply" else (other, reply) for other in others]
            assert not any(f"{one} {other} " in flat for one, other in pairs)


def test_a_remark_stands_on_its_side_of_the_page(mined):
    examples = mined("pros_and_cons")
    assert {example.answer for example in examples} == {"advantage", "disadvantage"}
    page = (FIXTURES / "stoves.md").read_text(encoding="utf-8")
    for example in examples:
        before = page[page.index(example.fields["subject"]) : page.index(example.fields["remark"])]
        side = re.findall(r"Advantages|Disadvantages|Pros|Cons", before)[-1]
        assert (side in ("Advantages", "Pros")) == (example.answer == "advantage")


def test_a_sentence_of_a_row_differs_from_its_model_in_the_cells_alone(mined):
    for example in mined("row_sentence"):
        rows = [re.findall(r'"([^"]*)"|(?<=\| )([^|]*)(?= \|)', line) for line in example.fields["table"].splitlines()]
        cells = {row[0]: row for row in ([one or other for one, other in row] for row in rows)}
        old, new = cells[example.fields["other"]], cells[example.fields["row"]]
        assert all(cell in example.fields["model"] for cell in old) and all(cell in example.answer for cell in new)
        frames = [
            len(text) - sum(map(len, row)) for text, row in ((example.fields["model"], old), (example.answer, new))
        ]
        assert frames[0] == frames[1]


@pytest.mark.parametrize("name", ["constraints", "constrained_quote"])
def test_every_check_is_met_by_the_answer(mined, name):
    checks = pytest.importorskip("instructrec.core.checks")
    for example in mined(name):
        written = json.dumps(example.checks)
        checks.validate(written, name)
        assert all(checks.satisfied(written, example.answer)), (example.checks, example.answer)


@given(st.text("abcdefghijklmnopqrstuvwxyz", min_size=6, max_size=14), st.integers())
def test_a_slip_keeps_the_ends_of_a_word_and_almost_its_length(word, seed):
    slip = misspelt(word, random.Random(seed))
    assert slip[0] == word[0] and slip[-1] == word[-1]
    assert abs(len(slip) - len(word)) <= 1 and set(slip) <= set(word)
