"""Keys that are right alone and wrong together, each fault with its mend; `preflight` has what a model or rows tell."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from instructrec.config import COMMAND_LINE
from instructrec.core.errors import UserError, nearest

LOWER_IS_BETTER = ("loss", "gold_nll")
TRACKERS = (
    "clearml",
    "codecarbon",
    "comet_ml",
    "dagshub",
    "dvclive",
    "mlflow",
    "swanlab",
    "tensorboard",
    "trackio",
    "wandb",
)
DPO_LOSSES = (
    *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired"),
    *("apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
)
SAMPLED_AS_SCORED = {"top_p": 1.0, "top_k": 0, "min_p": None, "repetition_penalty": 1.0, "generation_kwargs": None}
"""Keys of generation that TRL does not know of where it computes the probabilities of answers, and their values that
change nothing (trl#615)."""
OF_DIFFERENCES = ("sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft")
"""The losses of TRL's DPO, and those among them that another divergence than the reverse KL leaves meaningful."""


def check_combinations(values: Mapping[str, Any], given: Mapping[str, str]) -> None:
    """Raise `UserError` for the first fault among the resolved `values` of a config.

    So is what a part of a `mixture` must not be (see `parts.read_parts`).

    Args:
        values: every key of the recipe's records, defaults included; a key that it does not have counts as unset.
        given: the keys that the YAML or the command line set, and which of the two did.
    """
    known = defaultdict(lambda: None, values)
    for faults in (
        *(_data, _precision, _preferences, _reward_model, _answers, _policy, _quantization, _adapter, _attention),
        *(_steps, _resumption, _best_model, _trackers),
    ):
        for fault in faults(known, given):
            raise UserError(fault)


def _data(v: Mapping[str, Any], given: Mapping[str, str]) -> Iterator[str]:
    from instructrec.parts import read_parts

    if v["mixture"] is None:
        return
    if "dataset_name" in given:
        yield "mixture: takes the place of dataset_name; leave one of them out"
    read_parts(v["mixture"])


def _precision(v: Mapping[str, Any], given: Mapping[str, str]) -> Iterator[str]:
    if v["bf16"] and v["fp16"]:
        yield "bf16 and fp16: only one of them can be true; set fp16: false"
    if v["bf16_full_eval"] and v["fp16_full_eval"]:
        yield "bf16_full_eval and fp16_full_eval: only one of them can be true; set fp16_full_eval: false"
    if v["fp16"] and v["use_cpu"]:
        yield "fp16: needs a GPU and this run uses the CPU; set bf16: true in its place, or neither"


def _quantization(v: Mapping[str, Any], given: Mapping[str, str]) -> Iterator[str]:
    bits = [key for key in ("load_in_4bit", "load_in_8bit") if v[key]]
    if len(bits) == 2:
        yield "load_in_4bit and load_in_8bit: only one of them can be true; set load_in_8bit: false"
    if bits and not v["use_peft"]:
        yield f"{bits[0]}: quantized weights are not trained, only an adapter on them is; set use_peft: true"
    if v["load_in_4bit"] and v["dtype"] == "auto":
        yield "load_in_4bit: dtype is what it computes in and cannot be auto; set dtype: bfloat16"
    if v["use_bnb_nested_quant"] and not v["load_in_4bit"]:
        yield "use_bnb_nested_quant: nothing is loaded in 4 bits; set load_in_4bit: true, or leave it out"


def _adapter(v: Mapping[str, Any], given: Mapping[str, str]) -> Iterator[str]:
    if v["init_adapter"] and not v["use_peft"]:
        yield "init_adapter: full fine-tuning has no adapter to go on from; set use_peft: true"
    of_adapter = [key for key in given if key.startswith("lora_") or key in ("use_dora", "use_rslora")]
    # An adapter that the YAML describes can be left out on the command line.
    if given.get("use_peft") == COMMAND_LINE:
        of_adapter = [key for key in of_adapter if given[key] == COMMAND_LINE]
    if of_adapter and not v["use_peft"]:
        yield f"{of_adapter[0]}: all weights are trained and no adapter is; set use_peft: true, or leave it out"


def _attention(v: Mapping[str, Any], given: Mapping[str, str]) -> Iterator[str]:
    packed = [key for key in ("packing", "eval_packing") if v[key]]
    implementation = v["attn_implementation"]
    if packed and v["max_length"] is None:
        yield f"{packed[0]}: needs a max_length, the tokens of a packed sequence; set max_length: 1024"
    if packed and v["packing_strategy"] == "wrapped":
        yield "packing_strategy: with wrapped, rows that share a sequence see each other; set packing_strategy: bfd"
    if v["padding_free"] and not v["packing"] and v["max_length"] is not None:
        yield "padding_free: cuts nothing at max_length; set packing: true, or max_length: null"
    if str(implementation).startswith("flash_attention") and v["dtype"] in (None, "float32"):
        yield f"dtype: {implementation} computes in 16 bits only, also where nothing is trained; set dtype: bfloat16"
    if v["use_cpu"] and implementation not in (None, "eager", "sdpa"):
        yield f"attn_implementation: {implementation} does not train on a CPU; set attn_implementation: sdpa"


def _steps(v: Mapping[str, Any], given: Mapping[str, str]) -> Iterator[str]:
    tried = given.get("max_steps") == COMMAND_LINE != given.get("num_train_epochs")  # a few steps of the YAML's epochs
    if "num_train_epochs" in given and (v["max_steps"] or 0) > 0 and not tried:
        yield f"num_train_epochs: max_steps, which is {v['max_steps']}, would override it; set max_steps: -1"
    if v["truncation_mode"] == "keep_end":
        yield "truncation_mode: rows longer than max_length are left out, not truncated; leave the key out"


def _resumption(v: Mapping[str, Any], given: Mapping[str, str]) -> Iterator[str]:
    for key in ("save_only_model", "ignore_data_skip"):
        if v[key]:
            yield f"{key}: after an interruption the run would end otherwise than without; leave it out"


def _reward_model(v: Mapping[str, Any], given: Mapping[str, str]) -> Iterator[str]:
    if "center_rewards_coefficient" not in v:
        return
    if (v["load_in_4bit"] or v["load_in_8bit"]) and v["dtype"] != "bfloat16":
        yield "dtype: TRL trains the output layer on a quantized base in bfloat16; set dtype: bfloat16"


def _preferences(v: Mapping[str, Any], given: Mapping[str, str]) -> Iterator[str]:
    if "f_divergence_type" not in v:
        return
    losses, smoothing = v["loss_type"], v["label_smoothing"]
    losses = [losses] if isinstance(losses, str) else list(losses)
    for loss in losses:
        if loss not in DPO_LOSSES:
            yield f"loss_type: must be one of {', '.join(DPO_LOSSES)}, not {loss!r}.{nearest(loss, DPO_LOSSES)}"
    if v["loss_weights"] is not None and len(v["loss_weights"]) != len(losses):
        yield f"loss_weights: are {len(v['loss_weights'])} for {len(losses)} losses; give one for each loss_type"
    if not v["beta"] > 0:
        yield f"beta: must be above 0, not {v['beta']}: nothing would hold the policy to its reference; set beta: 0.1"
    if not v["use_peft"]:
        yield "use_peft: with all weights trained the reference would be a second model; set use_peft: true"
    if v["precompute_ref_log_probs"]:
        yield (
            "precompute_ref_log_probs: they would be those of the base, before the adapter is loaded, and a reference "
            "that is an adapter takes little memory; leave it out"
        )
    if v["sync_ref_model"]:
        yield "sync_ref_model: the reference is the frozen copy of the adapter and stays as it is; leave it out"
    if v["padding_free"]:
        yield "padding_free: TRL's DPO has it switched off; leave it out"
    if "exo_pair" in losses and not smoothing:
        yield "label_smoothing: exo_pair needs one above 0; set label_smoothing: 0.001"
    if "robust" in losses and smoothing >= 0.5:
        yield f"label_smoothing: robust is about less than half of the pairs, not {smoothing}; set label_smoothing: 0.1"
    if smoothing and not {"exo_pair", "robust"} & set(losses):
        yield f"label_smoothing: {losses[0]} does not read it; set loss_type: robust, or leave it out"
    if v["use_weighting"] and {"aot", "aot_unpaired"} & set(losses):
        yield "use_weighting: aot sorts the pairs of a batch, so that they have no weights of their own; leave it out"
    if v["f_divergence_type"] != "reverse_kl" and (odd := [loss for loss in losses if loss not in OF_DIFFERENCES]):
        yield f"f_divergence_type: {odd[0]} is defined for reverse_kl only; leave it out"


def _answers(v: Mapping[str, Any], given: Mapping[str, str]) -> Iterator[str]:
    """Of GRPO and RLOO."""
    if "num_generations" not in v or "num_ppo_epochs" in v:
        return
    if (v["num_generations"] or 2) < 2:
        yield "num_generations: must be 2 or more, because answers to a prompt are compared; set num_generations: 8"
    if v["beta"] < 0:
        yield f"beta: must be 0 or more, not {v['beta']}: it holds the policy to its reference; set beta: 0.04"
    if v["beta"] and not v["use_peft"]:
        yield "use_peft: with all weights trained the reference would be a second model; set use_peft: true, or beta: 0"
    if v["sync_ref_model"]:
        yield "sync_ref_model: the reference is the frozen copy of the adapter and stays as it is; leave it out"
    if v["reward_weights"] is not None:
        yield "reward_weights: the YAML of the rewards has their weights; leave it out"
    if v["remove_unused_columns"]:
        yield "remove_unused_columns: rewards read the other columns of a row; leave it out"
    if not v["disable_dropout"] and v["use_peft"] and v["lora_dropout"]:
        yield "disable_dropout: with dropout an answer is sampled from another policy than learns; set it to true"
    for key, plain in SAMPLED_AS_SCORED.items():
        if v[key] != plain:
            yield f"{key}: answers would be sampled from another distribution than the one that learns; leave it out"
    for key in ("use_transformers_continuous_batching", "use_transformers_paged"):
        if v[key]:
            yield f"{key}: it turns the adapter into 16 bits while it samples; leave it out"
    if v["use_vllm"] and find_spec("vllm") is None:
        yield "use_vllm: vllm is not installed; run `pip install 'trl[vllm]'`, or leave it out"
    if v["generation_batch_size"] is not None:
        yield "generation_batch_size: depends on the number of processes; set steps_per_generation in its place"
    # TRL samples anew when it resumes, wherever it was.
    accumulated = v["gradient_accumulation_steps"]
    steps = math.lcm((v["steps_per_generation"] or accumulated) * v["num_iterations"], accumulated) // accumulated
    if v["save_strategy"] == "steps" and steps > 1 and v["save_steps"] % steps:
        yield (
            f"save_steps: the same answers are learnt from for {steps} steps, and a run that resumes between them "
            f"would sample others; set save_steps: {steps * max(1, round(v['save_steps'] / steps))}"
        )


def _policy(v: Mapping[str, Any], given: Mapping[str, str]) -> Iterator[str]:
    """Of PPO."""
    if "num_ppo_epochs" not in v:
        return
    if not v["use_peft"]:
        yield "use_peft: with all weights trained the reference would be a second model; set use_peft: true"
    if v["lora_dropout"] and "lora_dropout" in given:
        yield "lora_dropout: what is scored must be what was drawn, so that PPO has no dropout; leave it out"
    if v["critic"] == "adapter" and v["activation_checkpointing"]:
        yield (
            "activation_checkpointing: a layer of the critic would be computed again with the adapter of the policy; "
            "set critic: stop_gradient, or activation_checkpointing: false"
        )
    if v["kl_target"] is not None and not v["kl_coef"]:
        yield "kl_target: kl_coef is 0 and stays so, whatever it is multiplied by; set kl_coef: 0.05"


def _best_model(v: Mapping[str, Any], given: Mapping[str, str]) -> Iterator[str]:
    if not v["load_best_model_at_end"]:
        return
    evaluated, saved, mend = v["eval_strategy"], v["save_strategy"], "or load_best_model_at_end: false"
    if evaluated == "no":
        yield f"load_best_model_at_end: nothing is evaluated; set eval_strategy: steps, {mend}"
    if saved not in (evaluated, "best"):
        yield f"load_best_model_at_end: save_strategy is {saved}; set save_strategy: {evaluated}, {mend}"
    every, save = v["eval_steps"] or v["logging_steps"], v["save_steps"]
    if evaluated == saved == "steps" and min(every, save) >= 1 and save % every:
        yield (
            f"save_steps: {save:g} is no multiple of eval_steps, {every:g}, so that the best model might not be saved; "
            f"set save_steps: {every * max(1, round(save / every)):g}, {mend}"
        )
    from instructrec.evaluation.callback import WATCHED

    metric = (v["metric_for_best_model"] or "loss").removeprefix("eval_")
    metrics = ["loss", *WATCHED]
    if "f_divergence_type" in v:  # DPO
        metrics += ["rewards/accuracies", "rewards/margins"]
    elif "center_rewards_coefficient" in v:  # a reward model, which cannot be asked instructions
        metrics = ["loss", "accuracy", "margin"]
    elif "num_generations" in v:  # of rewards the best is what was trained for, and their loss means nothing
        metrics = [*WATCHED]
    if metric not in metrics:
        yield f"metric_for_best_model: must be one of {', '.join(metrics)}, not {metric!r}.{nearest(metric, metrics)}"
    # transformers takes every metric whose name does not end in `loss` for one that should grow.
    lower, greater = metric in LOWER_IS_BETTER, v["greater_is_better"]
    if lower == (metric != "loss" if greater is None else greater):
        yield f"greater_is_better: {metric} is better when it is {'lower' if lower else 'higher'}; " + (
            f"set greater_is_better: {str(not lower).lower()}"
        )


def _trackers(v: Mapping[str, Any], given: Mapping[str, str]) -> Iterator[str]:
    from transformers.integrations.integration_utils import get_available_reporting_integrations

    wanted = v["report_to"] if isinstance(v["report_to"], list) else [v["report_to"]]
    for name in TRACKERS:
        if name in wanted and name not in get_available_reporting_integrations():
            yield f"report_to: {name} is not installed; run `pip install {name}`"
