"""A policy with its critic and its reference: adapters and a linear layer on one backbone."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import get_peft_model
from torch import Tensor, nn
from trl.trainer.utils import create_model_from_path, disable_dropout_in_model, use_adapter

from instructrec.adapters import reference
from instructrec.trainers.advantages import logprobs_of
from instructrec.trainers.ppo_config import PPOConfig
from instructrec.trainers.rollouts import Laid, only

REFERENCE, CRITIC = "ref", "critic"
"""Names of adapters beside the policy's own, which is PEFT's `default`."""


def make_policy(path: str, args: PPOConfig, quantization_config: Any, peft_config: Any) -> Any:
    """A model with a new adapter, without dropout, and with the critic's layer as `value_head`, which is 0 at first.

    As in TRL's trainers, the adapter of a quantized base is in bfloat16.

    Args:
        path: of the base model.
        args: `model_init_kwargs`, if it has that attribute, goes to `from_pretrained`.
    """
    options = dict(getattr(args, "model_init_kwargs", None) or {})
    if quantization_config is not None:
        options["quantization_config"] = quantization_config
    if args.world_size > 1:
        options["device_map"] = None
    policy: Any = get_peft_model(create_model_from_path(path, **options), peft_config)
    if args.critic == "adapter":
        policy.add_adapter(CRITIC, copy.deepcopy(policy.peft_config["default"]))
        policy.set_requires_grad(CRITIC)
    if quantization_config is not None:
        for name, parameter in policy.named_parameters():
            if parameter.requires_grad and "lora_magnitude_vector" not in name:
                parameter.data = parameter.data.to(torch.bfloat16)
    disable_dropout_in_model(policy)
    for module in policy.modules():
        if getattr(module, "attention_dropout", 0):
            module.attention_dropout = 0.0
    if args.activation_checkpointing:
        policy.enable_input_require_grads()
    size = policy.get_output_embeddings().weight.shape[1]
    policy.value_head = nn.Linear(size, 1, device=policy.device, dtype=torch.float32)
    nn.init.zeros_(policy.value_head.weight)
    nn.init.zeros_(policy.value_head.bias)
    return policy


class Passes:
    """The forward passes over laid out responses, at whose positions alone anything is computed after the last layer.

    Args:
        policy: of `make_policy`.
        critic: one of `CRITICS`.
    """

    def __init__(self, policy: Any, critic: str) -> None:
        self.policy, self.critic = policy, critic

    def logits(self, model: Any, laid: Laid) -> tuple[Tensor, Tensor]:
        """(n, vocabulary) in float32 and (n, size) hidden states, at the n positions of responses.

        Args:
            model: the policy, or what wraps it for several processes.
        """
        with only(self.policy, laid.wanted) as hidden:
            logits = model(input_ids=laid.ids, use_cache=False).logits[0].float()
        return logits, hidden[0]

    def values(self, model: Any, laid: Laid, hidden: Tensor) -> Tensor:
        """(n,): the critic's, at the n positions of responses; `hidden` is the policy's."""
        if self.critic == "adapter":
            with self._active(CRITIC), only(self.policy, laid.wanted, logits=False) as own:
                model(input_ids=laid.ids, use_cache=False)
            hidden = own[0]
        elif self.critic == "stop_gradient":
            hidden = hidden.detach()
        return self.policy.value_head(hidden.float())[:, 0]

    def reference_logprobs(self, laid: Laid) -> Tensor:
        """(n,): log-probabilities by the adapter `ref`, or by the base model where there is none."""
        with reference(self.policy):
            found = logprobs_of(self.logits(self.policy, laid)[0], laid.responses)
        self.unfreeze()
        return found

    def unfreeze(self) -> None:
        """Let everything but the reference be trained: PEFT freezes each adapter that another one takes over from."""
        self.policy.set_requires_grad([name for name in self.policy.peft_config if name != REFERENCE])

    @contextmanager
    def _active(self, adapter: str) -> Iterator[None]:
        with use_adapter(self.policy, adapter):
            yield
        self.unfreeze()
