"""BLEU, chrF, ROUGE, METEOR and Levenshtein against their reference implementations and published examples."""

from __future__ import annotations

import functools
import pydoc_data.topics
import random
from typing import Any

import pytest
import sacrebleu
from nltk.tokenize import word_tokenize
from nltk.translate.meteor_score import meteor_score
from rouge_score.rouge_scorer import RougeScorer

from instructrec.evaluation import metrics
from instructrec.evaluation.metrics import bleu, chrf, fuzzy, meteor, rouge_l

PAIRS = 200
CLAUSES = [
    "渡轮中午离开老港口",
    "傍晚之前就能到达小岛",
    "商店那时还没有关门",
    "2024年的数据显示GDP增长了5.2%",
    "他买了一台iPhone手机",
    "天气预报说明天有雨",
    "孩子们在公园里放风筝",
    "这本书讲述了一个古老的故事",
    "图书馆九点开门",
    "我们应该保护环境",
]


def changed(tokens: list[str], rng: random.Random) -> list[str]:
    """Some tokens dropped, doubled or swapped."""
    kept = [token for token in tokens for _ in range(rng.choice((0, 1, 1, 1, 1, 2)))]
    if len(kept) > 3 and rng.random() < 0.5:
        cut = rng.randrange(len(kept))
        kept = kept[cut:] + kept[:cut]
    return kept or tokens


@functools.cache
def english() -> list[tuple[str, str]]:
    """Sentences of Python's help, each with a changed one."""
    rng = random.Random(0)
    texts = " ".join(text for _, text in sorted(pydoc_data.topics.topics.items())).split()
    starts = [rng.randrange(len(texts) - 30) for _ in range(PAIRS)]
    sentences = [texts[start : start + rng.randint(4, 30)] for start in starts]
    return [(" ".join(changed(tokens, rng)), " ".join(tokens)) for tokens in sentences]


@functools.cache
def mixed() -> list[tuple[str, str]]:
    """Chinese with digits and Latin words in it."""
    return clauses(CLAUSES)


@functools.cache
def chinese() -> list[tuple[str, str]]:
    return clauses([clause for clause in CLAUSES if not any(map(str.isascii, clause))])


def clauses(known: list[str]) -> list[tuple[str, str]]:
    rng = random.Random(0)
    texts = ["，".join(rng.sample(known, rng.randint(1, 3))) + "。" for _ in range(PAIRS)]
    return [("".join(changed(list(text), rng)), text) for text in texts]


class NoSynonyms:
    def synsets(self, word: str) -> list:
        return []


@pytest.mark.parametrize(("pairs", "tokenize"), [(english, "13a"), (chinese, "zh"), (mixed, "zh")])
def test_bleu_and_chrf_are_sacrebleus(pairs, tokenize):
    for output, target in pairs():
        reference = sacrebleu.sentence_bleu(output, [target], tokenize=tokenize).score / 100
        assert bleu(output, [target]) == pytest.approx(reference, abs=1e-6), output
        assert chrf(output, [target]) == pytest.approx(sacrebleu.sentence_chrf(output, [target]).score / 100, abs=1e-6)


def test_rouge_is_rouge_scores():
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    for output, target in english():
        reference = scorer.score(target, output)["rougeL"].fmeasure
        assert rouge_l(output, [target]) == pytest.approx(reference, abs=1e-6), output


def test_rouge_of_chinese_is_of_characters():
    for output, target in chinese():
        a, b = ([c for c in text if "\u4e00" <= c <= "\u9fff"] for text in (output, target))
        common = [0] * (len(b) + 1)  # the longest common subsequence with each beginning of b
        for x in a:
            before = list(common)
            for j, y in enumerate(b, start=1):
                common[j] = before[j - 1] + 1 if x == y else max(before[j], common[j - 1])
        assert rouge_l(output, [target]) == pytest.approx(2 * common[-1] / (len(a) + len(b)), abs=1e-6), output


@pytest.fixture
def no_wordnet(monkeypatch):
    """METEOR without synonyms, whatever data this machine has."""
    monkeypatch.setattr(metrics, "_wordnet", NoSynonyms)


def test_meteor_is_nltks(no_wordnet):
    for output, target in english():
        tokens = [word_tokenize(text, preserve_line=True) for text in (target, output)]
        reference = meteor_score(tokens[:1], tokens[1], wordnet=NoSynonyms())
        assert meteor(output, [target]) == pytest.approx(reference, abs=1e-6), output
    for output, target in chinese():
        reference = meteor_score([list(target)], list(output), wordnet=NoSynonyms())
        assert meteor(output, [target]) == pytest.approx(reference, abs=1e-6), output


@pytest.mark.parametrize(
    ("output", "target", "score"),
    [
        # Banerjee and Lavie (2005): six matches of seven words in two chunks, by their formula.
        (
            "the president spoke to the audience",
            "the president then spoke to the audience",
            (1 - 0.5 * (2 / 6) ** 3) * 10 * 1 * (6 / 7) / (6 / 7 + 9 * 1),
        ),
        # The worked examples of the encyclopedias.
        ("on the mat sat the cat", "the cat sat on the mat", 0.5),
        ("the cat sat on the mat", "the cat sat on the mat", 0.9977),
        ("the cat was sat on the mat", "the cat sat on the mat", 0.9654),
        # NLTK's documentation.
        (
            "It is a guide to action which ensures that the military always obeys the commands of the party",
            "It is a guide to action that ensures that the military will forever heed Party commands",
            0.6944,
        ),
        ("non matching hypothesis", "this is a cat", 0),
        # Stems: two matches of two words in one chunk.
        ("the cats", "the cat", 1 - 0.5 * (1 / 2) ** 3),
        ("", "cat", 0),
    ],
)
def test_meteors_published_examples(no_wordnet, output, target, score):
    assert meteor(output, [target]) == pytest.approx(score, abs=5e-5)
    assert meteor(output, ["nothing at all alike", target]) >= meteor(output, [target])


def test_meteor_knows_synonyms_where_wordnet_is(monkeypatch):
    class Lemma:
        def name(self) -> str:
            return "car"

    class Synset:
        def lemmas(self) -> list[Lemma]:
            return [Lemma()]

    class WordNet:
        def synsets(self, word: str) -> list[Any]:
            return [Synset()] if word == "auto" else []

    monkeypatch.setattr(metrics, "_wordnet", NoSynonyms)
    without = meteor("my auto", ["my car"])
    monkeypatch.setattr(metrics, "_wordnet", WordNet)
    assert meteor("my auto", ["my car"]) == pytest.approx(1 - 0.5 / 8) and without < 0.5


def levenshtein(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def test_fuzzy_is_levenshteins():
    for output, target in english()[:50] + chinese()[:50]:
        reference = 1 - levenshtein(output, target) / max(len(output), len(target))
        assert fuzzy(output, [target]) == pytest.approx(reference, abs=1e-6)
