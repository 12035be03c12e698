"""Pictures of an evaluation: the generalization ladder, the differences by category, and the other suites."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructrec.core.files import atomic
from instructrec.core.schema import Estimate, Metric, Scores, Suite
from instructrec.evaluation.results import LABELS
from instructrec.evaluation.suites import RUNGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RUNG_TITLES = dict(
    zip(RUNGS, ("train sample", "unseen documents", "unseen templates", "unseen task groups"), strict=True)
)
"""Rung → what is new in it."""

HEADLINE = (
    *("gold_nll", "rouge_l", "calibrated_accuracy", "accuracy", "all_constraints", "exact_match"),
    *("bits_per_byte", "option_mass", "stop_rate"),
)
"""The metrics that matter most, first those that a small model moves."""

MOST_CATEGORIES = 40
"""Categories of a suite that a picture shows at most."""

_COLOURS = ("#4d4d4d", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Those of Okabe and Ito (2008), which the colour-blind can tell apart; the reference is grey."""

_MARKERS = "osD^vPX"
_WIDTH = 9.0
"""Inches; with the fonts below legible at the width of a README."""

_FONTS = ("Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "PingFang SC", "Microsoft YaHei")
"""Used for what the default font lacks, where installed."""


def short_names(models: Sequence[str]) -> dict[str, str]:
    """Model → the last parts of its path, as many as tell the models apart."""
    parts = [model.rstrip("/").split("/") for model in models]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if all(names) and len(set(names)) == len(names):
            return dict(zip(models, names, strict=True))
    return {model: model for model in models}


def ladder_suites(scores: Scores) -> dict[str, Suite]:
    """The rungs that were scored, in order; none where there is only one."""
    rungs = {rung: scores["suites"][rung] for rung in RUNGS if rung in scores["suites"]}
    return rungs if len(rungs) > 1 else {}


def headline(suites: Iterable[Suite], most: int = 4) -> list[str]:
    """The metrics that matter most among those that the suites have."""
    present = {name for suite in suites for name in suite["metrics"]}
    return [name for name in dict.fromkeys((*HEADLINE, *LABELS)) if name in present][:most]


def category_metric(suite: Suite) -> str:
    """What a suite's categories are compared by: the gold answer's NLL, or the first metric where none has one."""
    return next(name for name in LABELS if name in suite["metrics"])


def draw(scores: Scores, folder: Path) -> dict[str, str]:
    """Write the pictures that there is something for into `folder`; return file name → what is in it."""
    import matplotlib
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    settings: Any = {
        "font.family": ["DejaVu Sans", *(name for name in _FONTS if name in installed)],
        "font.size": 9.5,
        "axes.titlesize": 10.5,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "grid.alpha": 0.3,
        "text.parse_math": False,  # a dollar sign in a name is one
    }
    pictures: dict[str, tuple[Callable[[Scores], Figure | None], str]] = {
        "ladder.png": (_ladder, "The generalization ladder: each model on the rungs of the set"),
        "families.png": (_families, "Differences by category"),
        "suites.png": (_suites, "Each model on the other suites"),
    }
    drawn = {}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a script that no font here has is drawn as boxes
        for name, (make, title) in pictures.items():
            (folder / name).unlink(missing_ok=True)  # an earlier evaluation's
            if (figure := make(scores)) is not None:
                with atomic(folder / name) as temporary:
                    figure.savefig(temporary, dpi=120, format="png", metadata={"Software": None})
                drawn[name] = title
    return drawn


def _text(name: str, most: int = 34) -> str:
    """A name as it can stand on an axis; what tells it apart is at its beginning or its end."""
    line = "".join(c if c.isprintable() else " " for c in name)
    return line if len(line) <= most else f"{line[: most - 11]}…{line[-10:]}"


def _style(models: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Model → colour and marker, the same in every picture."""
    return {
        model: {"color": _COLOURS[i % len(_COLOURS)], "marker": _MARKERS[i % len(_MARKERS)]}
        for i, model in enumerate(models)
    }


def _values(estimates: Sequence[Estimate]) -> tuple[list[float], list[list[float]]]:
    """Values, and how far their intervals reach down and up: not at all where there is none."""
    values = [math.nan if (value := estimate["value"]) is None else value for estimate in estimates]
    reach: list[list[float]] = [[], []]
    for value, estimate in zip(values, estimates, strict=True):
        low, high = (value if bound is None else bound for bound in estimate["ci95"])
        reach[0].append(max(0.0, value - low))
        reach[1].append(max(0.0, high - value))
    return values, reach


def _figure(height: float, ratios: Sequence[float], columns: int) -> tuple[Figure, list[Axes]]:
    """A figure with a grid of axes, row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    grid = figure.subplots(len(ratios), columns, squeeze=False, gridspec_kw={"height_ratios": ratios})
    return figure, list(grid.flat)


def _finish(figure: Figure, handles: Mapping[str, Any], caption: str) -> None:
    """A legend above, and below it what the marks mean."""
    columns = max(1, min(len(handles), 130 // (max(map(len, handles)) + 6)))
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=columns, frameon=False)
    figure.supxlabel(caption, fontsize=8.5, x=0.01, ha="left", color="#444444")


def _baselines(axes: Axes, positions: Sequence[float], metrics: Sequence[Metric], across: bool) -> dict[str, Any]:
    """Short lines where guessing by majority or by chance would be; `across` axes have their values on x."""
    handles = {}
    for key, line in (("majority", "--"), ("chance", ":")):
        known = [(p, value) for p, metric in zip(positions, metrics, strict=True) if (value := metric[key]) is not None]  # type: ignore[literal-required]
        if known:
            places, values = [p for p, _ in known], [value for _, value in known]
            lines = axes.vlines if across else axes.hlines
            ends = [p - 0.4 for p in places], [p + 0.4 for p in places]
            handles[key] = lines(values, *ends, color="#888888", linestyle=line, linewidth=1.3, zorder=1)
    return handles


def _ladder(scores: Scores) -> Figure | None:
    """One panel per metric, the rungs in order on x, one line per model."""
    rungs = ladder_suites(scores)
    if not rungs:
        return None
    names, short, styles = headline(rungs.values()), short_names(scores["models"]), _style(scores["models"])
    columns = min(2, len(names))
    rows = math.ceil(len(names) / columns)
    figure, panels = _figure(1.2 + 2.9 * rows, [1.0] * rows, columns)
    handles: dict[str, Any] = {}
    guesses: dict[str, Any] = {}
    spread = False
    for axes, name in zip(panels, names, strict=False):
        present = [(x, suite["metrics"][name]) for x, suite in enumerate(rungs.values()) if name in suite["metrics"]]
        metrics = [metric for _, metric in present]
        for place, (model, style) in enumerate(styles.items()):
            shift = (place - (len(styles) - 1) / 2) * min(0.16, 0.6 / len(styles))
            positions = [x + shift for x, _ in present]
            estimates = [metric["values"][model] for metric in metrics]
            values, reach = _values(estimates)
            bars = axes.errorbar(positions, values, reach, capsize=3, markersize=5, linewidth=1.2, **style)
            handles[_text(short[model], 60)] = bars
            for x, estimate in zip(positions, estimates, strict=True):
                if templates := estimate.get("templates"):
                    spread = True
                    low, high = templates["quartiles"]
                    axes.vlines(x, low, high, color=style["color"], alpha=0.22, linewidth=9, zorder=1)
                    axes.plot(x, templates["median"], "_", color=style["color"], alpha=0.7, markersize=11, zorder=1)
        guesses |= _baselines(axes, [x for x, _ in present], metrics, across=False)
        counts = {x: f"\nn = {metric['n']}" for x, metric in present}
        titles = [RUNG_TITLES[rung].replace(" ", "\n", 1) for rung in rungs]
        axes.set_xticks(range(len(rungs)), [title + counts.get(x, "") for x, title in enumerate(titles)])
        axes.set_xlim(-0.5, len(rungs) - 0.5)
        axes.set_title(LABELS[name])
        axes.grid(axis="y")
    for axes in panels[len(names) :]:
        axes.remove()
    caption = "Marks: means over n items. Thin bars: 95 % bootstrap intervals."
    if spread:
        caption += " Pale bars and dashes: quartiles and median of the means per template."
    _finish(figure, handles | guesses, caption)
    return figure


def _families(scores: Scores) -> Figure | None:
    """Per suite with several categories, a bar for each category and model: the difference to the first model."""
    first, *others = scores["models"]
    # A suite's clean part has the categories of the whole.
    suites = {
        name: suite
        for name, suite in scores["suites"].items()
        if len(suite["categories"]) > 1 and name.removesuffix(", clean") not in scores["suites"].keys() - {name}
    }
    if not others or not suites:
        return None
    short, styles = short_names(scores["models"]), _style(scores["models"])
    chosen = {name: _sorted_categories(suite) for name, suite in suites.items()}
    heights = [1.0 + max(0.2, 0.12 * len(others) + 0.08) * len(shown) for shown, _ in chosen.values()]
    figure, panels = _figure(1.0 + sum(heights), heights, 1)
    handles: dict[str, Any] = {}
    for axes, (name, (shown, left_out)) in zip(panels, chosen.items(), strict=True):
        measured = category_metric(suites[name])
        thickness = 0.8 / len(others)
        for place, model in enumerate(others):
            positions = [y + (place - (len(others) - 1) / 2) * thickness for y in range(len(shown))]
            values, reach = _values([metric["deltas"][model] for _, metric in shown])
            colour = styles[model]["color"]
            bars = axes.barh(positions, values, thickness * 0.92, color=colour, alpha=0.55)
            axes.errorbar(values, positions, xerr=reach, fmt="none", ecolor=colour, elinewidth=1.3, capsize=1.5)
            handles[_text(short[model], 60)] = bars
        axes.axvline(0, color="#222222", linewidth=0.9)
        axes.set_yticks(range(len(shown)), [f"{_text(category)} ({metric['n']})" for category, metric in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.grid(axis="x")
        axes.set_title(_text(name, 60))
        better = "← better" if LABELS[measured].endswith("↓") else "better →"
        note = f"; not shown: the {left_out} categories in between" if left_out else ""
        axes.set_xlabel(f"difference in {LABELS[measured][:-2]} ({better}){note}", fontsize=8.5)
    reference = _text(short[first], 60)
    _finish(figure, handles, f"Differences to {reference}, paired by item, with 95 % bootstrap intervals; (n) items.")
    return figure


def _sorted_categories(suite: Suite) -> tuple[list[tuple[str, Metric]], int]:
    """Categories from the most improved to the least, and how many were left out in the middle."""
    measured = category_metric(suite)
    sign = 1 if LABELS[measured].endswith("↓") else -1
    found = [(name, c["metrics"][measured]) for name, c in suite["categories"].items() if measured in c["metrics"]]
    found.sort(key=lambda pair: sign * sum(delta["value"] or 0.0 for delta in pair[1]["deltas"].values()))
    left_out = max(0, len(found) - MOST_CATEGORIES)
    half = MOST_CATEGORIES // 2
    return (found[:half] + found[-half:] if left_out else found), left_out


def _suites(scores: Scores) -> Figure | None:
    """One panel per metric for what is not on the ladder: a point for each suite and model."""
    suites = {name: suite for name, suite in scores["suites"].items() if name not in ladder_suites(scores)}
    names = headline(suites.values(), 8)
    if not names:
        return None
    short, styles = short_names(scores["models"]), _style(scores["models"])
    columns = min(2, len(names))
    having = [
        [(suite, entry["metrics"][name]) for suite, entry in suites.items() if name in entry["metrics"]]
        for name in names
    ]
    each = 0.16 * len(styles) + 0.16
    heights = [0.8 + each * max(map(len, having[i : i + columns])) for i in range(0, len(names), columns)]
    figure, panels = _figure(1.0 + sum(heights), heights, columns)
    handles: dict[str, Any] = {}
    guesses: dict[str, Any] = {}
    for axes, name, present in zip(panels, names, having, strict=False):
        metrics = [metric for _, metric in present]
        for place, (model, style) in enumerate(styles.items()):
            positions = [y + (place - (len(styles) - 1) / 2) * 0.8 / len(styles) for y in range(len(present))]
            values, reach = _values([metric["values"][model] for metric in metrics])
            bars = axes.errorbar(values, positions, xerr=reach, linestyle="none", capsize=2, markersize=5, **style)
            handles[_text(short[model], 60)] = bars
        guesses |= _baselines(axes, range(len(present)), metrics, across=True)
        axes.set_yticks(range(len(present)), [f"{_text(suite, 24)} ({metric['n']})" for suite, metric in present])
        axes.set_ylim(len(present) - 0.4, -0.6)
        axes.set_title(LABELS[name])
        axes.grid(axis="x")
    for axes in panels[len(names) :]:
        axes.remove()
    _finish(figure, handles | guesses, "Marks: means over (n) items. Bars: 95 % bootstrap intervals.")
    return figure
