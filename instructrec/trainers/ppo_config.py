"""What a run of PPO is told."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import TrainingArguments

CRITICS = ("shared", "stop_gradient", "adapter")
"""Where the gradient of the value loss goes."""


@dataclass
class PPOConfig(TrainingArguments):
    """transformers' `TrainingArguments`, and PPO's own keys, most by the names that TRL 1.12 had for them.

    A step is one round of responses and what is learnt from it: `per_device_train_batch_size` ×
    `gradient_accumulation_steps` responses of each process are a mini-batch, and `num_mini_batches` of these a step.
    `max_steps`, `save_steps`, `eval_steps` and the learning rate's schedule count steps.
    """

    num_ppo_epochs: int = field(default=2, metadata={"help": "Passes over the responses of a step."})
    num_mini_batches: int = field(default=2, metadata={"help": "Optimizer steps of a pass."})
    num_generations: int = field(default=4, metadata={"help": "Responses to a prompt."})
    max_completion_length: int = field(default=64, metadata={"help": "Tokens of a response at most."})
    rollout_batch_size: int = field(default=32, metadata={"help": "Responses that a process draws at once."})
    missing_eos_penalty: float = field(default=0.0, metadata={"help": "Taken from R of a response that did not end."})
    kl_coef: float = field(default=0.05, metadata={"help": "β, what a nat of KL to the reference costs, at first."})
    kl_target: float | None = field(
        default=None, metadata={"help": "Let β follow the KL: nats of a response; default: β stays."}
    )
    kl_horizon: int = field(default=200, metadata={"help": "Responses in which β changes by a fifth at most."})
    gamma: float = field(default=1.0, metadata={"help": "γ, what the next token's value counts."})
    lam: float = field(default=0.95, metadata={"help": "λ of the advantage estimates."})
    cliprange: float = field(default=0.2, metadata={"help": "ε of the policy's ratio."})
    cliprange_value: float | None = field(
        default=0.2, metadata={"help": "How far a value may move in a step; null does not clip."}
    )
    vf_coef: float = field(default=0.5, metadata={"help": "Weight of the value loss."})
    entropy_coef: float = field(default=0.0, metadata={"help": "Weight of the policy's entropy."})
    stop_kl: float | None = field(
        default=None, metadata={"help": "End a step at a mini-batch this far from its rollout, in nats of a token."}
    )
    critic: str = field(
        default="stop_gradient",
        metadata={"help": "Where the value loss's gradient goes beyond its last layer.", "choices": list(CRITICS)},
    )
    value_head_learning_rate: float | None = field(
        default=None, metadata={"help": "Of the critic's last layer; default: learning_rate."}
    )
    logged_samples: int = field(default=4, metadata={"help": "Responses that a log keeps in samples.jsonl."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.generation_batch_size % self.num_generations:
            raise ValueError(
                f"num_generations: a step has {self.generation_batch_size} responses (per_device_train_batch_size × "
                "gradient_accumulation_steps × num_mini_batches × processes), which are not so many for each prompt "
                f"with {self.num_generations}"
            )

    @property
    def generation_batch_size(self) -> int:
        """Responses of a step, on all processes."""
        of_process = self.per_device_train_batch_size * self.gradient_accumulation_steps * self.num_mini_batches
        return of_process * self.world_size
