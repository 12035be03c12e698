"""What a rule can do to an English sentence, and how to ask for it: the rules and their wordings are English."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import NamedTuple

from instructrec.core.segmentation import words

_MARK = re.compile(r"[,.;:!?()]")
_VOWEL = re.compile(r"[aeiou]", re.I)


class Transformation(NamedTuple):
    """A rule and its wordings, imperatives in which `{it}` is what the rule is applied to.

    `apply` takes a sentence of letters, spaces and common marks, and gives an empty text where it does not apply.
    """

    apply: Callable[[str], str]
    wordings: tuple[str, ...]

    def worded(self, it: str, rng: random.Random) -> str:
        """One of the wordings, without a full stop or a capital."""
        return rng.choice(self.wordings).format(it=it)


def _is_short(text: str) -> bool:
    """Whether a reader would sort or spell the words without help."""
    return len(text) <= 80


def _backwards(text: str) -> str:
    return text[::-1] if _is_short(text) else ""


def _no_vowels(text: str) -> str:
    left = _VOWEL.sub("", text)
    return left if len(left.split()) == len(text.split()) and all(map(words, left.split())) else ""


def _swapped(text: str) -> str:
    first, *middle, last = words(text)
    return " ".join([last, *middle, first])


TRANSFORMATIONS = (
    Transformation(
        str.upper, ("write {it} in capital letters", "put {it} into upper case", "make every letter of {it} a capital")
    ),
    Transformation(str.lower, ("write {it} in small letters only", "put {it} into lower case")),
    Transformation(
        lambda t: " ".join(w[0].upper() + w[1:] for w in t.split()),
        ("begin every word of {it} with a capital letter", "capitalise the first letter of each word of {it}"),
    ),
    Transformation(
        lambda t: " ".join(reversed(words(t))),
        (
            "drop the punctuation of {it} and reverse the order of the words",
            "write the words of {it} from the last to the first, without punctuation",
        ),
    ),
    Transformation(
        lambda t: _MARK.sub("", t), ("remove the punctuation from {it}", "strip {it} of all its punctuation")
    ),
    Transformation(lambda t: t.replace(" ", ""), ("remove the spaces from {it}", "close up all the spaces of {it}")),
    Transformation(lambda t: t.replace(" ", "_"), ("replace the spaces of {it} by underscores",)),
    Transformation(lambda t: t.replace(" ", "-"), ("put a hyphen in place of every space of {it}",)),
    Transformation(lambda t: t.replace(" ", "\n") if _is_short(t) else "", ("break {it} into lines at every space",)),
    Transformation(
        lambda t: " ".join(words(t)[:3]),
        ("keep nothing but the first three words of {it}", "give the three words that begin {it}, without punctuation"),
    ),
    Transformation(
        lambda t: " ".join(words(t)[-4:]),
        (
            "give the last four words of {it}, without punctuation",
            "keep only the final four words of {it}, unpunctuated",
        ),
    ),
    Transformation(lambda t: words(t)[-1], ("give the last word of {it}", "extract the final word of {it}")),
    Transformation(lambda t: words(t)[0], ("give the first word of {it}", "name the word with which {it} begins")),
    Transformation(lambda t: words(t)[1], ("give the second word of {it}", "extract word number two of {it}")),
    Transformation(
        lambda t: t.split(" ", 1)[1], ("leave out the first word of {it}", "delete the opening word of {it}")
    ),
    Transformation(
        lambda t: "".join(w[0] for w in words(t)) if _is_short(t) else "",
        ("write down the first letter of each word of {it}, without spaces", "join the initials of the words of {it}"),
    ),
    Transformation(
        lambda t: ", ".join(sorted(words(t.lower()))) if _is_short(t) else "",
        ("sort the words of {it} alphabetically, in small letters and with commas between them",),
    ),
    Transformation(
        _no_vowels, ("remove the vowels a, e, i, o and u from {it}", "leave out every a, e, i, o, u of {it}")
    ),
    Transformation(_backwards, ("write {it} backwards, letter by letter", "reverse the characters of {it}")),
    Transformation(lambda t: f'"{t}"', ("put {it} in double quotation marks", "set {it} between double quotes")),
    Transformation(lambda t: f"[{t}]", ("put {it} in square brackets", "enclose {it} in [ and ]")),
    Transformation(lambda t: f"**{t}**", ("make {it} bold in Markdown", "put two asterisks on either side of {it}")),
    Transformation(lambda t: f"<p>{t}</p>", ("make {it} an HTML paragraph", "wrap {it} in <p> and </p>")),
    Transformation(lambda t: f"Note: {t}", ('put "Note: " before {it}', 'add "Note: " at the beginning of {it}')),
    Transformation(
        lambda t: f"{t} {t}", ("write {it} twice, with a space in between", "repeat {it} once on the same line")
    ),
    Transformation(
        lambda t: str(len(t.split())), ("count the words of {it}", "say how many words {it} has, in digits")
    ),
    Transformation(_swapped, ("exchange the first and the last word of {it} and leave out punctuation",)),
    Transformation(
        lambda t: t.replace(",", ";") if "," in t else "",
        ("replace every comma of {it} by a semicolon", "turn the commas of {it} into semicolons"),
    ),
    Transformation(
        lambda t: f"{t[:-1]}!" if t[-1] == "." else "",
        ("end {it} with an exclamation mark instead of the full stop", "change the full stop that ends {it} to a !"),
    ),
    Transformation(
        lambda t: "\n".join(f"{i}. {w}" for i, w in enumerate(words(t), 1)) if _is_short(t) else "",
        ("make a numbered list of the words of {it}, without punctuation",),
    ),
)
