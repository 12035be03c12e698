"""The card of an adapter: everything is from its lineage, its config and its evaluation; nothing is typed in."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from instructrec.core.schema import TEST_TASKS, Lineage, Suite
from instructrec.lineage import ancestry
from instructrec.models import EMBEDDED, GGUF, WHEEL

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

    from instructrec.evaluation.of_adapter import Evaluated

TASK = "text-generation"

_ELSEWHERE = {
    *("output_dir", "dataset_name", "dataset_fingerprint", "model_name_or_path", "model_revision", "mixture"),
    *("report_to", "logging_steps", "save_steps", "save_total_limit", "use_cpu", "max_train_rows"),
    *("held_out_set", "ranked_pairs"),
    *("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "use_peft", "init_adapter"),
}
"""Keys of a config that the card tells in another place, or that change nothing of what was learnt."""


@dataclass(frozen=True)
class Base:
    """The model that an adapter belongs to.

    Attributes:
        name, revision: under which a reader finds it.
        licence: by the Hub's name; null where it is not known.
    """

    name: str
    revision: str | None
    licence: str | None


@dataclass(frozen=True)
class Stage:
    """One stage of training, or a merge of what was trained, as its lineage tells it."""

    name: str
    started: str
    steps: int | None
    tokens: int | None
    loss: float | None
    weights: str


def stages(lineage: Lineage) -> list[Stage]:
    """The stages that led to an adapter, the first of them first."""
    found: list[Stage] = []
    for one in ancestry(lineage):
        training = one.get("training") or {}
        if training or one["stage"] == "merge":
            weights = next(iter((one["inputs"].get("output") or {}).values()), "")
            steps, tokens, loss = (training.get(key) for key in ("steps", "tokens", "loss"))
            found.append(Stage(one["stage"], one["started"], steps, tokens, loss, weights))
    return found


def training_data(lineage: Lineage) -> list[dict[str, Any]]:
    """What each stage was trained on: `name`, `fingerprint`, and where known `lineage` and the `set` within it.

    Preference pairs have `splits`, their numbers of pairs.
    """
    found = []
    for one in ancestry(lineage):
        inputs = one["inputs"]
        for part in inputs.get("mixture") or [inputs.get("dataset") or inputs.get("pairs")]:
            if part:
                built = (part.get("lineage") or {}).get("inputs") or {}
                found.append({**part, "stage": one["stage"], "set": built.get("set")})
    return found


def render(
    repo: str,
    lineage: Lineage,
    config: Mapping[str, Any],
    base: Base,
    licence: str | None = None,
    datasets: Sequence[str] = (),
    evaluated: Evaluated | None = None,
    pictures: Mapping[str, str] | None = None,
    step: int | None = None,
) -> str:
    """The card as Markdown, its front matter included.

    Args:
        repo: where it is published.
        lineage: as it is published.
        config: `adapter_config.json`.
        licence: of the adapter, by the Hub's name; the base's by default.
        datasets: published sets that it was trained on.
        evaluated: its evaluation, if there is one.
        pictures: path in the repository → what it shows.
        step: of the checkpoint that this is; null for the finished adapter.
    """
    from huggingface_hub import ModelCardData

    data = training_data(lineage)
    sets = list({part["fingerprint"]: part["set"] for part in data if part["set"]}.values())
    languages = sorted({code for one in sets for family in one["families"].values() for code in family["languages"]})
    front = ModelCardData(
        library_name="peft",
        base_model=base.name,
        base_model_relation="adapter",
        license=licence or base.licence or "unknown",
        language=languages or None,
        datasets=list(datasets) or None,
        pipeline_tag=TASK,
        tags=["instructrec", "instruction-tuning", "lora", "peft", *dict.fromkeys(s.name for s in stages(lineage))],
        model_name=repo.rpartition("/")[2] if evaluated else None,
        eval_results=list(_results(evaluated)) if evaluated else None,
    )
    environment = Environment(
        loader=PackageLoader("instructrec", "."), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["cell"] = cell
    training = lineage["training"] or {}
    text = environment.get_template("model_card.md.jinja").render(
        front=front.to_yaml(),
        repo=repo,
        step=step,
        base=base,
        embedded={"name": EMBEDDED, "wheel": WHEEL, "gguf": GGUF.rpartition("/")[2]} if base.name == EMBEDDED else None,
        licence=licence or base.licence,
        lineage=lineage,
        training=training,
        dtype=dtype_of(lineage),
        bits=next((bits for bits in (4, 8) if lineage["config"].get(f"load_in_{bits}bit")), None),
        adapter=_adapter(config),
        stages=stages(lineage),
        data=data,
        sets=sets,
        languages=languages,
        command=shlex.join(lineage["command"]),
        hyperparameters={key: value for key, value in sorted(lineage["config"].items()) if key not in _ELSEWHERE},
        tables=list(_tables(evaluated)) if evaluated else [],
        settings=evaluated.settings if evaluated else None,
        unmoved=list(_unmoved(evaluated)) if evaluated else [],
        pictures=dict(pictures or {}),
    )
    return text.rstrip() + "\n"


def dtype_of(lineage: Lineage) -> str:
    """What the base was loaded in for training; `float32` where that is not said in so many words."""
    dtype = lineage["config"].get("dtype")
    return dtype if dtype in ("bfloat16", "float16", "float32") else "float32"


def cell(value: Any) -> str:
    """A value as one cell of a Markdown table, where its own marks stay text and its lines stay lines."""
    if isinstance(value, float):
        value = f"{value:g}"
    if isinstance(value, (list, tuple, set)):
        value = ", ".join(map(str, value))
    text = str(value).strip()
    for mark in ("\\", "|", "<", "*"):
        text = text.replace(mark, "&lt;" if mark == "<" else "\\" + mark)
    return "<br>".join(" ".join(line.split()) for line in text.split("\n"))


def _adapter(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a LoRA's config says about its form."""
    kind = "DoRA" if config.get("use_dora") else "rsLoRA" if config.get("use_rslora") else "LoRA"
    targets = config.get("target_modules") or []
    if not isinstance(targets, str):
        names = {*targets, *(config.get("target_parameters") or ())}
        targets = ", ".join(sorted({name.rpartition(".")[2] for name in names}))
    return {
        "kind": kind,
        "rank": config.get("r"),
        "alpha": config.get("lora_alpha"),
        "dropout": config.get("lora_dropout"),
        "modules": targets,
        "whole": ", ".join(config.get("modules_to_save") or ()),
    }


def _results(evaluated: Evaluated) -> Iterator[EvalResult]:
    """The adapter's scores as the Hub's `model-index` holds them."""
    from huggingface_hub import EvalResult

    from instructrec.evaluation.pictures import RUNG_TITLES
    from instructrec.evaluation.results import LABELS

    adapter = evaluated.scores["models"][-1]
    for suite, entry in _in_order(evaluated):
        for name, metric in entry["metrics"].items():
            estimate = metric["values"][adapter]
            if estimate["value"] is not None:
                interval = [round(end, 4) for end in estimate["ci95"] if end is not None]
                yield EvalResult(
                    task_type=TASK,
                    task_name="Instruction following",
                    dataset_type="instructrec",
                    dataset_name=RUNG_TITLES.get(suite, suite),
                    dataset_split=suite,
                    metric_type=name,
                    metric_name=LABELS[name].rstrip(" ↑↓"),
                    metric_value=round(estimate["value"], 4),
                    metric_args={"n": metric["n"], "ci95": interval or None},
                )


def _tables(evaluated: Evaluated) -> Iterator[tuple[str, list[list[str]]]]:
    """(title, rows with the header first): the ladder, then every suite with its differences."""
    from instructrec.evaluation.pictures import RUNG_TITLES
    from instructrec.evaluation.report import Table, ladder_table, suite_table

    def lines(table: Table) -> list[list[str]]:
        return [table.header, *(row.cells for row in table.rows)]

    ladder = ladder_table(evaluated.scores)
    if ladder is not None:
        yield "The generalization ladder", lines(ladder)
    for name, suite in _in_order(evaluated):
        title = f"{name}: {RUNG_TITLES[name]}" if name in RUNG_TITLES else name
        yield f"{title} (n = {suite['n']})", lines(suite_table(suite, evaluated.scores["models"]))


def _in_order(evaluated: Evaluated) -> list[tuple[str, Suite]]:
    """The suites: the rungs of the ladder from the lowest to the highest, then the others."""
    from instructrec.evaluation.suites import RUNGS

    suites = evaluated.scores["suites"]
    return [(name, suites[name]) for name in dict.fromkeys((*RUNGS, *suites)) if name in suites]


def _unmoved(evaluated: Evaluated) -> Iterator[str]:
    """Metrics whose difference on unseen kinds of task has zero in its interval."""
    from instructrec.evaluation.results import LABELS

    suite = evaluated.scores["suites"].get(TEST_TASKS)
    for name, metric in suite["metrics"].items() if suite else ():
        for delta in metric["deltas"].values():
            low, high = delta["ci95"]
            if low is None or high is None or low <= 0 <= high:
                yield LABELS[name].rstrip(" ↑↓")
