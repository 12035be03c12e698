"""Whether rewards teach constraints, or only the kinds that they were given for: 12 kinds trained, 6 never seen.

    python benchmarks/constraints.py --corpus peps --ifeval input_data.jsonl --algorithms grpo ppo

An adapter is tuned on all families that a corpus has but the two that ask for constraints (`constraints`,
`constrained_quote`), so that it has seen none. Recipes then train it on rows of these two whose constraints are all of
the 12 kinds, with the share that is met as the only reward. Scored, greedily and in at most 64 tokens: rows of unseen
documents with trained kinds, with unseen kinds (only these are counted), IFEval's prompts if given; the likelihood of
gold answers to all other families on unseen documents; and the KL divergence of sampled answers from the adapter's
before. The same command again goes on where it was interrupted; results go to benchmarks/results as JSON and Markdown.
What is given after `--` goes to the recipes, as in `-- --max_steps 100`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from record import RESULTS, provenance

ROOT = Path(__file__).parents[1]
MODEL = "smollm2-135m-q4"
FAMILIES = ("constraints", "constrained_quote")
TRAINED = (
    *("keywords:existence", "keywords:forbidden_words", "keywords:frequency", "keywords:letter_frequency"),
    *("length_constraints:number_sentences", "length_constraints:number_words", "punctuation:no_comma"),
    *("detectable_format:number_bullet_lists", "detectable_format:title", "startend:quotation"),
    *("change_case:english_lowercase", "combination:repeat_prompt"),
)
UNSEEN = (
    *("change_case:english_capital", "detectable_format:json_format", "detectable_content:number_placeholders"),
    *("detectable_format:number_highlighted_sections", "detectable_content:postscript", "startend:end_checker"),
)
BUILD = {
    "weights": dict.fromkeys(FAMILIES, 10),
    "per_document": 12,
    "heldout_rows_per_family": 600,
    "test_documents": 0.3,
}
"""The two families are rare, so that all is taken that there is."""
LIMIT = 64
"""Tokens of an answer at most, in training, scoring and sampling."""
BEFORE = "before"


def kinds(row: dict[str, Any]) -> set[str]:
    """The kinds of a row's constraints."""
    return {check["name"] for check in json.loads(row["checks"] or "[]")}


def subset(source: Path, folder: Path, keep: Callable[[dict[str, Any]], bool]) -> Path:
    """Write the rows of a set that are kept as a set of their own; its splits are those of the source."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from instructrec.core.files import fingerprint, new_folder, write_json
    from instructrec.core.schema import INSTRUCTION, SPLITS, TRAIN, read_manifest, read_split

    if folder.exists():
        return folder
    manifest: dict[str, Any] = {**read_manifest(source)}
    with new_folder(folder) as partial:
        rows = {split: [row for row in read_split(source, split) if keep(row)] for split in SPLITS}
        for split, kept in rows.items():
            (partial / split).mkdir()
            pq.write_table(pa.Table.from_pylist(kept, schema=INSTRUCTION), partial / split / "00000.parquet")
        manifest["splits"] = {split: len(kept) for split, kept in rows.items()}
        names = [row["family"] for kept in rows.values() for row in kept]
        manifest["families"] = {
            name: family | {"rows": names.count(name)} for name, family in manifest["families"].items()
        }
        manifest["fingerprint"] = fingerprint(partial, "*.parquet")
        write_json(partial / "manifest.json", manifest)
    print(f"{folder}: {len(rows[TRAIN])} training rows")
    return folder


def suite(source: Path, path: Path, wanted: Sequence[str], allowed: Sequence[str]) -> Path:
    """Rows of unseen documents whose constraints are all `allowed` and some `wanted`, of which these are counted."""
    from instructrec.core.schema import TEST_DOCUMENTS, read_split

    items = []
    for row in read_split(source, TEST_DOCUMENTS):
        checks = [check for check in json.loads(row["checks"] or "[]") if check["name"] in wanted]
        if row["family"] in FAMILIES and checks and kinds(row) <= {*allowed}:
            (message,) = row["prompt"]
            items.append(
                {
                    "id": row["id"],
                    "category": row["family"],
                    "instruction": message["content"],
                    "input": "",
                    "targets": row["targets"],
                    "choices": None,
                    "checks": json.dumps(checks),
                }
            )
    items.sort(key=lambda item: item["id"])
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), encoding="utf-8")
    return path


def run(*command: object) -> None:
    done = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"error: exit code {done.returncode}: {' '.join(map(str, command))}")


def prepare(work: Path, corpus: Path | None) -> None:
    """The set, its two subsets, the suites and the rewards."""
    (work / "rewards.json").write_text(json.dumps([{"name": "constraints"}]))
    (work / "build.json").write_text(
        json.dumps(BUILD | ({"corpus": str(corpus.resolve())} if corpus else {}))
    )  # JSON is YAML
    run("-m", "instructrec", "build", "--output", work / "set", "--config", work / "build.json")
    subset(work / "set", work / "others", lambda row: row["family"] not in FAMILIES)
    subset(work / "set", work / "asked", lambda row: row["family"] in FAMILIES and kinds(row) <= {*TRAINED})
    suite(work / "set", work / "trained_kinds.jsonl", TRAINED, TRAINED)
    suite(work / "set", work / "unseen_kinds.jsonl", UNSEEN, TRAINED + UNSEEN)


def train(work: Path, start: Path, algorithm: str, seed: int, more: Sequence[str]) -> Path:
    """Train the adapter on the constraints that it may see; a finished run is left alone by the recipe."""
    output = work / f"{algorithm}-{seed}"
    run(
        *(ROOT / "recipes" / f"{algorithm}.py", "--dataset_name", work / "asked", "--held_out_set", work / "others"),
        *("--rewards", work / "rewards.json", "--init_adapter", start, "--output_dir", output, "--seed", seed),
        *("--max_completion_length", LIMIT, *more),
    )
    return output


def evaluate(work: Path, name: str, adapters: Sequence[Path], suites: Sequence[Path], items: int, limit: int) -> Path:
    """Score adapters with recipes/evaluate.py, which asks nothing twice."""
    run(
        *(ROOT / "recipes" / "evaluate.py", "--output_dir", work / name, "--max_items", items),
        *(part for adapter in adapters for part in ("--adapter", adapter)),
        *(part for one in suites for part in ("--suite", one)),
        *("--max_new_tokens", limit),
    )
    return work / name


def divergence(adapter: Path, start: Path, prompts: Path, most: int) -> list[float]:
    """The sequence KL of an adapter from the one that it was trained on from, for each of some held-out prompts."""
    from instructrec.evaluation.divergence import sequence_kl
    from instructrec.evaluation.suites import load_suites
    from instructrec.models import load_tuned

    kept = adapter / "divergence.json"
    if not kept.exists():
        (items,) = load_suites([str(prompts)], most).values()
        model, tokenizer, _ = load_tuned(MODEL, adapter, "bfloat16", reference=start)
        found = sequence_kl(model, tokenizer, [item.messages for item in items], samples=4, limit=LIMIT)
        kept.write_text(json.dumps(found))
    return json.loads(kept.read_text())


def scores(folder: Path, metric: str) -> dict[tuple[str, str], dict[str, float]]:
    """(suite, model) → item → its score."""
    found: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines():
        prediction = json.loads(line)
        if metric in prediction["scores"]:
            found[prediction["suite"], prediction["model"]][prediction["id"]] = prediction["scores"][metric]
    return found


def by_kind(folder: Path, suite_name: str, models: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Kind of constraint → how many there are in a suite, and the share that each model meets."""
    from instructrec.core.checks import satisfied

    met: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines():
        prediction = json.loads(line)
        if prediction["suite"] == suite_name and prediction["model"] in models:
            verdicts = satisfied(prediction["checks"], prediction["output"])
            for check, verdict in zip(json.loads(prediction["checks"]), verdicts, strict=True):
                met[check["name"]][prediction["model"]].append(verdict)
    return {
        kind: {"n": len(values[models[0]]), **{model: sum(v) / len(v) for model, v in values.items()}}
        for kind, values in sorted(met.items())
    }


def compare(found: dict[tuple[str, str], dict[str, float]], start: str, runs: Sequence[str]) -> list[dict[str, Any]]:
    """Of every suite the mean before and after (over seeds), and the difference, paired by item."""
    from instructrec.evaluation.statistics import mean_with_interval, paired_difference

    table = []
    for name in dict.fromkeys(suite for suite, _ in found):
        before = found[name, start]
        after = [sum(found[name, run][item] for run in runs) / len(runs) for item in before]
        values = [*before.values()]
        table.append(
            {
                "suite": name,
                "n": len(values),
                "before": mean_with_interval(values),
                "after": mean_with_interval(after),
                "difference": paired_difference(after, values),
            }
        )
    return table


def shown(estimate: dict[str, Any], sign: str = "") -> str:
    low, high = estimate["ci95"]
    bounds = "" if low is None else f" [{low:{sign}.3f}, {high:{sign}.3f}]"
    return f"{estimate['value']:{sign}.3f}{bounds}"


def report(work: Path, start: Path, runs: dict[str, list[Path]], folders: Sequence[Path], prompts: int) -> None:
    """Write what each algorithm changed."""
    from instructrec.evaluation.statistics import mean_with_interval

    paths = (work / "trained_kinds.jsonl", work / "unseen_kinds.jsonl")
    results: dict[str, Any] = {}
    for algorithm, adapters in runs.items():
        names = [str(adapter) for adapter in adapters]
        found = {
            m: {k: v for f in folders for k, v in scores(f, m).items()} for m in ("constraints", "all_constraints")
        }
        nll = {key: v for key, v in scores(folders[0], "gold_nll").items() if key[0] == "test_documents"}
        lineages = [json.loads((adapter / "lineage.json").read_text()) for adapter in adapters]
        distances = [divergence(adapter, start, paths[0], prompts) for adapter in adapters]
        results[algorithm] = {
            **{metric: compare(values, str(start), names) for metric, values in found.items()},
            "gold_nll": compare(nll, str(start), names),
            "sequence_kl": mean_with_interval([sum(each) / len(each) for each in zip(*distances, strict=True)]),
            "minutes": [lineage["seconds"] / 60 for lineage in lineages],
            "tokens": [lineage["training"]["tokens"] for lineage in lineages],
            "steps": [lineage["training"]["steps"] for lineage in lineages],
            "by_kind": {path.stem: by_kind(folders[0], path.stem, [str(start), *names]) for path in paths},
        }
    record = {**provenance(), "trained": TRAINED, "unseen": UNSEEN, "limit": LIMIT, "results": results}
    # Adapters are called by the last part of their folder, as that is all that another machine has of them.
    text = json.dumps(record, indent=2).replace(f"{work}/", "")
    (RESULTS / "constraints.json").write_text(text + "\n", encoding="utf-8")
    labels = {
        "constraints": "constraints met",
        "all_constraints": "all constraints of a prompt met",
        "gold_nll": "gold NLL per token of other families (lower is better)",
    }
    lines = ["| algorithm | suite | n | metric | before | after | difference [95 %] | p |"]
    lines += ["| --- | --- | ---: | --- | --- | --- | --- | ---: |"]
    lines += [
        f"| {algorithm} | {row['suite']} | {row['n']} | {label} | {shown(row['before'])} | {shown(row['after'])} | "
        f"{shown(row['difference'], '+')} | {row['difference']['p']:.3g} |"
        for algorithm, result in results.items()
        for metric, label in labels.items()
        for row in result[metric]
    ]
    costs = ["| algorithm | seeds | steps | tokens | minutes | sequence KL, nats [95 %] |", "| --- " * 6 + "|"]
    costs += [
        f"| {algorithm} | {len(result['steps'])} | {result['steps'][0]} | {sum(result['tokens']):,} | "
        f"{sum(result['minutes']):.0f} | {shown(result['sequence_kl'])} |"
        for algorithm, result in results.items()
    ]
    each = ["| algorithm | kind | n | before | after |", "| --- | --- | ---: | ---: | ---: |"]
    each += [
        f"| {algorithm} | {kind}{' *' * (kind in UNSEEN)} | {row['n']} | {row[str(start)]:.3f} | "
        f"{sum(row[str(one)] for one in runs[algorithm]) / len(runs[algorithm]):.3f} |"
        for algorithm, result in results.items()
        for found in result["by_kind"].values()
        for kind, row in found.items()
    ]
    (RESULTS / "constraints.md").write_text(
        f"""# Constraints: 12 kinds trained, 6 unseen

`{record["command"]}`, {record["date"]}, {record["machine"]}.

SmolLM2-135M-Instruct (dequantized 4-bit weights) with a LoRA adapter that was tuned on all families but the two that
ask for constraints; `after` is that adapter trained on with the share of met constraints as its only reward. Greedy
answers of at most {LIMIT} tokens to unseen documents (to IFEval's prompts: longer ones). Means over seeds; 95 %
bootstrap intervals over items, differences paired by item, p of a sign-flip permutation.

{chr(10).join(lines)}

What it took, and how far answers sampled at temperature 1 are from those before, on held-out prompts of trained kinds:

{chr(10).join(costs)}

By kind (* never trained on; in `unseen_kinds` only these are counted):

{chr(10).join(each)}
""",
        encoding="utf-8",
    )
    print(f"report: {RESULTS / 'constraints.md'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("outputs/constraints-benchmark"), help="default: %(default)s")
    parser.add_argument("--corpus", type=Path, help="folder of documents; default: Python's own")
    parser.add_argument("--algorithms", nargs="+", default=["grpo"], help="recipes by name; default: grpo")
    parser.add_argument("--seeds", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--ifeval", type=Path, help="IFEval's prompts (input_data.jsonl)")
    parser.add_argument("--ifeval_tokens", type=int, default=256, help="of an answer to them; default: %(default)s")
    parser.add_argument("--items", type=int, default=200, help="of each suite; default: %(default)s")
    parser.add_argument("--prompts", type=int, default=64, help="that the KL is measured on; default: %(default)s")
    parser.add_argument("--init_adapter", type=Path, help="in place of the one that is tuned here")
    parser.add_argument("recipe", nargs="*", metavar="-- FLAG", help="flags of the recipes that learn from rewards")
    arguments = parser.parse_args()
    work: Path = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    prepare(work, arguments.corpus)
    start = arguments.init_adapter.resolve() if arguments.init_adapter else work / BEFORE
    if not arguments.init_adapter:
        run(ROOT / "recipes" / "sft.py", "--dataset_name", work / "others", "--output_dir", start)
    runs = {
        algorithm: [train(work, start, algorithm, seed, arguments.recipe) for seed in range(arguments.seeds)]
        for algorithm in arguments.algorithms
    }
    adapters = [start, *(adapter for its in runs.values() for adapter in its)]
    own = [work / "trained_kinds.jsonl", work / "unseen_kinds.jsonl", work / "others" / "test_documents"]
    folders = [evaluate(work, "evaluation", adapters, own, arguments.items, LIMIT)]
    if arguments.ifeval:
        suites = [arguments.ifeval.resolve()]
        folders.append(evaluate(work, "ifeval", adapters, suites, arguments.items, arguments.ifeval_tokens))
    report(work, start, runs, folders, arguments.prompts)


if __name__ == "__main__":
    main()
