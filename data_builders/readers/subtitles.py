"""SubRip and WebVTT: what is said, joined to paragraphs at the pauses, each with the bytes of its cues."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

from data_builders.readers.document import Document, Unreadable, byte_places, page_content
from data_builders.readers.files import whole_text
from instructrec.core.segmentation import unwrap

EXTRACTOR = "subtitles/1"
PAUSE_MS = 3000
"""Silence in ms from which a new paragraph begins."""

_TIMING = re.compile(
    r"^[ \t]*(?:(\d{1,3}):)?(\d{1,2}):(\d{2})[.,](\d{3})[ \t]+-->"
    r"[ \t]+(?:(\d{1,3}):)?(\d{1,2}):(\d{2})[.,](\d{3})[^\n]*\n",
    re.M,
)
_CUE_END = re.compile(r"\n[ \t]*\r?(?:\n|\Z)|\Z")
_MARKUP = re.compile(r"<[^<>\n]{0,200}>|\{\\[^{}\n]{0,200}\}")
_SOUND = re.compile(r"\[[^\[\]\n]{0,100}\]|^[ \t]*[♪#][^\n]*", re.M)


def _milliseconds(hours: str | None, minutes: str, seconds: str, rest: str) -> int:
    return ((int(hours or 0) * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + int(rest)


def read_subtitles(path: Path, name: str, licence: str) -> Iterator[Document]:
    """Yield one document per file; sounds in brackets and sung lines are left out.

    Raises:
        Unreadable: as `files.whole_text`, or `no_text` if there is no cue.
    """
    whole = whole_text(path)
    paragraphs: list[tuple[list[str], int, int]] = []
    shown_until = -PAUSE_MS
    timings = list(_TIMING.finditer(whole.content))
    limits = [timing.start() for timing in timings[1:]] + [len(whole.content)]
    for timing, limit in zip(timings, limits, strict=False):
        times = timing.groups()
        end_match = _CUE_END.search(whole.content, timing.end() - 1, limit)
        end = end_match.start() if end_match else limit
        spoken = _SOUND.sub("", unescape(_MARKUP.sub("", whole.content[timing.end() : end])))
        lines = [line.strip() for line in spoken.split("\n") if line.strip()]
        if not lines:
            continue
        if _milliseconds(*times[:4]) - shown_until >= PAUSE_MS or lines[0].startswith(("-", "–", "—")):
            paragraphs.append(([], timing.start(), end))
        spoken_lines, start, _ = paragraphs[-1]
        spoken_lines.extend(lines)
        paragraphs[-1] = (spoken_lines, start, end)
        shown_until = _milliseconds(*times[4:])
    if not paragraphs:
        raise Unreadable("no_text")
    content, page = page_content([("paragraph", unwrap("\n".join(lines)), 0) for lines, _, _ in paragraphs])
    yield whole.document(
        path,
        name,
        licence,
        content,
        "subtitles",
        EXTRACTOR,
        page=page,
        places=byte_places(whole.content, whole.start, page, ((start, end) for _, start, end in paragraphs)),
    )
