"""What every training recipe shares: where it may write, its trainer, how it resumes, shows its progress and ends."""

from __future__ import annotations

import gc
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState
from torch.utils.data import Sampler
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint
from trl import get_quantization_config
from trl.kernels.chunked_logprob import _use_triton
from trl.trainer import utils as trl_utils

from instructrec.core.errors import UserError
from instructrec.core.files import write_json
from instructrec.data import HeldOutArguments
from instructrec.evaluation.callback import HeldOutEvaluation
from instructrec.evaluation.suites import from_row
from instructrec.launch import strategy_here
from instructrec.lineage import without_secrets
from instructrec.models import trainable_on_cpu
from instructrec.saved import UNCHECKED, keep_types

if TYPE_CHECKING:
    from datasets import Dataset

RUN = "run.json"
"""The config that an output folder was started with."""

RANKED = ("eval_rewards/accuracies", "eval_rewards/margins", "eval_accuracy", "eval_margin", "eval_reward")
"""What trainers on pairs or on answers tell of an evaluation beside its loss."""

REWARDED = ("reward", "kl", "objective/kl")
"""What trainers on answers tell of their steps: the mean reward, and nats between policy and reference, per token or,
with PPO, per answer."""

# Keys that change how a run is watched or where it runs, not what it computes.
_HARMLESS = {"logging_steps", "save_steps", "save_total_limit", "report_to", "output_dir", "disable_tqdm", "use_cpu"}


def prepare_output(folder: Path, config: dict[str, Any], state: PartialState) -> str | None:
    """Claim an output folder and find where to resume; every process calls this.

    All of them look before the main process changes anything, and only then for the checkpoint: so they agree on it.

    Args:
        folder: which all processes must see.
        config: the resolved config. How many processes there are belongs to it, for it decides what a step learns from.
        state: of the processes.

    Returns:
        The last complete checkpoint, or null for a fresh run.

    Raises:
        UserError: the folder holds a run with another config, or something that is not a run.
        SystemExit: with code 0, the run is already finished.
    """
    wanted = json.loads(json.dumps(without_secrets(config) | {"processes": state.num_processes}, default=str))
    if _is_finished(folder, wanted):
        state.print(f"{folder}: already trained with this config; nothing to do")
        raise SystemExit(0)
    state.wait_for_everyone()
    if state.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RUN, wanted)
        shutil.rmtree(folder / UNCHECKED, ignore_errors=True)
        for saved in folder.glob("checkpoint-*"):
            if not _is_complete(saved):
                shutil.rmtree(saved)  # a kill in the middle of saving
    state.wait_for_everyone()
    checkpoint = get_last_checkpoint(str(folder))
    if checkpoint:
        state.print(f"resuming from {checkpoint}")
    return checkpoint


def _is_finished(folder: Path, wanted: dict[str, Any]) -> bool:
    """Whether the run that `wanted` asks for has ended; raises `UserError` if the folder holds anything else."""
    try:
        found = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if folder.exists() and any(folder.iterdir()):
            raise UserError(
                f"{folder}: is not empty and holds no run of a recipe; choose another --output_dir"
            ) from None
        return False
    finished = (folder / "lineage.json").exists()
    keys = sorted(k for k in {*wanted, *found} - _HARMLESS if wanted.get(k) != found.get(k))
    # Without weights, that run ended before it had trained anything.
    if keys and (finished or any(folder.glob("checkpoint-*")) or any(folder.glob("*.safetensors"))):
        changes = ", ".join(_change(key, found.get(key), wanted.get(key)) for key in keys[:3])
        raise UserError(f"{folder}: holds a run with another config ({changes}); choose another --output_dir")
    return finished


def _change(key: str, then: Any, now: Any) -> str:
    """What differs, of a mapping only the first entry that does."""
    if isinstance(then, dict) and isinstance(now, dict):
        entry = min(k for k in {*then, *now} if then.get(k) != now.get(k))
        return _change(f"{key} of {entry}", then.get(entry), now.get(entry))
    return f"{key}: {then!r} then, {now!r} now"


def _is_complete(checkpoint: Path) -> bool:
    """The trainer writes `trainer_state.json` last."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def make_trainer(kind: Any, base: Path, args: Any, model: Any, tokenizer: Any, peft_config: Any, **options: Any) -> Any:
    """A trainer of TRL, as the recipes train with it.

    Args:
        kind: its class.
        base: the folder of the base model.
        args: its arguments, completed in place.
        model: TRL's `ModelConfig`.
        tokenizer: with the chat template of the run.
        peft_config: of a new adapter, or of one that is loaded in its place afterwards; null to train all weights.
        options: what else the class takes: rows, callbacks, rewards.
    """
    args.model_init_kwargs = {"dtype": model.dtype, "attn_implementation": model.attn_implementation}
    args.chat_template_path = None  # the tokenizer has it, with marks; TRL would read it again without them
    args.disable_tqdm = True
    args.include_num_input_tokens_seen = "non_padding"
    args.restore_callback_states_from_checkpoint = True  # how long `patience` has lasted
    trainer = kind(
        model=str(base),
        args=args,
        processing_class=tokenizer,
        quantization_config=get_quantization_config(model),
        peft_config=peft_config,
        **options,
    )
    trainer.remove_callback(PrinterCallback)
    trainable_on_cpu(trainer.model)
    keep_types(trainer.model)
    score_answers_only()
    _end_where_told(trainer)
    return trainer


def score_answers_only() -> None:
    """Let the fused head of TRL leave out, on a CPU too, the positions whose next token no loss asks for.

    Of instructions these are most. TRL 1.16 scores them all where there is no Triton, so that a device which compiles
    for each shape has one shape; a CPU has no such need.
    """
    trl_utils._use_triton = lambda device: device.type == "cpu" or _use_triton(device)


def _end_where_told(trainer: Any) -> None:
    """Train no further step where a run resumes from the checkpoint of its last one, as transformers 5.23 would."""
    run_epoch = trainer._run_epoch

    def run_unless_done(*args: Any, **options: Any) -> None:
        stopping = (c for c in trainer.callback_handler.callbacks if isinstance(c, EarlyStoppingCallback))
        out_of_patience = any(c.early_stopping_patience_counter >= c.early_stopping_patience for c in stopping)
        if trainer.state.global_step < trainer.state.max_steps and not out_of_patience:
            run_epoch(*args, **options)
        else:
            trainer.control.should_training_stop = True

    trainer._run_epoch = run_unless_done


class _ByEpoch(Sampler[int]):
    """A sampler of TRL whose order is decided by its seed and the trainer's epoch."""

    def __init__(self, sampler: Any, trainer: Any) -> None:
        self.sampler, self.trainer = sampler, trainer

    def __iter__(self) -> Iterator[int]:
        if self.sampler.shuffle:
            self.sampler.generator.manual_seed(self.sampler.seed + int(self.trainer.state.epoch or 0))
        return iter(self.sampler)

    def __len__(self) -> int:
        return len(self.sampler)


def shuffle_by_epoch(trainer: Any) -> None:
    """Let seed and epoch decide the order of the prompts of GRPO or RLOO, so that a run can resume in any epoch.

    TRL's sampler shuffles by how often it was asked before: after an interruption in its second epoch a run would get
    the order of the first.
    """
    make = trainer._get_train_sampler
    trainer._get_train_sampler = lambda dataset=None: _ByEpoch(make(dataset), trainer)


@contextmanager
def ending(trainer: Any) -> Iterator[None]:
    """Within it a `Trainer` trains and saves; after it, its trackers are closed and the other processes parted from.

    So it is after a `UserError` too. The data-parallel wrapper is let go first. Were it the last to hold the process
    group, taking it apart would wait, with Python's lock in hand, for a thread of gloo that sometimes waits for that
    lock.
    """
    try:
        yield
    except UserError:
        _end(trainer)
        raise
    _end(trainer)


def facts(trainer: Any, result: Any, rows: int, threads: int, read_back: dict[str, Any] | None) -> dict[str, Any]:
    """What a lineage says of a training.

    Args:
        trainer: after `train`, which returned `result`.
        rows: that it was trained on.
        threads: of each process.
        read_back: what `save_checked` found.
    """
    return {
        "tokens": trainer.state.num_input_tokens_seen,
        "steps": trainer.state.global_step,
        "rows": rows,
        "loss": result.training_loss,
        "processes": trainer.accelerator.num_processes,
        "mixed_precision": trainer.accelerator.mixed_precision,
        "trainable_parameters": trainer.get_num_trainable_parameters(),
        "threads": threads,
        "read_back": read_back,
    }


def _end(trainer: Any) -> None:
    trainer.model_wrapped = trainer.model
    trainer.accelerator.free_memory()
    gc.collect()
    trainer.end()


def held_out(
    arguments: HeldOutArguments,
    validation: Dataset,
    args: TrainingArguments,
    tokenizer: Any,
    strategy: str | None = None,
) -> tuple[Dataset | None, list[TrainerCallback]]:
    """The rows that a trainer evaluates on, and the callbacks that score them as instructions and stop in time.

    Args:
        tokenizer: null where the model cannot answer, as a reward model: then nothing is scored as instructions.
        strategy: of the `Launch`; default: that of this process.

    Raises:
        UserError: there is nothing to evaluate on, nothing that could tell when to stop, or the weights are sharded, so
            that no process could generate alone: all would wait for each other.
    """
    if args.eval_strategy == "no":
        if arguments.patience is not None:
            raise UserError("--patience: needs evaluations; set --eval_strategy steps and --eval_steps")
        return None, []
    if tokenizer is not None and (strategy_here() if strategy is None else strategy) in ("fsdp", "zero"):
        raise UserError(
            "eval_strategy: held-out instructions cannot be scored while weights are sharded (FSDP, DeepSpeed); set "
            "--eval_strategy no and --load_best_model_at_end false, and score the adapter afterwards with "
            "recipes/evaluate.py"
        )
    if arguments.eval_items < 1 or not len(validation):
        raise UserError(
            "--eval_strategy: there are no validation rows to evaluate on; "
            "set --eval_items, build from more documents, or set --eval_strategy no"
        )
    rows = validation.shuffle(seed=0).select(range(min(arguments.eval_items, len(validation))))
    callbacks: list[TrainerCallback] = []
    if tokenizer is not None:
        callbacks.append(HeldOutEvaluation([from_row(row) for row in rows], tokenizer))
    if arguments.patience is not None:
        if not args.load_best_model_at_end:
            raise UserError("--patience: needs --load_best_model_at_end true and a --metric_for_best_model")
        callbacks.append(EarlyStoppingCallback(arguments.patience))
    return rows, callbacks


class ProgressLine(TrainerCallback):
    """One line per logging step: percent, step, loss, learning rate, tokens per second, time left."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.started, self.first_step = time.monotonic(), state.global_step
        self.last_time, self.last_tokens = self.started, state.num_input_tokens_seen

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        logs = logs or {}
        if not state.is_world_process_zero or not {"loss", "eval_loss", "eval_reward"} & logs.keys():
            return
        now = time.monotonic()
        if "loss" not in logs:
            loss = f"  loss {logs['eval_loss']:.4f}" if "eval_loss" in logs else ""
            print(f"      evaluation{loss}{_figures(logs, RANKED)}", flush=True)
            return
        done, total = state.global_step, max(state.max_steps, 1)
        tokens = int(state.num_input_tokens_seen)
        speed = (tokens - self.last_tokens) / max(now - self.last_time, 1e-9)
        left = (now - self.started) / max(done - self.first_step, 1) * (total - done)
        self.last_time, self.last_tokens = now, tokens
        print(
            f"{done / total:5.0%}  step {done}/{total}  loss {logs['loss']:.4f}  lr {logs.get('learning_rate', 0):.2e}"
            f"{_figures(logs, REWARDED)}  {speed:.0f} tok/s  {int(left) // 60}m{int(left) % 60:02d}s left",
            flush=True,
        )


def _figures(logs: dict[str, float], keys: Sequence[str]) -> str:
    """Those of the keys that a log has; TRL logs null where a reward applied to nothing."""
    return "".join(f"  {key.removeprefix('eval_')} {logs[key]:.3f}" for key in keys if logs.get(key) is not None)
