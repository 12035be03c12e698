"""Metrics of one answer: ROUGE-L and exact match. Nothing assumes English or spaces between words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from nltk.stem.porter import PorterStemmer

from instructrec.core.segmentation import words

_stemmer = PorterStemmer()


@cache
def _stem(word: str) -> str:
    """As in the ROUGE of Super-NaturalInstructions: Porter stems of ASCII words of four letters or more."""
    return _stemmer.stem(word) if word.isascii() and len(word) > 3 else word


def rouge_tokens(text: str) -> list[str]:
    """Lower-case stemmed words; single characters in scripts without spaces."""
    return [_stem(word) for word in words(text.lower())]


class _Tokenizer:
    def tokenize(self, text: str) -> list[str]:
        return rouge_tokens(text)


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Tokenizer())


def rouge_l(output: str, targets: Sequence[str]) -> float:
    """ROUGE-L F1 (Lin, 2004) in [0, 1], the best over the accepted answers."""
    return max(_scorer().score(target, output)["rougeL"].fmeasure for target in targets)


def exact_match(output: str, targets: Sequence[str]) -> float:
    """1 if the output is an accepted answer up to case, white space and a final full stop, else 0."""

    def canonical(text: str) -> str:
        return " ".join(text.casefold().split()).rstrip(".。")

    return float(canonical(output) in {canonical(target) for target in targets})
