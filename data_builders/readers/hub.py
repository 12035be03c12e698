"""A data set streamed through `datasets`: `hf://owner/name[/config][#split]` from the Hub, `dataset:FOLDER[#split]`.

There is no raw file to hash, so that `sha256` is that of the document's own text and `start..end` count rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_builders.readers.document import Document, Skipped
from data_builders.readers.records import Fields, Origin, record_document
from instructrec.core.errors import UserError

HUB = "hf://"
EXTRACTOR = "datasets-row/1"


def read_dataset(path: Path, name: str, licence: str, fields: Fields) -> Iterator[Document | Skipped]:
    """Yield the rows of one split (`train` unless named).

    Args:
        path: of a local data set; not looked at for one of the Hub.
        name: with its scheme.

    Raises:
        UserError: there is no such data set or split, or it cannot be reached.
    """
    place, _, split = name.partition("#")
    origin = Origin(name, "", EXTRACTOR, licence)
    for number, record in enumerate(_rows(path, place, split or "train", name)):
        found = record_document(record, fields, origin, number, number + 1)
        if isinstance(found, Document):
            found = replace(found, sha256=hashlib.sha256(found.content.encode()).hexdigest())
        yield found


def _rows(path: Path, place: str, split: str, name: str) -> Iterator[Any]:
    try:
        rows = iter(_open(path, place, split))
        while (record := next(rows, None)) is not None:
            yield record
    except Exception as error:  # `datasets` raises a dozen kinds, for a missing split as for a missing network
        detail = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"corpus {name!r}: cannot be read by `datasets`: {detail}") from None


def _open(path: Path, name: str, split: str) -> Any:
    import datasets

    if name.startswith(HUB):
        repository, config = _repository(name)
        return datasets.load_dataset(repository, config, split=split, streaming=True)
    if (path / "state.json").is_file():
        return datasets.load_from_disk(str(path))
    if (path / "dataset_dict.json").is_file():
        return datasets.load_from_disk(str(path))[split]
    if not path.is_dir():
        raise FileNotFoundError("no such folder")
    return datasets.load_dataset(str(path), split=split, streaming=True)


def _repository(name: str) -> tuple[str, str | None]:
    parts = name.removeprefix(HUB).strip("/").split("/")
    return "/".join(parts[:2]), "/".join(parts[2:]) or None
