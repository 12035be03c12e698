"""What each way to go on from an SFT adapter is worth: DPO, GRPO and PPO from the same adapter, on the same set.

    python benchmarks/stages.py --stages dpo grpo ppo --seeds 3

For each seed the recipe tunes an adapter on the quickstart's set, and each stage goes on from it with the quickstart's
YAML. All are scored on unseen documents, wordings and tasks; the reward is that of their greedy answers to unseen
documents, by the YAML that GRPO and PPO learn from; the KL divergence is that of whole sampled answers from the SFT
adapter. The same command again goes on where it was interrupted; results go to benchmarks/results as JSON and Markdown.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from constraints import LIMIT, ROOT, divergence, evaluate, run, scores, shown
from record import RESULTS, provenance

METRICS = ("gold_nll", "rouge_l", "calibrated_accuracy", "constraints", "stop_rate")
BASE = "base"
SFT = "sft"


def train(work: Path, folder: Path, stage: str, seed: int) -> Path:
    """The adapter of a stage; a finished run is left alone by the recipe."""
    output, start = work / f"{stage}-{seed}", work / f"{SFT}-{seed}"
    data: list[object] = ["--dataset_name", folder]
    if stage == "dpo":
        data = ["--dataset_name", work / "pairs", "--held_out_set", folder]
    if stage != SFT:
        data += ["--init_adapter", start]
    run(ROOT / "recipes" / f"{stage}.py", *data, "--output_dir", output, "--seed", seed)
    return output


def rewards_of(evaluation: Path, folder: Path, rewards: Path) -> dict[str, dict[str, float]]:
    """Model → item → the reward of its greedy answer to an unseen document."""
    from instructrec.core.schema import TEST_DOCUMENTS, read_split
    from instructrec.rewards.load import load_rewards

    rows = {row["id"]: row for row in read_split(folder, TEST_DOCUMENTS)}
    combined, found = load_rewards(rewards), {}
    for line in (evaluation / "predictions.jsonl").read_text(encoding="utf-8").splitlines():
        prediction = json.loads(line)
        if prediction["suite"] == TEST_DOCUMENTS:
            row = rows[prediction["id"]]
            columns = {name: [value] for name, value in row.items() if name not in ("prompt", "completion")}
            answer = [{"role": "assistant", "content": prediction["output"]}]
            (value,) = combined([row["prompt"]], [answer], **columns)
            if value is not None:
                found.setdefault(prediction["model"], {})[prediction["id"]] = value
    return found


def over_seeds(by_model: dict[str, dict[str, float]], models: Sequence[str]) -> dict[str, float]:
    """Item → its mean over the models of a stage, one for each seed."""
    return {item: sum(by_model[model][item] for model in models) / len(models) for item in by_model[models[0]]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("outputs/stages-benchmark"), help="default: %(default)s")
    parser.add_argument("--set", type=Path, default=Path("outputs/quickstart/set"), help="default: %(default)s")
    parser.add_argument("--stages", nargs="+", default=["dpo", "grpo"], help="recipes by name; default: dpo grpo")
    parser.add_argument("--seeds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--items", type=int, default=200, help="of each rung; default: %(default)s")
    parser.add_argument("--prompts", type=int, default=64, help="that the KL is measured on; default: %(default)s")
    arguments = parser.parse_args()
    work, folder = arguments.work.resolve(), arguments.set.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if not folder.exists():
        run("-m", "instructrec", "build", "--output", folder)
    if "dpo" in arguments.stages:
        run("-m", "instructrec", "pairs", folder, "--output", work / "pairs")
    stages = {
        stage: [train(work, folder, stage, seed) for seed in range(arguments.seeds)]
        for stage in (SFT, *arguments.stages)
    }
    adapters = [adapter for its in stages.values() for adapter in its]
    rungs = [folder / rung for rung in ("test_documents", "test_templates", "test_tasks")]
    evaluation = evaluate(work, "evaluation", adapters, rungs, arguments.items, LIMIT)
    report(work, folder, stages, evaluation, arguments.prompts)


def report(work: Path, folder: Path, stages: dict[str, list[Path]], evaluation: Path, prompts: int) -> None:
    """Write every stage's figures, and what it changed of those of SFT."""
    from instructrec.evaluation.statistics import mean_with_interval, paired_difference

    base = json.loads((evaluation / "scores.json").read_text())["models"][0]
    models = {BASE: [base], **{stage: [str(adapter) for adapter in its] for stage, its in stages.items()}}
    tables: dict[str, dict[str, dict[str, float]]] = {}
    for metric in METRICS:
        for (suite, model), values in scores(evaluation, metric).items():
            tables.setdefault(f"{suite} {metric}", {})[model] = values
    tables["test_documents reward"] = rewards_of(evaluation, folder, ROOT / "recipes" / "rewards.yaml")
    figures: dict[str, Any] = {}
    for name, by_model in tables.items():
        before = over_seeds(by_model, models[SFT])
        figures[name] = {"n": len(before)}
        for stage, its in models.items():
            values = over_seeds(by_model, its)
            figures[name][stage] = mean_with_interval([*values.values()])
            if stage not in (BASE, SFT):
                after = [values[item] for item in before]
                figures[name][stage]["difference"] = paired_difference(after, [*before.values()])
    costs = {}
    for stage, its in stages.items():
        lineages = [json.loads((adapter / "lineage.json").read_text()) for adapter in its]
        costs[stage] = {
            "tokens": [lineage["training"]["tokens"] for lineage in lineages],
            "minutes": [lineage["seconds"] / 60 for lineage in lineages],
            "sequence_kl": None,
        }
        if stage != SFT:
            pairs = zip(its, stages[SFT], strict=True)
            distances = [divergence(one, start, folder / "test_documents", prompts) for one, start in pairs]
            means = [sum(each) / len(each) for each in zip(*distances, strict=True)]
            costs[stage]["sequence_kl"] = mean_with_interval(means)
    record = {**provenance(), "seeds": len(stages[SFT]), "figures": figures, "costs": costs}
    (RESULTS / "stages.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    lines = [f"| figure | n | {' | '.join(models)} |", "| --- | ---: |" + " --- |" * len(models)]
    lines += [
        f"| {name} | {row['n']} | " + " | ".join(shown(row[stage]) for stage in models) + " |"
        for name, row in figures.items()
    ]
    for key in ("tokens", "minutes"):
        cells = (f"{sum(cost[key]) / len(cost[key]):,.0f}" for cost in costs.values())
        lines.append(f"| {key} of training, mean | | – | {' | '.join(cells)} |")
    cells = (shown(cost["sequence_kl"]) if cost["sequence_kl"] else "–" for cost in costs.values())
    lines.append(f"| sequence KL from {SFT}, nats | {prompts} | – | {' | '.join(cells)} |")
    after = [stage for stage in stages if stage != SFT]
    changes = [f"| figure | {' | '.join(after)} |", "| --- |" + " --- |" * len(after)]
    changes += [
        f"| {name} | " + " | ".join(shown(row[stage]["difference"], "+") for stage in after) + " |"
        for name, row in figures.items()
    ]
    (RESULTS / "stages.md").write_text(
        f"""# SFT, and what goes on from it

`{record["command"]}`, {record["date"]}, {record["machine"]}.

SmolLM2-135M-Instruct (dequantized 4-bit weights), the quickstart's set and YAMLs, {record["seeds"]} seeds; every
stage goes on from the SFT adapter of its seed. Greedy answers of at most {LIMIT} tokens. Means over seeds, with 95 %
bootstrap intervals over items.

{chr(10).join(lines)}

Minus `{SFT}`, paired by item:

{chr(10).join(changes)}
""",
        encoding="utf-8",
    )
    print(f"report: {RESULTS / 'stages.md'}")


if __name__ == "__main__":
    sys.exit(main())
