"""One reward under guard: it gets the columns it takes and a time limit; what fails names row and completion."""

from __future__ import annotations

import inspect
import math
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import _base as futures
from dataclasses import dataclass
from functools import partial
from typing import Any

from instructrec.core.errors import UserError
from instructrec.core.files import one_line
from instructrec.rewards import time_limit
from instructrec.rewards.time_limit import Overrun, within

Messages = list[dict[str, Any]]
"""What TRL passes for a prompt or a completion of a conversational data set; of a plain one it passes texts."""

RewardFunction = Callable[..., list[float | None]]
"""`f(prompts, completions, **columns)`, TRL's signature: a number for each completion, null where it does not apply."""

SECONDS = 60.0
"""The time limit of a call."""

FAILURES = (Exception, SystemExit, Overrun)
"""What code of others may raise; Ctrl-C is none of it."""

_GIVEN = ("prompts", "completions")
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_OURS = (__file__, time_limit.__file__, futures.__file__)


def text_of(completion: str | Messages) -> str:
    """The text of a completion: of its last message, if it is a list of them."""
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if completion else None  # a message may have tool calls alone
    if isinstance(content, list):  # parts, as where there are images too
        return "".join(part.get("text") or "" for part in content)
    return content or ""


@dataclass(frozen=True)
class Component:
    """A reward with its weight, which can be given to TRL as it is.

    Attributes:
        name: in messages and logs.
        function: a `RewardFunction`. One that has a method `load` has it called first, outside the time limit.
        seconds: for a call, of one batch, at most.
    """

    name: str
    weight: float
    function: RewardFunction
    seconds: float

    @property
    def __name__(self) -> str:
        """What TRL logs it under."""
        return self.name

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """The rewards of a batch.

        Args:
            columns: lists as long as the batch, and whatever else a trainer passes.

        Raises:
            UserError: the function raises, hangs, or gives anything but a finite number or null for each completion;
                or a column that it needs is not there.
        """
        if not completions:
            return []
        batch = self._taken({"prompts": prompts, "completions": completions, **columns})
        if load := getattr(self.function, "load", None):
            load()
        try:
            values = self._run(batch)
        except FAILURES as error:
            place, cause = self._alone(batch, len(completions), error)
            whole = f"a batch of {len(completions)} of which none fails alone, from " if place is None else ""
            more = "; give a batch more with --seconds" if place is None and isinstance(cause, Overrun) else ""
            reason = f"{whole}{_place(place or 0, completions, columns)}: {self._describe(cause)}{more}"
            raise UserError(f"reward {self.name!r}: {reason}") from cause
        if len(values) != len(completions):
            raise UserError(
                f"reward {self.name!r}: gave {len(values)} values for {len(completions)} completions; it must give one"
                " for each, None where it does not apply"
            )
        for place, value in enumerate(values):
            if value is not None and not _is_finite(value):
                where = _place(place, completions, columns)
                given = one_line(repr(value), 60)
                raise UserError(
                    f"reward {self.name!r}: {where}: gave {given}, which is neither a finite number nor None"
                )
        return [None if value is None else float(value) for value in values]

    def _taken(self, columns: dict[str, Any]) -> dict[str, Any]:
        """What the function takes of the columns: those it names, or all where it has `**`; never its arguments."""
        parameters = inspect.signature(self.function).parameters
        kinds = {name: parameter.kind for name, parameter in parameters.items()}
        arguments: set[str] = set()
        if isinstance(self.function, partial) or inspect.isroutine(self.function):  # a class has its own in `__init__`
            arguments = {name for name, kind in kinds.items() if kind is inspect.Parameter.KEYWORD_ONLY} - {*_GIVEN}
        for name, parameter in parameters.items():
            needed = parameter.kind in _NAMED and parameter.default is parameter.empty
            if needed and name not in columns and name not in arguments:
                raise UserError(f"reward {self.name!r}: needs the column {name!r}, which the data do not have")
        every = inspect.Parameter.VAR_KEYWORD in kinds.values()
        return {name: value for name, value in columns.items() if (name in kinds or every) and name not in arguments}

    def _run(self, batch: dict[str, Any]) -> list[Any]:
        return within(self.seconds, lambda: list(self.function(**batch)))  # `list`: a generator runs in here too

    def _alone(self, batch: dict[str, Any], size: int, error: BaseException) -> tuple[int | None, BaseException]:
        """Which completion makes the function fail, found by giving it one after the other.

        The last of them starts within the time limit, and each has all of it: none is blamed for what others took.
        """
        if size == 1:
            return 0, error
        end = time.monotonic() + self.seconds
        for place in range(size):
            if time.monotonic() >= end:
                break
            one = {
                name: value[place : place + 1] if isinstance(value, (list, tuple)) and len(value) == size else value
                for name, value in batch.items()
            }
            try:
                self._run(one)
            except FAILURES as alone:
                return place, alone
        return None, error

    def _describe(self, error: BaseException) -> str:
        if isinstance(error, Overrun):
            return f"gave nothing within {self.seconds:g} s"
        if isinstance(error, UserError):
            return str(error)
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename not in _OURS]
        # Where it is in the reward's own file, though a library raised it.
        at = [f" ({frame.filename}:{frame.lineno})" for frame in frames if frame.filename == frames[0].filename]
        return f"{type(error).__name__}: {one_line(str(error))}{at[-1] if at else ''}"


def _place(place: int, completions: Sequence[Any], columns: dict[str, Any]) -> str:
    ids = columns.get("id")
    row = ids[place] if ids else place
    return f"row {row}, completion {one_line(text_of(completions[place]))!r}"


def _is_finite(value: Any) -> bool:
    try:
        return not isinstance(value, (str, bytes)) and math.isfinite(value)
    except (TypeError, ValueError, OverflowError):
        return False
