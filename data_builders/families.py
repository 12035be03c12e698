"""What a family is, and how all of them are found.

A family is one module that turns a `Document` into `Example`s by a pure function, and one template file beside it that
words them: `text/title.py` and `text/title.yaml`. Nothing else has to be edited to add one.

A wording is a Jinja template of the prompt. It sees the example's `fields` and, in a choice task, `options` (one a
line) and `choices` (the bare options, to be worded freely: `{{ choices | join(", ") }}`). One with a format of its own
is `{prompt, answer, labels}`:

    "03": {prompt: "…{{ options }} Answer with the letter.", answer: letter}      # or `number`: options are 1., 2., …
    "04": {prompt: "… Reply with True or False.", labels: {"yes": "True", "no": "False"}}
    "05": {prompt: "… as JSON with the key \"term\".", answer: '{"term": {{ answer | tojson }}}'}
    "06": {prompt: "… as a JSON list.", answer: "{{ answer.splitlines() | tojson }}"}

The file maps the language of a document to numbered wordings; under `any` stand wordings for every known language.
`labels` renames answers and options first; any other `answer` is a Jinja template of the completion, which sees what
the prompt sees and `answer`.

Wordings `f1`, `f2`, … are follow-ups: they ask, in few words and without the text, what the others ask about a text,
and word only turns of a training conversation whose earlier turns show the text (`data_builders/conversations.py`):

    f1: "Its title, unscrambled from {{ words }}?"
    f2: "Which number is missing in \"{{ quote | around }}\"?"                   # the gap and words on either side
    f3: "The longest word of the sentence \"{{ sentence | opening }}\"?"       # its first words
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from data_builders.documents import Document
from instructrec.core.errors import UserError

ROOMS = ("text", "code", "translation", "media")
MARKS = {"letter": "ABCDEFGHIJ", "number": "123456789"}
"""Wordings whose `answer` is one of these mark the options and are answered by the mark."""

GAP, AROUND, OPENING = "____", 5, 5
"""The mark of a gap, the words on either side of it, and those at the start of a sentence, by which a follow-up points
to a place of a text that both sides see."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is there

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Example:
    """What a family found: everything a template needs, and the answer that the raw data give.

    Attributes:
        fields: template variables.
        answer: the right answer; for a choice task one of `options`.
        start, end: characters of the document's content that the example was made from.
        options: the options in the order shown, or null for an open answer.
        checks: constraints that a right answer passes, or null.
    """

    fields: dict[str, str]
    answer: str
    start: int
    end: int
    options: list[str] | None = None
    checks: list[dict[str, Any]] | None = None


@dataclass(frozen=True)
class Template:
    """One wording.

    Attributes:
        name: `family.language.number`; the number of a follow-up begins with `f`.
        prompt: Jinja template of the prompt.
        answer: `letter`, `number`, or Jinja template of the completion.
        labels: what an answer or option is called in this wording, where not by its own name.
    """

    name: str
    prompt: str
    answer: str = "{{ answer }}"
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def letter(self) -> bool:
        """Whether a choice is answered by its letter or number."""
        return self.answer in MARKS

    @property
    def follows(self) -> bool:
        """Whether it is a follow-up, which leaves out the text that an earlier turn shows."""
        return self.name.rpartition(".")[2].startswith("f")

    @cached_property
    def _compiled(self) -> tuple[Any, Any]:
        answer = None if self.letter or self.answer == "{{ answer }}" else _ENVIRONMENT.from_string(self.answer)
        return _ENVIRONMENT.from_string(self.prompt), answer

    def render(self, example: Example) -> tuple[str, str, list[str] | None]:
        """(prompt, completion, choices).

        Raises:
            jinja2.TemplateError: the wording names a variable that the family does not give, or leaves the sandbox.
        """
        prompt, form = self._compiled
        variables: dict[str, Any] = dict(example.fields)
        answer, options = self.labels.get(example.answer, example.answer), example.options
        marks = MARKS.get(self.answer, "")
        if options is not None:
            options = [self.labels.get(option, option) for option in options]
            lines = (f"{marks[i]}. {option}" if marks else f"- {option}" for i, option in enumerate(options))
            variables |= {"options": "\n".join(lines), "choices": options}
        rendered = prompt.render(variables).strip()
        if options is not None and marks:
            return rendered, marks[options.index(answer)], list(marks[: len(options)])
        if form is None:
            return rendered, answer, options
        formed = [form.render(variables, answer=value).strip() for value in (answer, *(options or ()))]
        return rendered, formed[0], formed[1:] if options is not None else None


def _tojson(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _around(quote: str) -> str:
    """A quotation cut to its gap and the words on either side."""
    found = quote.split()
    gap = next((place for place, word in enumerate(found) if GAP in word), 0)
    first, last = max(gap - AROUND, 0), gap + AROUND + 1
    return " ".join(["…"] * (first > 0) + found[first:last] + ["…"] * (last < len(found)))


def opening(sentence: str) -> str:
    """The first words of a sentence, by which it can be pointed to where no other begins like that."""
    return " ".join(sentence.split()[:OPENING])


def _opening(sentence: str) -> str:
    return opening(sentence) + " …" * (len(sentence.split()) > OPENING)


_ENVIRONMENT = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False)
_ENVIRONMENT.globals.clear()  # no wording needs a function, and every rendering would copy them
_ENVIRONMENT.filters |= {"around": _around, "opening": _opening}
_ENVIRONMENT.filters["tojson"] = _tojson  # Jinja's own escapes what HTML would not bear


@dataclass(frozen=True)
class Family:
    """A kind of instruction.

    Attributes:
        name: the module's name, as in `title`.
        group: families that are held out together, because one is a near twin of the other.
        kind: the kind of document it reads, `text` or `code`.
        mine: a pure function of a document and a seeded generator that yields examples in a random order, lazily.
        extractive: whether the answer of an open task is meant to stand in the prompt.
        computed: whether the answer is not made of words of its span: a label, an order, a count. Then nothing but the
            family's own test can tell that it is right.
        off: why the family is mined only where it is asked for by name; empty for a family that is on.
    """

    name: str
    group: str
    kind: str
    mine: Callable[[Document, random.Random], Iterator[Example]]
    extractive: bool = False
    computed: bool = False
    off: str = ""

    @cached_property
    def _file(self) -> dict[str, list[Template]]:
        """What the file beside the module holds."""
        return load_templates(Path(inspect.getfile(self.mine)).with_suffix(".yaml"), self.name)

    @cached_property
    def templates(self) -> dict[str, list[Template]]:
        """Language of the document (or `any`) → wordings that stand alone, from the file beside the module."""
        return {language: [t for t in found if not t.follows] for language, found in self._file.items()}

    @cached_property
    def follow_ups(self) -> dict[str, list[Template]]:
        """Language of the document (or `any`) → follow-ups, from the file beside the module."""
        return {language: [t for t in found if t.follows] for language, found in self._file.items()}

    @property
    def signal(self) -> str:
        """What the family finds and asks: its module's first line without its name."""
        return (inspect.getdoc(inspect.getmodule(self.mine)) or "").split("\n")[0].partition(": ")[2]

    def wordings(self, language: str | None) -> list[Template]:
        """The wordings for documents in a language: its own, else those for any; none where it is not known."""
        return self.templates.get(language) or self.templates.get("any", []) if language else []


def load_templates(path: Path, family: str) -> dict[str, list[Template]]:
    """Read a template file: language → number (`f1` for a follow-up) → wording, or {prompt, answer, labels}.

    Raises:
        UserError: the file is missing, is not of this form, or a wording is not valid Jinja; the message names both.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path}: no readable template file for family {family!r} ({error})") from None
    if not isinstance(data, dict) or not all(isinstance(wordings, dict) for wordings in data.values()):
        raise UserError(f"{path}: must map languages to numbered wordings, as in `en: {{'01': '…'}}`")
    found: dict[str, list[Template]] = {}
    for language, wordings in data.items():
        found[language] = []
        for number, wording in wordings.items():
            entry = wording if isinstance(wording, dict) else {"prompt": wording}
            name = f"{family}.{language}.{number}"
            if not isinstance(entry.get("prompt"), str) or entry.keys() - {"prompt", "answer", "labels"}:
                raise UserError(f"{path}: wording {name} must be a string or {{prompt, answer, labels}}")
            labels = entry.get("labels", {})
            texts = [entry.get("answer", ""), *labels, *labels.values()] if isinstance(labels, dict) else [labels]
            if not all(isinstance(text, str) for text in texts):
                raise UserError(f"{path}: wording {name}: 'answer' and all 'labels' must be strings (quote yes and no)")
            template = Template(**(entry | {"name": name}))
            try:
                _ = template._compiled
            except TemplateError as error:
                raise UserError(f"{path}: wording {name}: {error}") from None
            found[language].append(template)
    return found


@cache
def families() -> dict[str, Family]:
    """Every family by name, found by looking into the rooms: a module that defines `FAMILY` is one."""
    found: dict[str, Family] = {}
    for room in ROOMS:
        package = importlib.import_module(f"data_builders.{room}")
        for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
            family = getattr(importlib.import_module(f"{package.__name__}.{module.name}"), "FAMILY", None)
            if family is not None:
                found[family.name] = family
    return found


def drawn(items: Sequence[T], rng: random.Random) -> Iterator[T]:
    """The items in a random order, each drawn when it is asked for."""
    pool, size = list(items), len(items)
    for i in range(size):  # Fisher and Yates
        j = i + int(rng.random() * (size - i))
        pool[i], pool[j] = pool[j], pool[i]
        yield pool[i]


def shuffled(items: Sequence[T], rng: random.Random) -> list[T]:
    """A shuffled copy."""
    return list(drawn(items, rng))


def with_options(answer: str, distractors: Sequence[str], rng: random.Random, size: int = 4) -> list[str] | None:
    """The answer among up to `size - 1` distinct distractors, shuffled; null if there are fewer than two options."""
    folded = answer.casefold()
    pool = [d for d in dict.fromkeys(distractors) if d.casefold() != folded]
    options = [answer, *islice(drawn(pool, rng), size - 1)]
    return shuffled(options, rng) if len(options) > 1 else None
