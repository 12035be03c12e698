"""A large corpus is asked for fewer examples a document, but never for fewer than the balance can use."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_builders.config import BuildConfig
from data_builders.quota import SURPLUS, Quota

CONFIG = BuildConfig(rows_per_family=80, heldout_rows_per_family=5, test_documents=0.1, validation_documents=0.1)
WANTED = SURPLUS * 100  # 80 rows from the 80 % of the documents that are for training


def run(documents: int, corpus: int, share: float) -> tuple[int, list[int]]:
    """Examples found, and quotas on the way, where every 1/share-th document of 100 bytes holds ten examples."""
    quota, asked = Quota(CONFIG, 100 * documents, corpus), []
    for number in range(documents):
        asked.append(quota.of("title"))
        fruitful = share and number % round(1 / share) == 0
        quota.see(100, Counter({"title": min(asked[-1], 10)} if fruitful else {}))
    return quota.found["title"], asked


def test_a_small_corpus_is_asked_for_all():
    found, asked = run(documents=30, corpus=3000, share=1.0)
    assert set(asked) == {CONFIG.per_document} and found == 30 * CONFIG.per_document


def test_a_large_corpus_is_asked_for_one_a_document_and_gives_enough():
    found, asked = run(documents=2000, corpus=200_000, share=1.0)
    assert asked[20:] == [1] * 1980 and found >= WANTED


def test_a_rare_family_is_asked_for_all_everywhere():
    found, asked = run(documents=1000, corpus=100_000, share=1 / 40)
    assert set(asked[40:]) == {CONFIG.per_document} and found >= 0.95 * 25 * CONFIG.per_document


def test_without_a_known_size_all_is_asked_for():
    quota = Quota(CONFIG, 0, 0)
    for _ in range(100):
        quota.see(100, Counter(title=6))
    assert quota.of("title") == CONFIG.per_document


@given(documents=st.integers(100, 3000), share=st.sampled_from([1.0, 0.5, 0.2, 0.1]))
def test_what_the_corpus_has_is_found_up_to_what_is_wanted(documents, share):
    found, _ = run(documents, 100 * documents, share)
    there = CONFIG.per_document * len(range(0, documents, round(1 / share)))
    assert found >= 0.95 * min(there, WANTED)


@pytest.mark.parametrize("parts", [2, 10])
def test_shards_share_what_is_wanted(parts):
    found = sum(run(documents=3000 // parts, corpus=300_000, share=1.0)[0] for _ in range(parts))
    assert found >= WANTED
