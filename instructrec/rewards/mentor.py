"""What mentors gave to responses, looked up."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

from instructrec.core.errors import UserError
from instructrec.core.files import read_json_lines
from instructrec.core.schema import check_scored_response


class MentorScores:
    """The mean of the mentors' values for a prompt and completion; null where no mentor saw them together.

    Args:
        path: JSONL of scored responses (`schema.SCORED_RESPONSE`), `rewards` by mentor.
        mentor: only this one's values.
    """

    def __init__(self, path: str, mentor: str | None = None) -> None:
        found: dict[str, list[float]] = defaultdict(list)
        mentors = set()
        for where, record in read_json_lines(Path(path)):
            check_scored_response(record, where)
            for name, value in record["rewards"].items():
                if value is None:
                    continue
                mentors.add(name)
                if mentor in (name, None):
                    found[_key(record["prompt"], record["completion"])].append(value)
        if not found:
            of = f"of {mentor!r}; it has {', '.join(sorted(mentors))}" if mentor and mentors else "of any mentor"
            raise UserError(f"{path}: holds no value {of}")
        self._values = {key: fmean(values) for key, values in found.items()}

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
        return [
            self._values.get(_key(prompt, completion)) for prompt, completion in zip(prompts, completions, strict=True)
        ]


def _key(prompt: Any, completion: Any) -> str:
    """The two as texts, so that a text and a single message with it are the same."""
    return json.dumps([_turns(prompt, "user"), _turns(completion, "assistant")])


def _turns(messages: Any, role: str) -> list[tuple[str, Any]]:
    if isinstance(messages, str):
        return [(role, messages)]
    return [(message["role"], message["content"]) for message in messages]
