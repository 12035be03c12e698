"""What the families are worth: models tuned on them, beside raw text, shuffled answers, fewer families, conversations.

    python benchmarks/families.py --suite self_instruct.jsonl --suite bbh --jobs 2

Every arm trains the recipe's LoRA on Python's own documentation for the same number of packed sequences, once for each
seed. All are scored on the ladder of the first arm's set, on raw text of the held-out documents, and on the suites
given. What overlaps with that ladder is left out of every arm. The same command again goes on where it was interrupted;
results go to benchmarks/results as JSON, Markdown and a picture.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from build import SPINE
from record import RESULTS, provenance

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "smollm2-135m" / "sft.yaml"
LENGTH = 1024
"""Tokens of a packed sequence; every step trains on one."""

SETS = {
    "families": [],
    "spine": ["--families", SPINE],
    "conversations": ["--turns-per-document", "8", "--per-document", "24"],
}
"""Set → options of its build."""

ARMS = {
    "families": "all families that are on by default, as single turns",
    "shuffled": "the same rows, their answers shuffled within each family",
    "raw text": "continued pretraining on the text of the documents that the rows come from",
    "spine": "the ten families of the first version",
    "conversations": "all families, up to eight turns about a document in one sequence",
}
METRICS = ("gold_nll", "rouge_l", "calibrated_accuracy", "option_mass", "bits_per_byte")

Spans = dict[str, list[tuple[int, int]]]
"""Path → ranges of bytes."""


def spans_of(rows: Sequence[dict[str, Any]]) -> Spans:
    """The bytes that rows were made from."""
    found: Spans = defaultdict(list)
    for row in rows:
        for source in row["source"]:
            found[source["path"]].append((source["start"], source["end"]))
    return found


def overlap(spans: Spans, path: str, start: int, end: int) -> bool:
    """Whether any of the spans has bytes of `start..end`."""
    return any(first < end and start < last for first, last in spans.get(path, ()))


def documents(work: Path) -> Iterator[tuple[Any, bool]]:
    """Documents of the corpus that training rows (true) or held-out rows (false) of the first arm come from."""
    from data_builders.documents import PYTHON, Document, corpus_files, read

    spans = {kind: spans_of(rows) for kind, rows in sides(work / "sets" / "families").items()}
    for path, name in corpus_files(PYTHON):
        if name in spans["train"] or name in spans["held out"]:
            for document in read(path, name, "PSF-2.0"):
                if isinstance(document, Document):
                    place = (document.path, document.start, document.end)
                    held = overlap(spans["held out"], *place)
                    if held or overlap(spans["train"], *place):
                        yield document, not held


def sides(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The training rows of a set and all others."""
    from instructrec.core.schema import SPLITS, TRAIN, read_split

    held = [row for split in SPLITS if split != TRAIN for row in read_split(folder, split)]
    return {"train": list(read_split(folder, TRAIN)), "held out": held}


def sequences(arm: str, seed: int, work: Path, tokenizer: Any) -> Any:
    """What an arm trains on, as a data set for TRL."""
    import datasets

    from instructrec.core.schema import read_manifest
    from instructrec.data import load_set, trainable

    if arm == "raw text":
        pieces = []
        for document, train in documents(work):
            if train:
                ids = tokenizer(document.content)["input_ids"] + [tokenizer.eos_token_id]
                pieces += [ids[i : i + LENGTH] for i in range(0, len(ids), LENGTH)]
        return datasets.Dataset.from_dict({"input_ids": pieces, "labels": pieces})
    held = spans_of(sides(work / "sets" / "families")["held out"])
    unseen = read_manifest(work / "sets" / "families")["held_out"]
    rows = load_set(str(work / "sets" / (arm if arm in SETS else "families")))["train"]
    rows = rows.filter(
        lambda row: (
            row["template"] not in unseen["templates"]
            and row["family"] not in unseen["families"]
            and not any(overlap(held, source["path"], source["start"], source["end"]) for source in row["source"])
        )
    )
    if arm == "shuffled":
        members = defaultdict(list)
        for i, family in enumerate(rows["family"]):
            members[family].append(i)
        answers = list(rows["completion"])
        rng = random.Random(seed)
        for places in members.values():
            for place, other in zip(places, rng.sample(places, len(places)), strict=True):
                answers[place] = rows[other]["completion"]
        rows = rows.remove_columns("completion").add_column("completion", answers)
    return trainable(rows, None, tokenizer)[0]


def train(arm: str, seed: int, work: Path, steps: int) -> None:
    """Train one adapter of an arm and keep beside it how many tokens it saw, and how many of them were answers."""
    import torch
    from trl import ModelConfig, SFTConfig, SFTTrainer, get_peft_config

    from instructrec.config import read_yaml
    from instructrec.models import EMBEDDED, load_tokenizer, name_base, resolve_model
    from instructrec.runtime import quiet
    from instructrec.saved import tidy
    from instructrec.training import ProgressLine

    quiet()
    values = read_yaml(RECIPE)
    model = ModelConfig(**{key: values[key] for key in values if key.startswith("lora") or key == "use_peft"})
    kept = ("learning_rate", "lr_scheduler_type", "warmup_steps", "packing", "bf16", "activation_checkpointing")
    output = adapter(work, arm, seed)
    args = SFTConfig(
        **{key: values[key] for key in kept},
        use_cpu=not torch.accelerator.is_available(),
        output_dir=str(output.with_suffix(".partial")),
        model_init_kwargs={"dtype": values["dtype"]},
        max_length=LENGTH,
        max_steps=steps,
        per_device_train_batch_size=1,
        logging_steps=10,
        save_strategy="no",
        report_to=[],
        seed=seed,
        disable_tqdm=True,
        include_num_input_tokens_seen="non_padding",
    )
    folder = resolve_model(EMBEDDED)
    tokenizer = load_tokenizer(folder)
    trainer = SFTTrainer(
        model=str(folder),
        args=args,
        train_dataset=sequences(arm, seed, work, tokenizer),
        processing_class=tokenizer,
        peft_config=get_peft_config(model),
        callbacks=[ProgressLine()],
    )
    collate, tokens = trainer.data_collator, {"encoded": 0, "supervised": 0}

    def counted(examples: list[Any]) -> Any:
        batch = collate(examples)
        tokens["encoded"] += batch["input_ids"].numel()
        tokens["supervised"] += int((batch["labels"] >= 0).sum())
        return batch

    trainer.data_collator = counted
    name_base(trainer.model, EMBEDDED, "main")
    loss = trainer.train().training_loss
    trainer.save_model(args.output_dir)
    tidy(Path(args.output_dir))
    record = {"arm": arm, "seed": seed, "steps": steps, "loss": loss, **tokens}
    (Path(args.output_dir) / "tokens.json").write_text(json.dumps(record))
    Path(args.output_dir).rename(output)


def adapter(work: Path, arm: str, seed: int) -> Path:
    return work / "adapters" / f"{arm.replace(' ', '-')}-{seed}"


def run(command: Sequence[str | Path], jobs: int) -> None:
    """Run a command with its share of the cores."""
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    done = subprocess.run([str(part) for part in command], env=os.environ | {"OMP_NUM_THREADS": threads})
    if done.returncode:
        raise SystemExit(f"error: exit code {done.returncode}: {' '.join(map(str, command))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("outputs/families-benchmark"), help="default: %(default)s")
    parser.add_argument("--suite", type=Path, nargs="*", default=[], help="further suites, as of recipes/evaluate.py")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="default: all")
    parser.add_argument("--seeds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=40, help=f"of {LENGTH} tokens; default: %(default)s")
    parser.add_argument("--items", type=int, default=100, help="of each suite; default: %(default)s")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the cores; default: %(default)s")
    parser.add_argument("--worker", nargs=2, metavar=("ARM", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    work: Path = arguments.work
    if arguments.worker:
        train(arguments.worker[0], int(arguments.worker[1]), work, arguments.steps)
        return
    for name, options in SETS.items():
        if not (work / "sets" / name / "manifest.json").exists():
            run([sys.executable, "-m", "instructrec", "build", "--output", work / "sets" / name, *options], 1)
    texts = work / "held_out_text"
    if not texts.exists():
        texts.mkdir(parents=True)
        held = (document for document, train in documents(work) if not train and len(document.content) > 500)
        for i, document in enumerate(held):
            (texts / f"{i:04d}.txt").write_text(document.content[:2000], encoding="utf-8")
    runs = [(arm, seed) for seed in range(arguments.seeds) for arm in arguments.arms]
    missing = [(arm, seed) for arm, seed in runs if not (adapter(work, arm, seed) / "tokens.json").exists()]
    worker = [sys.executable, __file__, "--work", work, "--steps", str(arguments.steps), "--worker"]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda one: run([*worker, one[0], str(one[1])], arguments.jobs), missing))
    evaluation = work / "evaluation"
    launch = ["torchrun", "--nproc_per_node", str(arguments.jobs)] if arguments.jobs > 1 else ["accelerate", "launch"]
    command = [Path(sys.executable).parent / launch[0], *launch[1:], ROOT / "recipes" / "evaluate.py"]
    command += [part for arm, seed in runs for part in ("--adapter", adapter(work, arm, seed))]
    command += [part for suite in (work / "sets" / "families", texts, *arguments.suite) for part in ("--suite", suite)]
    command += ["--training_set", work / "sets" / "families", "--output_dir", evaluation]
    run([*command, "--max_items", str(arguments.items)], arguments.jobs)
    report(work, evaluation, arguments.arms, arguments.seeds)


def report(work: Path, evaluation: Path, names: list[str], seeds: int) -> None:
    """Write the ladder of all arms side by side, and what may be claimed of the first beside each other one."""
    import numpy as np

    from instructrec.evaluation.compare import as_json, compare, load_arm
    from instructrec.evaluation.results import LABELS
    from instructrec.evaluation.statistics import mean_with_interval

    base = json.loads((evaluation / "scores.json").read_text())["models"][0]
    arms = {"shipped model": load_arm(",".join([f"{evaluation}:{base}"] * seeds))}
    for name in names:
        arms[name] = load_arm(",".join(f"{evaluation}:{adapter(work, name, seed)}" for seed in range(seeds)))
    tokens = {
        name: [json.loads((adapter(work, name, seed) / "tokens.json").read_text()) for seed in range(seeds)]
        for name in names
    }
    first = arms["shipped model"].runs[0]
    table: list[dict[str, Any]] = []
    for suite in dict.fromkeys(key[0] for key in first):
        for metric in METRICS:
            keys = [key for key, (_, scores) in first.items() if key[0] == suite and metric in scores]
            for name, arm in arms.items() if keys else ():
                values = np.mean([[run[key][1][metric] for key in keys] for run in arm.runs], axis=0)
                estimate = mean_with_interval(values.tolist())
                table.append({"suite": suite, "metric": metric, "n": len(keys), "arm": name, **estimate})
    others = [arm for name, arm in arms.items() if name != names[0]]
    findings = as_json(compare([arms[names[0]], *others], [m for m in METRICS if any(r["metric"] == m for r in table)]))
    known = {arm.label: name for name, arm in arms.items()}
    for finding in findings:
        finding |= {key: known[finding[key]] for key in ("reference", "arm")}
    record = {**provenance(), "arms": ARMS, "tokens": tokens, "scores": table, "findings": findings}
    (RESULTS / "families.json").write_text(json.dumps(record, indent=2) + "\n")

    columns = list(arms)
    lines = [f"| suite | n | metric | {' | '.join(columns)} |", "| --- | ---: | --- |" + " --- |" * len(columns)]
    for suite, metric, n in dict.fromkeys((row["suite"], row["metric"], row["n"]) for row in table):
        cells = [row for row in table if (row["suite"], row["metric"]) == (suite, metric)]
        shown = (f"{row['value']:.3f} [{row['ci95'][0]:.3f}, {row['ci95'][1]:.3f}]" for row in cells)
        lines.append(f"| {suite} | {n} | {LABELS[metric]} | {' | '.join(shown)} |")
    claims = [
        "| suite | metric | arm | difference [95 %] | p (Holm) | groups |",
        "| --- | --- | --- | --- | ---: | ---: |",
    ]
    for f in findings:
        interval = f" [{f['ci95'][0]:+.3f}, {f['ci95'][1]:+.3f}]" if f["ci95"] else ""
        claims.append(
            f"| {f['suite']} | {LABELS[f['metric']]} | {f['arm']} | {f['difference']:+.3f}{interval} |"
            f" {f['p_holm']:.3g} | {f['groups']} |"
        )
    seen = [
        f"| {name} | {what} | {np.mean([t['encoded'] for t in tokens[name]]):,.0f} | "
        f"{np.mean([t['supervised'] for t in tokens[name]]):,.0f} |"
        for name, what in ARMS.items()
        if name in tokens
    ]
    text = f"""# What the families are worth

`{record["command"]}`, {record["date"]}, {record["machine"]}.

SmolLM2-135M-Instruct (dequantized 4-bit weights), LoRA as in `recipes/smollm2-135m/sft.yaml`, {seeds} seeds. Means over
seeds and items with 95 % bootstrap intervals over items; differences are paired by item.

| arm | trained on | tokens encoded | tokens supervised |
| --- | --- | ---: | ---: |
{chr(10).join(seen)}

{chr(10).join(lines)}

## Every other arm minus `{names[0]}`

Bootstrap over seeds and groups of items, permutation of whole groups, Holm over all comparisons of this table.

{chr(10).join(claims)}

![families](families.png)
"""
    (RESULTS / "families.md").write_text(text)
    draw([row for row in table if row["metric"] == "gold_nll"], RESULTS / "families.png")


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Gold NLL of every arm on every suite."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    suites, arms = (list(dict.fromkeys(row[key] for row in rows)) for key in ("suite", "arm"))
    figure, axis = pyplot.subplots(figsize=(9, 4), layout="constrained")
    for i, arm in enumerate(arms):
        chosen = [row for row in rows if row["arm"] == arm]
        values = [row["value"] for row in chosen]
        bounds = [[row["value"] - row["ci95"][0] for row in chosen], [row["ci95"][1] - row["value"] for row in chosen]]
        places = [suites.index(row["suite"]) + (i - len(arms) / 2) * 0.1 for row in chosen]
        axis.errorbar(places, values, bounds, fmt="o", label=arm, capsize=2)
    axis.set(xticks=range(len(suites)), xticklabels=suites, ylabel="gold NLL per token (lower is better)")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
