"""Sets that `instructrec build` did not write, in TRL's formats: opened, checked by row, and turned into tokens.

Prompts and completions, or messages: https://huggingface.co/docs/trl/dataset_formats. Their tokens are those that TRL
makes; supervised are completions and the assistant's messages. Raw text is the column `text` of such a set, or plain
text files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructrec.core.errors import UserError
from instructrec.core.schema import SPLITS, TRAIN
from instructrec.data import NOT_SUPERVISED, Labelled, common_prefix, labeller

if TYPE_CHECKING:
    from datasets import Dataset

PLAIN_TEXT = (".md", ".rst", ".txt")
FILES = {".json": "json", ".jsonl": "json", ".parquet": "parquet"}
"""Suffixes of data files, and which loader of `datasets` reads them."""

PROMPTS, MESSAGES, TEXT = ("prompt", "completion"), ("messages",), ("text",)
"""The columns of each format."""

ROLES = ("system", "user", "assistant")
NOT_TRAINED = ("tools", "images", "image")
"""Columns without which a row would say something else, and which are not trained on here."""

LONGEST_REASON = 300


def open_set(name: str, config: str | None, split: str | None, revision: str | None) -> Dataset:
    """A set of `datasets`: a JSON or Parquet file, a folder, or a name on the Hub.

    Args:
        name: what stands in the config.
        config: of a set on the Hub that has several.
        split: `train` if null; `train[:1000]` and the like work too.
        revision: of a set on the Hub.

    Raises:
        UserError: there is no such thing, it cannot be read, or it is part of an instruction set.
    """
    import datasets

    path = Path(name).expanduser()
    if not path.exists() and (path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1):
        raise UserError(f"mixture: {name}: no such file or folder")
    if (found := _instruction_set(path)) is not None:
        raise UserError(f"mixture: {name}: belongs to an instruction set, which holds rows out; give name: {found}")
    try:
        if path.is_file():
            kind = next((FILES[suffix] for suffix in path.suffixes if suffix in FILES), None)
            if kind is None:
                raise ValueError(f"its name must end in {', '.join(FILES)}")
            return datasets.load_dataset(kind, data_files=str(path), split=split or TRAIN, cache_dir=_cache([path]))
        if any((path / mark).is_file() for mark in ("state.json", "dataset_dict.json")):
            saved = datasets.load_from_disk(str(path))
            if isinstance(saved, datasets.DatasetDict):
                return saved[split or TRAIN]
            if split is not None:
                raise ValueError("it was saved without splits; leave split out")
            return saved
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            return datasets.load_dataset(str(path), config, split=split or TRAIN, cache_dir=_cache(files))
        return datasets.load_dataset(name, config, split=split or TRAIN, revision=revision)
    except Exception as error:  # `datasets` raises a dozen kinds, for a missing split as for a missing network
        reason = (" ".join(str(error).split()) or type(error).__name__)[:LONGEST_REASON]
        if path.exists():
            raise UserError(f"mixture: {name}: cannot be read ({reason})") from None
        raise UserError(
            f"mixture: {name}: no file or folder here, and the Hub gave none ({reason}); check the name and the network"
        ) from None


def _cache(files: Sequence[Path]) -> str:
    """A cache folder for some files as they are now.

    `datasets` takes a folder that has a card for the one it read before under the same name, whatever its files hold.
    """
    from datasets.config import HF_DATASETS_CACHE

    states = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return str(Path(HF_DATASETS_CACHE, "local", hashlib.sha256(repr(states).encode()).hexdigest()[:32]))


def _instruction_set(path: Path) -> Path | None:
    """The instruction set that a file or folder is in, or that it holds."""
    if not path.exists():
        return None
    below = path.rglob("manifest.json") if path.is_dir() else ()
    above = (parent / "manifest.json" for parent in path.resolve().parents[: 2 if path.is_file() else 1])
    folders = (manifest.parent for manifest in (*below, *above) if manifest.is_file())
    return next((folder for folder in folders if all((folder / split).is_dir() for split in SPLITS)), None)


def format_of(name: str, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns that are read of a set of instructions.

    Raises:
        UserError: naming the columns it has and those it may have.
    """
    if stray := [column for column in NOT_TRAINED if column in columns]:
        raise UserError(f"mixture: {name}: has a column {stray[0]!r}, which is not trained on here; leave the set out")
    for wanted in (PROMPTS, MESSAGES):
        if set(wanted) <= set(columns):
            return wanted
    mend = f"; to train on its column 'text' as raw text, write `text: {name}`" if "text" in columns else ""
    raise UserError(
        f"mixture: {name}: has the columns {', '.join(columns)}; instructions are in prompt and completion, or in "
        f"messages{mend}"
    )


def open_text(
    name: str, config: str | None, split: str | None, revision: str | None
) -> tuple[Dataset, list[str | None], int]:
    """Raw text: the column `text` of what `open_set` opens, or plain text files (.txt, .md, .rst), each one document.

    Returns:
        Rows with a `text`; for each the SHA-256 of its file, or null; how many files are no plain text in UTF-8.

    Raises:
        UserError: as of `open_set`; or there is no such column, or no plain text.
    """
    path = Path(name).expanduser()
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if _is_visible(file, path))
    plain = [file for file in files if file.suffix.lower() in PLAIN_TEXT]
    data = any(set(file.suffixes) & FILES.keys() for file in files)
    if data and any(file.stem != "README" for file in plain):
        raise UserError(f"mixture: {name}: holds both plain text and JSON or Parquet; give each as a part of its own")
    if data or not path.exists():
        rows = open_set(name, config, split, revision)
        if "text" not in rows.column_names:
            raise UserError(
                f"mixture: {name}: has the columns {', '.join(rows.column_names)}; raw text needs a column text"
            )
        return rows.select_columns(["text"]), [None] * len(rows), 0
    if not plain:
        raise UserError(
            f"mixture: {name}: holds no raw text; that is plain text ({', '.join(PLAIN_TEXT)}) or the column text of "
            "JSONL or Parquet"
        )
    for key, value in (("config", config), ("split", split), ("revision", revision)):
        if value is not None:
            raise UserError(f"mixture: {name}: plain text has no {key}; leave the key out")
    rows = _read(name, plain)
    return rows.select_columns(["text"]), list(rows["sha256"]), len(files) - len(rows)


def _is_visible(file: Path, root: Path) -> bool:
    return file.is_file() and not any(part.startswith(".") for part in file.relative_to(root).parts)


def _read(name: str, files: Sequence[Path]) -> Dataset:
    """Text and hash of the files that are UTF-8, on disk, because all of them may be more than fits into memory."""
    from datasets import Dataset, Features, Value
    from datasets.exceptions import DatasetGenerationError

    try:
        return Dataset.from_generator(
            _documents,
            features=Features({"text": Value("string"), "sha256": Value("string")}),
            cache_dir=_cache(files),
            gen_kwargs={"files": [str(file) for file in files]},
        )
    except DatasetGenerationError as error:
        raise UserError(f"mixture: {name}: cannot be read ({error.__cause__})") from None
    except ValueError:  # `datasets` makes none without rows
        raise UserError(f"mixture: {name}: holds no raw text; of its plain text nothing is UTF-8") from None


def _documents(files: Sequence[str]) -> Iterator[dict[str, str]]:
    for file in files:
        content = Path(file).read_bytes()
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            continue
        yield {"text": text, "sha256": hashlib.sha256(content).hexdigest()}


def texts_of(row: dict[str, Any], columns: tuple[str, ...], where: str) -> list[str]:
    """All that a row says, message by message; nothing if it has no answer (or, of raw text, no text) to learn.

    Args:
        row: of a set in one of TRL's formats.
        columns: those of its format.
        where: its name and number, for the message.

    Raises:
        UserError: a column does not hold what its format says.
    """
    values = [row[column] for column in columns]
    if any(value is None for value in values):
        return []
    if columns != MESSAGES and all(isinstance(value, str) for value in values):
        return list(values) if values[-1].strip() else []
    if columns == TEXT:
        raise UserError(f"{where}: 'text' must be a text, not {type(values[0]).__name__}")
    for column, value in zip(columns, values, strict=True):
        if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
            also = "" if columns == MESSAGES else ", or both columns texts"
            raise UserError(f"{where}: {column!r} must be a list of messages with role and content{also}")
    messages = [message for value in values for message in value]
    for message in messages:
        if message.get("role") not in ROLES:
            raise UserError(f"{where}: a message has the role {message.get('role')!r}; roles are {', '.join(ROLES)}")
    if not all(isinstance(message.get("content"), str) for message in messages):
        return []
    answers = [message["content"] for message in _learnt(values) if message["role"] == "assistant"]
    return [message["content"] for message in messages] if any(map(str.strip, answers)) else []


def _learnt(values: Sequence[list[Any]]) -> list[Any]:
    """The messages of a row among which are those to learn: not the first, which answers nothing."""
    return values[-1] if len(values) > 1 and values[0] else values[-1][1:]


def encoder(tokenizer: Any, columns: tuple[str, ...]) -> Callable[[dict[str, Any], str], Labelled]:
    """A function of a row and its name that gives its tokens.

    Texts get no chat template, as in TRL: prompt, completion, end of sequence.
    """
    labelled = labeller(tokenizer)

    def encode(row: dict[str, Any], name: str) -> Labelled:
        values = [row[column] for column in columns]
        if isinstance(values[-1], str):
            prompt, completion = values
            whole = tokenizer(_ended(prompt + completion, tokenizer))["input_ids"]
            given = common_prefix(tokenizer(prompt)["input_ids"], whole)
            return {"input_ids": whole, "labels": [NOT_SUPERVISED] * given + whole[given:]}
        messages = [{"role": message["role"], "content": message["content"]} for value in values for message in value]
        given = len(messages) - len(_learnt(values))
        return labelled(messages, range(given, len(messages)), name)

    return encode


def pieces_of(texts: Sequence[str], tokenizer: Any, length: int) -> Iterator[list[list[int]]]:
    """Each text's tokens, with the end of sequence, in pieces of `length` of which the last may be shorter."""
    for ids in tokenizer([_ended(text, tokenizer) for text in texts])["input_ids"]:
        pieces = (ids[start : start + length] for start in range(0, len(ids), length))
        yield [piece for piece in pieces if len(piece) > 1]  # a single token has none to be predicted from


def _ended(text: str, tokenizer: Any) -> str:
    return text if text.endswith(tokenizer.eos_token) else text + tokenizer.eos_token
