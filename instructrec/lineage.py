"""Lineage: how an output folder came to be, so that every number can be traced and every step repeated."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

from instructrec.core.errors import UserError
from instructrec.core.files import sha256_file, write_json
from instructrec.core.licences import count_licences
from instructrec.core.schema import Lineage, read_manifest

PACKAGES = ("instructrec", "trl", "transformers", "peft", "accelerate", "datasets", "bitsandbytes", "torch")
_SECRET = re.compile(r"token|secret|password|api_key", re.I)


def without_secrets(config: dict[str, Any]) -> dict[str, Any]:
    """`config` without the keys that may hold a credential."""
    return {key: value for key, value in config.items() if not (_SECRET.search(key) and isinstance(value, str))}


def _command() -> list[str]:
    """The command line, with the values of credentials left out."""
    kept: list[str] = []
    hide = False
    for argument in [Path(sys.argv[0]).name, *sys.argv[1:]]:
        name, equals, _ = argument.partition("=")
        secret = argument.startswith("--") and bool(_SECRET.search(name))
        kept.append("***" if hide else f"{name}=***" if secret and equals else argument)
        hide = secret and not equals
    return kept


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _hardware() -> dict[str, Any]:
    hardware: dict[str, Any] = {"machine": platform.machine(), "cpus": os.cpu_count(), "accelerators": []}
    if torch := sys.modules.get("torch"):  # only where the command needed it anyway
        count = torch.cuda.device_count()
        hardware["accelerators"] = [torch.cuda.get_device_name(i) for i in range(count)]
    return hardware


def write_lineage(
    folder: Path,
    stage: str,
    config: dict[str, Any],
    inputs: dict[str, Any],
    started: float,
    *,
    seed: int | None = None,
    parent: Lineage | None = None,
    training: dict[str, Any] | None = None,
) -> Lineage:
    """Write `lineage.json` into `folder` and return it.

    Args:
        stage: `base-model`, `build`, `sft`, `evaluate`, …
        config: the resolved config; keys that may hold credentials are left out.
        inputs: fingerprints of what was read.
        started: `time.time()` at the start.
        parent: the lineage of what this was made from.
        training: tokens, steps and losses, where something was trained.
    """
    lineage = Lineage(
        stage=stage,
        command=_command(),
        config=without_secrets(config),
        versions=_versions(),
        seed=seed,
        inputs=inputs,
        parent=cast(dict[str, Any] | None, parent),
        training=training,
        started=datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        seconds=round(time.time() - started, 1),
        hardware=_hardware(),
    )
    write_json(folder / "lineage.json", lineage)
    return lineage


def read_lineage(folder: Path) -> Lineage | None:
    """The lineage of `folder`, or null where it has none. Raises `UserError` if it does not parse."""
    path = folder / "lineage.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None


def ancestry(lineage: Lineage | None) -> list[Lineage]:
    """A lineage after those of all that it was made from by training or merging, the oldest first, each once."""
    found: list[Lineage] = []

    def visit(current: Any) -> None:
        if not current or current in found:
            return
        # A merge lists its adapters in the order of their training; an evaluation names them.
        adapters = current["inputs"].get("adapters") or []
        for adapter in adapters.values() if isinstance(adapters, dict) else adapters:
            visit(adapter.get("lineage"))
        visit(current.get("parent"))
        found.append(current)

    visit(lineage)
    return found


def weights_sha256(folder: Path) -> dict[str, str]:
    """File name → SHA-256 of every safetensors file of a model or adapter folder."""
    return {path.name: sha256_file(path) for path in sorted(folder.glob("*.safetensors"))}


def describe_set(folder: Path) -> dict[str, Any]:
    """What the card of a model says of the set that it was trained on. The set's lineage has it, and so the model's."""
    manifest = read_manifest(folder)
    corpus, held_out = manifest["corpus"], manifest["held_out"]
    families = {name: family for name, family in manifest["families"].items() if family["rows"]}
    return {
        "corpus": {"name": manifest["config"]["corpus"], "documents": corpus["documents"], "bytes": corpus["bytes"]},
        "splits": manifest["splits"],
        "families": {
            name: {"group": family["group"], "rows": family["rows"], "languages": family["languages"]}
            for name, family in families.items()
        },
        "held_out": {
            "families": [name for name in held_out["families"] if name in families],
            "templates": len(held_out["templates"]),
            "documents": len(held_out["documents"]),
        },
        "licences": dict(count_licences(folder)),
        "privacy": "privacy" in manifest["config"]["gates"],
        "written_by": manifest["synthesis"]["model"] if "synthesis" in manifest else None,
    }
