"""How fast options are scored, beside lm-evaluation-harness on the same items with the same model.

    python benchmarks/evaluate.py --suite bbh/logical_deduction_three_objects.json --items 50 --repeats 5 \\
        --lm-eval-python other_environment/bin/python

Each task's choice items are exported (`instructrec export`) and scored in fp32 by turns (ours, theirs, ours, theirs),
each run a process of its own. A run is timed once model and items are in memory and one item has been scored: ours from
items to log-probabilities (`Scorer.score`), theirs in `evaluator.evaluate` without bootstrap, which is rendering,
scoring and the mean of the accuracy. Neither generates. The ratio of a task is the geometric mean over pairs of runs,
with the t-interval of its logarithm. Log-probabilities of both are compared option by option, ours from a second pass
in which, as in the harness, white space that ends a prompt belongs to the options. Results go to benchmarks/results as
JSON, Markdown and a picture.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from record import RESULTS, cores, provenance

OPTIONS = 4
"""Of an item of the default suite."""


def help_topics(path: Path) -> None:
    """Write the default suite: which of four topics of Python's help a passage is from."""
    from pydoc_data.topics import topics

    rng = random.Random(0)
    names = sorted(topics)
    lines = []
    for number, name in enumerate(rng.sample(names, len(names))):
        choices = sorted([name, *rng.sample([other for other in names if other != name], OPTIONS - 1)])
        passage = " ".join(re.sub(re.escape(name), "…", topics[name], flags=re.IGNORECASE).split()[:120])
        item = {"id": str(number), "category": "topic", "instruction": "Which topic is this about?", "input": passage}
        lines.append(json.dumps(item | {"targets": [name], "choices": choices}) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


def ours(task: dict[str, Any]) -> tuple[float, list[list[float]]]:
    """Seconds, and every option's log-probability, given the prompt without the white space that ends it."""
    from instructrec.evaluation.scoring import Scorer
    from instructrec.evaluation.suites import Item
    from instructrec.models import load_model, load_tokenizer

    folder = Path(task["model"])
    items = [Item(**item) for item in task["items"]]
    scorer = Scorer(load_model(folder, "float32").eval(), load_tokenizer(folder), task["batch_size"])
    scorer.score(items[:1], [0])
    started = time.perf_counter()
    answers = scorer.score(items, [0] * len(items))
    seconds = time.perf_counter() - started
    moved = []
    for item, answer in zip(items, answers, strict=True):
        space = answer.prompt[len(answer.prompt.rstrip()) :]
        options = [tuple(space + text for text in texts) for texts in (item.targets, item.choices or ())]
        moved.append(replace(item, targets=options[0], choices=options[1]))
    render = scorer.render
    scorer.render = lambda item: render(item).rstrip()  # type: ignore[method-assign]
    return seconds, [list(answer.choice_logprobs or ()) for answer in scorer.score(moved, [0] * len(moved))]


def theirs(task: dict[str, Any]) -> tuple[float, list[list[float]]]:
    """The same of lm-evaluation-harness; this runs where instructrec need not be installed."""
    import torch
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    tasks = TaskManager(include_path=task["tasks"], include_defaults=False).load([task["name"]])
    model = HFLM(
        pretrained=task["model"],
        dtype="float32",
        batch_size=task["batch_size"],
        device="cuda" if torch.cuda.is_available() else "cpu",
        add_bos_token=False,
    )
    how = {"bootstrap_iters": 0, "log_samples": False, "apply_chat_template": True, "fewshot_as_multiturn": True}
    evaluate(model, tasks, limit=1, **how)
    started = time.perf_counter()
    evaluate(model, tasks, **how)
    seconds = time.perf_counter() - started
    logprobs = [[0.0] * len(item["choices"]) for item in task["items"]]
    for instance in tasks["tasks"][task["name"]].instances:
        logprobs[instance.doc_id][instance.idx] = instance.resps[0][0]
    return seconds, logprobs


SIDES = {"ours": ours, "theirs": theirs}


def work(side: str, task: Path) -> None:
    """Score a task in this process and print what came out as the last line."""
    import torch

    spec = json.loads(task.read_text(encoding="utf-8"))
    torch.set_num_threads(spec["threads"])
    seconds, logprobs = SIDES[side](spec)
    print(json.dumps({"seconds": seconds, "logprobs": logprobs, "torch": version("torch")}))


def measure(side: str, task: Path, python: str, threads: int) -> dict[str, Any]:
    """Score a task in a process of its own."""
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"), "1") | {"OMP_NUM_THREADS": str(threads)}
    interpreter = sys.executable if side == "ours" else python
    command = [interpreter, __file__, "--worker", side, str(task)]
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"error: {side}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def write_tasks(suites: list[Path], items: int, model: str, batch_size: int, threads: int, folder: Path) -> list[Path]:
    """Export the choice items of suites, `items` of each at most, and describe each task in a JSON file."""
    from instructrec.evaluation.export import export
    from instructrec.evaluation.suites import load_suites
    from instructrec.models import resolve_model

    loaded = load_suites([str(suite) for suite in suites], 0)
    chosen = {name: [item for item in found if item.choices][:items] for name, found in loaded.items()}
    if empty := [name for name, found in chosen.items() if not found]:
        raise SystemExit(f"error: {empty[0]}: no item has options")
    shared = {"model": str(resolve_model(model)), "batch_size": batch_size, "threads": threads, "tasks": str(folder)}
    paths = []
    for name, exported in zip(chosen, export(chosen, folder), strict=True):
        task = {"suite": name, "name": exported.task, "items": [asdict(item) for item in chosen[name]], **shared}
        paths.append(folder / f"{exported.task}.task.json")
        paths[-1].write_text(json.dumps(task), encoding="utf-8")
    return paths


def ratio(pairs: list[tuple[float, float]]) -> dict[str, Any]:
    """Their seconds by ours: the geometric mean over pairs of runs, and its 95 % interval where there are two pairs."""
    from scipy.stats import t

    logs = [math.log(other / own) for own, other in pairs]
    mean, half = statistics.mean(logs), math.nan
    if len(logs) > 1:
        half = float(t.ppf(0.975, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
    interval = None if math.isnan(half) else [math.exp(mean - half), math.exp(mean + half)]
    return {"ratio": math.exp(mean), "ci95": interval}


def summary(task: Path, runs: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """One entry for a task: items per second of both sides, their ratio, and how far log-probabilities are apart."""
    spec = json.loads(task.read_text(encoding="utf-8"))
    n = len(spec["items"])
    both = zip(runs[0]["ours"]["logprobs"], runs[0]["theirs"]["logprobs"], strict=True)
    apart = max(abs(a - b) for own, other in both for a, b in zip(own, other, strict=True))
    return {
        "task": spec["suite"],
        "items": n,
        "options": statistics.mean(len(item["choices"]) for item in spec["items"]),
        "runs": len(runs),
        **{side: n / statistics.median(run[side]["seconds"] for run in runs) for side in SIDES},
        **ratio([(run["ours"]["seconds"], run["theirs"]["seconds"]) for run in runs]),
        "apart": apart,
        "seconds": {side: [run[side]["seconds"] for run in runs] for side in SIDES},
    }


def total(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The ratio of the time of all tasks together."""
    sums = [[sum(seconds) for seconds in zip(*(e["seconds"][s] for e in entries), strict=True)] for s in SIDES]
    return ratio(list(zip(*sums, strict=True)))


def report(entries: list[dict[str, Any]], conditions: dict[str, Any]) -> None:
    """Write what was measured as JSON, Markdown and a picture."""
    RESULTS.mkdir(exist_ok=True)
    record = {**provenance(), **conditions, "all": total(entries), "tasks": entries}
    (RESULTS / "evaluate.json").write_text(json.dumps(record, indent=2) + "\n")
    lines = [
        "| task | items | options | runs | ours, items/s | theirs, items/s | ratio [95 %] | apart |",
        "| --- |" + " ---: |" * 7,
    ]
    lines += [
        f"| {e['task']} | {e['items']} | {e['options']:.1f} | {e['runs']} | {e['ours']:.2f} | {e['theirs']:.2f} |"
        f" {shown(e)} | {e['apart']:.1e} |"
        for e in entries
    ]
    text = f"""# Scoring options

`{record["command"]}`, {record["date"]}, {record["machine"]}; {conditions["model"]} in fp32 on {conditions["device"]},
{conditions["threads"]} threads, batches of {conditions["batch_size"]}, lm_eval {conditions["lm_eval"]}, torch
{conditions["torch"]}.

All tasks together: {shown(record["all"])} times as fast as lm-evaluation-harness. Speeds are medians over runs; "apart"
is the largest difference of an option's log-probability between the two, in nats. Prompt and option are parted for it
as the harness parts them: it takes the line end that a chat template may end its prompt with for the beginning of every
option, which adds the same to all options of an item and changes no choice.

"""
    (RESULTS / "evaluate.md").write_text(text + "\n".join(lines) + "\n\n![evaluate](evaluate.png)\n")
    draw(entries, RESULTS / "evaluate.png")


def shown(entry: dict[str, Any]) -> str:
    interval = entry["ci95"]
    return f"{entry['ratio']:.2f}" + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "")


def draw(entries: list[dict[str, Any]], path: Path) -> None:
    """Items per second of both sides, task by task."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 1.2 + 0.6 * len(entries)), layout="constrained")
    for offset, side, label in ((-0.2, "ours", "instructrec"), (0.2, "theirs", "lm-evaluation-harness")):
        places = [number + offset for number in range(len(entries))]
        bars = axis.barh(places, [entry[side] for entry in entries], 0.38, label=label)
        axis.bar_label(bars, fmt="%.2f", padding=3)
    axis.set_yticks(range(len(entries)), [entry["task"] for entry in entries])
    axis.invert_yaxis()
    axis.set(xlabel="items per second")
    axis.margins(x=0.12)
    axis.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", type=Path, nargs="+", help="suites with choice items; default: Python's help topics")
    parser.add_argument("--items", type=int, default=24, help="of each task at most")
    parser.add_argument("--repeats", type=int, default=3, help="pairs of runs of each task")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--model", default="smollm2-135m-q4", help="embedded, a Hub name or a folder")
    parser.add_argument("--lm-eval-python", help="interpreter that has lm_eval with its extra `hf`; default: this one")
    parser.add_argument("--worker", nargs=2, metavar=("SIDE", "TASK"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(arguments.worker[0], Path(arguments.worker[1]))
    if arguments.lm_eval_python is None and find_spec("lm_eval") is None:
        return print("skipped: lm_eval is not installed here; name an interpreter that has it with --lm-eval-python")
    python = arguments.lm_eval_python or sys.executable
    with tempfile.TemporaryDirectory() as scratch:
        suites = arguments.suite
        if not suites:
            suites = [Path(scratch, "help_topics.jsonl")]
            help_topics(suites[0])
        limits = (arguments.items, arguments.model, arguments.batch_size, arguments.threads)
        tasks = write_tasks(suites, *limits, Path(scratch, "tasks"))
        runs: dict[Path, list[dict[str, dict[str, Any]]]] = {task: [] for task in tasks}
        for _ in range(arguments.repeats):
            for task in tasks:
                run = {side: measure(side, task, python, arguments.threads) for side in SIDES}
                print(task.name, {side: round(run[side]["seconds"], 2) for side in SIDES}, flush=True)
                runs[task].append(run)
        report([summary(task, runs[task]) for task in tasks], conditions(arguments, python))


def conditions(arguments: argparse.Namespace, python: str) -> dict[str, Any]:
    """What the figures depend on, besides the machine."""
    import torch

    ask = "from importlib.metadata import version; print(version('lm_eval'))"
    harness = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
    cuda = torch.cuda.is_available()
    return {
        "model": Path(arguments.model).name,
        "device": torch.cuda.get_device_name(0) if cuda else "the CPU",
        "threads": arguments.threads,
        "batch_size": arguments.batch_size,
        "lm_eval": harness,
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()
