"""Metrics of one answer, all in [0, 1] and better when higher. Nothing assumes English or spaces between words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from nltk.stem.porter import PorterStemmer

from instructrec.core.segmentation import UNSPACED, words

_stemmer = PorterStemmer()
_UNSPACED = re.compile(f"[{UNSPACED}]")


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
    """ROUGE-L F1 (Lin, 2004), the best over the accepted answers."""
    return max(_scorer().score(target, output)["rougeL"].fmeasure for target in targets)


@cache
def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()


def chrf(output: str, targets: Sequence[str]) -> float:
    """chrF2 of the sentence (Popović, 2015) as sacrebleu computes it, divided by 100."""
    return _chrf().sentence_score(output, list(targets)).score / 100


@cache
def _bleu(tokenize: str) -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(effective_order=True, tokenize=tokenize)


def bleu(output: str, targets: Sequence[str]) -> float:
    """Smoothed BLEU of the sentence (Papineni et al., 2002) as sacrebleu computes it, divided by 100.

    Answers in scripts without spaces are cut into characters.
    """
    unspaced = any(_UNSPACED.search(target) for target in targets)
    return _bleu("char" if unspaced else "13a").sentence_score(output, list(targets)).score / 100


def exact_match(output: str, targets: Sequence[str]) -> float:
    """1 if the output is an accepted answer up to case, white space and a final full stop, else 0."""

    def canonical(text: str) -> str:
        return " ".join(text.casefold().split()).rstrip(".。")

    return float(canonical(output) in {canonical(target) for target in targets})
