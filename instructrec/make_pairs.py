"""`instructrec pairs`: which pairs are asked for, where they go, and how well they are ranked without learning."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from instructrec.core.errors import UserError
from instructrec.core.files import fingerprint, new_folder, sha256_file, write_json
from instructrec.core.schema import PAIR_SPLITS, TEST_CORRUPTORS, PairsManifest, read_manifest
from instructrec.lineage import read_lineage, weights_sha256, write_lineage
from instructrec.preferences import (
    HELD_OUT_CORRUPTORS,
    Limits,
    Pair,
    check_held_out,
    corrupted,
    describe_pairs_source,
    read_pairs_manifest,
    write_pairs,
)

RANKINGS = "rankings.json"
SAMPLED_ROWS, SAMPLES, TEMPERATURE = 200, 8, 1.0
"""By default: rows of each split that are sampled for, answers to each, and at which temperature."""
DTYPE = "bfloat16"


@dataclass(frozen=True)
class Request:
    """What the command line asks for; see `instructrec pairs --help`."""

    folder: Path | None = None
    samples: str | None = None
    adapter: Path | None = None
    rewards: Path | None = None
    n: int | None = None
    temperature: float | None = None
    max_new_tokens: int | None = None
    mentor: Path | None = None
    rows: int | None = None
    per_corruptor: int = 2000
    heldout_per_corruptor: int = 300
    held_out_corruptors: tuple[str, ...] | None = None
    balance: bool = True
    seed: int = 0

    def check(self) -> None:
        """Raise `UserError` for flags that do not go together."""
        if self.samples and self.mentor:
            raise UserError("--mentor: pairs scores that are there; leave --samples out, or make two folders of pairs")
        of_samples = {
            "--adapter": self.adapter,
            "--rewards": self.rewards,
            "-n": self.n,
            "--temperature": self.temperature,
            "--max-new-tokens": self.max_new_tokens,
        }
        for flag, value in of_samples.items():
            if value is not None and not self.samples:
                raise UserError(f"{flag}: goes with --samples MODEL")
        if self.samples and not self.rewards:
            raise UserError("--samples: give --rewards YAML, by which the samples are ranked")
        if self.held_out_corruptors is not None and (self.samples or self.mentor):
            raise UserError("--held-out-corruptors: goes with corrupted answers, not with --samples or --mentor")
        if self.rows and self.mentor:
            raise UserError("--rows: goes with corrupted answers or --samples, not with --mentor")
        if not (self.folder or self.mentor):
            raise UserError("pairs: name an instruction set, as in `instructrec pairs outputs/quickstart/set`")
        if self.folder and read_manifest(self.folder)["fingerprint"] != fingerprint(self.folder, "*.parquet"):
            raise UserError(f"{self.folder}: its Parquet files changed since it was built; build it again")


def make(request: Request, output: Path) -> PairsManifest:
    """Make a folder of pairs; one that was made from the same by the same is left as it is.

    Raises:
        UserError: flags that do not go together, something malformed, no pairs, or `output` holds something else.
    """
    request.check()
    held_out = (
        check_held_out(HELD_OUT_CORRUPTORS if request.held_out_corruptors is None else request.held_out_corruptors)
        if not (request.samples or request.mentor)
        else ()
    )
    plan = _plan(request, held_out)
    if output.exists():
        if (output / "manifest.json").exists() and (manifest := read_pairs_manifest(output))["plan"] == plan:
            return manifest
        raise UserError(f"{output}: holds something else than these pairs; choose another --output or delete it")
    started = time.time()
    # Samples outlive an interruption; all else is made anew.
    kept = output.with_name(f"{output.name}.samples.jsonl")
    output.parent.mkdir(parents=True, exist_ok=True)
    skipped: Counter[str] = Counter()
    try:
        with new_folder(output) as folder:
            limits = Limits(request.per_corruptor, request.heldout_per_corruptor, request.balance)
            found = _pairs(request, held_out, kept, skipped)
            manifest = write_pairs(found, folder, plan, list(held_out), limits, request.seed, skipped)
            inputs = plan | {"output": manifest["fingerprint"]}
            if request.adapter:
                inputs["adapter"] = {"sha256": plan["adapter"], "lineage": read_lineage(request.adapter)}
            config = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(request).items()}
            parent = read_lineage(request.folder) if request.folder else None
            write_lineage(folder, "pairs", config, inputs, started, seed=request.seed, parent=parent)
    except BlockingIOError:
        raise UserError(f"{output}: another process is writing it; wait for it or choose another --output") from None
    kept.unlink(missing_ok=True)
    return manifest


def _plan(request: Request, held_out: tuple[str, ...]) -> dict[str, Any]:
    """What the pairs are made from, by content, and how."""
    plan: dict[str, Any] = {
        "from": "samples" if request.samples else "mentor" if request.mentor else "corruptors",
        "limits": [request.per_corruptor, request.heldout_per_corruptor],
        "balance": request.balance,
        "seed": request.seed,
    }
    plan |= describe_pairs_source(request.folder) if request.folder else {}
    if request.mentor:
        if not request.mentor.is_file():
            raise UserError(f"--mentor {request.mentor}: no such file")
        return plan | {"mentor": sha256_file(request.mentor)}
    if not request.samples:
        return plan | {"held_out": list(held_out), "rows": request.rows}
    from instructrec.models import resolve_model
    from instructrec.rewards.load import load_rewards

    assert request.rewards is not None
    load_rewards(request.rewards)  # a mistake in it is told before any weight is read
    return plan | {
        "model": weights_sha256(resolve_model(request.samples)),
        "adapter": weights_sha256(request.adapter) if request.adapter else None,
        "rewards": sha256_file(request.rewards),
        "n": request.n or SAMPLES,
        "temperature": request.temperature or TEMPERATURE,
        "max_new_tokens": request.max_new_tokens,
        "rows": request.rows or SAMPLED_ROWS,
    }


def _pairs(
    request: Request, held_out: tuple[str, ...], kept: Path, skipped: Counter[str]
) -> Iterator[tuple[str, Pair]]:
    if request.mentor:
        from instructrec.scored import from_scores

        yield from from_scores(request.mentor, request.folder, request.seed, skipped)
        return
    assert request.folder is not None
    if not request.samples:
        yield from corrupted(request.folder, held_out, request.rows, request.seed)
        return
    yield from _sampled(request, request.folder, kept, skipped)


def _sampled(request: Request, folder: Path, kept: Path, skipped: Counter[str]) -> Iterator[tuple[str, Pair]]:
    from instructrec.rewards.load import load_rewards
    from instructrec.samples import Sampler, chosen_rows, limits_of, sampled

    assert request.samples is not None and request.rewards is not None
    model, tokenizer, origin = _load(request.samples, request.adapter)
    n = request.n or SAMPLES
    sampler = Sampler(model, tokenizer, origin, n, request.temperature or TEMPERATURE, request.seed)
    rows = chosen_rows(folder, request.rows or SAMPLED_ROWS, request.seed)
    limits = limits_of(sampler, [row for _, row in rows], request.max_new_tokens)
    with _progress() as progress:
        task = progress.add_task(f"sampling {n} answers each", total=len(rows))
        rewards = load_rewards(request.rewards)
        yield from sampled(rows, limits, sampler, rewards, kept, skipped, lambda: progress.advance(task))


def _load(name: str, adapter: Path | None) -> tuple[Any, Any, str]:
    """A model with its adapter, its tokenizer, and what tells it from every other."""
    from instructrec.runtime import quiet, use_all_cores

    quiet()
    use_all_cores()
    from instructrec.evaluation.answers import model_origin
    from instructrec.models import base_of, load_model, load_tokenizer, resolve_model, with_adapter

    if adapter and (base := base_of(adapter)) not in (name, None):
        raise UserError(f"adapter {str(adapter)!r} belongs to {base!r}; give that model with it")
    folder = resolve_model(name)
    model, tokenizer = load_model(folder, DTYPE).eval(), load_tokenizer(folder, adapter)
    if adapter:
        model = with_adapter(model, adapter)
    return model, tokenizer, model_origin(weights_sha256(folder), adapter, DTYPE, tokenizer)


def _progress() -> Progress:
    """How many are done, the time they took and the time that is left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(
        *columns, TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn(), console=Console(stderr=True)
    )


def rank(folder: Path, reference: str | None, most: int, seed: int) -> dict[str, Any]:
    """Rank a folder's pairs by length and, with a reference, by its likelihoods; write and return `rankings.json`.

    Args:
        reference: `MODEL[:ADAPTER]`.
        most: pairs of each split and origin that the reference ranks at most.
    """
    from instructrec.pair_rankings import LONGER, as_json, rank_by_length, rank_by_reference, reference_of, sample_items

    rankings = {LONGER: rank_by_length(folder)}
    left_out, origin = 0, None
    if reference:
        from instructrec.evaluation.scoring import Scorer

        model, tokenizer, origin = _load(*reference_of(reference))
        items = sample_items(folder, most, seed)
        with _progress() as progress:
            task = progress.add_task("ranking by likelihood", total=sum(map(len, items.values())))
            advance: Callable[[int], None] = lambda n: progress.advance(task, n)  # noqa: E731
            found, left_out = rank_by_reference(items, Scorer(model, tokenizer, 16), advance)
        rankings |= found
    result = {
        "pairs": read_pairs_manifest(folder)["fingerprint"],
        "reference": reference and {"name": reference, "origin": origin, "too_long": left_out},
        "splits": as_json(rankings),
    }
    write_json(folder / RANKINGS, result)
    return result


def show(manifest: PairsManifest, folder: Path, rankings: dict[str, Any]) -> None:
    """Print pairs and rankings by split and origin."""
    from instructrec.pair_rankings import LONGER, MEAN, SUM, TOKENS

    reference = rankings["reference"]
    table = Table("split", "origin", "pairs", "longer is better", title=str(folder))
    for title in ("ranked", "more tokens", "likelier per token", "likelier in sum") if reference else ():
        table.add_column(title)
    for split in PAIR_SPLITS:
        cells = rankings["splits"].get(split, {})
        for origin in sorted(cells, key=lambda name: (name == "all", name)):
            cell = cells[origin]
            shown = [str(cell[LONGER]["n"]), _percent(cell[LONGER])]
            if MEAN in cell:
                shown += [str(cell[MEAN]["n"]), *(_percent(cell[name]) for name in (TOKENS, MEAN, SUM))]
            table.add_row(split, origin, *shown, end_section=origin == "all")
    console = Console()
    console = console if console.is_terminal and console.width >= 120 else Console(width=120)
    console.print(table)
    print("how often a ranking is right, in percent, with its 95 % interval; a tie counts as half")
    if reference:
        left_out = f"; {reference['too_long']} pairs did not fit its context" if reference["too_long"] else ""
        print(f"tokens and likelihoods are those of {reference['name']}{left_out}")
    dropped = ", ".join(f"{n} {reason}" for reason, n in manifest["dropped"].items())
    counts = " · ".join(f"{split} {manifest['splits'][split]}" for split in PAIR_SPLITS)
    print(f"{counts}; left out: {dropped or 'none'}")
    if empty := [s for s, n in manifest["splits"].items() if not n and (s != TEST_CORRUPTORS or manifest["held_out"])]:
        print(f"warning: no pairs in {', '.join(empty)}")


def _percent(ranking: dict[str, Any]) -> str:
    low, high = ranking["ci95"]
    return f"{100 * ranking['value']:.1f}" + (f" [{100 * low:.0f}, {100 * high:.0f}]" if low is not None else "")
