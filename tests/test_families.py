"""What every family must do, found by itself: a new module and its template file are tested by being there."""

import random
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from conftest import write_corpus

from data_builders.documents import corpus_files, read
from data_builders.families import families
from data_builders.gates import rejected_by
from data_builders.groups import GROUPS, HELD_OUT_GROUPS
from instructrec.core.segmentation import words

FAMILIES = families()
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
        template.prompt for family in FAMILIES.values() for ts in family.templates.values() for template in ts
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


def test_sentence_order_is_the_order_of_the_text(mined):
    for document, example in mined["sentence_order"]:
        shown = [line.split(". ", 1)[1] for line in example.fields["sentences"].splitlines()]
        restored = [shown[int(number) - 1] for number in example.answer.split(", ")]
        flat = "".join(document.content.split())
        places = [flat.index("".join(sentence.split())) for sentence in restored]
        assert places == sorted(places) and restored != shown
