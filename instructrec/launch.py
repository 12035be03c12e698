"""How `accelerate launch` would start a recipe, read from one of its YAMLs; what it would pass over is refused.

Accelerate refuses an unknown key at the top of such a file. Within a section it sets whatever is there as an attribute
that nothing reads, so that a misspelt key changes nothing and nobody hears of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from instructrec.config import read_yaml
from instructrec.core.errors import UserError, nearest

KINDS = ("NO", "MULTI_CPU", "MULTI_GPU", "FSDP", "DEEPSPEED")
"""The values of `distributed_type` that the recipes run with."""

SECTIONS = {
    "deepspeed_config": "DeepSpeed Arguments",
    "dynamo_config": "Resource Selection Arguments",
    "fp8_config": "FP8 Arguments",
    "fsdp_config": "FSDP Arguments",
    "megatron_lm_config": "Megatron-LM Arguments",
    "mpirun_config": "MPI Arguments",
    "parallelism_config": "ParallelismConfig Arguments",
}
"""The sections of a file, and the group of `accelerate launch`'s flags that each one's keys are among."""

PREFIXES = {"dynamo_config": "dynamo_", "fp8_config": "fp8_", "fsdp_config": "fsdp_"}
"""What accelerate puts before a key of these sections that does not begin with it."""

FORMER_KEYS = ("dynamo_backend", "fp16")
"""Keys of earlier versions that accelerate still converts."""


@dataclass(frozen=True)
class Launch:
    """How a recipe is started.

    Attributes:
        processes: of all machines together, one device each.
        device: `cpu` or `cuda`.
        strategy: `single`, `ddp`, `fsdp` or `zero`.
        shards: which of `optimizer`, `gradients` and `weights` are divided among the processes.
        bf16: whether autocast is on whatever the recipe says.
    """

    processes: int = 1
    device: str = "cpu"
    strategy: str = "single"
    shards: frozenset[str] = frozenset()
    bf16: bool = False


def read_launch(path: Path) -> Launch:
    """The `Launch` that one of `accelerate_configs/` describes.

    FSDP shards all three (Zhao et al., 2023, https://arxiv.org/abs/2304.11277), without resharding after the forward
    pass the weights stay whole; ZeRO's stages 1 to 3 shard the optimizer's states, gradients and weights one after the
    other (Rajbhandari et al., 2020, https://arxiv.org/abs/1910.02054).

    Raises:
        UserError: not a YAML mapping, not of accelerate, a key that accelerate would pass over, or a file that starts
            another number of processes than it says.
    """
    values = read_yaml(path)
    kind = str(values.get("distributed_type", ""))
    if kind not in KINDS:
        raise UserError(f"{path}: distributed_type {kind!r} is none of {', '.join(KINDS)}")
    _check_keys(path, values)
    processes = _whole(path, values, "num_processes", 1, 1)
    _check_processes(path, values, kind, processes)
    shards: frozenset[str] = frozenset()
    if kind == "FSDP":
        fsdp = values.get("fsdp_config") or {}
        whole = fsdp.get("fsdp_reshard_after_forward", fsdp.get("reshard_after_forward", True)) is False
        shards = frozenset({"optimizer", "gradients"} | (set() if whole else {"weights"}))
    if kind == "DEEPSPEED":
        shards = frozenset(("optimizer", "gradients", "weights")[: _zero_stage(path, values)])
    strategies = {"FSDP": "fsdp", "DEEPSPEED": "zero"}
    return Launch(
        processes=processes,
        device="cpu" if values.get("use_cpu") or kind == "MULTI_CPU" else "cuda",
        strategy=strategies.get(kind, "ddp" if processes > 1 else "single"),
        shards=shards,
        bf16=values.get("mixed_precision") == "bf16",
    )


def _check_keys(path: Path, values: Mapping[str, Any]) -> None:
    from accelerate.commands.config.config_args import ClusterConfig
    from accelerate.commands.launch import launch_command_parser

    known = {*(field.name for field in fields(ClusterConfig)), *FORMER_KEYS}
    for key in values:
        if key not in known:
            raise UserError(f"{path}: unknown key {key!r}.{nearest(str(key), known)}")
    groups = {group.title: group for group in launch_command_parser()._action_groups}
    for section, title in SECTIONS.items():
        found = values.get(section) or {}
        if not isinstance(found, dict):
            raise UserError(f"{path}: {section} must be a mapping of keys to values, not {found!r}")
        known = {action.dest for action in groups[title]._group_actions}
        for key in found:
            prefix = PREFIXES.get(section, "")
            full = str(key) if str(key).startswith(prefix) else f"{prefix}{key}"
            if full not in known:
                raise UserError(
                    f"{path}: unknown key {key!r} in {section}, which accelerate would pass over.{nearest(full, known)}"
                )


def _whole(path: Path, values: Mapping[str, Any], key: str, default: int, least: int) -> int:
    value = values.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"{path}: {key} must be a whole number of {least} or more, not {value!r}")
    return value


def _zero_stage(path: Path, values: Mapping[str, Any]) -> int:
    """The stage of ZeRO, which is in DeepSpeed's own file where one is named."""
    section = values.get("deepspeed_config") or {}
    key, default = "zero_stage", 2
    if (named := section.get("deepspeed_config_file")) not in (None, "none"):
        path, key, default = Path(named), "stage", 0
        try:
            section = json.loads(path.read_text(encoding="utf-8")).get("zero_optimization") or {}
        except OSError as error:
            raise UserError(f"deepspeed_config_file {path}: {error.strerror}") from None
        except (ValueError, AttributeError):
            raise UserError(f"deepspeed_config_file {path}: is no JSON object with zero_optimization") from None
    stage = _whole(path, section, key, default, 0)
    if stage > 3:
        raise UserError(f"{path}: {key} must be 0, 1, 2 or 3, not {stage}")
    return stage


def _check_processes(path: Path, values: Mapping[str, Any], kind: str, processes: int) -> None:
    if processes > 1 and (kind == "NO" or (kind == "MULTI_CPU" and not values.get("mpirun_config"))):
        # https://github.com/huggingface/accelerate/issues/2741
        raise UserError(
            f"{path}: accelerate starts one process with distributed_type {kind}, not the {processes} of "
            "num_processes; set distributed_type: MULTI_GPU, or start the recipe with "
            f"`torchrun --nproc_per_node {processes}` for that many on a CPU"
        )
    machines = _whole(path, values, "num_machines", 1, 1)
    if processes % machines:
        raise UserError(f"{path}: num_processes, {processes}, must be a multiple of num_machines, {machines}")
    backend = values.get("rdzv_backend", "static")
    if machines > 1 and values.get("same_network") and backend != "static":
        # Accelerate then names the first machine by a flag that torchrun reads with the static backend only.
        raise UserError(
            f"{path}: with same_network: true and rdzv_backend: {backend} every machine would wait alone for the "
            "others; set rdzv_backend: static"
        )


def strategy_here() -> str:
    """`fsdp` or `zero` where accelerate started this process so, else the empty text."""
    from accelerate.utils import parse_flag_from_env

    names = {"ACCELERATE_USE_FSDP": "fsdp", "ACCELERATE_USE_DEEPSPEED": "zero"}
    return next((strategy for name, strategy in names.items() if parse_flag_from_env(name)), "")


def check_sharded_quantization(model: Any, strategy: str) -> None:
    """Refuse 4-bit weights that FSDP would leave whole on every device: it shards those stored in `dtype` only.

    Source: https://huggingface.co/docs/bitsandbytes/main/fsdp_qlora.

    Args:
        model: TRL's `ModelConfig`.
        strategy: of the `Launch`.

    Raises:
        UserError: naming the key.
    """
    if strategy != "fsdp" or not model.load_in_4bit:
        return
    if (stored := model.bnb_4bit_quant_storage or "uint8") != model.dtype:
        raise UserError(
            f"bnb_4bit_quant_storage: FSDP shards 4-bit weights only if they are stored as {model.dtype}, which is "
            f"dtype, not as {stored}; set bnb_4bit_quant_storage: {model.dtype}"
        )
