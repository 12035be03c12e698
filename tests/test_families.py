"""What every family must do, found by itself: a new module and its template file are tested by being there."""

import random
import re
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median

import pytest
from conftest import write_corpus

from data_builders.conversations import REFERENCES
from data_builders.documents import corpus_files, read
from data_builders.families import GAP, OPENING, Template, families
from data_builders.gates import rejected_by
from data_builders.groups import GROUPS, HELD_OUT_GROUPS
from instructrec.core.segmentation import count_words, words

FAMILIES = families()
FOLLOWED = [name for name, family in FAMILIES.items() if any(family.follow_ups.values())]
WORDED = [name for name in FAMILIES if name != "synthesized"]  # a model words that one: see test_synthesis.py
FIXTURES = Path(__file__).parent / "fixtures" / "families"
"""Documents of our own writing that hold what the help topics lack."""


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    corpus = write_corpus(tmp_path_factory.mktemp("families") / "docs")
    return [
        document
        for folder in (corpus, FIXTURES)
        for path, name in corpus_files(str(folder))
        for document in read(path, name, "PSF-2.0")
    ]


@pytest.fixture(scope="module")
def mined(documents):
    def mine(name):
        family = FAMILIES[name]
        return [
            (document, example)
            for document in documents
            if document.kind == family.kind and family.wordings(document.language)
            for example in islice(family.mine(document, random.Random(document.path)), 20)
        ]

    return {name: mine(name) for name in FAMILIES}


def test_every_group_is_explained_and_used():
    assert {family.group for family in FAMILIES.values()} == set(GROUPS)
    assert set(HELD_OUT_GROUPS) <= set(GROUPS)


def test_no_wording_is_used_twice():
    seen = Counter(
        template.prompt
        for family in FAMILIES.values()
        for ts in (*family.templates.values(), *family.follow_ups.values())
        for template in ts
    )
    assert [prompt for prompt, n in seen.items() if n > 1] == []


@pytest.mark.parametrize("name", WORDED)
class TestEveryFamily:
    def test_is_documented_and_named_after_its_module(self, name):
        family = FAMILIES[name]
        assert family.mine.__module__.endswith(f".{name}")
        assert family.signal.endswith((".", ")")) and family.group in GROUPS

    def test_has_twelve_english_wordings(self, name):
        assert len(FAMILIES[name].wordings("en")) >= 12

    def test_finds_something_in_the_corpus(self, name, mined):
        assert len(mined[name]) >= 3

    def test_is_deterministic(self, name, documents, mined):
        family = FAMILIES[name]
        for document in documents[:10]:
            if document.kind == family.kind and family.wordings(document.language):
                twice = [list(islice(family.mine(document, random.Random(4)), 5)) for _ in range(2)]
                assert twice[0] == twice[1]

    def test_every_wording_renders_without_a_gap(self, name, mined):
        for template in FAMILIES[name].wordings("en"):
            for _, example in mined[name][:5]:
                prompt, completion, choices = template.render(example)
                assert prompt.strip() and completion.strip() and "{{" not in prompt
                assert len(words(prompt)) > 5
                if choices is not None:
                    assert completion in choices
                    assert all(template.labels.get(option, option) in prompt for option in example.options)

    def test_the_span_holds_what_the_answer_was_made_from(self, name, mined):
        for document, example in mined[name]:
            assert 0 <= example.start < example.end <= len(document.content)
            span = document.content[example.start : example.end]
            if FAMILIES[name].computed:
                continue
            # Unwrapping joins what a line's end parts at a hyphen.
            whole = "".join(example.answer.split()) in "".join(span.split())
            assert whole or set(words(example.answer)) <= set(words(span))

    def test_gates_pass_most_of_it(self, name, mined):
        family = FAMILIES[name]
        template = next(t for t in family.wordings("en") if not t.letter)
        passed = [rejected_by(family, e, template.render(e)[0], "en") is None for _, e in mined[name]]
        # A page's title often stands in its first paragraph; that is what the leak gate is for.
        assert sum(passed) >= (0.3 if name == "title" else 0.9) * len(passed)

    def test_options_are_distinct_and_hold_the_answer_anywhere(self, name, mined):
        places = Counter()
        for _, example in mined[name]:
            if example.options is not None:
                assert example.answer in example.options
                assert len({option.casefold() for option in example.options}) == len(example.options)
                places[example.options.index(example.answer)] += 1
        if places.total() > 40:
            assert max(places.values()) < 0.6 * places.total()


@pytest.mark.parametrize("name", FOLLOWED)
class TestFollowUps:
    """What a family asks where an earlier turn shows the text."""

    @staticmethod
    def texts(example) -> list[str]:
        return [example.fields[name] for name in REFERENCES["en"] if name in example.fields]

    def test_asks_in_few_words_all_but_the_text(self, name, mined):
        family = FAMILIES[name]
        whole = {field for field, phrase in REFERENCES["en"].items() if phrase}
        usual, terse = 0.0, Counter()
        for _, example in mined[name][:8]:
            text, *_ = self.texts(example)
            without = replace(example, fields={f: v for f, v in example.fields.items() if f not in whole})
            wordings = [t for t in family.wordings("en") if example.options is not None or not t.letter]
            # A sentence is pointed to: that must be shorter than to show it.
            left_out = text if whole & example.fields.keys() else ""
            usual += median(count_words(t.render(example)[0].replace(left_out, "")) for t in wordings)
            for template in family.follow_ups["en"]:
                if template.letter and example.options is None:
                    continue
                question, completion, choices = template.render(without)  # so that no variable is the text
                assert question.strip() and completion.strip() and "{{" not in question
                assert (
                    text not in question.replace(example.fields.get("output", ""), "") or len(text.split()) <= OPENING
                )
                terse[template.name] += count_words(question)
                if choices is not None:
                    assert completion in choices
                    assert all(template.labels.get(option, option) in question for option in example.options)
        assert terse and max(terse.values()) < usual

    def test_is_not_among_the_wordings_that_stand_alone(self, name):
        alone = {t.name for ts in FAMILIES[name].templates.values() for t in ts}
        assert not any(t.name in alone for ts in FAMILIES[name].follow_ups.values() for t in ts)

    def test_a_quotation_cut_to_its_gap_is_still_the_only_one(self, name, mined):
        if any("| around" in template.prompt for template in FAMILIES[name].follow_ups["en"]):
            cut = Template("", "{{ quote | around }}")
            for _, example in mined[name]:
                quote = next(value for field, value in example.fields.items() if field in ("quote", "question"))
                shown = cut.render(replace(example, fields={"quote": quote}))[0]
                parts = [re.escape(part.strip("… ")) for part in shown.split(GAP)]
                text = " ".join(example.fields["passage"].split())
                assert len(re.findall(r"\s*\S.{0,50}?\s*".join(parts), text)) == 1, shown


def test_sentence_order_is_the_order_of_the_text(mined):
    for document, example in mined["sentence_order"]:
        shown = [line.split(". ", 1)[1] for line in example.fields["sentences"].splitlines()]
        restored = [shown[int(number) - 1] for number in example.answer.split(", ")]
        flat = "".join(document.content.split())
        places = [flat.index("".join(sentence.split())) for sentence in restored]
        assert places == sorted(places) and restored != shown
