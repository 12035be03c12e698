"""Segmentation, overlap and layout: the properties every family leans on."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data_builders.layout import blocks, functions, parse_python, sections
from instructrec.core.minhash import clusters, signature, similarity
from instructrec.core.overlap import ngrams, normalise
from instructrec.core.segmentation import sentences, unwrap, words

PARAGRAPH = (
    "The harbour was built in a single summer. Its walls were made of the dark stone that is found on the northern "
    "shore, and no machine was used. Ships from many countries have waited there for better weather ever since. "
)


def test_words_need_no_spaces():
    assert words("Don't stop state-of-the-art v1.2!") == ["Don't", "stop", "state-of-the-art", "v1.2"]
    assert words("我爱 Python。") == ["我", "爱", "Python"]
    assert words("Привет, мир") == ["Привет", "мир"]


def test_sentences_of_two_languages():
    assert sentences("Dr. Smith left. He ran.", "en") == ["Dr. Smith left.", "He ran."]
    assert sentences("今天下雨。我们在家。", "zh") == ["今天下雨。", "我们在家。"]


def test_unwrapping():
    assert unwrap("a  hard\nwrapped line") == "a hard wrapped line"
    assert unwrap("a non-\nlocal name") == "a non-local name"
    assert unwrap("今天\n下雨") == "今天下雨"


@given(st.lists(st.text(alphabet="ab中 。.-", max_size=8), max_size=5))
def test_unwrapping_keeps_every_character_but_white_space(lines):
    assert "".join(unwrap("\n".join(lines)).split()) == "".join("".join(lines).split())


def test_near_duplicates_share_a_cluster_and_others_do_not():
    texts = [PARAGRAPH * 3, PARAGRAPH * 3 + "One more sentence at the end.", "Completely different words here. " * 9]
    marks = [signature(text) for text in texts]
    assert similarity(marks[0], marks[1]) > 0.7 > 0.1 > similarity(marks[0], marks[2])
    assert clusters(np.stack(marks)).tolist() == [0, 0, 2]


def test_signature_similarity_estimates_jaccard():
    tokens = [f"w{i}" for i in range(400)]
    a, b = " ".join(tokens[:300]), " ".join(tokens[100:])
    exact = len(ngrams(a, 5) & ngrams(b, 5)) / len(ngrams(a, 5) | ngrams(b, 5))
    assert abs(similarity(signature(a), signature(b)) - exact) < 0.2  # 64 slots: standard error 0.06
    assert normalise("The  CAT, sat.") == "the cat sat"


PAGE = """Title
*****

First paragraph, hard
wrapped over lines.

   indented = code(1)

   This indented text is plainly prose and it goes on for a while to say so.

Section
=======

- one
- two

| a | b |
"""


def test_a_page_of_restructured_text():
    found = [(b.kind, b.level, b.text) for b in blocks(PAGE, "rst")]
    assert found[0] == ("heading", 1, "Title")
    assert found[1] == ("paragraph", 0, "First paragraph, hard wrapped over lines.")
    assert [kind for kind, _, _ in found] == [
        "heading",
        "paragraph",
        "code",
        "paragraph",
        "heading",
        "list",
        "table",
    ]
    assert [s.heading.text for s in sections(blocks(PAGE, "rst"))] == ["Title", "Section"]


def test_a_page_of_markdown():
    page = "# Title #\ntext of the\nfirst paragraph.\n\n```rust\n# no heading\n```\n\n## Part\n<!-- a\n\nb -->\nEnd.\n"
    assert [(b.kind, b.level, b.text) for b in blocks(page, "markdown") if b.kind != "code"] == [
        ("heading", 1, "Title"),
        ("paragraph", 0, "text of the first paragraph."),
        ("heading", 2, "Part"),
        ("paragraph", 0, "End."),
    ]


markup = st.lists(
    st.sampled_from(
        ["Title", "====", "# H", "## H2", "```", "- item", "    code()", "", "plain words.", "| t |", "<!--", "-->"]
    )
    | st.text(max_size=12),
    max_size=14,
).map("\n".join)


@settings(max_examples=300)
@given(markup, st.sampled_from(["plain", "markdown", "rst"]))
def test_blocks_are_in_order_and_lie_where_they_say(content, layout):
    place = 0
    for block in blocks(content, layout):
        assert place <= block.start < block.end <= len(content)
        place = block.end
        inside = "".join(content[block.start : block.end].split())
        assert "".join(block.text.split()) in inside


def test_functions_come_with_their_text():
    source = (
        'class A:\n    @property\n    def size(self):\n        """The number of things in it."""\n        return 3\n\n'
        'def one(): "inline"; return 1\n'
    )
    (found,) = functions(source, parse_python(source))
    assert (found.name, found.summary, found.body) == ("size", "The number of things in it.", "    return 3")
    assert found.source == "def size(self):\n    return 3"
    assert source[found.start : found.end].strip().startswith("def size")
