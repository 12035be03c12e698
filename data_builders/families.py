"""What a family is, and how all of them are found.

A family is one module that turns a `Document` into `Example`s by a pure function, and one template file beside it that
words them: `text/title.py` and `text/title.yaml`. Nothing else has to be edited to add one.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
LETTERS = "ABCDEFGHIJ"
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
    """One wording: `name` is `family.language.number`; `letter` says that a choice is answered by its letter."""

    name: str
    prompt: str
    letter: bool = False

    @cached_property
    def _compiled(self) -> Any:
        return _ENVIRONMENT.from_string(self.prompt)

    def render(self, example: Example) -> tuple[str, str, list[str] | None]:
        """(prompt, completion, choices).

        Raises:
            jinja2.TemplateError: the wording names a variable that the family does not give, or leaves the sandbox.
        """
        options = example.options
        variables: dict[str, Any] = dict(example.fields)
        if options is not None:
            marks = LETTERS if self.letter else ""
            variables["options"] = "\n".join(
                f"{marks[i]}. {option}" if marks else f"- {option}" for i, option in enumerate(options)
            )
        prompt = self._compiled.render(variables).strip()
        if options is None or not self.letter:
            return prompt, example.answer, options
        return prompt, LETTERS[options.index(example.answer)], list(LETTERS[: len(options)])


_ENVIRONMENT = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False)


@dataclass(frozen=True)
class Family:
    """A kind of instruction.

    Attributes:
        name: the module's name, as in `title`.
        group: families that are held out together, because one is a near twin of the other.
        kind: the kind of document it reads, `text` or `code`.
        mine: a pure function of a document and a seeded generator that yields examples in a random order, lazily.
        extractive: whether the answer of an open task is meant to stand in the prompt.
    """

    name: str
    group: str
    kind: str
    mine: Callable[[Document, random.Random], Iterator[Example]]
    extractive: bool = False

    @cached_property
    def templates(self) -> dict[str, list[Template]]:
        """Language → wordings, from the file beside the module."""
        return load_templates(Path(inspect.getfile(self.mine)).with_suffix(".yaml"), self.name)


def load_templates(path: Path, family: str) -> dict[str, list[Template]]:
    """Read a template file: language → number → wording, or {prompt, answer: letter}.

    Raises:
        UserError: the file is missing, is not of this form, or a wording is not valid Jinja; the message names both.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
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
            if not isinstance(entry.get("prompt"), str) or entry.keys() - {"prompt", "answer"}:
                raise UserError(f"{path}: wording {name} must be a string or {{prompt, answer}}")
            if entry.get("answer", "letter") != "letter":
                raise UserError(f"{path}: wording {name}: 'answer' can only be 'letter'")
            template = Template(name, entry["prompt"], "answer" in entry)
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
