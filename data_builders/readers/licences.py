"""The licence of a file: its SPDX line, else the licence file of the nearest folder, else what the user says."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from itertools import islice
from pathlib import Path

_SPDX = re.compile(r"^\W{0,12}SPDX-License-Identifier:\s*([\w.+() -]{2,100})", re.M)
_SPDX_LINES = 30

_OPENINGS = (
    ("Apache-2.0", r"Apache License\W+Version 2\.0"),
    ("GPL-3.0", r"GNU GENERAL PUBLIC LICENSE\W+Version 3"),
    ("GPL-2.0", r"GNU GENERAL PUBLIC LICENSE\W+Version 2"),
    ("MPL-2.0", r"Mozilla Public License,? (?:Version|v\.?) ?2\.0"),
    ("CC-BY-SA-4.0", r"Attribution-ShareAlike 4\.0 International"),
    ("CC-BY-4.0", r"(?<!NonCommercial )Attribution 4\.0 International"),
    ("CC0-1.0", r"CC0 1\.0 Universal"),
    ("PSF-2.0", r"PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2|A\. HISTORY OF THE SOFTWARE"),
    (
        "BSD-3-Clause",
        r"Redistribution and use in source and binary forms(?=.{0,1500}Neither the name|.{0,1500}may not be used to"
        r" endorse)",
    ),
    ("MIT", r"Permission is hereby granted, free of charge, to any person obtaining a copy of this software"),
)
_KNOWN = [(name, re.compile(opening, re.I)) for name, opening in _OPENINGS]
_IDENTIFIER = "|".join(re.escape(name) for name, _ in sorted(_OPENINGS, reverse=True))
_STATED = re.compile(rf"\b(?:{_IDENTIFIER})(?: (?:OR|AND) (?:{_IDENTIFIER}))*(?![\w.-]*\w)")

_FILE = re.compile(r"^(licen[cs]e|copying|source)(?:\.(?:txt|md|rst))?$", re.I)
_CHOICE = re.compile(r"^licen[cs]e-[\w.-]+$", re.I)


def spdx(content: str) -> str | None:
    """The SPDX expression in the first 30 lines, or null."""
    place = content.find("SPDX-License-Identifier:", 0, 6000)
    if place < 0 or content.count("\n", 0, place) >= _SPDX_LINES:
        return None
    match = _SPDX.search(content, content.rfind("\n", 0, place) + 1, place + 140)
    return match[1].strip(" -") or None if match else None


def recognised(text: str) -> str | None:
    """The SPDX identifier of a licence's text by its opening words, or of a note that states `licence=…`; or null."""
    head = " ".join(text[:4000].split())
    if stated := re.search(r"\blicen[cs]e\s*[=:]\s*([^;|]{2,200})", head, re.I):
        if match := _STATED.search(stated[1]):
            return match[0]
        if re.search(r"\bCC0\b", stated[1]):
            return "CC0-1.0"
    first = [(match.start(), name) for name, opening in _KNOWN if (match := opening.search(head))]
    return min(first)[1] if first else None


def licence_of(path: Path, name: str, content: str, fallback: str) -> str:
    """The licence of the file at `path`, called `name` in its corpus, whose text (or its opening) is `content`.

    Folders above the corpus are not looked at; for a corpus of one file its own folder is.
    """
    found = spdx(content)
    if found:
        return found
    return _folder_licence(os.path.dirname(path), name.count("/")) or fallback  # noqa: PTH120


@lru_cache(maxsize=65536)
def _folder_licence(folder: str, up: int) -> str | None:
    """The licence that holds in `folder`, looking into `up` folders above it."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    except (OSError, ValueError):
        names = []
    order = {"l": 0, "c": 1, "s": 2}
    for name in sorted(filter(_FILE.match, names), key=lambda name: order[name[0].lower()]):
        if found := _recognise(folder, name):
            return found
    # LICENSE-MIT beside LICENSE-APACHE is how a choice between the two is written.
    choices = {found for name in names if _CHOICE.match(name) and (found := _recognise(folder, name))}
    if choices:
        return " OR ".join(sorted(choices))
    return _folder_licence(os.path.dirname(folder), up - 1) if up > 0 else None  # noqa: PTH120


def _recognise(folder: str, name: str) -> str | None:
    try:
        with Path(folder, name).open(encoding="utf-8", errors="replace") as file:
            return recognised("".join(islice(iter(lambda: file.read(2000), ""), 2)))
    except OSError:
        return None
