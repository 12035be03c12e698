"""What people read: tables on the screen, report.md, and report.html, a page of its own in which every item opens."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from instructrec.core.checks import satisfied, satisfied_loose
from instructrec.core.files import write_text
from instructrec.core.schema import Category, Estimate, Scores, Suite
from instructrec.evaluation.pictures import RUNG_TITLES, category_metric, draw, headline, ladder_suites, short_names
from instructrec.evaluation.results import LABELS
from instructrec.evaluation.scoring import OPEN_LIMIT

TokenText = Callable[[int], str]
"""Token id → its text; a part of a character is U+FFFD."""

_REACH = 8
"""Characters that one token which does not stand in a text as it is may cover."""

_INTERVALS = (
    "Values are means over n items with 95 % percentile-bootstrap intervals (10,000 resamples of items); differences "
    "are paired by item, after minus before."
)
_LADDER = (
    "Each field: the mean, its 95 % interval and the number of items; below it median, quartiles and number of the "
    "means per template."
)


class Row(NamedTuple):
    """A table's row. `verdict` is "better" or "worse" where the interval of its difference leaves out zero, else ""."""

    cells: list[str]
    verdict: str = ""


class Table(NamedTuple):
    """A table, as screen, Markdown and HTML show it alike."""

    header: list[str]
    rows: list[Row]


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


def _verdict(metric: str, delta: Estimate) -> str:
    low, high = delta["ci95"]
    if low is None or high is None or low <= 0 <= high:
        return ""
    return "better" if (high < 0) == LABELS[metric].endswith("↓") else "worse"


def suite_table(entry: Suite | Category, models: Sequence[str], names: Sequence[str] | None = None) -> Table:
    """Every metric (or those of `names`) before and after: one row for each metric and model but the first."""
    first, *others = short_names(models).values()
    header = ["metric", "n", "majority", "chance", first]
    if len(others) == 1:
        header += [f"→ {others[0]}", "difference"]
    elif others:
        header += ["model", "→", "difference"]
    rows = []
    for name in LABELS if names is None else names:
        if (metric := entry["metrics"].get(name)) is None:
            continue
        baselines = ["" if value is None else _number(value) for value in (metric["majority"], metric["chance"])]
        cells = [LABELS[name], str(metric["n"]), *baselines, _interval(metric["values"][models[0]])]
        for model, short in zip(models[1:], others, strict=True):
            delta = metric["deltas"][model]
            after = [_interval(metric["values"][model]), _difference(delta)]
            rows.append(Row([*cells, *([short] if len(others) > 1 else []), *after], _verdict(name, delta)))
            cells = [""] * len(cells)
        if not others:
            rows.append(Row(cells))
    return Table(header, rows)


def category_table(suite: Suite, models: Sequence[str]) -> Table:
    """What `families.png` draws, in numbers and complete: every category's row of one metric."""
    header: list[str] = []
    rows = []
    for name, category in sorted(suite["categories"].items()):
        header, found = suite_table(category, models, [category_metric(suite)])
        rows += [Row([name if i == 0 else "", *row.cells], row.verdict) for i, row in enumerate(found)]
    return Table(["category", *header], rows)


def ladder_table(scores: Scores) -> Table | None:
    """The rungs side by side: a row per metric and model; null where fewer than two rungs were scored."""
    rungs = ladder_suites(scores)
    if not rungs:
        return None
    rows = []
    for name in headline(rungs.values()):
        label = LABELS[name]
        for model, short in short_names(scores["models"]).items():
            cells = []
            for suite in rungs.values():
                metric = suite["metrics"].get(name)
                cells.append("" if metric is None else _rung(metric["values"][model], metric["n"]))
            rows.append(Row([label, short, *cells]))
            label = ""
    return Table(["metric", "model", *(RUNG_TITLES[rung] for rung in rungs)], rows)


def _rung(estimate: Estimate, n: int) -> str:
    text = f"{_interval(estimate)} {n}"
    if templates := estimate.get("templates"):
        low, high = templates["quartiles"]
        text += f"\n{_number(templates['median'])} ({_number(low)}, {_number(high)}) {templates['n']}"
    return text


def overlap_note(suite: Suite) -> str:
    """How many items share text with what a model was trained on, where that is known."""
    if suite["overlap"] is None:
        return ""
    kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(suite["overlap"].items()))
    shared = sum(suite["overlap"].values())
    if not shared:
        return f"None of {suite['n']} items overlaps with the training data."
    return f"{shared} of {suite['n']} items overlap with the training data ({kinds}); {suite['n'] - shared} are clean."


def _title(settings: Mapping[str, Any]) -> str:
    shots = settings.get("shots") or 0
    return f"{shots}-shot report" if shots else "Zero-shot report"


def _answers(settings: Mapping[str, Any]) -> str:
    limit = settings.get("max_new_tokens")
    most = f"of {limit} tokens at most"
    if limit is None:
        most = (
            "of at most twice as many tokens as 95 % of the gold answers of their category have, "
            f"{OPEN_LIMIT} where there are none"
        )
    answers = "No answers were asked for." if limit == 0 else f"Answers are greedy, {most}."
    return f"Gold NLL is in nats per token of the gold answer. {answers}"


def show(scores: Scores) -> None:
    """Print the tables: every suite's metrics before and after with 95 % intervals, and the ladder."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    def grid(title: str, table: Table, note: str, first: int = 0) -> Grid:
        shown = Grid(title=Text(title, "bold"), caption=note or None, box=box.SIMPLE_HEAD)
        shown.pad_edge = shown.show_edge = False
        shown.collapse_padding = True
        shown.title_justify = shown.caption_justify = "left"
        for place, name in enumerate(table.header):
            right = name in ("n", "majority", "chance")
            width = 0 if place else first
            shown.add_column(Text(name), justify="right" if right else "left", min_width=width, no_wrap=True)
        for row in table.rows:
            *cells, last = row.cells
            style = {"better": "green", "worse": "red"}.get(row.verdict, "")
            shown.add_row(*map(Text, cells), Text(last, style))
        return shown

    # Suites are below one another, and so are their columns.
    width = max(len(LABELS[name]) for suite in scores["suites"].values() for name in suite["metrics"])
    grids = [
        grid(f"{name}: {suite['n']} items", suite_table(suite, scores["models"]), overlap_note(suite), width)
        for name, suite in scores["suites"].items()
    ]
    if (ladder := ladder_table(scores)) is not None:
        grids.append(grid("generalization ladder", ladder, _LADDER))
    console = Console(highlight=False)
    # Wrapped cells are unreadable, so that a narrow terminal or a log gets the width that the tables need.
    needed = max(console.measure(g, options=console.options.update(width=1000)).maximum for g in grids)
    if console.width < needed:
        console = Console(width=needed, highlight=False)
    console.print(_INTERVALS)
    for shown in grids:
        console.print()
        console.print(shown)


def markdown(scores: Scores, settings: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """report.md: the tables, how they were measured, and links to the pictures (file name → what is in it)."""
    models = scores["models"]
    lines = [f"# {_title(settings)}", "", f"{_INTERVALS} {_answers(settings)}", ""]
    lines += [f"- {_cell(short)} = {_cell(model)}" for model, short in short_names(models).items() if short != model]
    if (ladder := ladder_table(scores)) is not None:
        lines += ["", "## Generalization ladder", "", *_pipes(ladder), "", _LADDER]
    for name, suite in scores["suites"].items():
        lines += ["", f"## {_cell(name)}: {suite['n']} items", "", *_pipes(suite_table(suite, models))]
        if note := overlap_note(suite):
            lines += ["", note]
    for file, title in pictures.items():
        lines += ["", f"![{title}]({file})"]
    if any(suite["categories"] for suite in scores["suites"].values()):
        lines += ["", "Every category's numbers, and every item, are in [report.html](report.html)."]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text as one cell of a Markdown table, where a name's own marks stay text."""
    for mark in ("\\", "|", "<", "*", "_", "`"):
        text = text.replace(mark, "&lt;" if mark == "<" else "\\" + mark)
    return "<br>".join(" ".join(line.split()) for line in text.split("\n"))


def _pipes(table: Table) -> list[str]:
    rows = [table.header, ["---"] * len(table.header), *(row.cells for row in table.rows)]
    return ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]


def token_lengths(text: str, pieces: Sequence[str]) -> list[int]:
    """How much of `text` each token stands for, in UTF-16 units, which JavaScript counts.

    A token that is a part of a character decodes to U+FFFD, and some tokenizers drop the blank that a token begins
    with, so that the tokens' own texts (`pieces`) are looked for in the text. What lies between two that were found is
    the last one's of those between; the others get 0.
    """
    if not pieces:
        return []
    ends, place, waiting = [0] * len(pieces), 0, 0
    for i, piece in enumerate(pieces):
        start = -1
        if text.startswith(piece, place):
            start = place
        elif piece and "\ufffd" not in piece:
            start = text.find(piece, place, place + _REACH * (waiting + 1) + len(piece))
        if start < 0 or not piece or (not waiting and text[place:start].strip()):
            ends[i] = place
            waiting += 1
            continue
        if waiting:
            ends[i - 1] = start
        place = ends[i] = start + len(piece)
        waiting = 0
    ends[-1] = len(text)
    spans = zip([0, *ends], ends, strict=False)
    return [len(text[a:b].encode("utf-16-le", "surrogatepass")) // 2 for a, b in spans]


def payload(scores: Scores, predictions: Sequence[Mapping[str, Any]], token_text: TokenText) -> dict[str, Any]:
    """What the page's script renders: every item once, with one answer for each model in the models' order."""
    piece = cache(token_text)
    models = scores["models"]
    names = [name for name in LABELS if any(name in prediction["scores"] for prediction in predictions)]
    items: dict[tuple[str, str], dict[str, Any]] = {}
    for line in predictions:
        key = line["suite"], line["id"]
        if key not in items:
            items[key] = {name: line[name] for name in ("suite", "id", "category", "prompt", "targets")}
            items[key] |= {name: line[name] for name in ("template", "choices", "overlap") if line[name] is not None}
            items[key]["tokens"] = token_lengths(line["prompt"], [piece(token) for token in line["prompt_ids"]])
            items[key]["answers"] = [None] * len(models)
            if line["checks"] is not None:
                items[key]["checks"] = json.loads(line["checks"])
        items[key]["answers"][models.index(line["model"])] = _answer(line, names, piece)
    return {
        "models": list(short_names(models).values()),
        "metrics": names,
        "labels": [LABELS[name] for name in names],
        "items": list(items.values()),
    }


def _answer(line: Mapping[str, Any], names: Sequence[str], piece: TokenText) -> dict[str, Any]:
    """One model's answer as the page holds it: scores in the order of `names`, null where it has none."""
    scores = [line["scores"].get(name) for name in names]
    answer: dict[str, Any] = {"scores": [None if value is None else round(value, 4) for value in scores]}
    if line["choice_logprobs"] is not None:
        answer["logprobs"] = [round(value, 3) for value in line["choice_logprobs"]]
    if line["output"] is None:
        return answer
    answer |= {"output": line["output"], "stopped": line["stopped"], "n": len(line["output_ids"])}
    answer["tokens"] = token_lengths(line["output"], [piece(token) for token in line["output_ids"]])
    if line["checks"] is not None:
        answer["met"] = satisfied(line["checks"], line["output"])
        answer["met_loose"] = satisfied_loose(line["checks"], line["output"])
    return answer


def write_report(
    scores: Scores,
    predictions: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    folder: Path,
    token_text: TokenText,
) -> None:
    """Write report.md, report.html and the pictures into `folder`.

    Args:
        predictions: the lines of `predictions.jsonl`.
        settings: the evaluation's arguments; `max_new_tokens` may be null, for limits by category.
        token_text: the text of one token, special ones included.
    """
    models = scores["models"]
    pictures = draw(scores, folder)
    write_text(folder / "report.md", markdown(scores, settings, pictures))
    environment = Environment(
        loader=PackageLoader("instructrec.evaluation", "."), autoescape=True, undefined=StrictUndefined
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    html = environment.get_template("report.html.jinja").render(
        title=_title(settings),
        how=f"{_INTERVALS} {_answers(settings)}",
        models=short_names(models),
        ladder=ladder_table(scores),
        ladder_note=_LADDER,
        suites=[
            {
                "name": name,
                "n": suite["n"],
                "note": overlap_note(suite),
                "table": suite_table(suite, models),
                "categories": category_table(suite, models) if suite["categories"] else None,
            }
            for name, suite in scores["suites"].items()
        ],
        pictures=[(title, base64.b64encode((folder / file).read_bytes()).decode()) for file, title in pictures.items()],
        settings=settings,
        data=payload(scores, predictions, token_text),
    )
    # Half of a surrogate pair, as JSON can hold it, is no character of UTF-8.
    write_text(folder / "report.html", html.encode("utf-8", "replace").decode("utf-8"))
