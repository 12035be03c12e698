"""How fast `instructrec build` is, and how much memory it takes, as a corpus grows.

    python benchmarks/build.py --source my_documents --sizes 10 100 --workers 1 2

A corpus of each size (MB) is made from the paragraphs of --source: recombined in random order, 40 % of their words
replaced by other words of the source, so that few documents are near duplicates. Each build runs as a process of its
own, whose CPU seconds and peak memory, with those of its workers, are read from the system ten times a second. Results
go to benchmarks/results as JSON, Markdown and a picture.

With --all-rows the balance keeps every row, so that a build does the same for each MB however large the corpus is.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from record import RESULTS, provenance

_WORD = re.compile(r"([A-Za-z]{3,})")
SPINE = (
    "title,section_heading,summary_sentence,continuation,missing_word,sentence_order,keywords_to_text,"
    "docstring_to_function,function_name,function_to_docstring"
)
"""The families that the first measurements were made with."""
MAXIMA = ("rows-per-family", "heldout-rows-per-family", "answer-words-per-family")


def paragraphs(sources: list[Path]) -> list[list[str]]:
    """For every text file below `sources` that has any, its paragraphs of 20 words or more."""
    found = []
    for path in sorted(path for source in sources for path in source.rglob("*")):
        if path.suffix in {".md", ".rst", ".txt"} and path.is_file():
            text = path.read_text(encoding="utf-8", errors="ignore")
            page = [p for p in re.split(r"\n\s*\n", text) if len(p.split()) >= 20 and not p.startswith((" ", ".."))]
            found += [page] if page else []
    return found


def make_corpus(sources: list[Path], folder: Path, megabytes: float, seed: int = 0) -> int:
    """Write about `megabytes` of recombined pages into `folder` and return their bytes.

    A page has as many paragraphs as a page of the source, three at least, and a heading above every fourth.
    """
    rng = np.random.default_rng(seed)
    pages = paragraphs(sources)
    if not pages:
        raise SystemExit(f"error: {sources}: no paragraphs of 20 words in .md, .rst or .txt files")
    # A paragraph as its words, at the odd places, and what stands between them.
    pool = [np.array(_WORD.split(paragraph), object) for page in pages for paragraph in page]
    vocabulary = np.array(sorted({word for parts in pool for word in parts[1::2]}), object)

    def words(n: int) -> list[str]:
        return vocabulary[rng.integers(len(vocabulary), size=n)].tolist()

    def replaced(parts: np.ndarray) -> str:
        drawn = 1 + 2 * np.flatnonzero(rng.random(len(parts) // 2) < 0.4)
        parts = parts.copy()
        parts[drawn] = words(len(drawn))
        return "".join(parts.tolist())

    written = number = 0
    while written < megabytes * 1e6:
        parts = [f"# {' '.join(words(3)).title()}"]
        for _ in range(max(len(pages[rng.integers(len(pages))]), 3)):
            if rng.random() < 0.25:
                parts.append(f"## {' '.join(words(2)).title()}")
            parts.append(replaced(pool[rng.integers(len(pool))]))
        page = ("\n\n".join(parts) + "\n").encode()
        place = folder / f"{number // 1000:04d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:07d}.md").write_bytes(page)
        written, number = written + len(page), number + 1
    return written


def measure(corpus: Path, options: list[str], gates: str, workers: int) -> dict[str, float]:
    """Build once: CPU seconds of all processes, wall seconds, peak MiB of the largest process, and what came out."""
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch, "set")
        command = [sys.executable, "-m", "instructrec", "build", "--corpus", str(corpus), "--output", str(output)]
        command += ["--workers", str(workers), *(["--gates", "none"] if gates == "off" else [])]
        command += options
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            cpu, memory = watch(process)
        wall = time.perf_counter() - started
        if process.returncode:
            raise SystemExit(f"error: the build failed with exit code {process.returncode}")
        manifest = json.loads((output / "manifest.json").read_text())
        return {
            "cpu_s": cpu,
            "wall_s": wall,
            "peak_mib": memory,
            "rows": sum(manifest["splits"].values()),
            "documents": manifest["corpus"]["documents"],
            "near_duplicates": manifest["corpus"]["near_duplicates"],
        }


def watch(process: subprocess.Popen) -> tuple[float, float]:
    """CPU seconds of a process and all below it until it ends, and the peak MiB of the largest.

    Workers are forked by a server that nobody waits for, so the system's account of children misses them.
    """
    cpu: dict[int, float] = {}
    peak = 0.0
    root = psutil.Process(process.pid)
    while process.poll() is None:
        for member in [root, *root.children(recursive=True)]:
            try:
                times = member.cpu_times()
                cpu[member.pid] = times.user + times.system
                status = Path(f"/proc/{member.pid}/status").read_text()
                peak = max(peak, int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024)
            except (psutil.Error, OSError, TypeError):  # it ended meanwhile
                continue
        time.sleep(0.1)
    return sum(cpu.values()), peak


def speedups(groups: dict[tuple, list[dict]], startup: dict, mb: float, gates: str, workers: int) -> list[float]:
    """How many times as fast as one worker each build was, sorted: against that of the same turn, net of start-up."""
    pairs = zip(groups.get((mb, gates, 1), ()), groups[mb, gates, workers], strict=False)
    one, many = (startup.get((gates, n), {}).get("wall_s", 0.0) for n in (1, workers))
    return sorted((first["wall_s"] - one) / (row["wall_s"] - many) for first, row in pairs)


def summary(results: list[dict], startup: dict[tuple[str, int], dict[str, float]]) -> list[dict]:
    """One entry for each size and setting: the median over its runs, and the range of its speed net of start-up."""
    groups: dict[tuple, list[dict]] = {}
    for row in results:
        groups.setdefault((row["mb"], row["gates"], row["workers"]), []).append(row)
    entries = []
    for (mb, gates, workers), rows in groups.items():
        start = startup[gates, workers]
        speeds = sorted(mb / (row["cpu_s"] - start["cpu_s"]) for row in rows)
        entry = {key: statistics.median(row[key] for row in rows) for key in ("cpu_s", "wall_s", "peak_mib")}
        net = entry["wall_s"] - start["wall_s"]
        entry |= {"mb": mb, "gates": gates, "workers": workers, "n": len(rows), "mb_per_s": mb / net}
        entry["speedup"] = speedups(groups, startup, mb, gates, workers)
        entry |= {"mb_per_cpu_s": statistics.median(speeds), "slowest": speeds[0], "fastest": speeds[-1]}
        entries.append(entry | {key: rows[0][key] for key in ("rows", "documents", "near_duplicates")})
    return entries


def draw(entries: list[dict], path: Path) -> None:
    """MB per CPU-second and peak memory against corpus size, one line per setting."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for gates, workers in sorted({(e["gates"], e["workers"]) for e in entries}):
        chosen = [e for e in entries if (e["gates"], e["workers"]) == (gates, workers)]
        for axis, key in zip(axes, ("mb_per_cpu_s", "peak_mib"), strict=True):
            label = f"gates {gates}, {workers} worker{'s' * (workers > 1)}"
            axis.plot([e["mb"] for e in chosen], [e[key] for e in chosen], "o-", label=label)
    for axis, label in zip(axes, ("MB per CPU-second, net of start-up", "peak of a process, MiB"), strict=True):
        axis.set(xscale="log", xlabel="corpus, MB", ylabel=label, ylim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, nargs="+", help="folders of text; default: Python's help topics")
    parser.add_argument("--sizes", type=float, nargs="+", default=[10.0], help="MB")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--families", default=SPINE, help="names, or `all`; default: %(default)s")
    parser.add_argument("--all-rows", action="store_true", help="no maxima: every document is asked for all it has")
    parser.add_argument("--runs", type=int, default=3, help="builds of every size and setting; default: %(default)s")
    arguments = parser.parse_args()
    options = ["--families", arguments.families] if arguments.families != "all" else []
    if arguments.all_rows:
        options += [part for name in MAXIMA for part in (f"--{name}", str(10**9))]
    # Kept apart, since they answer different questions.
    name = f"build{'-all-families' * (arguments.families == 'all')}{'-all-rows' * arguments.all_rows}"
    settings = [(gates, workers) for gates in ("off", "on") for workers in arguments.workers]
    results: list[dict] = []
    with tempfile.TemporaryDirectory() as scratch:
        sources = arguments.source or [_topics(Path(scratch, "topics"))]
        make_corpus(sources, Path(scratch, "least"), 0.05)
        startup = {
            setting: sorted(
                (measure(Path(scratch, "least"), options, *setting) for _ in range(arguments.runs)),
                key=lambda row: row["wall_s"],
            )[arguments.runs // 2]
            for setting in settings
        }
        for size in arguments.sizes:
            corpus = Path(scratch, f"corpus-{size:g}")
            written = make_corpus(sources, corpus, size)
            # Turn by turn, so that a slow minute of the machine does not fall on one setting.
            for gates, workers in settings * arguments.runs:
                found = measure(corpus, options, gates, workers)
                row = {"mb": written / 1e6, "gates": gates, "workers": workers, **found}
                results.append(row)
                print({k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
                report(name, settings, startup, results)
            shutil.rmtree(corpus)


def report(name: str, settings: list[tuple[str, int]], startup: dict, results: list[dict]) -> None:
    """Write what was measured so far as JSON, Markdown and a picture."""
    entries = summary(results, startup)
    RESULTS.mkdir(exist_ok=True)
    record = {
        **provenance(),
        "startup": [{"gates": gates, "workers": workers, **row} for (gates, workers), row in startup.items()],
        "runs": results,
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
    lines = [
        "| MB | gates | workers | n | MB per CPU-s [slowest, fastest] | MB per s | times one worker [least, most] | MiB"
        " | rows | documents | alike |",
        "| ---: | --- |" + " ---: |" * 9,
    ]
    lines += [
        f"| {e['mb']:.0f} | {e['gates']} | {e['workers']} | {e['n']} | {e['mb_per_cpu_s']:.2f} [{e['slowest']:.2f},"
        f" {e['fastest']:.2f}] | {e['mb_per_s']:.2f} | {_median_of(e['speedup'])} | {e['peak_mib']:.0f} | {e['rows']} |"
        f" {e['documents']} | {e['near_duplicates']} |"
        for e in entries
    ]
    text = f"""# Building

`{record["command"]}`, {record["date"]}, {record["machine"]}.

Speeds are medians of n runs and net of start-up, which is the cost of a corpus of 50 kB
({startup[settings[0]]["cpu_s"]:.1f} CPU-seconds). The peak is that of the largest process.

"""
    (RESULTS / f"{name}.md").write_text(text + "\n".join(lines) + f"\n\n![{name}]({name}.png)\n")
    draw(entries, RESULTS / f"{name}.png")


def _median_of(sorted_: list[float]) -> str:
    return f"{statistics.median(sorted_):.2f} [{sorted_[0]:.2f}, {sorted_[-1]:.2f}]" if sorted_ else "–"


def _topics(folder: Path) -> Path:
    """Python's help topics as files."""
    from pydoc_data.topics import topics

    folder.mkdir(parents=True)
    for name, text in topics.items():
        (folder / f"{name}.rst").write_text(text, encoding="utf-8")
    return folder


if __name__ == "__main__":
    main()
