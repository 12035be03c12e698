"""What goes out of a folder when it is published: files on a list, with this machine's places taken out of them."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

from instructrec.core.errors import UserError
from instructrec.core.schema import SPLITS, Lineage

Files = dict[str, Path | bytes]
"""Path in the repository → the file, or its bytes where they differ from those in the folder."""

CONFIG, WEIGHTS, CARD, LINEAGE = "adapter_config.json", "adapter_model.safetensors", "README.md", "lineage.json"
EVALUATION = "evaluation"

TOKENIZER = "tokenizer_config.json"
TOKENIZER_FILES = (
    *("tokenizer.json", TOKENIZER, "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "chat_template.jinja"),
    "additional_chat_templates/*.jinja",
)

ADAPTER_FILES = (CONFIG, WEIGHTS, *TOKENIZER_FILES, CARD, LINEAGE, f"{EVALUATION}/scores.json", f"{EVALUATION}/*.png")
"""All that is ever in the repository of an adapter. Optimizer states, `training_args.bin`, `ref/`, answers of an
evaluation and everything else stay here."""

SET_FILES = (*(f"{split}/*.parquet" for split in SPLITS), "manifest.json", CARD, LINEAGE)
"""All that is ever in the repository of an instruction set. What gates rejected stays here."""

_PLACE = re.compile(r"(?:/|~|\.\./|[A-Za-z]:[\\/]|\\\\)[^\n]*\Z")
_HOME = re.compile(r"(?<!\w)/(?:home|Users)/[^\s\"'`,;\])}]+")
"""A place in somebody's home, within a text."""


def on_list(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether a path in a repository is on the list; `*` does not reach into folders."""
    return any(path.count("/") == pattern.count("/") and fnmatchcase(path, pattern) for pattern in patterns)


def collect(folder: Path, patterns: tuple[str, ...]) -> Files:
    """The files of a folder that are on the list."""
    found = (path for pattern in patterns for path in sorted(folder.glob(pattern)))
    return {path.relative_to(folder).as_posix(): path for path in found if path.is_file()}


def portable(value: Any) -> Any:
    """A JSON value in which every place on this machine is the name of its last folder or file.

    Paths tell the names of people, and lead nowhere elsewhere.
    """
    if isinstance(value, dict):
        return {_without_place(key): portable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [portable(inner) for inner in value]
    return _without_place(value) if isinstance(value, str) else value


def _without_place(text: str) -> str:
    flag, equals, given = text.partition("=") if text.startswith("--") else ("", "", text)
    if not _PLACE.match(given):
        return _HOME.sub(lambda place: place[0].rstrip("/").rpartition("/")[2], text)
    return flag + equals + (re.split(r"[\\/]", given.rstrip("\\/"))[-1] or given)


def portable_lineage(lineage: Lineage, base: str, revision: str | None) -> Lineage:
    """A lineage without places, in which the base has the name that it is published under."""
    found = portable(lineage)
    if "model" in found["inputs"]:
        found["inputs"]["model"] |= {"name": base, "revision": revision}
    return cast(Lineage, found)


def as_json(value: Any) -> bytes:
    """JSON as `instructrec.core.files.write_json` writes it."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def read_object(path: Path) -> dict[str, Any]:
    """A file's JSON object. Raises `UserError` if it holds none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); train the adapter again") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: is no JSON object; train the adapter again")
    return found


def adapter_files(folder: Path, base: str, revision: str | None, tokenizer_from: Path | None = None) -> Files:
    """An adapter's own files as they go out: its config names the base that a reader can load, pinned.

    Args:
        tokenizer_from: where the tokenizer is, if not in `folder`.

    Raises:
        UserError: the folder holds no adapter in safetensors, or no tokenizer.
    """
    files = collect(tokenizer_from or folder, TOKENIZER_FILES)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: no {name} there; give the output folder of a recipe")
        files[name] = folder / name
    config = read_object(folder / CONFIG)
    files[CONFIG] = as_json(portable(config) | {"base_model_name_or_path": base, "revision": revision})
    if TOKENIZER not in files:
        raise UserError(
            f"{folder}: no {TOKENIZER} there, without which readers have no chat template; train with a recipe"
        )
    settings = read_object(cast(Path, files[TOKENIZER]))
    if settings.pop("name_or_path", None) is not None:  # where it was loaded from
        files[TOKENIZER] = as_json(settings)
    return files


def size(content: Path | bytes) -> int:
    """Bytes of a file."""
    return content.stat().st_size if isinstance(content, Path) else len(content)
