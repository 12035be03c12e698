"""A git repository's history (`git:FOLDER`) through dulwich, an optional extra: a commit is a document.

`content` is the message (subject as title) and below it the unified diff, a code block; its kind is `commit`, which no
text or code family takes by mistake. Merges are left out, as are trailers with names and e-mail addresses
(`Signed-off-by:`). `sha256` and `start..end` are those of the raw commit object, which has no place in a file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from data_builders.layout import Block, blocks
from data_builders.readers.document import Document, Skipped, Unreadable, shifted
from instructrec.core.errors import UserError

EXTRACTOR = "git-commit/1"
MOST_FILES = 20
"""Files that a commit may change."""
MAX_BLOB_BYTES = 100_000
"""Bytes of a changed file at most: a line diff takes quadratic time."""
MAX_DIFF_BYTES = 64 << 10

_TRAILER = re.compile(r"^[A-Z][\w-]+(?:-by|-id|-Id|Cc|CC|Bug|Fixes|Link)?: .*(?:@|://|I[0-9a-f]{40}).*$", re.M)


def read_git(path: Path, name: str, licence: str) -> Iterator[Document | Skipped]:
    """Yield the commits that lead to HEAD, newest first.

    Raises:
        UserError: there is no repository at `path`.
        Unreadable: `needs_extra_git`, `empty` (no commit yet) or `corrupt`.
    """
    try:
        from dulwich.errors import NotGitRepository
        from dulwich.repo import Repo
    except ImportError:
        raise Unreadable("needs_extra_git") from None
    try:
        repository = Repo(str(path))
    except NotGitRepository:
        raise UserError(f"corpus {name!r}: no git repository there; give `git:` the folder that holds .git") from None
    with repository:
        try:
            walker = iter(repository.get_walker())
        except KeyError:
            raise Unreadable("empty") from None
        while True:
            try:
                commit = next(walker).commit
                found = _commit(repository, commit, name, licence) if len(commit.parents) <= 1 else None
            except StopIteration:
                return
            except (KeyError, ValueError, OSError, AssertionError):  # a missing or damaged object ends the walk
                raise Unreadable("corrupt") from None
            if found is not None:
                yield found


def _commit(repository: Any, commit: Any, name: str, licence: str) -> Document | Skipped:
    path = f"{name}@{commit.id.decode()}"
    raw = commit.as_raw_string()
    try:
        message = commit.message.decode("utf-8").replace("\r\n", "\n")
        diff = _diff(repository.object_store, commit)
    except UnicodeDecodeError:
        return Skipped(path, "invalid_utf8", 0, len(raw))
    if diff is None:
        return Skipped(path, "too_large", 0, len(raw))
    if "\0" in message + diff:
        return Skipped(path, "binary", 0, len(raw))
    subject, _, rest = message.strip().partition("\n")
    subject, body = " ".join(subject.split()), _TRAILER.sub("", rest).strip("\n").rstrip()
    content = "\n\n".join(part for part in (subject, body, diff) if part)
    if not subject or not diff:
        return Skipped(path, "empty", 0, len(raw))
    body_start = len(subject) + 2
    page = [Block("heading", subject, 0, len(subject), 1)]
    page += [shifted(block, body_start, 1) for block in blocks(body, "plain")]
    page.append(Block("code", diff, len(content) - len(diff), len(content)))
    return Document(
        content=content,
        layout="commit",
        path=path,
        unit=path,
        sha256=hashlib.sha256(raw).hexdigest(),
        start=0,
        end=len(raw),
        extractor=EXTRACTOR,
        licence=licence,
        title=subject,
        page=tuple(page),
    )


def _diff(store: Any, commit: Any) -> str | None:
    """The diff against the parent; null if it is too large."""
    from dulwich.patch import write_object_diff

    parent = store[commit.parents[0]].tree if commit.parents else None
    out = BytesIO()
    for number, (paths, modes, ids) in enumerate(store.tree_changes(parent, commit.tree)):
        if number >= MOST_FILES:
            return None
        # A submodule's id (mode 0o160000) is no object of this repository.
        if any(mode and mode & 0o170000 == 0o160000 for mode in modes):
            continue
        if any(id and len(store[id].as_raw_string()) > MAX_BLOB_BYTES for id in ids):
            return None
        old, new = zip(paths, modes, ids, strict=True)
        write_object_diff(out, store, old, new)
        if out.tell() > MAX_DIFF_BYTES:
            return None
    return out.getvalue().decode("utf-8").rstrip("\n")
