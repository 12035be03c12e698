"""Ranks what a folder of pairs holds: by length alone, by a reference's likelihood, by an adapter that was trained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from instructrec.core.errors import UserError
from instructrec.core.files import write_json
from instructrec.core.schema import PAIR_SPLITS, TEST_CORRUPTORS, PairsManifest
from instructrec.lineage import read_lineage, weights_sha256
from instructrec.models import adapter_config, load_tuned
from instructrec.preferences.rankings import LENGTH, LIKELIHOOD, PER_TOKEN, TOKENS, rank_by_length
from instructrec.preferences.read import UNSEEN, drawn, read_pairs, unchanged

RANKINGS = "rankings.json"
DTYPE = "bfloat16"


def rank_folder(folder: Path, reference: str | None, most: int) -> dict[str, Any]:
    """Rank a folder's pairs by length and, with a reference, by its likelihood of them; keep it in `rankings.json`.

    Args:
        reference: `MODEL[:ADAPTER]`; without one, what an earlier reference gave these pairs stays.
        most: pairs of each split that the reference ranks at most.

    Returns:
        `pairs`, their fingerprint; `length`, split → `rankings.summarise`; and `reference`, null or its `name`,
        `origin` and `splits`.
    """
    fingerprint = unchanged(folder)["fingerprint"]
    found: Any = _known(folder / RANKINGS, fingerprint)
    if reference:
        name, adapter = reference_of(reference)
        pairs = {split: drawn(read_pairs(folder, split), most) for split in PAIR_SPLITS}
        prepare()
        from instructrec.evaluation.answers import model_origin
        from instructrec.preferences.model_rankings import rank_with_reference

        model, tokenizer, base = load_tuned(name, adapter, DTYPE)
        with progress("ranking by likelihood", sum(map(len, pairs.values()))) as done:
            splits = {
                split: rank_with_reference(model, tokenizer, its, 16, done) for split, its in pairs.items() if its
            }
        origin = model_origin(weights_sha256(base), adapter, DTYPE, tokenizer)
        found = {"name": reference, "origin": origin, "splits": splits}
    length = {split: rank_by_length(read_pairs(folder, split)) for split in PAIR_SPLITS}
    result = {"pairs": fingerprint, "length": length, "reference": found}
    write_json(folder / RANKINGS, result)
    return result


def _known(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """What a reference gave these pairs earlier."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return known["reference"] if known["pairs"] == fingerprint else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def rank_adapter(
    folder: Path, adapter: Path, reference: Path | None, most: int, dtype: str | None
) -> dict[str, dict[str, Any]]:
    """Rank the unseen pairs of a folder with an adapter, as the recipe that trained it does.

    Args:
        adapter: of a reward model, which ranks by its reward; or of a language model, which ranks by its likelihoods
            against the reference's.
        reference: the adapter to compare with. Default: what the lineage says that training began from, else the base.
        most: pairs of each split at most.
        dtype: of the base of a language model; bfloat16 by default.

    Returns:
        Split → what `rank_with_policy` or `rank_with_reward_model` found.

    Raises:
        UserError: there are no unseen pairs, or an adapter is not there or not of this base.
    """
    unchanged(folder)
    pairs = {split: its for split in UNSEEN if (its := drawn(read_pairs(folder, split), most))}
    if not pairs:
        raise UserError(f"{folder}: {' and '.join(UNSEEN)} hold no pairs; make pairs from more documents")
    config = adapter_config(adapter)
    prepare()
    from instructrec.preferences.model_rankings import rank_with_policy, rank_with_reward_model

    if config.get("task_type") == "SEQ_CLS":
        from instructrec.rewards.model import RewardModel

        flags = {"--reference": reference, "--dtype": dtype}
        if given := [flag for flag, value in flags.items() if value]:
            raise UserError(f"{given[0]}: goes with an adapter of a language model, not of a reward model")
        tokenizer, model = RewardModel(str(adapter)).loaded
        return {split: rank_with_reward_model(model, tokenizer, its) for split, its in pairs.items()}
    if not (name := config["base_model_name_or_path"]):
        raise UserError(f"adapter {str(adapter)!r}: its adapter_config.json names no base model; write it there")
    start = reference or _start_of(adapter)
    model, tokenizer, _ = load_tuned(name, adapter, dtype or DTYPE, start)
    with progress("ranking by implicit reward", 2 * sum(map(len, pairs.values()))) as done:
        return {split: rank_with_policy(model, tokenizer, its, done=done) for split, its in pairs.items()}


def _start_of(adapter: Path) -> Path | None:
    """The adapter that this one was trained on from; null where it was trained from the base, or no lineage tells."""
    lineage = read_lineage(adapter)
    start = lineage["inputs"].get("init_adapter") if lineage else None
    if not start:
        return None
    folder = Path(start["name"])
    if weights_sha256(folder) != start["sha256"]:
        raise UserError(
            f"{adapter}: was trained on from {folder}, which is not there any more, or is another one; give its folder "
            "as --reference"
        )
    return folder


def reference_of(name: str) -> tuple[str, Path | None]:
    """`MODEL[:ADAPTER]` in parts. Raises `UserError` where the adapter is no folder."""
    model, colon, adapter = name.rpartition(":")
    if not colon:
        return name, None
    if not model or not Path(adapter).is_dir():
        raise UserError(f"--reference {name}: must be MODEL or MODEL:ADAPTER, the output folder of a recipe")
    return model, Path(adapter)


def prepare() -> None:
    """What comes before torch and its libraries are imported for a model."""
    from instructrec.runtime import quiet, use_all_cores

    quiet()
    use_all_cores()


@contextmanager
def progress(description: str, total: int) -> Iterator[Any]:
    """A function to be told how many more are done, which a terminal shows, with the time they took and is left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, *times, console=console, disable=not console.is_terminal) as shown:
        task = shown.add_task(description, total=total)
        yield lambda n: shown.advance(task, n)


def show(manifest: PairsManifest, folder: Path, rankings: dict[str, Any]) -> None:
    """Print how many pairs there are by split and origin, and how often rankings that know nothing new are right."""
    reference = rankings["reference"]
    table = Table("split", "origin", "pairs", "length", title=escape(str(folder)))
    for title in ("ranked", "tokens", "likelier per token", "likelier in sum") if reference else ():
        table.add_column(title)
    for split in PAIR_SPLITS:
        whole = rankings["length"][split]
        asked = reference["splits"].get(split) if reference else None
        ranked = {**asked["origins"], "all": asked} if asked else {}
        for origin, cell in {**whole["origins"], "all": whole}.items():
            if not cell["pairs"]:
                continue
            row = [str(cell["pairs"]), _percent(cell["accuracy"][LENGTH])]
            if (one := ranked.get(origin)) and one["pairs"]:
                values = (_percent(one["accuracy"][name]) for name in (TOKENS, PER_TOKEN, LIKELIHOOD))
                row += [str(one["pairs"]), *values]
            table.add_row(split, escape(origin), *row, end_section=origin == "all")
    console = Console()
    console = console if console.is_terminal and console.width >= 120 else Console(width=120)
    console.print(table)
    print("how often a ranking is right, in percent, with its 95 % interval over documents; a tie counts as half")
    print("length and tokens: more or fewer, whichever is right more often on the pairs of a line")
    if reference:
        too_long = sum(found["too_long"] for found in reference["splits"].values())
        left_out = f"; {too_long} pairs did not fit its context" if too_long else ""
        print(f"tokens and likelihoods are those of {reference['name']}{left_out}")
    dropped = ", ".join(f"{n} {reason}" for reason, n in manifest["dropped"].items())
    counts = " · ".join(f"{split} {manifest['splits'][split]}" for split in PAIR_SPLITS)
    print(f"{counts}; left out: {dropped or 'none'}")
    if empty := [s for s, n in manifest["splits"].items() if not n and (s != TEST_CORRUPTORS or manifest["held_out"])]:
        print(f"warning: no pairs in {', '.join(empty)}")


def _percent(ranking: dict[str, Any]) -> str:
    low, high = ranking["ci95"]
    return f"{100 * ranking['value']:.1f}" + (f" [{100 * low:.0f}, {100 * high:.0f}]" if low is not None else "")
