"""What every training recipe shares: where it may write, how it resumes, and the line that shows its progress."""

from __future__ import annotations

import gc
import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from instructrec.core.errors import UserError
from instructrec.core.files import write_json
from instructrec.data import HeldOutArguments
from instructrec.evaluation.callback import HeldOutEvaluation
from instructrec.evaluation.suites import from_row
from instructrec.lineage import without_secrets

if TYPE_CHECKING:
    from datasets import Dataset

RUN = "run.json"
"""The config that an output folder was started with."""

# Keys that change how a run is watched or where it runs, not what it computes.
_HARMLESS = {"logging_steps", "save_steps", "save_total_limit", "report_to", "output_dir", "disable_tqdm", "use_cpu"}


def prepare_output(folder: Path, config: dict[str, Any], main_process: bool) -> str | None:
    """Claim an output folder and find where to resume.

    Returns:
        The last complete checkpoint, or null for a fresh run.

    Raises:
        UserError: the folder holds a run with another config, or something that is not a run.
        SystemExit: with code 0, the run is already finished.
    """
    wanted = json.loads(json.dumps(without_secrets(config), default=str))
    record = folder / RUN
    if record.exists():
        found = json.loads(record.read_text(encoding="utf-8"))
        keys = sorted(k for k in {*wanted, *found} - _HARMLESS if wanted.get(k) != found.get(k))
        if keys and not any(folder.glob("checkpoint-*")) and not (folder / "lineage.json").exists():
            if main_process:  # that run ended before it had trained anything
                record.unlink(missing_ok=True)
        elif keys:
            changes = ", ".join(_change(key, found.get(key), wanted.get(key)) for key in keys[:3])
            raise UserError(f"{folder}: holds a run with another config ({changes}); choose another --output_dir")
        elif (folder / "lineage.json").exists():
            if main_process:
                print(f"{folder}: already trained with this config; nothing to do")
            raise SystemExit(0)
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: is not empty and holds no run of a recipe; choose another --output_dir")
    if main_process:
        folder.mkdir(parents=True, exist_ok=True)
        if not record.exists():
            write_json(record, wanted)
        for saved in folder.glob("checkpoint-*"):
            if not _is_complete(saved):
                shutil.rmtree(saved)  # a kill in the middle of saving
    checkpoint = get_last_checkpoint(str(folder)) if folder.exists() else None
    if checkpoint and main_process:
        print(f"resuming from {checkpoint}")
    return checkpoint


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


def end_where_told(trainer: Any) -> None:
    """Train no further step where a run resumes from the checkpoint of its last one, as transformers 5.23 would."""
    run_epoch = trainer._run_epoch

    def run_unless_done(*args: Any, **options: Any) -> None:
        if trainer.state.global_step < trainer.state.max_steps:
            run_epoch(*args, **options)
        else:
            trainer.control.should_training_stop = True

    trainer._run_epoch = run_unless_done


def tidy(folder: Path) -> None:
    """Remove what a trainer leaves that must not be published: pickled arguments and a card without facts."""
    for name in ("training_args.bin", "README.md"):
        (folder / name).unlink(missing_ok=True)


def end(trainer: Any) -> None:
    """Close the trackers of a `Trainer` and part from the other processes, at the end of a script.

    The data-parallel wrapper is let go first. Were it the last to hold the process group, taking it apart would wait,
    with Python's lock in hand, for a thread of gloo that sometimes waits for that lock.
    """
    trainer.model_wrapped = trainer.model
    trainer.accelerator.free_memory()
    gc.collect()
    trainer.end()


def held_out(
    arguments: HeldOutArguments, validation: Dataset, args: TrainingArguments, tokenizer: Any
) -> tuple[Dataset | None, list[TrainerCallback]]:
    """The rows that a trainer evaluates on, and the callbacks that score them as instructions and stop in time.

    Raises:
        UserError: there is nothing to evaluate on, or nothing that could tell when to stop.
    """
    if args.eval_strategy == "no":
        if arguments.patience is not None:
            raise UserError("--patience: needs evaluations; set --eval_strategy steps and --eval_steps")
        return None, []
    if arguments.eval_items < 1 or not len(validation):
        raise UserError(
            "--eval_strategy: there are no validation rows to evaluate on; "
            "set --eval_items, build from more documents, or set --eval_strategy no"
        )
    rows = validation.shuffle(seed=0).select(range(min(arguments.eval_items, len(validation))))
    callbacks: list[TrainerCallback] = [HeldOutEvaluation([from_row(row) for row in rows], tokenizer)]
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
        if not state.is_world_process_zero or ("loss" not in logs and "eval_loss" not in logs):
            return
        now = time.monotonic()
        if "eval_loss" in logs:
            print(f"      evaluation  loss {logs['eval_loss']:.4f}", flush=True)
            return
        done, total = state.global_step, max(state.max_steps, 1)
        tokens = int(state.num_input_tokens_seen)
        speed = (tokens - self.last_tokens) / max(now - self.last_time, 1e-9)
        left = (now - self.started) / max(done - self.first_step, 1) * (total - done)
        self.last_time, self.last_tokens = now, tokens
        print(
            f"{done / total:5.0%}  step {done}/{total}  loss {logs['loss']:.4f}  lr {logs.get('learning_rate', 0):.2e}"
            f"  {speed:.0f} tok/s  {int(left) // 60}m{int(left) % 60:02d}s left",
            flush=True,
        )
