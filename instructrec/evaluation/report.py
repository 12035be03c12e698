"""What people read: a table on the screen, report.md, a self-contained report.html, and pictures."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from instructrec.core.files import atomic, write_text
from instructrec.core.schema import Estimate, Scores
from instructrec.evaluation.results import LABELS


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _interval(estimate: Estimate) -> str:
    low, high = estimate["ci95"]
    return f"{_number(estimate['value'])} [{_number(low)}, {_number(high)}]"


def _difference(estimate: Estimate) -> str:
    low, high = estimate["ci95"]
    value = estimate["value"] or 0.0
    if low is None or high is None:
        return f"{value:+.3f}"
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def rows(scores: Scores) -> list[dict[str, Any]]:
    """One row per suite and metric: text for every value, its interval and its difference against the first model."""
    first, *others = scores["models"]
    found = []
    for suite, entry in scores["suites"].items():
        for name, metric in entry["metrics"].items():
            baselines = [f"{key} {_number(metric[key])}" for key in ("majority", "chance") if metric[key] is not None]
            found.append(
                {
                    "suite": suite,
                    "n": metric["n"],
                    "metric": LABELS[name],
                    "reference": _interval(metric["values"][first]),
                    "others": [_interval(metric["values"][model]) for model in others],
                    "deltas": [_difference(metric["deltas"][model]) for model in others],
                    "baselines": ", ".join(baselines),
                }
            )
    return found


def show(scores: Scores) -> None:
    """Print the table: per suite and metric, before → after with 95 % intervals."""
    from rich.console import Console
    from rich.table import Table

    first, *others = scores["models"]
    table = Table(title="zero-shot, 95 % bootstrap intervals over items", title_justify="left")
    table.add_column("suite")
    table.add_column("n", justify="right")
    table.add_column("metric")
    table.add_column(first)
    for model in others:
        table.add_column(f"→ {model}")
        table.add_column("difference")
    table.add_column("baselines")
    suite = None
    for row in rows(scores):
        new = row["suite"] != suite
        if new and suite is not None:
            table.add_section()
        suite = row["suite"]
        pairs = [text for pair in zip(row["others"], row["deltas"], strict=True) for text in pair]
        table.add_row(
            suite if new else "",
            str(row["n"]),
            row["metric"],
            row["reference"],
            *pairs,
            row["baselines"],
        )
    console = Console()
    # Wrapped cells are unreadable, so that a narrow terminal or a log gets the width that the table needs.
    if not console.is_terminal or console.width < 120:
        console = Console(width=150)
    console.print(table)


def markdown(scores: Scores, settings: Mapping[str, Any]) -> str:
    """report.md: the table, and how it was measured."""
    first, *others = scores["models"]
    header = ["suite", "n", "metric", first, *(c for m in others for c in (f"→ {m}", "difference")), "baselines"]
    lines = [
        "# Zero-shot report",
        "",
        "| " + " | ".join(header) + " |",
        "| " + " | ".join("---" for _ in header) + " |",
    ]
    for row in rows(scores):
        pairs = [text for pair in zip(row["others"], row["deltas"], strict=True) for text in pair]
        cells = [row["suite"], str(row["n"]), row["metric"], row["reference"], *pairs, row["baselines"]]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "Values are means over items with 95 % percentile-bootstrap intervals (10,000 resamples of items); differences",
        "are paired by item. Gold NLL is in nats per token of the gold answer. Answers are greedy, "
        f"{settings['max_new_tokens']} tokens at most.",
        "",
        *(f"![{name}]({name}.png)" for name in scores["suites"] and _pictures(scores)),
        "",
    ]
    return "\n".join(lines)


def _pictures(scores: Scores) -> list[str]:
    present = {metric for entry in scores["suites"].values() for metric in entry["metrics"]}
    return [name for name in LABELS if name in present]


def draw(scores: Scores, folder: Path) -> None:
    """One PNG per metric: a point and its interval per suite and model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    models = scores["models"]
    for name in _pictures(scores):
        suites = [suite for suite, entry in scores["suites"].items() if name in entry["metrics"]]
        figure, axes = pyplot.subplots(figsize=(1.6 + 1.7 * len(suites), 3.6), layout="constrained")
        for place, model in enumerate(models):
            estimates = [scores["suites"][suite]["metrics"][name]["values"][model] for suite in suites]
            values = [e["value"] or 0.0 for e in estimates]
            low = [v - (v if (b := e["ci95"][0]) is None else b) for v, e in zip(values, estimates, strict=True)]
            high = [(v if (b := e["ci95"][1]) is None else b) - v for v, e in zip(values, estimates, strict=True)]
            shift = (place - (len(models) - 1) / 2) * 0.16
            positions = [i + shift for i in range(len(suites))]
            axes.errorbar(positions, values, yerr=[low, high], fmt="o", capsize=3, label=model)
        axes.set_xticks(range(len(suites)), suites)
        axes.set_xlim(-0.5, len(suites) - 0.5)
        axes.set_ylabel(LABELS[name])
        axes.grid(axis="y", alpha=0.3)
        axes.legend(frameon=False)
        with atomic(folder / f"{name}.png") as temporary:
            figure.savefig(temporary, dpi=120, format="png", metadata={"Software": None})
        pyplot.close(figure)


def write_report(
    scores: Scores, predictions: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], folder: Path
) -> None:
    """Write report.md, report.html and the pictures into `folder`."""
    draw(scores, folder)
    write_text(folder / "report.md", markdown(scores, settings))
    pictures = {name: base64.b64encode((folder / f"{name}.png").read_bytes()).decode() for name in _pictures(scores)}
    environment = Environment(
        loader=PackageLoader("instructrec.evaluation", "."), autoescape=True, undefined=StrictUndefined
    )
    items: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for prediction in predictions:
        items.setdefault((prediction["suite"], prediction["id"]), []).append(prediction)
    html = environment.get_template("report.html.jinja").render(
        scores=scores, rows=rows(scores), pictures=pictures, labels=LABELS, items=items, settings=settings
    )
    write_text(folder / "report.html", html)
