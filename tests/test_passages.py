"""Passages on both sides of the hold-out, found from the rows: what must be named and what must not."""

import random
import time

import pytest

from instructrec.core.passages import Leak, Passages

VOCABULARY = [f"{a}{b}{c}" for a in "bdfgklm" for b in "aeiou" for c in ("n", "rt", "sh", "ving")]
LONG_WORDING = (
    "Please read what follows with care, because it matters to all of us, and then give it the one name that you "
    "think its author would have chosen for it, without any other word before or after that name: {}"
)


def passage(seed: int, words: int = 60) -> str:
    return " ".join(random.Random(seed).choices(VOCABULARY, k=words))


def row(name: str, prompt: str, template: str = "t.en.1") -> dict:
    return {"id": name, "template": template, "prompt": [{"role": "user", "content": prompt}]}


def leaks(held_out: list[dict], train: list[dict]) -> list[Leak]:
    passages = Passages()
    for one in held_out:
        passages.hold_out(one)
    for one in train:
        passages.train(one)
    return passages.leaks()


def clean(rows: int, words: int = 60, wording: str = LONG_WORDING) -> tuple[list[dict], list[dict]]:
    """Held-out and training rows of three wordings, no passage of which occurs twice."""
    prompts = [(n, f"{n % 3} {wording.format(passage(n, words))}", f"t.en.{n % 3}") for n in range(rows)]
    every = [row(f"row{n}", prompt, template) for n, prompt, template in prompts]
    return every[::4], [one for n, one in enumerate(every) if n % 4]


@pytest.mark.parametrize("rows", [4, 8, 12, 40, 200])
@pytest.mark.parametrize("words", [0, 1, 2, 15, 60])
def test_a_shared_wording_is_no_leak(rows, words):
    assert leaks(*clean(rows, words)) == []


def test_a_wording_that_gives_numbers_is_no_leak():
    wording = LONG_WORDING.replace("one name", "{} names") + " {}"
    every = [row(f"row{n}", wording.format(n % 9, "", passage(n, 4))) for n in range(30)]
    assert leaks(every[:10], every[10:]) == []


@pytest.mark.parametrize("template", ["t.en.1", "t.en.2", "seen.once"])
@pytest.mark.parametrize("rows", [24, 200])
def test_a_nearly_equal_passage_in_any_wording_is_named(rows, template):
    held_out, train = clean(rows)
    words = passage(10**6).split()
    held_out.append(row("asked", LONG_WORDING.format(" ".join(words))))
    words[20] = "changed"
    train.append(row("copy", "What is this about?\n\n" + " ".join([*words[3:], "More", "of", "it."]).upper(), template))
    (leak,) = leaks(held_out, train)
    assert (leak.train, leak.held_out) == ("copy", "asked") and 0.5 < leak.share < 1


def test_less_than_half_of_a_passage_is_not_named():
    held_out, train = clean(40)
    words = passage(10**6).split()
    held_out.append(row("asked", " ".join(words)))
    train.append(row("quote", " ".join(words[:30]) + " " + passage(10**6 + 1, 30)))
    assert leaks(held_out, train) == []


def test_scripts_without_spaces_and_earlier_turns_count():
    signs = "".join(map(chr, random.Random(0).sample(range(0x4E00, 0x9000), 90)))
    asked = row("asked", f"请用一句话概括：{signs}")
    talk = row("talk", "And why?", "other") | {
        "prompt": [{"role": "user", "content": signs}, {"role": "user", "content": "为什么？"}]
    }
    assert [(leak.train, leak.held_out) for leak in leaks([asked], [talk])] == [("talk", "asked")]


def test_nothing_to_compare_is_no_leak():
    assert leaks([], []) == leaks([row("a", passage(1))], []) == leaks([], [row("a", passage(1))]) == []
    assert leaks([row("a", "")], [row("b", "", "other")]) == []


def test_ten_thousand_rows_take_seconds():
    held_out, train = clean(10_000, 100)
    started = time.process_time()
    assert leaks(held_out, train) == []
    assert time.process_time() - started < 5  # seen: 1.0


def test_texts_of_no_set_that_share_a_passage_are_all_found():
    held_out, train = clean(24)
    passages = Passages()
    held_out.append(row("asked", LONG_WORDING.format(passage(10**6))))
    for one in held_out:
        passages.hold_out(one)
    for one in train:
        passages.train(one)
    shared = " ".join(passage(10**6).split()[10:35])  # less than half of it
    texts = [f"{passage(2 * 10**6 + n)} {shared if n % 2 else ''} {passage(3 * 10**6 + n)}" for n in range(200)]
    texts.append(LONG_WORDING.format(passage(4 * 10**6)))  # a wording is nobody's passage
    assert passages.leaking(texts) == set(range(1, 200, 2))
    assert passages.leaking([]) == set() and Passages().leaking(texts) == set()
    assert passages.leaks() == []
