"""The contracts between the rooms, in one place: every record that one part writes and another reads.

Rows live in Parquet under an explicit Arrow schema, so that a column that happens to be all null keeps its type; JSON
records are typed dictionaries. `check_record` is the one validator: it walks an Arrow schema and names what is wrong.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

import pyarrow as pa

from instructrec.core import checks
from instructrec.core.errors import UserError, nearest

TRAIN, VALIDATION = "train", "validation"
TEST_DOCUMENTS, TEST_TEMPLATES, TEST_TASKS = "test_documents", "test_templates", "test_tasks"
HELD_OUT = (TEST_DOCUMENTS, TEST_TEMPLATES, TEST_TASKS)
SPLITS = (TRAIN, VALIDATION, *HELD_OUT)
TEST_CORRUPTORS = "test_corruptors"
PAIR_SPLITS = (TRAIN, VALIDATION, TEST_DOCUMENTS, TEST_CORRUPTORS)
"""Of a folder of preference pairs; `test_corruptors` has unseen documents and unseen ways to corrupt an answer."""

_text = pa.string()


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


MESSAGES = pa.list_(pa.struct([_required("role", _text), _required("content", _text)]))
SOURCES = pa.list_(
    pa.struct(
        [
            _required("path", _text),
            _required("sha256", _text),
            _required("start", pa.int64()),
            _required("end", pa.int64()),
            _required("extractor", _text),
            _required("licence", _text),
        ]
    )
)

INSTRUCTION = pa.schema(
    [
        _required("id", _text),
        _required("prompt", MESSAGES),
        _required("completion", MESSAGES),
        pa.field("conversation", _text),
        pa.field("turn", pa.int64()),
        _required("family", _text),
        _required("group", _text),
        _required("template", _text),
        _required("language", _text),
        _required("kind", _text),
        _required("targets", pa.list_(_text)),
        pa.field("choices", pa.list_(_text)),
        pa.field("checks", _text),
        _required("source", SOURCES),
    ]
)
"""One row of an instruction set. `source` holds byte ranges of the raw files, `checks` is JSON."""

PAIR = pa.schema(
    [
        _required("prompt", MESSAGES),
        _required("chosen", MESSAGES),
        _required("rejected", MESSAGES),
        pa.field("margin", pa.float64()),
        _required("origin", _text),
        _required("source", SOURCES),
    ]
)
"""One preference pair; `origin` is its corruptor, `samples`, or `mentor:` and the names of all who saw a difference."""

SIDES = ("chosen", "rejected")
"""The answers of a pair."""

SCORED_RESPONSE = pa.schema(
    [
        _required("prompt", MESSAGES),
        _required("completion", MESSAGES),
        _required("rewards", pa.map_(_text, pa.float64())),
        _required("policy", _text),
    ]
)
"""One sampled response with its reward per name."""

SUITE_ITEM = pa.schema(
    [
        _required("id", _text),
        _required("category", _text),
        _required("instruction", _text),
        _required("input", _text),
        _required("targets", pa.list_(_text)),
        pa.field("choices", pa.list_(_text)),
        pa.field("checks", _text),
    ]
)
"""One line of an evaluation suite in JSONL."""


class Family(TypedDict):
    """One family's entry in a manifest.

    `rejected` counts examples per gate; `not_applicable` counts documents of its kind in languages without a wording.
    """

    kind: str
    group: str
    rows: int
    languages: dict[str, int]
    rejected: dict[str, int]
    not_applicable: int


class _Optional(TypedDict, total=False):
    """What only some manifests have: `synthesis`, the models that wrote and judged, and how much of it was kept."""

    synthesis: dict[str, Any]


class Manifest(_Optional):
    """`manifest.json` of an instruction set. Holds no time and no machine path: equal inputs give equal bytes."""

    corpus: dict[str, Any]
    splits: dict[str, int]
    families: dict[str, Family]
    held_out: dict[str, Any]
    config: dict[str, Any]
    versions: dict[str, str]
    seed: int
    fingerprint: str


class PairsManifest(TypedDict):
    """`manifest.json` of a folder of pairs; `fingerprint` is of its Parquet. Holds no time and no machine path.

    `origins` counts pairs by origin and split, `dropped` those that were made and left out, by reason. `plan` is what
    the pairs were made from and how, `held_out` the corruptors that only test_corruptors has.
    """

    plan: dict[str, Any]
    splits: dict[str, int]
    origins: dict[str, dict[str, int]]
    dropped: dict[str, int]
    held_out: list[str]
    versions: dict[str, str]
    seed: int
    fingerprint: str


class Templates(TypedDict):
    """Means of `n` wordings: their median and quartiles."""

    n: int
    median: float
    quartiles: list[float]


class Estimate(TypedDict, total=False):
    """A number and its 95 % interval; a difference also has the two-sided `p` of a paired sign-flip permutation.

    Where items come in several wordings, a value also says how it spreads over them.
    """

    value: float | None
    ci95: list[float | None]
    p: float | None
    templates: Templates


class Metric(TypedDict):
    """One metric on one suite: `n` items have it. `majority` and `chance` are null where there is no such baseline."""

    n: int
    majority: float | None
    chance: float | None
    values: dict[str, Estimate]
    deltas: dict[str, Estimate]


class Category(TypedDict):
    """Scores of one family or category of a suite; `n` counts items."""

    n: int
    metrics: dict[str, Metric]


class Suite(TypedDict):
    """One suite's scores; `n` counts items, and `overlap` those that share text with what a model was trained on.

    `overlap` is null where no training set was known to compare with.
    """

    n: int
    metrics: dict[str, Metric]
    categories: dict[str, Category]
    overlap: dict[str, int] | None


class Scores(TypedDict):
    """`scores.json`; every delta is against the first model."""

    models: list[str]
    suites: dict[str, Suite]


class Reward(TypedDict):
    """One entry of a rewards YAML; `name` is built in or a dotted path."""

    name: str
    weight: float
    args: dict[str, Any]


class Lineage(TypedDict):
    """`lineage.json`: how an output folder came to be. `inputs` fingerprints content (weights, rows)."""

    stage: str
    command: list[str]
    config: dict[str, Any]
    versions: dict[str, str]
    seed: int | None
    inputs: dict[str, Any]
    parent: dict[str, Any] | None
    training: dict[str, Any] | None
    started: str
    seconds: float
    hardware: dict[str, Any]


_COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def instruction_id(
    source: list[dict[str, Any]], family: str, template: str, prompt: list[dict[str, str]], completion: str
) -> str:
    """The row's id: 32 hex digits of a SHA-256 over source spans, family, template, prompt and completion."""
    spans = [[s["path"], s["sha256"], s["start"], s["end"]] for s in source]
    payload = _COMPACT.encode([spans, family, template, prompt, completion])
    return hashlib.sha256(payload.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _describe(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list of {_describe(kind.value_type)}"
    if pa.types.is_struct(kind):
        return "object with " + ", ".join(kind.field(i).name for i in range(kind.num_fields))
    if pa.types.is_map(kind):
        return "object of numbers"
    return {"int64": "integer", "double": "number"}.get(str(kind), str(kind))


def _check(value: Any, field: pa.Field, key: str, where: str) -> None:
    kind = field.type
    if value is None:
        if not field.nullable:
            raise UserError(f"{where}: key {key!r} is null; it must be {_describe(kind)}")
        return
    if pa.types.is_struct(kind):
        fits = isinstance(value, dict)
        if fits:
            check_record(value, pa.schema(list(kind)), where, prefix=f"{key}.")
    elif pa.types.is_list(kind):
        fits = isinstance(value, (list, tuple))
        if fits:
            item = pa.field("item", kind.value_type, nullable=False)
            for index, element in enumerate(value):
                _check(element, item, f"{key}[{index}]", where)
    elif pa.types.is_map(kind):
        pairs = value.items() if isinstance(value, dict) else value  # a list of pairs where Parquet is read
        fits = isinstance(value, (dict, list)) and all(
            isinstance(k, str) and isinstance(v, (int, float, type(None))) and not isinstance(v, bool) for k, v in pairs
        )
    elif pa.types.is_integer(kind):
        fits = isinstance(value, int) and not isinstance(value, bool)
    elif pa.types.is_floating(kind):
        fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    else:
        fits = isinstance(value, str)
    if not fits:
        raise UserError(f"{where}: key {key!r} must be {_describe(kind)}, not {type(value).__name__}")


def check_record(record: Any, schema: pa.Schema, where: str, prefix: str = "") -> None:
    """Raise `UserError` naming `where` and the key if `record` does not fit `schema`.

    Nullable keys may be missing. Unknown keys are refused with the nearest known one.
    """
    if not isinstance(record, dict):
        raise UserError(f"{where}: must be an object with the keys {', '.join(schema.names)}")
    for key in record:
        if key not in schema.names:
            raise UserError(f"{where}: unknown key {prefix + str(key)!r}.{nearest(str(key), schema.names)}")
    for field in schema:
        if field.name not in record and not field.nullable:
            raise UserError(f"{where}: key {prefix + field.name!r} is missing; it must be {_describe(field.type)}")
        _check(record.get(field.name), field, prefix + field.name, where)


def check_instruction(row: dict[str, Any], where: str) -> None:
    """Raise `UserError` if a row breaks the contract: types, roles, a supervised answer, choices, checks and spans."""
    check_record(row, INSTRUCTION, where)
    where = f"{where} (id {row['id']})"
    if not row["prompt"] or row["prompt"][-1]["role"] != "user":
        raise UserError(f"{where}: 'prompt' must end with a message of role 'user'")
    completion = row["completion"]
    if len(completion) != 1 or completion[0]["role"] != "assistant":
        raise UserError(f"{where}: 'completion' must be one message of role 'assistant'")
    if not completion[0]["content"].strip():
        raise UserError(f"{where}: 'completion' is empty, so that nothing would be supervised")
    if not row["targets"]:
        raise UserError(f"{where}: 'targets' holds no accepted answer")
    check_choices(row, where)
    if (row.get("conversation") is None) != (row.get("turn") is None):
        raise UserError(f"{where}: 'conversation' and 'turn' go together: give both or neither")
    for span in row["source"]:
        if not 0 <= span["start"] <= span["end"]:
            raise UserError(f"{where}: source span {span['start']}..{span['end']} of {span['path']} is not a range")


def check_scored_response(record: Any, where: str) -> None:
    """Raise `UserError` if a line of scored responses breaks the contract: types, or a value that is not finite."""
    if isinstance(record, dict) and isinstance(record.get("rewards"), list):  # pairs, as only Parquet has them
        raise UserError(f"{where}: key 'rewards' must be {_describe(SCORED_RESPONSE.field('rewards').type)}, not list")
    check_record(record, SCORED_RESPONSE, where)
    for name, value in record["rewards"].items():
        if value is not None and not math.isfinite(value):
            raise UserError(f"{where}: mentor {name!r} gives {value}; a value must be a finite number or null")


def check_turn(row: dict[str, Any], previous: dict[str, Any] | None, where: str) -> None:
    """Raise `UserError` unless a row that continues a conversation follows the turn before it and its prompt holds it.

    Args:
        previous: the row before it in the file, null for the first.
    """
    if not row["turn"]:
        return
    if (
        previous is None
        or (previous["conversation"], previous["turn"]) != (row["conversation"], row["turn"] - 1)
        or row["prompt"][:-1] != previous["prompt"] + previous["completion"]
    ):
        raise UserError(
            f"{where} (id {row['id']}): turn {row['turn']} of conversation {row['conversation']!r} does not continue "
            "the row before it; turns stand together in order from 0, and each prompt holds all turns before it"
        )


def check_choices(row: dict[str, Any], where: str) -> None:
    """Raise `UserError` unless options are two or more with the targets among them, and checks are known ones."""
    choices = row.get("choices")
    if choices is not None:
        if len(set(choices)) < 2:
            raise UserError(f"{where}: 'choices' needs two distinct options or more; use null for an open answer")
        if stray := [target for target in row["targets"] if target not in choices]:
            raise UserError(f"{where}: target {stray[0]!r} is not among 'choices'")
    if row.get("checks") is not None:
        checks.validate(row["checks"], where)


def split_files(folder: Path, split: str) -> list[Path]:
    """The Parquet files of one split, in order. Raises `UserError` where there are none."""
    files = sorted((folder / split).glob("*.parquet"))
    if not files:
        raise UserError(f"{folder / split}: no Parquet file; an instruction set has the folders {', '.join(SPLITS)}")
    return files


def read_split(folder: Path, split: str, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield one split's rows, validated (unless only some `columns` are read), in file order.

    Raises:
        UserError: a file is unreadable, its schema differs from `INSTRUCTION`, or a row breaks the contract; the
            message names file and row.
    """
    import pyarrow.parquet as pq

    for path in split_files(folder, split):
        try:
            file = pq.ParquetFile(path)
        except (pa.ArrowInvalid, OSError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{path}: not a readable Parquet file ({reason}); build the set again") from None
        if not file.schema_arrow.equals(INSTRUCTION):
            names = file.schema_arrow.names
            odd = [n for n in INSTRUCTION.names if n not in names] + [n for n in names if n not in INSTRUCTION.names]
            raise UserError(f"{path}: columns do not fit the contract ({', '.join(odd) or 'types differ'})")
        number = 0
        previous = None
        for batch in file.iter_batches(batch_size=1024, columns=columns):
            for row in batch.to_pylist():
                if columns is None:
                    check_instruction(row, f"{path}, row {number}")
                    check_turn(row, previous, f"{path}, row {number}")
                    previous = row
                number += 1
                yield row


def read_suite(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the items of a JSONL suite, validated. Raises `UserError` naming file and line."""
    empty = True
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; save the suite as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            item = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise UserError(f"{where}: not JSON ({error})") from None
        check_record(item, SUITE_ITEM, where)
        try:
            json.dumps(item, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise UserError(f"{where}: holds half of a surrogate pair; mend its \\ud… escape") from None
        if not all(target.strip() for target in item["targets"]):
            raise UserError(f"{where}: 'targets' holds an empty answer")
        if not item["targets"] and not item.get("checks"):
            raise UserError(f"{where}: an item needs an answer in 'targets', or 'checks' that an answer must pass")
        check_choices(item, where)
        if item["id"] in seen:
            raise UserError(f"{where}: id {item['id']!r} was used in line {seen[item['id']]}")
        seen[item["id"]] = number
        empty = False
        yield item
    if empty:
        raise UserError(f"{path}: no items; a suite has one JSON object per line")


def read_manifest(folder: Path) -> Manifest:
    """Read and check `manifest.json`. Raises `UserError` where `folder` is not a complete instruction set."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{folder}: not an instruction set (it has no manifest.json); make one with `instructrec build`"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not JSON ({error}); build the set again") from None
    missing = [key for key in sorted(Manifest.__required_keys__) if key not in manifest]
    if missing:
        raise UserError(f"{path}: key {missing[0]!r} is missing; build the set again")
    return manifest
