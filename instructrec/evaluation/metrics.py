"""Metrics of one answer, all in [0, 1] and better when higher. Nothing assumes English or spaces between words."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from nltk.stem.porter import PorterStemmer

from instructrec.core.segmentation import UNSPACED

_stemmer = PorterStemmer()
_UNSPACED = re.compile(f"[{UNSPACED}]")
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")
_ROUGE_TOKEN = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+")
_METEOR_APART = re.compile(f"[{UNSPACED}\u3000-\u303f\uff00-\uffef]")
_NUMBER = re.compile(  # none that is part of a name, as in CO2; a sign is none after a digit, as in 2020-2024
    r"(?<![A-Za-z_\d])(?<![A-Za-z_\d][.,])([-+]?)(\d+(?:[.,]\d+)*|\.\d+)((?:[eE][-+]?\d+)?)(?:\s*/\s*(\d+))?"
)


@cache
def _stem(word: str) -> str:
    """As in the ROUGE of Super-NaturalInstructions: Porter stems of ASCII words of four letters or more."""
    return _stemmer.stem(word) if word.isascii() and len(word) > 3 else word


def rouge_tokens(text: str) -> list[str]:
    """Lower-case stemmed runs of letters and digits; single characters in scripts without spaces.

    On ASCII these are rouge_score's own, with its stemmer.
    """
    return [_stem(word) for word in _ROUGE_TOKEN.findall(text.lower())]


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

    Chinese is cut by sacrebleu's `zh`, other scripts without spaces into characters.
    """
    unspaced = "".join(_UNSPACED.findall("".join(targets)))
    tokenize = "13a" if not unspaced else "zh" if _HAN.fullmatch(unspaced) else "char"
    return _bleu(tokenize).sentence_score(output, list(targets)).score / 100


def fuzzy(output: str, targets: Sequence[str]) -> float:
    """1 less the Levenshtein distance by the longer text's length, the best over the accepted answers."""
    from rapidfuzz.distance import Levenshtein

    return max(Levenshtein.normalized_similarity(output, target) for target in targets)


class _NoSynonyms:
    def synsets(self, word: str) -> list[Any]:
        return []


@cache
def _wordnet() -> Any:
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except LookupError:
        return _NoSynonyms()
    return wordnet


def _meteor_tokens(text: str) -> list[str]:
    from nltk.tokenize import word_tokenize

    return word_tokenize(_METEOR_APART.sub(r" \g<0> ", text), preserve_line=True)


def meteor(output: str, targets: Sequence[str]) -> float:
    """METEOR (Banerjee and Lavie, 2005) as NLTK computes it: exact matches, then stems, then synonyms.

    Synonyms are WordNet's, where NLTK has its data (`python -m nltk.downloader wordnet`), else there are none. Tokens
    are the Penn Treebank's; single characters, punctuation too, in scripts without spaces.
    """
    from nltk.translate.meteor_score import meteor_score

    references = [_meteor_tokens(target) for target in targets]
    return meteor_score(references, _meteor_tokens(output), wordnet=_wordnet())


def exact_match(output: str, targets: Sequence[str]) -> float:
    """1 if the output is an accepted answer up to case, white space and a final full stop, else 0."""

    def canonical(text: str) -> str:
        return " ".join(text.casefold().split()).rstrip(".。")

    return float(canonical(output) in {canonical(target) for target in targets})


def last_number(text: str) -> float | None:
    """The last number in a text: signs, decimals, thousands, exponents and fractions; null where there is none.

    A single comma before exactly three digits parts thousands, any other is a decimal one; of dots it is the reverse.
    """
    value = None
    for sign, digits, exponent, divisor in _NUMBER.findall(text.translate(str.maketrans("．－−", ".--"))):
        number = float(sign + _plain(digits) + exponent) / (float(divisor or 1) or math.nan)
        value = number if math.isfinite(number) else value
    return value


def _plain(digits: str) -> str:
    """Digits as Python writes them: `1,234.5` and `1.234,5` are 1234.5."""
    *groups, rest = re.split("[.,]", digits)
    kinds = set(re.findall("[.,]", digits))
    thousands = len(kinds) == 1 and (len(groups) > 1 or (kinds == {","} and len(rest) == 3 and groups != ["0"]))
    return "".join((*groups, rest)) if thousands or not groups else f"{''.join(groups)}.{rest}"
