"""Mailboxes: a message is a document with its subject as title; quoted lines, signatures and all headers are left out,
and e-mail addresses in the text become `<address>`.

What is quoted stands in `Document.replies` with what is answered to it, up to where either names anybody whom the
headers name.
"""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import cast

from data_builders.readers import document as limits
from data_builders.readers.document import Document, Reply, Skipped, with_title
from data_builders.readers.files import file_sha256, stream
from data_builders.readers.html_page import page_blocks
from data_builders.readers.licences import licence_of
from data_builders.readers.records import is_encodable

EXTRACTOR = "mbox/1"
MOST_HEADER, MOST_PARTS = 1000, 1000
"""Characters of a header that are read, and parts of a message: Python's parsers take the square of one, 0.3 ms each
of the other."""

_PART = re.compile(rb"^content-type:", re.I | re.M)
_REPLY = re.compile(r"^(?:\s*(?:re|fwd?|aw|sv)\s*(?:\[\d+\])?\s*:|\s*\[[^\]]{1,40}\])+\s*", re.I)
_QUOTED = re.compile(r"> ?(?!\s*>)(.*)")
_LIST_TAG = re.compile(r"\[([^\]]{1,40})\]")
_PARAGRAPH = re.compile(r"(?:^[^\n]*\S[^\n]*(?:\n|\Z))++", re.M)
_NAME = re.compile(r"[^\W\d_]{2,}")
_ADDRESS = re.compile(r"<?\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}\b>?")


class _Policy(email.policy.EmailPolicy):
    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        return name, value[:MOST_HEADER]


def read_mbox(path: Path, name: str, licence: str) -> Iterator[Document | Skipped]:
    """Yield the messages of a mailbox, streamed.

    Raises:
        Unreadable: as `files.stream`.
    """
    with stream(path) as source:
        sha256, licence = file_sha256(path), licence_of(path, name, "", licence)
        message: list[bytes] = []
        start = size = end = 0
        blank, begun = True, False
        for line in source.lines():
            raw = line.raw or b""
            if blank and raw.startswith(b"From "):
                if begun:
                    yield _message(message, size, name, sha256, start, end, licence)
                message, start, size, begun = [], line.start, 0, True
            size += line.end - line.start
            end = line.end
            if size <= limits.MAX_DOCUMENT_BYTES:
                message.append(raw)
            else:
                message.clear()
            blank = raw in (b"\n", b"\r\n")
        if begun:
            yield _message(message, size, name, sha256, start, end, licence)
        else:
            yield Skipped(name, "invalid_mbox", 0, end)


def _message(
    lines: list[bytes], size: int, name: str, sha256: str, start: int, end: int, licence: str
) -> Document | Skipped:
    if size > limits.MAX_DOCUMENT_BYTES:
        return Skipped(name, "too_large", start, end)
    try:
        raw = b"".join(lines[1:])
        if len(_PART.findall(raw)) > MOST_PARTS:
            raise ValueError("too many parts")
        parsed = cast(EmailMessage, email.message_from_bytes(raw, policy=_Policy()))
        body, subject = _body(parsed), str(parsed["subject"] or "")
    except (LookupError, ValueError, AttributeError, TypeError, RecursionError):
        return Skipped(name, "invalid_message", start, end)
    text = _ADDRESS.sub("<address>", _own_words(body))
    if not text:
        return Skipped(name, "empty", start, end)
    if "\0" in text or not is_encodable(text + subject):
        return Skipped(name, "binary", start, end)
    content, title = with_title(_ADDRESS.sub("<address>", _REPLY.sub("", subject)), text)
    replies = tuple(_replies(body, content, _names(parsed))) if "\n>" in body or body.startswith(">") else ()
    unit = f"{name}:{start}"
    return Document(content, "plain", name, unit, sha256, start, end, EXTRACTOR, licence, title, replies=replies)


def _body(message: EmailMessage) -> str:
    part = message.get_body(("plain", "html"))
    if part is None:
        return ""
    text = str(part.get_content())
    if part.get_content_subtype() == "html":
        return "\n\n".join(text for _, text, *_ in page_blocks(text))
    return text.replace("\r\n", "\n")


def _own_words(text: str) -> str:
    """The text without quotes of others, the line that introduces a quote, and the signature."""
    kept: list[str] = []
    for line in text.split("\n"):
        if line.rstrip("\r") == "-- ":
            break
        if line.startswith(">"):
            if kept and kept[-1].rstrip().endswith(":"):
                kept.pop()
            continue
        kept.append(line.rstrip())
    return "\n".join(kept).strip("\n")


def _names(message: EmailMessage) -> set[str]:
    """The words with a capital in the headers that name people, but for those of the mailing list's own name."""
    tags = [tag for subject in _values(message, "subject") for tag in _LIST_TAG.findall(subject)]
    listed = " ".join([*_values(message, "list-id", "list-post"), *tags])
    of_list = {word.casefold() for word in _NAME.findall(listed)}
    found = (word for value in _values(message, "from", "to", "cc", "reply-to") for word in _NAME.findall(value))
    return {word for word in found if word[0].isupper() and word.casefold() not in of_list}


def _values(message: EmailMessage, *headers: str) -> list[str]:
    """What all of these headers hold; a header that Python's parsers trip over holds nothing."""
    found: list[str] = []
    for header in headers:
        try:
            found += [str(value) for value in message.get_all(header, ())]
        except (LookupError, ValueError, AttributeError, TypeError, RecursionError):
            continue
    return found


def _replies(body: str, content: str, names: set[str]) -> Iterator[Reply]:
    """Each quotation with the writer's own lines below it, as they stand in `content`."""
    place = 0
    for quotation, below in _quotations(body):
        quoted = _ADDRESS.sub("<address>", _last_quoted(quotation))
        own = _ADDRESS.sub("<address>", _own_words("\n".join(below)))
        start = content.find(own, place) if own else -1
        if start < 0:
            continue
        place = start + len(own)
        kept = _up_to_a_name(own, names)
        if quoted and kept and names.isdisjoint(_NAME.findall(quoted)):
            yield Reply(quoted, start, start + len(kept))


def _up_to_a_name(text: str, names: set[str]) -> str:
    """The paragraphs before the first that holds one of the names, as the last one of a mail often does."""
    end = 0
    for match in _PARAGRAPH.finditer(text):
        if not names.isdisjoint(_NAME.findall(match[0])):
            break
        end = match.end()
    return text[:end].rstrip("\n")


def _quotations(body: str) -> Iterator[tuple[list[str], list[str]]]:
    """The lines of each quotation, and those from it to the next one, which it ends with for `_own_words` to see."""
    quotation: list[str] = []
    below: list[str] = []
    for line in body.split("\n"):
        if line.rstrip("\r") == "-- ":
            break
        if not line.startswith(">"):
            below.append(line)
            continue
        if below:
            if quotation:
                yield quotation, [*below, line]
            quotation, below = [], []
        quotation.append(line)
    if quotation and below:
        yield quotation, below


def _last_quoted(lines: list[str]) -> str:
    """What is quoted last of the mail that is answered itself, without what that one quoted and without a signature."""
    kept: list[str] = []
    for line in lines:
        match = _QUOTED.fullmatch(line.rstrip("\r"))
        if match is None:
            kept.clear()
        elif match[1] == "-- ":
            break
        else:
            kept.append(match[1].rstrip())
    return "\n".join(kept).strip("\n")
