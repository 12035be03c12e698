"""Evaluation sets as others publish them → suite items: tasks, instructions, constraints, pairs, raw text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from instructrec.core.errors import UserError
from instructrec.core.files import read_json_lines
from instructrec.core.schema import SUITE_ITEM, check_choices, check_record, read_suite

MOST_LABELS = 5
"""A task without written options whose answers are so few different ones is a choice among them."""
LEAST_ITEMS_PER_LABEL = 10
PASSAGE_BYTES = 2000
"""Raw text is scored in passages of half to one and a half times so many bytes."""

TEXTS = (".md", ".rst", ".txt")
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")

Fields = dict[str, Any]
"""The fields of a `suites.Item` by name."""
Placed = Iterator[tuple[str, Fields]]
"""Items, each with its place (file and line, item or row) for what may be wrong with it."""

_LETTERED = re.compile(r"^\(([A-Z])\) ", re.M)
_LISTED = re.compile(r"^- (.+)$", re.M)
_ROLES = ("system", "user", "assistant")
_ENDS = [end.encode() for end in ("\n\n", "\n", ". ", "。", " ")]


def item_files(path: Path) -> list[Path]:
    """The files that `read_items` reads for a path; none if it is an instruction set, a split, or nothing.

    A folder of task files gives its JSON files, one that holds raw texts and nothing else gives those.
    """
    if path.suffix in _READERS:
        return [path]
    if not path.is_dir() or (path / "manifest.json").exists():
        return []
    files = sorted(file for file in path.iterdir() if not file.name.startswith("."))
    if all(file.suffix in TEXTS for file in files):
        return files
    return [file for file in files if file.suffix == ".json"]


def read_items(path: Path) -> Iterator[Fields]:
    """Yield the items of one file.

    - `.json`: a task of BIG-Bench Hard (Suzgun et al., 2022), `{"examples": [{"input", "target"}]}`, or of
      Super-NaturalInstructions (Wang et al., 2022), `{"Definition", "Instances": [{"input", "output"}], "Categories"}`.
    - `.jsonl`, by the keys of its first line: IFEval (Zhou et al., 2023), `{"key", "prompt", "instruction_id_list",
      "kwargs"}`; Self-Instruct (Wang et al., 2023), `{"id", "instruction", "instances": [{"input", "output"}]}`;
      preference pairs, `{"prompt", "chosen", "rejected"}`, texts or messages; else `schema.SUITE_ITEM`.
    - `.parquet`: preference pairs.
    - `.txt`, `.md`, `.rst`: raw text in passages, whose likelihood is scored.

    Raises:
        UserError: naming the file, and the line, item or row that is malformed.
    """
    return _checked(str(path), _READERS[path.suffix](path))


def read_hub(name: str) -> Iterator[Fields]:
    """Yield the items of a dataset on the Hub whose columns are those of `schema.SUITE_ITEM`.

    Its test split is read if it has one, else its only or first split.

    Raises:
        UserError: the dataset cannot be loaded, or a row is malformed.
    """
    return _checked(name, _hub(name))


def _hub(name: str) -> Placed:
    from datasets import load_dataset

    try:
        splits = load_dataset(name)
    except Exception as error:  # the client raises a dozen kinds, from DNS to YAML
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"--suite {name}: no such path, and not readable from the Hub ({reason})") from None
    for number, row in enumerate(splits["test" if "test" in splits else next(iter(splits))]):
        check_record(row, SUITE_ITEM, f"{name}, row {number}")
        yield f"{name}, row {number}", _generic(row)


def _checked(name: str, items: Placed) -> Iterator[Fields]:
    """The items, held against what is asked of every suite."""
    seen: dict[str, str] = {}
    for where, item in items:
        try:
            json.dumps(item, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise UserError(f"{where}: holds half of a surrogate pair; mend its \\ud… escape") from None
        if not (item["targets"] or item["checks"]) or not all(map(str.strip, item["targets"])):
            raise UserError(f"{where}: needs 'targets', none of them empty, or 'checks' that an answer must pass")
        check_choices(item, where)
        if item["id"] in seen:
            raise UserError(f"{where}: id {item['id']!r} was used in {seen[item['id']]}")
        seen[item["id"]] = where
        yield item
    if not seen:
        raise UserError(f"{name}: no items")


def _item(
    name: str,
    category: str,
    messages: Iterable[dict[str, str]],
    targets: Iterable[str],
    choices: Iterable[str] | None = None,
    checks: str | None = None,
) -> Fields:
    return {
        "id": name,
        "category": category,
        "messages": tuple(messages),
        "targets": tuple(targets),
        "choices": None if choices is None else tuple(choices),
        "checks": checks,
    }


def _question(*parts: str) -> list[dict[str, str]]:
    """One user message: an instruction and its input, a blank line between."""
    return [{"role": "user", "content": "\n\n".join(part for part in parts if part.strip())}]


def _generic(row: dict[str, Any]) -> Fields:
    messages = _question(row["instruction"], row["input"])
    return _item(row["id"], row["category"], messages, row["targets"], row.get("choices"), row.get("checks"))


def _text(record: Any, key: str, where: str) -> str:
    """The text under `key`, which must not be blank."""
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: {key!r} must be a text that is not empty")
    return value


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None


# --- JSON: one task per file


def _task(path: Path) -> Placed:
    try:
        task = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a JSON task file ({error})") from None
    if isinstance(task, dict) and isinstance(task.get("examples"), list):
        return _bbh(path, task["examples"])
    if isinstance(task, dict) and isinstance(task.get("Instances"), list):
        return _super_ni(path, task)
    raise UserError(f"{path}: neither a BIG-Bench Hard nor a Super-NaturalInstructions task; see `read_items`")


def _bbh(path: Path, examples: list[Any]) -> Placed:
    places = [f"{path}: item {number}" for number in range(len(examples))]
    questions = [_text(example, "input", where) for example, where in zip(examples, places, strict=True)]
    answers = [_text(example, "target", where).strip() for example, where in zip(examples, places, strict=True)]
    labels = sorted(set(answers))
    few = 1 < len(labels) <= MOST_LABELS and len(answers) >= LEAST_ITEMS_PER_LABEL * len(labels)
    for number, (where, question, answer) in enumerate(zip(places, questions, answers, strict=True)):
        choices: list[str] | None = written_options(question) or (labels if few else None)
        choices = choices if choices and answer in choices else None
        yield where, _item(f"{path.stem}-{number}", path.stem, _question(question), [answer], choices)


def written_options(text: str) -> list[str]:
    """The two options or more that stand below `Options:`: letters in brackets, or the texts of a list."""
    _, found, below = text.partition("Options:\n")
    if not found:
        return []
    letters = [f"({letter})" for letter in _LETTERED.findall(below)]
    options = letters or [option.strip() for option in _LISTED.findall(below)]
    return options if len(set(options)) > 1 else []  # one question of `snarks` was published without its options


def _super_ni(path: Path, task: dict[str, Any]) -> Placed:
    definition = task.get("Definition")
    definition = definition[0] if isinstance(definition, list) and definition else definition
    instruction = _text({"Definition": definition}, "Definition", str(path))
    categories = task.get("Categories") or [path.stem]
    category = _text(
        {"Categories": categories[0] if isinstance(categories, list) else categories}, "Categories", str(path)
    )
    for number, instance in enumerate(task["Instances"]):
        where = f"{path}: item {number}"
        question = _text(instance, "input", where)
        outputs = instance.get("output")
        outputs = [outputs] if isinstance(outputs, str) else outputs
        if not isinstance(outputs, list) or not outputs or not all(isinstance(o, str) and o.strip() for o in outputs):
            raise UserError(f"{where}: 'output' must be one or more texts that are not empty")
        name = _text({"id": f"{path.stem}-{number}"} | instance, "id", where)
        yield where, _item(name, category, _question(instruction, question), outputs)


# --- JSONL: one record per line


def _json_lines(path: Path) -> Placed:
    _, first = next(read_json_lines(path), ("", None))
    keys = first.keys() if isinstance(first, dict) else set()
    if "instruction_id_list" in keys:
        return (_ifeval(where, record) for where, record in read_json_lines(path))
    if "instances" in keys:
        return (placed for where, record in read_json_lines(path) for placed in _self_instruct(where, record))
    if {"chosen", "rejected"} & keys:
        return (
            _pair(where, f"{path.stem}-{number}", record)
            for number, (where, record) in enumerate(read_json_lines(path))
        )
    return ((f"{path} (id {row['id']})", _generic(row)) for row in read_suite(path))


def _ifeval(where: str, record: Any) -> tuple[str, Fields]:
    """Its category is the group of its first constraint."""
    prompt = _text(record, "prompt", where)
    names, arguments = record.get("instruction_id_list"), record.get("kwargs")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{where}: 'instruction_id_list' must be one or more names of constraints")
    if not isinstance(arguments, list) or [type(args) for args in arguments] != [dict] * len(names):
        raise UserError(f"{where}: 'kwargs' must be a list of objects, one for each constraint")
    entries = [
        {"name": name, "args": {key: value for key, value in args.items() if value is not None}}
        for name, args in zip(names, arguments, strict=True)
    ]
    if not isinstance(record.get("key"), (int, str)):
        raise UserError(f"{where}: 'key' must be a number or a text")
    category = names[0].partition(":")[0]
    return where, _item(str(record["key"]), category, _question(prompt), [], checks=json.dumps(entries))


def _self_instruct(where: str, record: Any) -> Placed:
    """One item per instance that has an output; the category is the application or, where none is named, the task."""
    name, instruction = _text(record, "id", where), _text(record, "instruction", where)
    category = record.get("motivation_app") or name
    instances = record.get("instances")
    if not isinstance(instances, list) or not isinstance(category, str):
        raise UserError(f"{where}: 'instances' must be a list, and 'motivation_app' a text")
    for number, instance in enumerate(instances):
        question, answer = (
            (instance.get("input"), instance.get("output")) if isinstance(instance, dict) else (None, None)
        )
        if not isinstance(question, str) or not isinstance(answer, str):
            raise UserError(f"{where}: instance {number} needs the texts 'input' and 'output'")
        if answer.strip():
            yield where, _item(f"{name}-{number}", category, _question(instruction, question), [answer.strip()])


# --- Preference pairs


def _pairs(path: Path) -> Placed:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        file = pq.ParquetFile(path)
        if missing := {"prompt", "chosen", "rejected"} - set(file.schema_arrow.names):
            raise UserError(
                f"{path}: no column {min(missing)!r}; a Parquet file is read as preference pairs, a split by its folder"
            )
        columns = [name for name in ("id", "prompt", "chosen", "rejected", "origin") if name in file.schema_arrow.names]
        for batch in file.iter_batches(batch_size=1024, columns=columns):
            for record in batch.to_pylist():
                yield _pair(f"{path}, row {number}", f"{path.stem}-{number}", record)
                number += 1
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a readable Parquet file ({reason})") from None


def _pair(where: str, name: str, record: Any) -> tuple[str, Fields]:
    """A choice between two responses. Either may repeat the prompt before it, as TRL's conversational form may."""
    if not isinstance(record, dict):
        raise UserError(f"{where}: must be an object with 'prompt', 'chosen' and 'rejected'")
    prompt = _messages(record, "prompt", "user", where)
    responses = []
    for key in ("chosen", "rejected"):
        *before, response = _messages(record, key, "assistant", where)
        if before and before != prompt:
            raise UserError(f"{where}: {key!r} must be one response, or 'prompt' and one response")
        responses.append(response["content"])
    if responses[0] == responses[1]:
        raise UserError(f"{where}: 'chosen' and 'rejected' are the same; leave the pair out")
    origin = record.get("origin") or name.rpartition("-")[0]
    if not isinstance(origin, str) or not isinstance(record.get("id") or name, str):
        raise UserError(f"{where}: 'origin' and 'id' must be texts")
    return where, _item(record.get("id") or name, origin, prompt, responses[:1], responses)


def _messages(record: dict[str, Any], key: str, last: str, where: str) -> list[dict[str, str]]:
    """The messages under `key`, of which the last has the role `last`; a text is one such message."""
    value = record.get(key)
    turns: Any = [{"role": last, "content": value}] if isinstance(value, str) else value
    fits = isinstance(turns, list) and all(
        isinstance(turn, dict) and turn.get("role") in _ROLES and isinstance(turn.get("content"), str) for turn in turns
    )
    if not fits or not turns or turns[-1]["role"] != last or not turns[-1]["content"].strip():
        raise UserError(f"{where}: {key!r} must be a text, or messages that end with one of role {last!r}, not empty")
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns]


# --- Raw text


def _texts(path: Path) -> Placed:
    for number, passage in enumerate(passages(_read_text(path))):
        where = f"{path}: passage {number}"
        yield where, _item(f"{path.name}-{number}", path.name, [], [passage])


def passages(text: str) -> Iterator[str]:
    """Cut a text into passages of about `PASSAGE_BYTES` bytes of UTF-8, at ends of paragraphs where there are any.

    A longer paragraph is cut at the end of a line, a sentence or a word, or where it must be.
    """
    data = text.encode()
    start = 0
    while start < len(data):
        window = data[start : start + PASSAGE_BYTES]
        if len(data) - start > 1.5 * PASSAGE_BYTES:
            cuts = (at + len(end) for end in _ENDS if (at := window.rfind(end, PASSAGE_BYTES // 2)) >= 0)
            window = window[: next(cuts, len(window.decode("utf-8", "ignore").encode()))]
        else:
            window = data[start:]
        start += len(window)
        passage = window.decode().strip("\n")
        if passage.strip():
            yield passage


_READERS: dict[str, Callable[[Path], Placed]] = {
    ".json": _task,
    ".jsonl": _json_lines,
    ".parquet": _pairs,
    **dict.fromkeys(TEXTS, _texts),
}
