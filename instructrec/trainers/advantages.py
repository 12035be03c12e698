"""The arithmetic of PPO, as pure functions of tensors; `instructrec.trainers.ppo` derives each term.

Responses stand in rows, right-padded: every tensor of a step is (responses, tokens of the longest), and `mask` is 1 at
the tokens of a response. Losses are per token, so that the caller can weight each token of a mini-batch alike, however
it is spread over micro-batches and processes.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-8
"""Added to a variance before it divides."""

KL_STEP = 0.2
"""The largest relative error of the KL that the controller reacts to (Ziegler et al., 2019, section 2.2)."""


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of `values` where `mask` is 1; 0 where it is nowhere."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def masked_variance(values: Tensor, mask: Tensor) -> Tensor:
    """The mean squared distance from the mean where `mask` is 1."""
    return masked_mean((values - masked_mean(values, mask)) ** 2, mask)


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """`values` with mean 0 and variance 1 over the mask, 0 elsewhere; computed in float64.

    In float32 the rounding of a mean, divided by the root of `EPSILON`, would make something of equal values.
    """
    wide, weights = values.double(), mask.double()
    whitened = (wide - masked_mean(wide, weights)) * (masked_variance(wide, weights) + EPSILON).rsqrt()
    return (whitened * weights).to(values.dtype)


def token_rewards(kl: Tensor, scores: Tensor, mask: Tensor, coefficient: float) -> Tensor:
    """What each token earns: -coefficient·KL, and the last of a response its score too.

    Args:
        kl: (n, t), log π_old - log π_ref of each token.
        scores: (n,), of whole responses.
        mask: (n, t), of the responses, which have a token at least.
    """
    rewards = -coefficient * kl * mask
    last = mask.sum(1).long() - 1
    rewards[torch.arange(len(rewards), device=rewards.device), last] += scores.to(rewards.dtype)
    return rewards


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimates and the returns that the critic learns, both (n, t) and 0 outside the mask.

    Nothing follows the last token of a response, whether it ended or was cut off.
    """
    advantages = torch.zeros_like(rewards)
    advantage = following = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        error = rewards[:, t] + gamma * following - values[:, t]
        advantage = (error + gamma * lam * advantage) * mask[:, t]
        following = values[:, t] * mask[:, t]
        advantages[:, t] = advantage
    return advantages, (advantages + values) * mask


def policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, cliprange: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The clipped surrogate of each token; its ratio π/π_old; and whether the clipped ratio was what counted."""
    ratio = (logprobs - old_logprobs).exp()
    plain, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - cliprange, 1 + cliprange)
    return torch.maximum(plain, clipped), ratio.detach(), (clipped > plain).detach()


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, cliprange: float | None) -> tuple[Tensor, Tensor]:
    """Half the squared error of each token's value, and whether that of the clipped value counted.

    Args:
        cliprange: how far a value may go from that of the rollout before its error is that of the limit, if that is
            the larger; null does not clip.
    """
    plain = (values - returns) ** 2
    if cliprange is None:
        return 0.5 * plain, torch.zeros_like(plain, dtype=torch.bool)
    clipped = (old_values + (values - old_values).clamp(-cliprange, cliprange) - returns) ** 2
    return 0.5 * torch.maximum(plain, clipped), (clipped > plain).detach()


def approximate_kl(logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """Of each token an estimate of KL(π_old ‖ π) that is never negative: (ρ - 1) - log ρ with ρ = π/π_old.

    Its mean over tokens drawn from π_old is the KL (http://joschu.net/blog/kl-approx.html, `k3`).
    """
    difference = logprobs - old_logprobs
    return difference.exp() - 1 - difference


def logprobs_of(logits: Tensor, tokens: Tensor) -> Tensor:
    """(n,): the log-probability of each of `tokens` (n,) under `logits` (n, vocabulary)."""
    return logits.gather(-1, tokens[:, None])[:, 0] - logits.logsumexp(-1)


def entropy_of(logits: Tensor) -> Tensor:
    """(n,): the entropy in nats of the softmax of `logits` (n, vocabulary)."""
    logprobs = logits.log_softmax(-1)
    return -(logprobs.exp() * logprobs).sum(-1)


def adapted(coefficient: float, kl: float, target: float, horizon: int, responses: int) -> float:
    """The coefficient of the KL after a step: higher where the KL was above its target, lower where below.

    Args:
        kl, target: nats of a whole response, on average.
        horizon: responses in which the coefficient changes by e^±0.2 at most.
        responses: of the step.
    """
    error = min(max(kl / target - 1, -KL_STEP), KL_STEP)
    return coefficient * (1 + error * min(responses / horizon, 1))


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns): 1 is a perfect critic, 0 one that knows the mean at most."""
    total = masked_variance(returns, mask)
    return float(1 - masked_variance(returns - values, mask) / total) if total > 0 else 0.0
