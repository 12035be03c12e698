"""PDF through pypdfium2, an optional extra: the text of its pages, cut into paragraphs by the length of lines."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from data_builders.readers import document as limits
from data_builders.readers.document import Document, Unreadable, page_content
from data_builders.readers.files import whole_bytes
from data_builders.readers.licences import licence_of
from instructrec.core.segmentation import unwrap

EXTRACTOR = "pdf/1"
_SHORT_LINE = 0.8
"""A line shorter than this share of the page's usual line, with a full stop, is the last one of its paragraph."""
_STOP = re.compile(r"[.!?:。！？：…][\"'”’)\]]*$")


def read_pdf(path: Path, name: str, licence: str) -> Iterator[Document]:
    """Yield one document per file.

    Raises:
        Unreadable: as `files.whole_bytes`, `needs_extra_pdf`, `invalid_pdf` (damaged or locked by a password),
            `too_large`, or `no_text` for scanned pages.
    """
    raw = whole_bytes(path)
    try:
        import pypdfium2
    except ImportError:
        raise Unreadable("needs_extra_pdf") from None
    paragraphs: list[str] = []
    size = 0
    try:
        with pypdfium2.PdfDocument(raw) as pdf:
            for number in range(len(pdf)):
                page = pdf[number]
                text = page.get_textpage().get_text_bounded()
                page.close()
                size += len(text)
                if size > limits.MAX_DOCUMENT_BYTES:
                    raise Unreadable("too_large")
                paragraphs.extend(_paragraphs(text))
    except pypdfium2.PdfiumError:
        raise Unreadable("invalid_pdf") from None
    if not paragraphs:
        raise Unreadable("no_text")
    content, blocks = page_content([("paragraph", text, 0) for text in paragraphs])
    yield Document(
        content=content,
        layout="pdf",
        path=name,
        unit=name,
        sha256=hashlib.sha256(raw).hexdigest(),
        start=0,
        end=len(raw),
        extractor=EXTRACTOR,
        licence=licence_of(path, name, content, licence),
        page=blocks,
    )


def _paragraphs(text: str) -> Iterator[str]:
    # PDFium marks a hyphen that only the line break needs with U+FFFE.
    text = re.sub("(?:\ufffe|\x02)\\s*", "", text.replace("\r\n", "\n")).replace("\0", "")
    lines = [line.strip() for line in text.split("\n")]
    lengths = sorted(len(line) for line in lines if line)
    usual = lengths[len(lengths) * 3 // 4] if lengths else 0
    open_lines: list[str] = []
    for line in [*lines, ""]:
        if line:
            open_lines.append(line)
        if open_lines and (not line or (len(line) < _SHORT_LINE * usual and _STOP.search(line))):
            yield unwrap("\n".join(open_lines))
            open_lines = []
