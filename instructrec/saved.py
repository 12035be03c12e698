"""The proof that what was saved is what was trained: it is read back, and its tensors and logits are compared."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from instructrec.adapters import INHERITED, WEIGHTS, check_keys, comparable, match_types
from instructrec.core.errors import UserError

UNCHECKED = "unchecked"
"""The folder, within the output folder, that holds what was saved until it has been read back."""

CHECKED_ROWS, CHECKED_TOKENS, CHECKED_POSITIONS = 3, 256, 16
"""Training rows that a saved model is compared on, the tokens of each that it reads, and the last that it predicts."""

ROUNDINGS = 4
"""Units in the last place that a logit may be off. The same weights in the same layers give the same bits on a CPU (0.0
in every mode here); some GPU kernels add in an order of their own, and then each layer rounds otherwise."""

EMPTY_ROWS = 0.5
"""A matrix of an adapter in which this share of rows is zero is refused. Every output of an adapted layer gets a
gradient: zeros mean that gradients were lost, or shards not gathered (axolotl #3772: seven eighths)."""


def keep_types(model: Any) -> None:
    """Let checkpoints be loaded into an adapter in the types that it trains in.

    TRL trains the adapter of a quantized base in bf16. PEFT would turn it to fp32 when the trainer resumes, which would
    then go on otherwise than a run without interruption.
    """
    if hasattr(model, "peft_config"):
        model.load_adapter = partial(model.load_adapter, autocast_adapter_dtype=False)


def save_checked(trainer: Any, folder: Path, rows: Iterable[Sequence[int]]) -> dict[str, Any] | None:
    """Save what a `Trainer` has trained; only what could be read back gets to its place. Every process calls this.

    What must not be published is left out: pickled arguments, a card without facts, and the frozen copy of the start
    that TRL's trainers save beside an adapter that they went on from.

    Args:
        trainer: after `train`.
        folder: the output folder of the run.
        rows: tokens of training rows; the first few are read.

    Returns:
        What `check_saved` found; null in all processes but the main one, which do not wait for it.

    Raises:
        UserError: see `check_saved`.
    """
    unchecked = folder / UNCHECKED
    trainer.save_model(str(unchecked))
    if not trainer.is_world_process_zero():
        return None
    # FSDP and DeepSpeed may have spread the weights over the processes.
    model = None if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled else trainer.model
    found = check_saved(unchecked, model, list(islice(rows, CHECKED_ROWS)))
    for path in unchecked.iterdir():
        if path.is_file():
            path.replace(folder / path.name)
    shutil.rmtree(unchecked)
    tidy(folder)  # TRL writes a card there with every checkpoint
    return found


def tidy(folder: Path) -> None:
    """Remove what a trainer leaves that must not be published: pickled arguments and a card without facts."""
    for name in ("training_args.bin", "README.md"):
        (folder / name).unlink(missing_ok=True)


def check_saved(folder: Path, model: Any | None, rows: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Read back what was saved, and compare its tensors and its logits with those of the model in memory.

    An adapter is loaded beside the trained one on the same base, so that memory holds that once. A whole model is
    loaded a second time, which takes no more than the gradients took.

    Args:
        folder: what the trainer saved.
        model: as it was trained, the weights of its base quantized or not; null where this process does not hold all of
            it: then only the saved tensors are looked at.
        rows: tokens of a few training rows.

    Returns:
        For the lineage: how many `rows` were compared, the `largest_difference` of a logit, and the `tolerance`.

    Raises:
        UserError: a tensor holds NaN or infinity, an adapter's matrix is zero in half of its rows or more, or what was
            read back is not what is in memory.
    """
    for path in sorted(folder.glob("*.safetensors")):
        _check_tensors(path)
    if model is None:
        return {"rows": 0, "largest_difference": None, "tolerance": None}
    model.eval()
    expected = _logits(model, rows)
    with _reloaded(folder, model) as other:
        found = _logits(other, rows)
    largest = max(float(logits.abs().max()) for logits in expected)
    tolerance = ROUNDINGS * _coarsest(model) * largest
    differences = [float((a - b).abs().max()) for a, b in zip(expected, found, strict=True)]
    if not all(difference <= tolerance for difference in differences):  # NaN is no number at all
        raise UserError(
            f"{folder}: read back, its logits differ by {max(differences):.3g} from those of the model in memory "
            f"(tolerance {tolerance:.3g}), so that it is not what was trained; the checkpoints beside it may be sound"
        )
    return {"rows": len(rows), "largest_difference": max(differences), "tolerance": tolerance}


def _check_tensors(path: Path) -> None:
    from safetensors import safe_open

    empty, matrices = [], 0
    with safe_open(path, "pt") as file:
        for key in file.keys():  # noqa: SIM118 (it is no mapping)
            tensor = file.get_tensor(key)
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise UserError(
                    f"{path}: {key} holds NaN or infinity, so that training diverged; lower --learning_rate and choose "
                    "another --output_dir"
                )
            if re.search(r"\.lora_(embedding_)?[AB]\b", key):
                matrices += 1
                if (tensor.flatten(1) == 0).all(1).float().mean() >= EMPTY_ROWS:
                    empty.append(key)
    if empty and all("B" in key.rpartition("lora_")[2] for key in empty) and 2 * len(empty) == matrices:
        raise UserError(
            f"{path}: lora_B is zero in every module, so that the adapter does nothing: no step before the saved one "
            "had a learning rate above 0; lower --warmup_steps or train for longer, with another --output_dir"
        )
    if empty:
        raise UserError(
            f"{path}: {len(empty)} of {matrices} matrices are zero in half of their rows or more ({empty[0]} is the "
            "first), so that no gradient reached them or not all of them was saved; leave their modules out of "
            "--lora_target_modules, or use a launch config without shards"
        )


@contextmanager
def _reloaded(folder: Path, model: Any) -> Iterator[Any]:
    """The model as `folder` has it."""
    if hasattr(model, "peft_config"):
        from peft import get_peft_model_state_dict
        from safetensors.torch import load_file

        own, name = model.active_adapter, "reloaded"
        memory = get_peft_model_state_dict(model, adapter_name=own, save_embedding_layers=False)
        _compare(folder, memory, load_file(folder / WEIGHTS))
        check_keys(model.load_adapter(str(folder), name, autocast_adapter_dtype=True), str(folder))
        mine, its = model.peft_config[own], model.peft_config[name]
        for key in (*INHERITED.values(), "rank_pattern", "alpha_pattern"):
            if comparable(getattr(its, key)) != comparable(getattr(mine, key)):
                raise UserError(f"{folder}: {key} is {getattr(its, key)} there and {getattr(mine, key)} in memory")
        match_types(model, name, own)  # PEFT loads in fp32 what may have been trained in bf16
        model.set_adapter(name)
        try:
            yield model.eval()
        finally:
            model.set_adapter(own)
            model.delete_adapter(name)
    else:
        model.zero_grad(set_to_none=True)
        place = getattr(model, "hf_device_map", {"": model.device})
        attention = model.config._attn_implementation
        other = type(model).from_pretrained(
            str(folder), dtype=model.dtype, attn_implementation=attention, device_map=place
        )
        _compare(folder, model.state_dict(), other.state_dict())
        yield other.eval()


def _compare(folder: Path, memory: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    for key, tensor in memory.items():
        other = saved.get(key)
        if other is None or other.dtype != tensor.dtype or not tensor.equal(other.to(tensor.device)):
            what = "is missing" if other is None else "differs from that in memory"
            raise UserError(
                f"{folder}: {key} {what}, so that it is not what was trained; the checkpoints beside it may be sound"
            )


def _logits(model: Any, rows: Sequence[Sequence[int]]) -> list[Any]:
    """For each row the logits of its last positions, in fp32 on the CPU, without the autocast of training."""
    import torch

    found = []
    for row in rows:
        ids = torch.tensor([list(row[:CHECKED_TOKENS])], device=model.device)
        with torch.no_grad():  # the class's own forward: accelerate wraps that of the instance
            output = type(model).forward(model, input_ids=ids, use_cache=False)
        found.append(output.logits[0, -CHECKED_POSITIONS:].float().cpu())
    return found


def _coarsest(model: Any) -> float:
    """The rounding of the coarsest type among a model's parameters, relative to the number rounded."""
    import torch

    return max(torch.finfo(p.dtype).eps for p in model.parameters() if p.is_floating_point())
