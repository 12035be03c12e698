"""Verifiable constraints on a response: a check is a name and arguments, and a response meets it or not.

The first 25 are IFEval's (Zhou et al., 2023, arXiv:2311.07911), under its ids, with its arguments and its verdicts;
where it is silent, on scripts without spaces, words are characters and punctuation is the script's own. A new check is
one function with typed keyword arguments: `@check("group:name")` registers it, and its annotations are what
`validate` holds the arguments against.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, get_args, get_origin

from instructrec.core.errors import UserError, nearest
from instructrec.core.language import identify
from instructrec.core.segmentation import SPACED, UNSPACED, sentences

Check = Callable[..., bool]
Relation = Literal["at least", "less than"]

CHECKS: dict[str, Check] = {}
"""Name → `function(response, **args)`, which is called with a response that is not blank."""

_WORD = re.compile(rf"[{UNSPACED}]|{SPACED}+")
_OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def check(name: str) -> Callable[[Check], Check]:
    """Register the function below as the check `name`."""

    def register(function: Check) -> Check:
        CHECKS[name] = function
        return function

    return register


def satisfied(checks_json: str, response: str) -> list[bool]:
    """Which of the checks `response` meets, in their order; a blank response meets none.

    Raises:
        UserError: the checks are malformed; see `validate`.
    """
    return [bool(response.strip()) and function(response, **args) for function, args in _parse(checks_json, "checks")]


def satisfied_loose(checks_json: str, response: str) -> list[bool]:
    """As `satisfied`, where a check may be met without the first line, the last line, the asterisks, or any of them.

    This is IFEval's loose verdict, which forgives an introduction, a closing remark and Markdown.
    """
    lines = response.split("\n")
    texts = [response, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    texts += [text.replace("*", "") for text in texts]
    return [any(verdicts) for verdicts in zip(*(satisfied(checks_json, text) for text in texts), strict=True)]


def validate(checks_json: str, where: str) -> None:
    """Raise `UserError` naming `where` unless every check is known and has its arguments, each of its type."""
    _parse(checks_json, where)


def _parse(checks_json: str, where: str) -> list[tuple[Check, dict[str, Any]]]:
    try:
        entries = json.loads(checks_json)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: 'checks' is not JSON: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{where}: 'checks' must be a JSON list of one check or more")
    return [_resolve(entry, where) for entry in entries]


def _resolve(entry: Any, where: str) -> tuple[Check, dict[str, Any]]:
    """The function that a check names, and its arguments."""
    name, args = (entry.get("name"), entry.get("args")) if isinstance(entry, dict) else (None, None)
    if not isinstance(name, str) or not isinstance(args, dict) or len(entry) != 2:
        raise UserError(f"{where}: a check must be an object with 'name', a text, and 'args', an object")
    if name not in CHECKS:
        raise UserError(f"{where}: unknown check {name!r}.{nearest(name, CHECKS)}")
    kinds = _arguments(CHECKS[name])
    for key in args:
        if key not in kinds:
            raise UserError(f"{where}: check {name!r} has no argument {key!r}.{nearest(key, kinds)}")
    for key, kind in kinds.items():
        if key not in args:
            raise UserError(f"{where}: check {name!r} needs the argument {key!r}, {_describe(kind)}")
        if not _fits(args[key], kind):
            raise UserError(f"{where}: check {name!r}: {key!r} must be {_describe(kind)}")
    return CHECKS[name], args


@cache
def _arguments(function: Check) -> dict[str, Any]:
    """The keyword arguments of a check and their types."""
    annotations = inspect.get_annotations(function, eval_str=True)
    return {key: kind for key, kind in annotations.items() if key not in ("response", "return")}


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is list:
        return isinstance(value, list) and bool(value) and all(_fits(entry, get_args(kind)[0]) for entry in value)
    if kind is str:
        return isinstance(value, str) and bool(value.strip())
    return type(value) is int and value >= 0


def _describe(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if get_origin(kind) is list:
        return "a list of texts that are not empty"
    return "a text that is not empty" if kind is str else "a whole number from 0 on"


def _compare(count: int, relation: Relation, bound: int) -> bool:
    return count >= bound if relation == "at least" else count < bound


def _is_in(response: str, language: str) -> bool:
    """Whether a text is in a language; one without letters is in any."""
    return not any(map(str.isalpha, response)) or identify(response) == language.partition("-")[0]


def _whole(word: str) -> str:
    """A pattern for `word` that stands alone; no boundary is asked for at a character that is written unspaced."""
    before = rf"(?<!{SPACED})" if re.match(SPACED, word[0]) else ""
    after = rf"(?!{SPACED})" if re.match(SPACED, word[-1]) else ""
    return before + re.escape(word) + after


@cache
def _punkt() -> Any:
    """IFEval's splitter of English (Kiss and Strunk, 2006): its rules, without the model that NLTK downloads.

    With these abbreviations it counts as many sentences as with the model in 95 to 99 of 100 texts; sentencex in 67 to
    94, as it holds quotations together.
    """
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer  # slow to import

    parameters = PunktParameters()
    parameters.abbrev_types = {"co", "dr", "inc", "jr", "ltd", "mr", "mrs", "ms", "prof", "sr", "st", "u.s", "vs"}
    return PunktSentenceTokenizer(parameters)


@check("keywords:existence")
def all_keywords(response: str, *, keywords: list[str]) -> bool:
    return all(re.search(re.escape(keyword), response, re.I) for keyword in keywords)


@check("keywords:frequency")
def keyword_frequency(response: str, *, keyword: str, frequency: int, relation: Relation) -> bool:
    return _compare(len(re.findall(re.escape(keyword.strip()), response, re.I)), relation, frequency)


@check("keywords:forbidden_words")
def no_forbidden_word(response: str, *, forbidden_words: list[str]) -> bool:
    return not any(re.search(_whole(word), response, re.I) for word in forbidden_words)


@check("keywords:letter_frequency")
def letter_frequency(response: str, *, letter: str, let_frequency: int, let_relation: Relation) -> bool:
    return _compare(response.lower().count(letter.lower()), let_relation, let_frequency)


@check("language:response_language")
def response_language(response: str, *, language: str) -> bool:
    return _is_in(response, language)


@check("length_constraints:number_sentences")
def number_of_sentences(response: str, *, num_sentences: int, relation: Relation) -> bool:
    """A line's end is no sentence's end, in IFEval either: a list without full stops is one sentence."""
    language = identify(response)
    if response.isascii() or language == "en":
        found = _punkt().tokenize(response)
    else:
        found = sentences(" ".join(response.split()), language or "en")
    return _compare(len(found), relation, num_sentences)


@check("length_constraints:number_paragraphs")
def paragraphs_between_asterisks(response: str, *, num_paragraphs: int) -> bool:
    """Exactly so many parts between `***`, none of them empty; the text may begin or end with `***`."""
    parts = [part.strip() for part in response.split("***")]
    return all(parts[1:-1]) and sum(map(bool, parts)) == num_paragraphs


@check("length_constraints:number_words")
def number_of_words(response: str, *, num_words: int, relation: Relation) -> bool:
    return _compare(len(_WORD.findall(response)), relation, num_words)


@check("length_constraints:nth_paragraph_first_word")
def first_word_of_paragraph(response: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Exactly so many paragraphs, blank lines between them, of which the `nth_paragraph`-th begins with a word."""
    paragraphs = [paragraph.strip() for paragraph in response.split("\n\n")]
    count = sum(map(bool, paragraphs))
    if count != num_paragraphs or not 1 <= nth_paragraph <= count or not paragraphs[nth_paragraph - 1]:
        return False
    opening = paragraphs[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"').lower()
    if re.match(f"[{UNSPACED}]", first_word):
        return opening.startswith(first_word.lower())
    return re.split("[.,?!'\"，。？！]", opening)[0] == first_word.lower()


@check("detectable_content:number_placeholders")
def number_of_placeholders(response: str, *, num_placeholders: int) -> bool:
    return len(re.findall(r"\[.*?\]", response)) >= num_placeholders


@check("detectable_content:postscript")
def postscript(response: str, *, postscript_marker: str) -> bool:
    spaced = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}
    marker = postscript_marker.strip()
    return re.search(spaced.get(marker, re.escape(marker.lower())), response.lower()) is not None


@check("detectable_format:number_bullet_lists")
def number_of_bullets(response: str, *, num_bullets: int) -> bool:
    """Exactly so many lines that begin with `-`, or with `*` but not `**`."""
    stars = re.findall(r"^\s*\*[^*].*", response, re.M)
    dashes = re.findall(r"^\s*-", response, re.M)
    return len(stars) + len(dashes) == num_bullets


@check("detectable_format:constrained_response")
def one_of_three_answers(response: str) -> bool:
    return any(option in response for option in _OPTIONS)


@check("detectable_format:number_highlighted_sections")
def number_of_highlights(response: str, *, num_highlights: int) -> bool:
    """At least so many passages of one line between `*` or `**`."""
    marked = re.findall(r"\*([^\n*]*)\*", response) + re.findall(r"\*\*([^\n*]*)\*\*", response)
    return sum(1 for text in marked if text.strip()) >= num_highlights


@check("detectable_format:multiple_sections")
def number_of_sections(response: str, *, section_spliter: str, num_sections: int) -> bool:
    return len(re.findall(re.escape(section_spliter.strip()) + r"\s?\d+", response)) >= num_sections


def json_text(response: str, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """The value of a response that is JSON, alone or between fences.

    Args:
        parse_constant: makes a value of NaN, Infinity and -Infinity, which Python reads as numbers.

    Raises:
        ValueError: it is none.
    """
    try:
        text = re.sub(r"^```(?:json|Json|JSON)?|```$", "", response.strip())
        return json.loads(text, parse_constant=parse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


@check("detectable_format:json_format")
def is_json(response: str) -> bool:
    try:
        json_text(response)
    except ValueError:
        return False
    return True


@check("detectable_format:title")
def title_in_brackets(response: str) -> bool:
    return any(title.lstrip("<").rstrip(">").strip() for title in re.findall(r"<<[^\n]+>>", response))


@check("combination:two_responses")
def two_responses(response: str) -> bool:
    parts = [part.strip() for part in response.split("******")]
    given = [part for part in parts if part]
    return all(parts[1:-1]) and len(given) == 2 and given[0] != given[1]


@check("combination:repeat_prompt")
def repeats_prompt(response: str, *, prompt_to_repeat: str) -> bool:
    return response.strip().lower().startswith(prompt_to_repeat.strip().lower())


@check("startend:end_checker")
def ends_with(response: str, *, end_phrase: str) -> bool:
    return response.strip().strip('"').lower().endswith(end_phrase.strip().lower())


@check("startend:quotation")
def in_quotation_marks(response: str) -> bool:
    text = response.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


@check("change_case:capital_word_frequency")
def capital_word_frequency(response: str, *, capital_frequency: int, capital_relation: Relation) -> bool:
    from nltk.tokenize import word_tokenize  # slow to import

    # By lines, not sentences: the rules alone, without a trained model; a full stop makes no word less capital.
    tokens = word_tokenize(response, preserve_line=True)
    return _compare(sum(map(str.isupper, tokens)), capital_relation, capital_frequency)


@check("change_case:english_capital")
def english_capitals(response: str) -> bool:
    return response.isupper() and _is_in(response, "en")


@check("change_case:english_lowercase")
def english_lowercase(response: str) -> bool:
    return response.islower() and _is_in(response, "en")


@check("punctuation:no_comma")
def no_comma(response: str) -> bool:
    return not re.search("[,，﹐、،]", response)
