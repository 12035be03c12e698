"""Writing so that a kill leaves nothing half-written under a final name, and hashing what was written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from instructrec.core.errors import UserError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` and rename it to `path` when the block ends without an exception."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock file `path`, which only one process can; the kernel releases it when the holder dies.

    Raises:
        BlockingIOError: another process holds it and `wait` is false.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty sibling folder and rename it to `path` when the block ends without an exception.

    What a kill left of an earlier attempt is swept away.

    Raises:
        BlockingIOError: another process is writing the same folder.
    """
    work, lock = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.lock")
    with locked(lock, wait=False):
        try:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            yield work
            work.rename(path)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            lock.unlink()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically: sorted keys, two spaces, so that equal values are equal bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def one_line(text: str, most: int = 200) -> str:
    """A text that others wrote, fit for one line of a comment or terminal: escaped where not printable, and cut."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in cut)


def append_records(path: Path, records: Iterable[Any]) -> None:
    """Append a JSON line for each record to a file that a kill may have left with half a line; on disk on return."""
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" + "".join(json.dumps(record) + "\n" for record in records))
        file.flush()
        os.fsync(file.fileno())


def read_records(path: Path) -> Iterator[Any]:
    """What `append_records` wrote, without lines that a kill left unfinished; nothing where there is no file."""
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def read_json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """The values of a JSONL file of a user's, each with its place. Raises `UserError` naming file and line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield f"{path}:{number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}:{number}: not JSON ({error})") from None


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(folder: Path, pattern: str) -> str:
    """Hex SHA-256 over the relative names and hashes of every file below `folder` that matches `pattern`."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob(pattern)):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()
