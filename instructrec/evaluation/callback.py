"""Evaluation during training: what a trainer's own evaluation loss does not tell, on a few held-out instructions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from instructrec.evaluation.results import item_scores
from instructrec.evaluation.scoring import Scorer
from instructrec.evaluation.suites import Item

WATCHED = ("gold_nll", "rouge_l", "accuracy", "stop_rate")


class HeldOutEvaluation(TrainerCallback):
    """Scores held-out instructions at every evaluation of a trainer and adds the means to its metrics.

    `metric_for_best_model: gold_nll` (or `rouge_l`, `accuracy`, `stop_rate`) then keeps the best checkpoint, and
    transformers' `EarlyStoppingCallback`, given after this one, stops when it no longer improves. The items must be
    of the validation split: what chooses a checkpoint measures nothing afterwards. Every process needs the whole model,
    so that it can generate alone.

    Args:
        items: what to ask; processes share them.
        tokenizer: with a chat template.
        batch_size: prompts encoded together.
    """

    def __init__(self, items: Sequence[Item], tokenizer: Any, batch_size: int = 8) -> None:
        self.items, self.tokenizer, self.batch_size = list(items), tokenizer, batch_size

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        model, metrics = given["model"], given["metrics"]
        training = model.training
        model.eval()
        scorer = Scorer(model, self.tokenizer, self.batch_size)
        mine = self.items[args.process_index :: args.world_size]
        limits = scorer.limits(self.items, None)[args.process_index :: args.world_size]
        answered = scorer.score(mine, limits)
        model.train(training)
        scores = gather_object([item_scores(item, answer) for item, answer in zip(mine, answered, strict=True)])
        found = {name: [entry[name] for entry in scores if name in entry] for name in WATCHED}
        means = {f"eval_{name}": sum(values) / len(values) for name, values in found.items() if values}
        # The trainer looks here for its `metric_for_best_model`, and callbacks after this one do.
        metrics.update(means)
        state.log_history.append({"step": state.global_step, **means})
        if state.is_world_process_zero:
            figures = "  ".join(f"{name.removeprefix('eval_')} {value:.4f}" for name, value in means.items())
            print(f"      held out    {figures}  ({len(self.items)} items)", flush=True)
