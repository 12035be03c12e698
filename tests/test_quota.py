"""A large corpus is asked for fewer examples a document, but never for fewer than the balance can use."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_builders.config import BuildConfig
from data_builders.quota import SURPLUS, Quota
from data_builders.splits import TEST
from instructrec.core.schema import TRAIN, VALIDATION

CONFIG = BuildConfig(rows_per_family=80, heldout_rows_per_family=5, test_documents=0.1, validation_documents=0.1)
WANTED = SURPLUS * 90  # 80 training rows, and 5 on each of the other sides


def run(documents: int, corpus: int, share: float) -> tuple[int, list[int]]:
    """Examples found, and quotas on the way, where every 1/share-th document of 100 bytes holds ten examples."""
    quota, asked = Quota(CONFIG, 100 * documents, corpus), []
    for number in range(documents):
        side = quota.side(f"{number}.md")
        asked.append(quota.of("title", side))
        fruitful = share and number % round(1 / share) == 0
        quota.see(100, Counter({"title": min(asked[-1], 10)} if fruitful else {}), side)
    return quota.found["title"], asked


def test_a_small_corpus_is_asked_for_all():
    found, asked = run(documents=20, corpus=2000, share=1.0)
    assert set(asked) == {CONFIG.per_document} and found == 20 * CONFIG.per_document


def test_a_large_corpus_is_asked_evenly_in_some_of_its_documents_and_gives_enough():
    wanted = 10 * WANTED
    found, asked = run(documents=4000, corpus=40_000, share=1.0)  # one shard of a plan that wants ten times as much
    assert 0.98 * wanted <= found <= 1.1 * wanted and set(asked[20:]) == {0, 1}
    quarters = [sum(asked[i : i + 995]) for i in range(20, 4000, 995)]
    assert max(quarters) - min(quarters) <= 0.05 * wanted


def test_a_rare_family_is_asked_for_all_everywhere():
    found, asked = run(documents=1000, corpus=100_000, share=1 / 100)
    sides = [Quota(CONFIG, 0, 0).side(f"{number}.md") for number in range(1000)]
    assert {n for n, side in zip(asked[60:], sides[60:], strict=True) if side == TRAIN} == {CONFIG.per_document}
    rare = [side for side in sides[::100] if side == TRAIN]
    assert CONFIG.per_document * len(rare) <= found <= 10 * CONFIG.per_document


def test_each_side_is_asked_for_what_it_can_keep():
    config = BuildConfig(rows_per_family=100, heldout_rows_per_family=100)
    quota, found = Quota(config, 1_000_000, 1_000_000), Counter()
    for number in range(10_000):
        side = quota.side(f"{number}.md")
        n = quota.of("title", side)
        found[side] += n
        quota.see(100, Counter(title=n), side)
    assert all(120 <= found[side] <= 150 for side in (TRAIN, VALIDATION, TEST))


def test_without_a_known_size_all_is_asked_for():
    quota = Quota(CONFIG, 0, 0)
    for _ in range(100):
        quota.see(100, Counter(title=6), TRAIN)
    assert quota.of("title", TRAIN) == CONFIG.per_document


@given(documents=st.integers(100, 3000), share=st.sampled_from([1.0, 0.5, 0.2, 0.1]))
def test_what_the_corpus_has_is_found_up_to_what_the_balance_can_use(documents, share):
    found, _ = run(documents, 100 * documents, share)
    there = CONFIG.per_document * len(range(0, documents, round(1 / share)))
    assert found >= 0.95 * min(there, WANTED / SURPLUS)


@pytest.mark.parametrize("parts", [2, 10])
def test_shards_share_what_is_wanted(parts):
    found = sum(run(documents=3000 // parts, corpus=300_000, share=1.0)[0] for _ in range(parts))
    assert found >= WANTED
