"""gettext catalogues: one document per file, the translation as prose and the entries as pairs.

A file is one document because its entries are one page in order: text families need the neighbours, and a page of both
languages must be held out as one. `content` is the translations in the target language, each a block of its own;
`pairs` holds every (msgid, msgstr) for translation families. Left out: the header (whose names and e-mail addresses
thus never reach a row; only its `Language` is used), translators' comments, fuzzy and obsolete entries, and entries
that are empty or equal to their source.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from data_builders.layout import blocks
from data_builders.readers.document import Document, Pair, Place, Unreadable, language_code, page_content
from data_builders.readers.files import whole_text

EXTRACTOR = "po/1"


def read_po(path: Path, name: str, licence: str) -> Iterator[Document]:
    """Yield the document of one catalogue.

    Raises:
        Unreadable: as `files.whole_text`, `invalid_po`, or `no_text` if nothing is translated.
    """
    import polib

    whole = whole_text(path)
    try:
        # polib takes a string that is the name of a file for that file; with a line break at its end it is none.
        catalogue = polib.pofile(whole.content + "\n")
    except (OSError, ValueError, IndexError, RecursionError):
        raise Unreadable("invalid_po") from None
    starts = list(accumulate((len(line.encode()) for line in whole.content.splitlines(True)), initial=whole.start))
    lines = [entry.linenum for entry in catalogue]
    pairs = []
    for entry in catalogue:
        source, target = _sides(entry)
        if target and source != target and not entry.obsolete and not entry.fuzzy:
            following = bisect_right(lines, entry.linenum)
            last = lines[following] - 1 if following < len(lines) else len(starts) - 1
            first = starts[min(entry.linenum - 1, len(starts) - 1)]
            pairs.append(
                Pair(source, target, first, max(first, starts[min(last, len(starts) - 1)]), entry.msgctxt or "")
            )
    if not pairs:
        raise Unreadable("no_text")
    texts, origins = [], []
    for pair in pairs:
        for kind, text, level in _blocks(pair.target):
            texts.append((kind, text, level))
            origins.append(pair)
    content, page = page_content(texts)
    yield whole.document(
        path,
        name,
        licence,
        content,
        "po",
        EXTRACTOR,
        declared_language=language_code(catalogue.metadata.get("Language", "")),
        page=page,
        places=tuple(
            Place(block.start, block.end, pair.start, pair.end) for block, pair in zip(page, origins, strict=True)
        ),
        pairs=tuple(pairs),
    )


def _sides(entry: object) -> tuple[str, str]:
    """(source, translation) of an entry; of one with plurals the general plural, which every language has."""
    plural = getattr(entry, "msgid_plural", "")
    if plural:
        forms = getattr(entry, "msgstr_plural", None) or {}
        return plural.strip(), forms[max(forms)].strip() if forms else ""
    return getattr(entry, "msgid", "").strip(), getattr(entry, "msgstr", "").strip()


def _blocks(text: str) -> list[tuple[str, str, int]]:
    if "\n" not in text:
        return [("paragraph", text, 0)]
    return [(block.kind, block.text, block.level) for block in blocks(text, "rst")]
