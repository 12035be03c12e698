"""The parts of a `mixture` as a config names them: which set or text each is, and how much of it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from instructrec.config import check_types
from instructrec.core.errors import UserError, nearest


@dataclass(frozen=True)
class Part:
    """An entry of `mixture`: `name` is a set of instructions, `text` raw text; `weight` or `share` says how much."""

    name: str | None = None
    text: str | None = None
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    weight: float = 1.0
    share: float | None = None

    @property
    def place(self) -> str:
        """The folder, file or Hub name."""
        return self.name or self.text or ""

    @property
    def label(self) -> str:
        """What tells it from the other parts."""
        return ", ".join(filter(None, (self.place, self.config, self.split, self.revision)))

    @property
    def amount(self) -> str:
        """How much of it is wanted."""
        return f"weight {self.weight:g}" if self.share is None else f"share {self.share:g}"


def read_parts(mixture: Sequence[Mapping[str, Any]]) -> list[Part]:
    """The parts of a `mixture`.

    Raises:
        UserError: naming the part and the key that is unknown, of the wrong type, out of range or given beside another
            one; a part that is given twice; or shares that leave nothing for the other parts.
    """
    known = [field.name for field in fields(Part)]
    parts: list[Part] = []
    for number, values in enumerate(mixture, start=1):
        where = f"mixture, part {number}"
        for key in values:
            if key not in known:
                raise UserError(f"{where}: unknown key {key!r}.{nearest(str(key), known)}")
        given = {key: value for key, value in values.items() if value is not None}
        check_types(given, Part, where)
        if ("name" in given) == ("text" in given) or not (given.get("name") or given.get("text")):
            raise UserError(f"{where}: needs either name (a set of instructions) or text (raw text)")
        if {"weight", "share"} <= given.keys():
            raise UserError(f"{where}: weight and share both say how much of it is used; leave one of them out")
        part = Part(**given | {key: float(given[key]) for key in ("weight", "share") if key in given})
        if part.label in (other.label for other in parts):
            raise UserError(f"{where}: {part.label} is a part already; give one of them a weight")
        parts.append(part)
    if not parts:
        raise UserError("mixture: has no parts; a part is as {name: outputs/mine/set, weight: 2}")
    shares = sum(part.share or 0 for part in parts)
    if all(part.share is not None for part in parts):
        raise UserError("mixture: needs a part without share, whose rows decide how long an epoch is")
    if shares >= 1:
        raise UserError(f"mixture: the shares sum to {shares:g}, which leaves nothing for the other parts")
    return parts
