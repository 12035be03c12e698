"""What is known of a loss before the first step: a run that begins elsewhere does not train what its config says."""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from instructrec.core.errors import UserError

EXACT, ROUNDED = 1e-4, 1e-2
"""The relative difference that a first loss may have, in fp32 and where 16 bits are computed with: there the policy and
the reference may round otherwise (checkpointing, autocast, a kernel's order of addition)."""


def first_dpo_loss(args: Any) -> float | None:
    """The loss of DPO while the policy still is the reference, so that every log-ratio is 0.

    The sigmoid's is -log σ(0) = ln 2 (Rafailov et al., 2023, https://arxiv.org/abs/2305.18290, equation 7), IPO's is
    (0 - 1/2β)² (Azar et al., 2023, https://arxiv.org/abs/2310.12036, equation 17).

    Args:
        args: TRL's `DPOConfig`.

    Returns:
        Their sum by `loss_weights`; null for other losses, and where pairs are weighted.
    """
    known = {"sigmoid": math.log(2), "ipo": (1 / (2 * args.beta)) ** 2}
    if args.use_weighting or not known.keys() >= set(args.loss_type):
        return None
    weights = args.loss_weights or [1.0] * len(args.loss_type)
    return sum(weight * known[name] for name, weight in zip(args.loss_type, weights, strict=True))


def _cause(found: float) -> str:
    """Why a policy would not be its own reference at first, and the mend."""
    if not math.isfinite(found):
        return "a log-probability is not finite; give --dtype bfloat16 in place of float16, or look at the base"
    return "the reference is not the adapter that training starts from; give it as --init_adapter"


class FirstLoss(TrainerCallback):
    """Ends a run of DPO whose first loss is not the one that is known.

    Where none is known, as beside `sft`, the first implicit reward of the right answers must be 0, as log-ratios are.

    Args:
        args: TRL's `DPOConfig`; its `logging_first_step` and `logging_nan_inf_filter` are set, for the loss is read
            from the trainer's log.
        coarse: whether the model computes in 16 bits somewhere.
    """

    def __init__(self, args: Any, coarse: bool) -> None:
        self.expected, self.tolerance = first_dpo_loss(args), ROUNDED if coarse else EXACT
        args.logging_first_step = True
        args.logging_nan_inf_filter = False  # with it, a first loss that is not finite is logged as 0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Raise `UserError` at the first step if its loss or reward is another; every process sees the same.

        Of a mixture of experts no loss is known: TRL adds the router's auxiliary loss, and logs it beside the sum.
        """
        logs = logs or {}
        name, expected = "loss", self.expected
        if expected is None or "aux_loss" in logs:
            name, expected = "rewards/chosen", 0.0
        if state.global_step != 1 or name not in logs:
            return
        found = logs[name]
        if abs(found - expected) <= self.tolerance * (expected or 1):  # NaN is not
            return
        cause = _cause(found)
        if math.isfinite(found) and not getattr(args, "disable_dropout", True):
            cause = "the policy has dropout and the reference has not; set --disable_dropout true"
        raise UserError(
            f"first {name}: is {found:.4f} and not {expected:.4f}, which it is as long as the policy is its own "
            f"reference: {cause}"
        )


class FirstKl(TrainerCallback):
    """Ends a run of GRPO, RLOO or PPO whose policy is not its own reference before it has learnt anything.

    Their distance is then 0 in every token (a reference that is another model shows in its first value; trl#1340).

    Args:
        args: the trainer's; its `logging_first_step` is set, for the distance is read from the
            trainer's log.
        coarse: whether the model computes in 16 bits somewhere.
    """

    def __init__(self, args: Any, coarse: bool) -> None:
        self.tolerance = ROUNDED if coarse else EXACT
        args.logging_first_step = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Raise `UserError` at the first step if it is another; every process sees the same."""
        kl = (logs or {}).get("kl", (logs or {}).get("objective/kl"))
        if state.global_step != 1 or kl is None or abs(kl) <= self.tolerance:  # NaN is not
            return
        raise UserError(f"first KL: is {kl:.4f} nats and not 0, as long as nothing is learnt: {_cause(kl)}")
