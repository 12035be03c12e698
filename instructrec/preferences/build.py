"""`instructrec pairs`: which pairs are asked for, what they are made from, and where they go."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from instructrec.config import parse_yaml
from instructrec.core.errors import UserError
from instructrec.core.files import fingerprint, new_folder, sha256_file
from instructrec.core.schema import PairsManifest, read_manifest
from instructrec.lineage import read_lineage, weights_sha256, write_lineage
from instructrec.models import base_of, load_tuned, resolve_model, revision_of
from instructrec.preferences import HELD_OUT_PER_ORIGIN, PER_ORIGIN
from instructrec.preferences.corrupted import HELD_OUT_CORRUPTORS, check_held_out, corrupted
from instructrec.preferences.rank import DTYPE, prepare, progress
from instructrec.preferences.read import read_manifest_of_pairs
from instructrec.preferences.write import Limits, Pair, write_pairs

SAMPLED_ROWS, SAMPLES, TEMPERATURE = 200, 8, 1.0
"""By default: rows of each split that are sampled for, answers to each, and at which temperature."""


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
    per_corruptor: int = PER_ORIGIN
    heldout_per_corruptor: int = HELD_OUT_PER_ORIGIN
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
        quotas = {"--per-corruptor": self.per_corruptor, "--heldout-per-corruptor": self.heldout_per_corruptor}
        for flag, most in quotas.items():
            if self.balance and most < 2:
                raise UserError(f"{flag} {most}: balanced pairs come in twos; give 2 or more, or --no-balance")
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
        if (output / "manifest.json").exists() and (manifest := read_manifest_of_pairs(output))["plan"] == plan:
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
            found = _pairs(request, plan, kept, skipped)
            manifest = write_pairs(found, folder, plan, list(held_out), limits, request.seed, skipped)
            inputs = {"plan": plan, "output": manifest["fingerprint"]}
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
        "instructrec": version("instructrec"),
        "limits": [request.per_corruptor, request.heldout_per_corruptor],
        "balance": request.balance,
        "seed": request.seed,
    }
    if request.folder:
        plan |= {"set": request.folder.resolve().name, "fingerprint": read_manifest(request.folder)["fingerprint"]}
    if request.mentor:
        if not request.mentor.is_file():
            raise UserError(f"--mentor {request.mentor}: no such file")
        return plan | {"mentor": sha256_file(request.mentor)}
    if not request.samples:
        return plan | {"held_out": list(held_out), "rows": request.rows}
    from instructrec.rewards.load import load_rewards

    # Mistakes are told before any weight is read.
    if request.adapter and (base := base_of(request.adapter)) not in (request.samples, None):
        raise UserError(f"--adapter {request.adapter}: belongs to {base!r}; give --samples {base}")
    assert request.rewards is not None
    load_rewards(request.rewards)
    return plan | {
        "model": weights_sha256(resolve_model(request.samples, revision_of(request.adapter))),
        "adapter": weights_sha256(request.adapter) if request.adapter else None,
        "adapter_config": sha256_file(request.adapter / "adapter_config.json") if request.adapter else None,
        "rewards": [sha256_file(request.rewards), *_files_of(request.rewards)],
        "n": request.n or SAMPLES,
        "temperature": request.temperature or TEMPERATURE,
        "max_new_tokens": request.max_new_tokens,
        "rows": request.rows or SAMPLED_ROWS,
    }


def _files_of(rewards: Path) -> list[str]:
    """The hashes of what a rewards YAML names on this machine: code of one's own, schemas, mentors' files, models."""
    named = [
        text for entry in parse_yaml(rewards) for text in (entry["name"].rpartition(":")[0], *_texts(entry.get("args")))
    ]
    # Not by `Path`, which raises where a text, such as a schema, is too long for one.
    files = [Path(text) for text in named if os.path.isfile(text)]  # noqa: PTH113
    folders = [Path(text) for text in named if os.path.isdir(text)]  # noqa: PTH112
    return sorted([*map(sha256_file, files), *(h for folder in folders for h in weights_sha256(folder).values())])


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value of a YAML file."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _pairs(request: Request, plan: dict[str, Any], kept: Path, skipped: Counter[str]) -> Iterator[tuple[str, Pair]]:
    if request.mentor:
        from instructrec.preferences.scored import from_scores

        yield from from_scores(request.mentor, request.folder, request.seed, skipped)
        return
    assert request.folder is not None
    if not request.samples:
        yield from corrupted(request.folder, plan["held_out"], plan["rows"], request.seed)
        return
    yield from _sampled(request, request.folder, plan, kept, skipped)


def _sampled(
    request: Request, folder: Path, plan: dict[str, Any], kept: Path, skipped: Counter[str]
) -> Iterator[tuple[str, Pair]]:
    prepare()
    from instructrec.evaluation.answers import model_origin
    from instructrec.preferences.samples import Sampler, chosen_rows, limits_of, sampled
    from instructrec.rewards.load import load_rewards

    assert request.samples is not None and request.rewards is not None
    rewards = load_rewards(request.rewards)
    model, tokenizer, base = load_tuned(request.samples, request.adapter, DTYPE)
    origin = model_origin(weights_sha256(base), request.adapter, DTYPE, tokenizer)
    sampler = Sampler(model, tokenizer, origin, plan["n"], plan["temperature"], request.seed)
    rows = chosen_rows(folder, plan["rows"], request.seed)
    limits = limits_of(sampler, [row for _, row in rows], request.max_new_tokens)
    with progress(f"sampling {plan['n']} answers each", len(rows)) as done:
        yield from sampled(rows, limits, sampler, rewards, kept, skipped, lambda: done(1))
