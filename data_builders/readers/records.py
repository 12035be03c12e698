"""A record (JSON object, table row) → `Document`, by the names of its fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data_builders.readers import document as limits
from data_builders.readers.document import Document, Skipped, language_code, with_title
from data_builders.readers.formats import CODE_LAYOUTS
from data_builders.readers.text import parsed_functions


@dataclass(frozen=True)
class Fields:
    """Which fields of a record hold what: the first name that a record has counts; `a.b` is a field of a field.

    Attributes:
        text: the document itself.
        title: put above the text as its heading.
        licence: SPDX expression.
        language: ISO 639 code (then not identified), or the name of a programming language (then it is code).
        paraphrase, simple, summary: the text once more, in other, simpler or fewer words; no part of the document.
        layout: of the text, if it is not code: `plain`, `markdown` or `rst`.
    """

    text: tuple[str, ...] = ("text", "content", "raw_content", "body")
    title: tuple[str, ...] = ("title",)
    licence: tuple[str, ...] = ("licence", "license")
    language: tuple[str, ...] = ("language", "lang")
    paraphrase: tuple[str, ...] = ("paraphrase",)
    simple: tuple[str, ...] = ("simple", "simplified")
    summary: tuple[str, ...] = ("summary", "abstract")
    layout: str = "plain"

    @classmethod
    def named(cls, names: Mapping[str, str]) -> Fields:
        """The usual fields, but for those of `names`: attribute → the one name that counts (or the layout)."""
        given: dict[str, Any] = {key: name if key == "layout" else (name,) for key, name in names.items()}
        return cls(**given)

    @property
    def names(self) -> tuple[str, ...]:
        about = self.title + self.licence + self.language
        return self.text + about + self.paraphrase + self.simple + self.summary


@dataclass(frozen=True, slots=True)
class Origin:
    """What all documents of one file of records share, as in `Document`."""

    path: str
    sha256: str
    extractor: str
    licence: str


def _field(record: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    for name in names:
        value: Any = record
        for part in (name,) if name in record else name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    return None


def _string(record: Mapping[str, Any], names: tuple[str, ...]) -> str:
    value = _field(record, names)
    return value if isinstance(value, str) and is_encodable(value) else ""


def is_encodable(text: str) -> bool:
    """Whether a text is free of lone surrogates, which JSON can escape but UTF-8 cannot hold."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def record_document(record: Any, fields: Fields, origin: Origin, start: int, end: int) -> Document | Skipped:
    """The document of one record, held out on its own, or why there is none.

    Reasons: `not_a_record`, `no_text_field`, `empty`, `too_large`, `binary`, `invalid_utf8` or `invalid_python`.
    """

    def skipped(reason: str) -> Skipped:
        return Skipped(origin.path, reason, start, end)

    if not isinstance(record, Mapping):
        return skipped("not_a_record")
    text = _field(record, fields.text)
    if not isinstance(text, str):
        return skipped("no_text_field")
    if not text or text.isspace():
        return skipped("empty")
    if len(text) > limits.MAX_DOCUMENT_BYTES:
        return skipped("too_large")
    if "\0" in text:
        return skipped("binary")
    if not is_encodable(text):
        return skipped("invalid_utf8")
    language = _string(record, fields.language)
    functions = None
    if language.lower() in CODE_LAYOUTS:
        layout, title = language.lower(), ""
        if layout == "python":
            functions = parsed_functions(text)
            if functions is None:
                return skipped("invalid_python")
    else:
        layout = fields.layout
        text, title = with_title(_string(record, fields.title).replace("\0", ""), text)
    found = Document(
        content=text,
        layout=layout,
        path=origin.path,
        unit=f"{origin.path}:{start}",
        sha256=origin.sha256,
        start=start,
        end=end,
        extractor=origin.extractor,
        licence=_string(record, fields.licence).strip() or origin.licence,
        title=title,
        declared_language=language_code(language) if layout == fields.layout else None,
        paraphrase=_string(record, fields.paraphrase).replace("\0", ""),
        simple=_string(record, fields.simple).replace("\0", ""),
        summary=_string(record, fields.summary).replace("\0", ""),
    )
    if functions is not None:
        found.__dict__["functions"] = functions  # fills the cached property, which must not fail later
    return found
