"""Licences of what rows were made from: which rows have which, and which of these may be published."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from instructrec.core.errors import UserError
from instructrec.core.parquet import batches
from instructrec.core.schema import SPLITS, split_files

TABLE = Path(__file__).parent / "licences.yaml"

_TOKEN = re.compile(r"[()]|[^\s()]+")
_VERSION_SUFFIX = re.compile(r"(?:\+|-only|-or-later)\Z")


@dataclass(frozen=True, slots=True)
class Terms:
    """What a licence says about passing on rows.

    Attributes:
        publish: whether they may be published.
        asks: of whoever does so, in words.
        hub: the Hub's name of the licence; null where it has none.
    """

    publish: bool
    asks: str = ""
    hub: str | None = None


def read_terms(extension: Mapping[str, Any] | None = None, where: str = "") -> dict[str, Terms]:
    """The terms by SPDX identifier in lower case: the table's, and over them those of `extension`, in the same form.

    In the extension a bare `true` or `false` will do.

    Raises:
        UserError: an entry of the extension, which is from `where`, is neither of these.
    """
    entries = yaml.safe_load(TABLE.read_text(encoding="utf-8")) | dict(extension or {})
    terms = {}
    for name, entry in entries.items():
        try:
            found = Terms(entry) if isinstance(entry, bool) else Terms(**entry)
        except TypeError:
            found = None
        if found is None or not isinstance(found.publish, bool):
            raise UserError(f"{where}: key {str(name)!r} must be true, false or {{publish: true, asks: ..., hub: ...}}")
        terms[str(name).lower()] = found
    return terms


def _lookup(name: str, terms: Mapping[str, Terms]) -> Terms | None:
    return terms.get(name.lower()) or terms.get(_VERSION_SUFFIX.sub("", name).lower())


def may_publish(expression: str, terms: Mapping[str, Terms]) -> bool:
    """Whether an SPDX expression allows it: one side of an OR is enough, an AND needs both, WITH only adds permissions.

    What does not parse or is not in `terms` does not.
    """
    tokens = _TOKEN.findall(expression)
    if [name.lower() for name in tokens] == [expression.lower()]:
        found = _lookup(expression, terms)
        return found is not None and found.publish
    place = 0

    def upcoming() -> str:
        return tokens[place].upper() if place < len(tokens) else ""

    def either() -> bool:
        nonlocal place
        allowed = both()
        while upcoming() == "OR":
            place += 1
            allowed = both() or allowed
        return allowed

    def both() -> bool:
        nonlocal place
        allowed = single()
        while upcoming() == "AND":
            place += 1
            allowed = single() and allowed
        return allowed

    def single() -> bool:
        nonlocal place
        if upcoming() in ("", ")", "AND", "OR", "WITH"):
            raise ValueError
        place += 1
        if tokens[place - 1] == "(":
            allowed = either()
            if upcoming() != ")":
                raise ValueError
            place += 1
            return allowed
        found = _lookup(tokens[place - 1], terms)
        if upcoming() == "WITH":
            place += 2
        return found is not None and found.publish

    try:
        allowed = either()
    except ValueError:
        return False
    return allowed and place == len(tokens)


def hub_licences(expressions: Iterable[str], terms: Mapping[str, Terms]) -> list[str]:
    """The Hub's names of licences; `other` alone where it lacks one of them."""
    found = [_lookup(expression, terms) for expression in expressions]
    names = sorted({entry.hub for entry in found if entry is not None and entry.hub})
    return names if names and all(entry is not None and entry.hub for entry in found) else ["other"]


def count_licences(folder: Path) -> Counter[str]:
    """How many rows of a set have each licence; a row with several has each of them once."""
    found: Counter[str] = Counter()
    for path in (path for split in SPLITS for path in split_files(folder, split)):
        for batch in batches(path, ["source.list.element.licence"]):
            sources = batch.column(0)
            named = pa.table(
                [pc.list_parent_indices(sources), pc.struct_field(pc.list_flatten(sources), "licence")],
                ["row", "licence"],
            )
            each = named.group_by(["row", "licence"]).aggregate([])["licence"]
            found.update({pair["values"]: pair["counts"] for pair in each.value_counts().to_pylist()})
    return Counter(dict(sorted(found.items())))


def first_row(folder: Path, licence: str) -> str:
    """The first row with a licence, as `SPLIT row ID`."""
    for split in SPLITS:
        for path in split_files(folder, split):
            for batch in batches(path, ["id", "source"]):
                for row in batch.to_pylist():
                    if any(source["licence"] == licence for source in row["source"]):
                        return f"{split} row {row['id']}"
    raise ValueError(f"{folder}: no row has the licence {licence!r}")
