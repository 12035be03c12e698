"""An instruction set → what TRL trains on. A set that breaks the hold-out contract is refused, by row."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructrec.core.errors import UserError
from instructrec.core.files import fingerprint
from instructrec.core.passages import Passages
from instructrec.core.schema import HELD_OUT, INSTRUCTION, TRAIN, VALIDATION, read_manifest, read_split, split_files
from instructrec.core.spans import Spans

if TYPE_CHECKING:
    from datasets import Dataset

QUICKSTART_SET = "outputs/quickstart/set"
"""The default set: mined from what every Python carries, built on first use."""

NOT_SUPERVISED = -100
"""The label of a token that no loss is computed on."""

MOST_NAMED = 3
"""Pairs of rows that an error names."""

Message = dict[str, str]
Labelled = dict[str, list[int]]
"""`input_ids` and `labels` of one sequence, the latter -100 where nothing is supervised."""


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


@dataclass
class DataArguments:
    """What to train on."""

    dataset_name: str = field(
        default=QUICKSTART_SET, metadata={"help": "Folder of an instruction set (`instructrec build`)."}
    )
    mixture: list[dict[str, Any]] | None = field(
        default=None,
        metadata={"help": "In place of dataset_name: several sets and raw text with weights (instructrec/mixture.py)."},
    )
    max_train_rows: int | None = field(
        default=None,
        metadata={"help": "Train on that many rows or whole conversations, chosen by a fixed shuffle; default: all."},
    )


@dataclass
class HeldOutArguments:
    """Evaluation during training, at the steps that `eval_strategy` and `eval_steps` say."""

    eval_items: int = field(
        default=32, metadata={"help": "Validation rows that are scored at each evaluation, drawn by a fixed shuffle."}
    )
    patience: int | None = field(
        default=None,
        metadata={"help": "Stop after so many evaluations without a better metric_for_best_model; default: never."},
    )


def ensure_set(name: str) -> Path:
    """The folder of an instruction set; the quickstart's own is built if absent.

    Raises:
        UserError: there is no such set.
    """
    folder = Path(name)
    if not folder.exists() and name == QUICKSTART_SET:
        print(f"{name} is not there yet: building it from the documentation that Python carries", flush=True)
        command = [sys.executable, "-m", "instructrec", "build", "--output", name]
        if subprocess.run(command).returncode:
            raise UserError(f"{name}: could not be built; run `instructrec build --output {name}` to see why")
    read_manifest(folder)
    return folder


def check_hold_out(folder: Path) -> None:
    """Refuse a set whose training rows overlap with what it holds out.

    Checked: prompts that also occur in a held-out split, bytes of held-out documents, held-out wordings and families,
    and passages of held-out rows that a training row has from another document. For the last, prompts are compared by
    their 13-grams without those that the rows of a wording share, so that a common wording alone is no overlap; a
    held-out row of whose remaining n-grams one training row has more than half, and eight at least, is one.

    Raises:
        UserError: naming the first training row that overlaps and what it overlaps with, or three pairs of rows that
            share a passage.
    """
    manifest = read_manifest(folder)
    families, templates = set(manifest["held_out"]["families"]), set(manifest["held_out"]["templates"])
    prompts: dict[str, str] = {}
    spans = Spans()
    passages = Passages()
    for split in (VALIDATION, *HELD_OUT):
        for row in read_split(folder, split):
            passages.hold_out(row)
            prompts[row["prompt"][-1]["content"]] = f"{split} row {row['id']}"
            for source in row["source"]:
                place = (source["path"], source["sha256"])
                spans.add(place, source["start"], source["end"], f"{split} row {row['id']}")
    for row in read_split(folder, TRAIN):
        passages.train(row)
        other = prompts.get(row["prompt"][-1]["content"])
        if other is None and row["family"] in families:
            other = f"the held-out family {row['family']}"
        if other is None and row["template"] in templates:
            other = f"the held-out wording {row['template']}"
        for source in row["source"]:
            name = spans.overlapping((source["path"], source["sha256"]), source["start"], source["end"])
            if other is None and name is not None:
                other = f"{name} (both use {source['path']})"
        if other is not None:
            raise UserError(
                f"{folder}: training row {row['id']} overlaps with {other}; such a set cannot measure unseen "
                "instructions. Build it again with `instructrec build`"
            )
    if leaks := passages.leaks():
        named = ", ".join(f"{leak.train} that of {leak.held_out} ({leak.share:.0%})" for leak in leaks[:MOST_NAMED])
        rows = len({leak.held_out for leak in leaks})
        raise UserError(
            f"{folder}: the passages of {rows} held-out rows are also in training rows from other documents: training "
            f"row {named}{', …' if len(leaks) > MOST_NAMED else ''}; such a set cannot measure unseen instructions. "
            "Build it again with `instructrec build`"
        )


def load_set(name: str, max_rows: int | None = None) -> dict[str, Dataset]:
    """The training and validation rows of an instruction set as `datasets`, after the hold-out contract was checked.

    A conversation is one of them: its last row, whose prompt holds all of it.

    Args:
        name: its folder.
        max_rows: keep that many training rows, chosen by a fixed shuffle.

    Raises:
        UserError: no such set, files that are not those of the build, a row that breaks the contract, or an overlap.
    """
    import datasets

    folder = ensure_set(name)
    manifest = read_manifest(folder)
    if fingerprint(folder, "*.parquet") != manifest["fingerprint"]:
        raise UserError(f"{folder}: its Parquet files changed since it was built; build it again")
    check_hold_out(folder)
    if not manifest["splits"][TRAIN]:
        raise UserError(f"{folder}: the train split is empty; build from more documents")
    if max_rows is not None and max_rows < 1:
        raise UserError(f"--max_train_rows: must be 1 or more, not {max_rows}")
    data = {}
    for split in (TRAIN, VALIDATION):
        if manifest["splits"][split]:
            data[split] = datasets.Dataset.from_parquet([str(path) for path in split_files(folder, split)])
        else:  # which `datasets` refuses to read
            data[split] = datasets.Dataset(INSTRUCTION.empty_table())
    names = list(data[TRAIN]["conversation"])
    last = [i for i, name in enumerate(names) if name is None or [name] != names[i + 1 : i + 2]]
    if len(last) < len(names):
        data[TRAIN] = data[TRAIN].select(last)
    if max_rows is not None:
        data[TRAIN] = data[TRAIN].shuffle(seed=0).select(range(min(max_rows, len(data[TRAIN]))))
    return data


def labeller(tokenizer: Any) -> Callable[[list[Message], Iterable[int], str], Labelled]:
    """A function of messages, the places of those to learn, and a name, that gives the conversation's tokens.

    Supervised are the assistant's messages among those places: what the chat template adds to the messages before them,
    which is how TRL finds the completion of a prompt. The function raises `UserError` with the name if the template
    renders a turn otherwise once others follow it (as those do that leave out earlier thinking), so that a conversation
    cannot be one sequence.

    It is a closure because `datasets` knows a module's function by its name alone: after a change of the code it would
    go on giving the old tokens from its cache.
    """

    def tokens(messages: list[Message], ask: bool = False) -> list[int]:
        rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=ask, return_dict=True)
        return list(rendered["input_ids"])

    def labelled(messages: list[Message], learnt: Iterable[int], name: str) -> Labelled:
        whole = tokens(messages)
        labels = [NOT_SUPERVISED] * len(whole)
        for place in (place for place in learnt if messages[place]["role"] == "assistant"):
            asked, answered = tokens(messages[:place], ask=True), tokens(messages[: place + 1])
            if answered != whole[: len(answered)]:
                raise UserError(
                    f"row {name}: the tokenizer's chat template changes earlier turns of a conversation; give another "
                    "with --chat_template_path, or build the set with --turns-per-document 1"
                )
            first = common_prefix(asked, answered)
            labels[first : len(answered)] = whole[first : len(answered)]
        return {"input_ids": whole, "labels": labels}

    return labelled


def row_labeller(tokenizer: Any) -> Callable[[dict[str, Any]], Labelled]:
    """A function of a row of an instruction set that gives its tokens; in a conversation every answer is learnt."""
    labelled = labeller(tokenizer)

    def of_row(row: dict[str, Any]) -> Labelled:
        messages = row["prompt"] + row["completion"]
        # Outside a conversation, what the assistant said before is given, not learnt.
        learnt = range(len(messages)) if row["turn"] is not None else [len(messages) - 1]
        return labelled(messages, learnt, row["id"])

    return of_row


def trainable(train: Dataset, validation: Dataset | None, tokenizer: Any) -> tuple[Dataset, Dataset | None]:
    """Training and validation rows as a trainer takes them that supervises every answer and nothing else.

    Single turns are left to TRL. It could train on the answers of conversations only with a chat template that marks
    what the assistant says, which few have. So their tokens are made here, as TRL makes those of a single turn: an
    answer is what the template adds to the messages before it.

    Returns:
        `prompt` and `completion`; with conversations `input_ids` and `labels`, the latter -100 where nothing is
        supervised.

    Raises:
        UserError: the chat template does not let a conversation be one sequence (see `labeller`).
    """
    if not any(turn is not None for turn in train["turn"]):
        columns = ["prompt", "completion"]
        return train.select_columns(columns), validation and validation.select_columns(columns)
    columns, labelled = train.column_names, row_labeller(tokenizer)
    return (
        train.map(labelled, remove_columns=columns),
        validation and validation.map(labelled, remove_columns=columns),
    )
