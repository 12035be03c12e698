"""Suites as tasks of EleutherAI's lm-evaluation-harness, with prompts as we render them.

A task is a YAML file and its items beside it as Parquet, because of JSONL the harness reads texts such as `2020-01-01`
as times. Choice items become `multiple_choice`, open ones `generate_until`, raw text `loglikelihood_rolling`; a suite
of several kinds becomes one task for each and a group.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from instructrec.core.errors import UserError
from instructrec.core.files import atomic, write_text
from instructrec.core.segmentation import UNSPACED
from instructrec.evaluation.suites import Item

PREFIX = "instructrec_"
"""Before every task's name, so that none takes the place of one that the harness brings along."""

MAX_GEN_TOKS = 256
"""Tokens of an open answer at most."""

SAMPLER = '''"""Shows every item after its own earlier turns; `instructrec export` wrote this file."""

from lm_eval.api.samplers import ContextSampler


class Turns(ContextSampler):
    def sample(self, n, eval_doc=None, df=None, **kwargs):
        return eval_doc["turns"]
'''
SAMPLER_MODULE = "instructrec_turns"

_text = pa.string()
ITEM = pa.schema(
    {
        "id": _text,
        "category": _text,
        "system": _text,
        "turns": pa.list_(pa.struct({"prompt": _text, "target": _text})),
        "prompt": _text,
        "target": _text,
        "targets": pa.list_(_text),
        "choices": pa.list_(_text),
        "right": pa.list_(pa.int64()),
    }
)
"""An item in the harness's terms: a system prompt, turns of question and answer, the question itself; `right` holds
the indices of accepted choices."""

_UNSPACED = re.compile(f"[{UNSPACED}]")


@dataclass(frozen=True)
class Exported:
    """What became of one suite: what to give to `--tasks`, its items by kind, and how many no task can hold."""

    task: str
    items: dict[str, int]
    left_out: int


class _Function(str):
    """A dotted name that the harness imports from beside the YAML file."""


class _Dumper(yaml.SafeDumper):
    """YAML that knows `!function`."""


_Dumper.add_representer(_Function, lambda dumper, name: dumper.represent_scalar("!function", str(name)))


def export(suites: Mapping[str, Sequence[Item]], folder: Path) -> list[Exported]:
    """Write suites as tasks into `folder`, which must stay where it is: tasks name their items by absolute path.

    Give the harness `--apply_chat_template`; prompts then are those of `scoring.Scorer`, and so are the options'
    log-probabilities, but for one term which all options of an item share and no accuracy depends on: the harness takes
    white space at the end of a prompt, such as the line end after ChatML's `assistant`, for the beginning of every
    option. Open answers are compared as by `metrics.exact_match`; BLEU and chrF are the harness's own, of the
    corpus. Both are left out where an item accepts several answers, and BLEU in scripts without spaces, because the
    harness cannot compute them there. Items that only `checks` can judge are left out.

    Raises:
        UserError: the turns of an item are not of user and assistant by turns, two suites would have one name, or
            nothing is left of a suite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Exported] = {}
    for suite, items in suites.items():
        name = PREFIX + re.sub(r"[^\w.-]", "_", suite)
        if name in found:
            raise UserError(f"suite {suite!r}: another would also be called {name}; rename one or export them apart")
        kinds: dict[str, list[Item]] = {}
        for item in items:
            if item.targets:
                kinds.setdefault(_kind(item), []).append(item)
        if not kinds:
            raise UserError(f"suite {suite!r}: only checks can judge its items, which the harness does not know")
        tasks = {kind: name if len(kinds) == 1 else f"{name}_{kind}" for kind in kinds}
        for kind, own in kinds.items():
            _write_task(folder, tasks[kind], kind, own)
        if len(kinds) > 1:
            _write_yaml(folder / f"{name}.yaml", {"group": name, "task": list(tasks.values())})
        counts = {kind: len(own) for kind, own in kinds.items()}
        found[name] = Exported(name, counts, len(items) - sum(counts.values()))
    return list(found.values())


def _kind(item: Item) -> str:
    return "text" if not item.messages else "choice" if item.choices else "open"


def _write_task(folder: Path, name: str, kind: str, items: list[Item]) -> None:
    rows = [_row(item) for item in items]
    data = (folder / f"{name}.parquet").resolve()
    task: dict[str, Any] = {
        "task": name,
        "dataset_path": "parquet",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "doc_to_text": "prompt",
        **_scoring(kind, items),
    }
    if any(row["system"] for row in rows):
        task["description"] = "system"
    if most := max(len(row["turns"]) for row in rows):
        sampler = _Function(f"{SAMPLER_MODULE}.Turns")
        task |= {
            "num_fewshot": most,
            "fewshot_split": "test",
            "fewshot_config": {"sampler": sampler, "doc_to_target": "target", "doc_to_choice": None},
        }
        write_text(folder / f"{SAMPLER_MODULE}.py", SAMPLER)
    with atomic(data) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, ITEM), temporary)
    _write_yaml(folder / f"{name}.yaml", task | {"metadata": {"version": 1.0}})


def _row(item: Item) -> dict[str, Any]:
    """The item as a row of `ITEM`."""
    messages = list(item.messages)
    system = messages.pop(0)["content"] if messages and messages[0]["role"] == "system" else ""
    by_turns = ["user", "assistant"] * (len(messages) // 2) + ["user"]
    if messages and [message["role"] for message in messages] != by_turns:
        raise UserError(f"item {item.id}: the harness only knows turns of user and assistant, one after the other")
    contents = [message["content"] for message in messages]
    choices = list(item.choices or ())
    return {
        "id": item.id,
        "category": item.category,
        "system": system,
        "turns": [
            {"prompt": asked, "target": answer} for asked, answer in zip(contents[:-1:2], contents[1::2], strict=True)
        ],
        "prompt": contents[-1] if contents else "",
        "target": item.targets[0],
        "targets": list(item.targets),
        "choices": choices,
        "right": [index for index, choice in enumerate(choices) if choice in item.targets],
    }


def _scoring(kind: str, items: list[Item]) -> dict[str, Any]:
    """How the harness asks for answers and what it computes from them."""
    if kind == "choice":
        return {
            "output_type": "multiple_choice",
            "doc_to_choice": "choices",
            "doc_to_target": "right",
            "metric_list": [_mean("acc")],
        }
    if kind == "text":
        return {
            "output_type": "loglikelihood_rolling",
            "doc_to_target": "target",
            "metric_list": [{"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}],
        }
    one_target = all(len(item.targets) == 1 for item in items)
    corpus = ["bleu", "chrf"] if one_target else []
    if any(_UNSPACED.search(target) for item in items for target in item.targets):
        corpus = corpus[1:]
    exact = _mean("exact_match") | {"ignore_case": True, "regexes_to_ignore": ["[.。]+$"]}
    return {
        "output_type": "generate_until",
        "doc_to_target": "target" if one_target else "targets",
        "generation_kwargs": {"until": [], "max_gen_toks": MAX_GEN_TOKS, "do_sample": False},
        "filter_list": [{"name": "none", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}],
        "metric_list": [exact, *({"metric": m, "aggregation": m, "higher_is_better": True} for m in corpus)],
    }


def _mean(metric: str) -> dict[str, Any]:
    return {"metric": metric, "aggregation": "mean", "higher_is_better": True}


def _write_yaml(path: Path, value: dict[str, Any]) -> None:
    write_text(path, yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True))
