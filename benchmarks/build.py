"""How fast `instructrec build` is, and how much memory it takes, as a corpus grows.

    python benchmarks/build.py --source my_documents --sizes 10 100 --workers 1 2

A corpus of each size (MB) is made from the paragraphs of --source: recombined in random order, 40 % of their words
replaced by other words of the source, so that few documents are near duplicates. Each build runs as a process of its
own; CPU seconds and peak memory are the operating system's account of it and its workers. Results go to
benchmarks/results as JSON, Markdown and a picture.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results"
_WORD = re.compile(r"([A-Za-z]{3,})")


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


def measure(corpus: Path, gates: str, workers: int) -> dict[str, float]:
    """Build once and return CPU and wall seconds, the largest process's peak memory in MiB, rows and documents."""
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch, "set")
        command = [sys.executable, "-m", "instructrec", "build", "--corpus", str(corpus), "--output", str(output)]
        command += ["--workers", str(workers), *(["--gates", "none"] if gates == "off" else [])]
        # A process of its own waits for the build, so that its account of children holds this build alone.
        code = (
            "import json, resource, subprocess, sys\n"
            "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
            "use = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
            "print(json.dumps([done.returncode, use.ru_utime + use.ru_stime, use.ru_maxrss / 1024]))\n"
        )
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code, *command], stdout=subprocess.PIPE, text=True, check=True)
        wall = time.perf_counter() - started
        status, cpu, memory = json.loads(done.stdout)
        if status:
            raise SystemExit(f"error: the build failed with exit code {status}")
        manifest = json.loads((output / "manifest.json").read_text())
        return {
            "cpu_s": cpu,
            "wall_s": wall,
            "peak_mib": memory,
            "rows": sum(manifest["splits"].values()),
            "mined_documents": manifest["corpus"]["documents"],
            "near_duplicates": manifest["corpus"]["near_duplicates"],
        }


def draw(results: list[dict], path: Path) -> None:
    """MB per CPU-second and peak memory against corpus size, one line per setting."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for gates, workers in sorted({(r["gates"], r["workers"]) for r in results}):
        chosen = [r for r in results if (r["gates"], r["workers"]) == (gates, workers)]
        for axis, key in zip(axes, ("mb_per_cpu_s", "peak_mib"), strict=True):
            label = f"gates {gates}, {workers} worker{'s' * (workers > 1)}"
            axis.plot([r["mb"] for r in chosen], [r[key] for r in chosen], "o-", label=label)
    for axis, label in zip(axes, ("MB per CPU-second", "peak memory of a process, MiB"), strict=True):
        axis.set(xscale="log", xlabel="corpus, MB", ylabel=label, ylim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, nargs="+", help="folders of text; default: Python's help topics")
    parser.add_argument("--sizes", type=float, nargs="+", default=[10.0], help="MB")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        sources = arguments.source or [_topics(Path(scratch, "topics"))]
        for size in arguments.sizes:
            corpus = Path(scratch, f"corpus-{size:g}")
            written = make_corpus(sources, corpus, size)
            for workers in arguments.workers:
                for gates in ("off", "on"):
                    figures = measure(corpus, gates, workers)
                    row = {"mb": written / 1e6, "gates": gates, "workers": workers, **figures}
                    row["mb_per_cpu_s"] = row["mb"] / row["cpu_s"]
                    results.append(row)
                    print({k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
    RESULTS.mkdir(exist_ok=True)
    record = {
        "command": " ".join(["python", "benchmarks/build.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "results": results,
    }
    (RESULTS / "build.json").write_text(json.dumps(record, indent=2) + "\n")
    lines = ["| MB | gates | workers | MB/CPU-s | wall s | peak MiB | rows | documents |", "|" + " ---: |" * 8]
    lines += [
        f"| {r['mb']:.0f} | {r['gates']} | {r['workers']} | {r['mb_per_cpu_s']:.2f} | {r['wall_s']:.0f} |"
        f" {r['peak_mib']:.0f} | {r['rows']} | {r['mined_documents']} |"
        for r in results
    ]
    head = f"`{record['command']}`, {record['date']}, {record['machine']}; one run of each."
    (RESULTS / "build.md").write_text("# Building\n\n" + head + "\n\n" + "\n".join(lines) + "\n\n![build](build.png)\n")
    draw(results, RESULTS / "build.png")


def _topics(folder: Path) -> Path:
    """Python's help topics as files."""
    from pydoc_data.topics import topics

    folder.mkdir(parents=True)
    for name, text in topics.items():
        (folder / f"{name}.rst").write_text(text, encoding="utf-8")
    return folder


if __name__ == "__main__":
    main()
