"""The built-in rewards, all in [0, 1] but for a reward model's and a mentor's.

Each has TRL's signature, or is a class whose instances have it. Arguments in a rewards YAML are a function's parameters
after the `*`, or those of the class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from instructrec.core.checks import json_text, satisfied
from instructrec.core.errors import UserError
from instructrec.core.language import CODES, identify
from instructrec.core.segmentation import count_words
from instructrec.evaluation import metrics
from instructrec.rewards.component import RewardFunction, text_of
from instructrec.rewards.mentor import MentorScores
from instructrec.rewards.model import RewardModel


def _of_targets(metric: Callable[[str, Sequence[str]], float]) -> RewardFunction:
    """A metric of a text and its accepted answers as a reward; null for a row without any."""

    def reward(
        prompts: Any, completions: Any, targets: Sequence[Sequence[str] | None] | None = None, **columns: Any
    ) -> list[float | None]:
        accepted = targets or [None] * len(completions)
        return [
            metric(text_of(text), answers) if answers else None
            for text, answers in zip(completions, accepted, strict=True)
        ]

    return reward


def numeric(
    prompts: Any,
    completions: Any,
    targets: Sequence[Sequence[str] | None] | None = None,
    *,
    tolerance: float = 1e-6,
    **columns: Any,
) -> list[float | None]:
    """1 if the last number of a completion is that of an accepted answer, else 0; null where no answer has one.

    Args:
        tolerance: relative; absolute for numbers below 1.
    """
    rewards: list[float | None] = []
    for completion, answers in zip(completions, targets or [None] * len(completions), strict=True):
        right = [value for answer in answers or () if (value := metrics.last_number(answer)) is not None]
        found = metrics.last_number(text_of(completion))
        near = found is not None and any(abs(found - value) <= tolerance * max(1, abs(value)) for value in right)
        rewards.append(float(near) if right else None)
    return rewards


def constraints(
    prompts: Any, completions: Any, checks: Sequence[str | None] | None = None, **columns: Any
) -> list[float | None]:
    """The share of a row's verifiable constraints (see `core.checks`) that a completion meets; null without any."""
    rewards: list[float | None] = []
    for completion, given in zip(completions, checks or [None] * len(completions), strict=True):
        met = satisfied(given, text_of(completion)) if given else []
        rewards.append(sum(met) / len(met) if met else None)
    return rewards


class Language:
    """1 if a completion is in the language of its row, else 0; null where either cannot be told.

    Args:
        code: an ISO 639-1 code in place of the rows' own; a region after it does not count.
    """

    def __init__(self, code: str | None = None) -> None:
        self._code = _told(code)
        if code is not None and self._code is None:
            raise UserError(f"code {code!r} is of no language that can be told; give one like en or zh")

    def __call__(
        self, prompts: Any, completions: Any, language: Sequence[str | None] | None = None, **columns: Any
    ) -> list[float | None]:
        rewards: list[float | None] = []
        for completion, own in zip(completions, language or [None] * len(completions), strict=True):
            wanted, found = self._code or _told(own), identify(text_of(completion))
            rewards.append(float(found == wanted) if wanted and found else None)
        return rewards


def _told(language: str | None) -> str | None:
    """What `identify` calls a language; null where it never says so."""
    code = (language or "").partition("-")[0].lower()
    code = "no" if code == "nb" else code  # Bokmål is what it calls Norwegian
    return code if code in CODES else None


class Length:
    """1 for so many words (characters in scripts without spaces); less in proportion below, and to 0 at twice above.

    Args:
        at_most: words from which on it falls.
        at_least: words up to which it rises.
    """

    def __init__(self, at_most: int, at_least: int = 0) -> None:
        if not 0 <= at_least <= at_most or not at_most:
            raise UserError(f"at_most must be 1 or more, and at_least from 0 to it, not {at_most} and {at_least}")
        self.at_most, self.at_least = at_most, at_least

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
        return [self._of(count_words(text_of(completion))) for completion in completions]

    def _of(self, words: int) -> float:
        if words < self.at_least:
            return words / self.at_least
        return max(0.0, 1 - max(0, words - self.at_most) / self.at_most)


class Json:
    """1 if a completion is JSON, between fences or not, and valid under a schema if there is one; else 0.

    Args:
        schema: a JSON Schema, or the path of one.
    """

    def __init__(self, schema: dict[str, Any] | str | None = None) -> None:
        self._validator = None if schema is None else _validator(schema)

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
        return [float(self._is_valid(text_of(completion))) for completion in completions]

    def _is_valid(self, text: str) -> bool:
        try:
            value = json_text(text, parse_constant=_no_json)
            return self._validator is None or self._validator.is_valid(value)
        except (ValueError, RecursionError):  # what a schema that refers to itself makes of deep nesting
            return False


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _validator(schema: dict[str, Any] | str) -> Any:
    from pathlib import Path

    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for

    if isinstance(schema, str):
        try:
            schema = json_text(Path(schema).read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"schema {schema}: {error.strerror}") from None
        except ValueError as error:
            raise UserError(f"schema {schema}: not JSON ({error})") from None
    kind = validator_for(schema)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise UserError(f"schema: {error.message} at {error.json_path}") from None
    return kind(schema)


BUILT_IN: dict[str, Callable[..., Any]] = {
    "exact_match": _of_targets(metrics.exact_match),
    "fuzzy": _of_targets(metrics.fuzzy),
    "bleu": _of_targets(metrics.bleu),
    "chrf": _of_targets(metrics.chrf),
    "rouge": _of_targets(metrics.rouge_l),
    "meteor": _of_targets(metrics.meteor),
    "numeric": numeric,
    "json": Json,
    "constraints": constraints,
    "length": Length,
    "language": Language,
    "reward_model": RewardModel,
    "mentor": MentorScores,
}
"""Name in a rewards YAML → function or class."""
