"""PPO's arithmetic against loops over tokens in plain Python, and against derivatives by hand."""

import math

import numpy as np
import pytest
import torch

from instructrec.trainers.advantages import (
    adapted,
    approximate_kl,
    entropy_of,
    explained_variance,
    gae,
    logprobs_of,
    masked_mean,
    masked_variance,
    policy_loss,
    token_rewards,
    value_loss,
    whiten,
)
from instructrec.trainers.rollouts import generator, pick

LENGTHS = (1, 5, 3, 8)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def mask():
    return torch.tensor([[float(t < length) for t in range(max(LENGTHS))] for length in LENGTHS]).double()


def drawn(rng, *shape: int) -> torch.Tensor:
    return torch.tensor(rng.normal(size=shape))


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.97, 0.0)])
def test_advantages_are_the_sums_that_define_them(gamma, lam, rng, mask):
    """Â_t = Σ_l (γλ)^l δ_{t+l}, summed forwards; padding is neither read nor written."""
    rewards, values = drawn(rng, *mask.shape), drawn(rng, *mask.shape)
    rewards = rewards * mask
    advantages, returns = gae(rewards, values, mask, gamma, lam)
    for row, length in enumerate(LENGTHS):
        r, v = rewards[row, :length].numpy(), [*values[row, :length].numpy(), 0.0]
        deltas = [r[t] + gamma * v[t + 1] - v[t] for t in range(length)]
        for t in range(length):
            expected = sum((gamma * lam) ** k * deltas[t + k] for k in range(length - t))
            assert advantages[row, t].item() == pytest.approx(expected, abs=1e-9)
            assert returns[row, t].item() == pytest.approx(expected + v[t], abs=1e-9)
    assert not advantages[mask == 0].any() and not returns[mask == 0].any()
    changed = torch.where(mask == 1, values, torch.full_like(values, 7.0))
    assert gae(rewards, changed, mask, gamma, lam)[0].equal(advantages)


def test_with_lambda_1_a_return_is_what_is_earned_from_there_on(rng, mask):
    rewards = drawn(rng, *mask.shape) * mask
    _, returns = gae(rewards, drawn(rng, *mask.shape), mask, 1.0, 1.0)
    for row, length in enumerate(LENGTHS):
        for t in range(length):
            assert returns[row, t].item() == pytest.approx(rewards[row, t:length].sum().item(), abs=1e-9)


def test_the_last_token_gets_the_score_and_each_pays_for_its_kl(rng, mask):
    kl, scores = drawn(rng, *mask.shape), drawn(rng, len(LENGTHS))
    rewards = token_rewards(kl, scores, mask, 0.3)
    for row, length in enumerate(LENGTHS):
        for t in range(mask.shape[1]):
            expected = (-0.3 * kl[row, t].item() if t < length else 0) + (scores[row].item() if t == length - 1 else 0)
            assert rewards[row, t].item() == pytest.approx(expected, abs=1e-9)


def test_whitened_values_are_numpy_s(rng, mask):
    values = drawn(rng, *mask.shape) * 5 + 3
    kept = values[mask == 1].numpy()
    found = whiten(values, mask)
    assert found[mask == 1].numpy() == pytest.approx((kept - kept.mean()) / kept.std(), abs=1e-6)
    assert not found[mask == 0].any()
    assert masked_mean(values, mask).item() == pytest.approx(kept.mean())
    assert masked_variance(values, mask).item() == pytest.approx(kept.var())


def test_equal_values_are_whitened_to_nothing():
    mask = torch.ones(8, 33)
    assert not whiten(torch.zeros(8, 33), mask).any()
    assert whiten(torch.full((8, 33), 0.7), mask).abs().max() < 1e-6
    assert masked_mean(torch.ones(2, 2), torch.zeros(2, 2)) == 0


def test_the_policy_loss_and_its_gradient_are_those_by_hand(rng):
    """max(-ρÂ, -clip(ρ)Â); its derivative by log π is -ρÂ, or 0 where the clipped term is the larger."""
    old, advantages = drawn(rng, 200), drawn(rng, 200)
    logprobs = (old + 0.4 * drawn(rng, 200)).requires_grad_()
    losses, ratio, clipped = policy_loss(logprobs, old, advantages, 0.2)
    losses.sum().backward()
    for i in range(200):
        rho, a = math.exp(logprobs[i].item() - old[i].item()), advantages[i].item()
        limited = min(max(rho, 0.8), 1.2)
        assert losses[i].item() == pytest.approx(max(-rho * a, -limited * a), abs=1e-9)
        assert ratio[i].item() == pytest.approx(rho)
        cut = -limited * a > -rho * a
        assert clipped[i].item() == cut
        assert logprobs.grad[i].item() == pytest.approx(0 if cut else -rho * a, abs=1e-9)
    assert 0 < clipped.float().mean() < 1


def test_the_value_loss_and_its_gradient_are_those_by_hand(rng):
    old, returns = drawn(rng, 200), drawn(rng, 200)
    values = (old + 0.5 * drawn(rng, 200)).requires_grad_()
    losses, clipped = value_loss(values, old, returns, 0.2)
    losses.sum().backward()
    for i in range(200):
        v, o, g = values[i].item(), old[i].item(), returns[i].item()
        near = o + min(max(v - o, -0.2), 0.2)
        assert losses[i].item() == pytest.approx(0.5 * max((v - g) ** 2, (near - g) ** 2), abs=1e-9)
        cut = (near - g) ** 2 > (v - g) ** 2
        assert clipped[i].item() == cut
        assert values.grad[i].item() == pytest.approx(0 if cut else v - g, abs=1e-9)
    assert 0 < clipped.float().mean() < 1
    plain, never = value_loss(values.detach(), old, returns, None)
    assert plain.numpy() == pytest.approx(0.5 * (values.detach() - returns).numpy() ** 2) and not never.any()


def test_log_probabilities_and_entropy_are_numpy_s(rng):
    logits = drawn(rng, 30, 11) * 3
    tokens = torch.tensor(rng.integers(0, 11, size=30))
    probabilities = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(-1, keepdims=True)
    expected = np.log(probabilities[np.arange(30), tokens.numpy()])
    assert logprobs_of(logits, tokens).numpy() == pytest.approx(expected, abs=1e-9)
    entropy = -(probabilities * np.log(probabilities)).sum(-1)
    assert entropy_of(logits).numpy() == pytest.approx(entropy, abs=1e-9)
    logits.requires_grad_()
    entropy_of(logits).sum().backward()  # ∂H/∂z_i = -p_i (log p_i + H)
    by_hand = -probabilities * (np.log(probabilities) + entropy[:, None])
    assert logits.grad.numpy() == pytest.approx(by_hand, abs=1e-9)


def test_the_mean_of_the_kl_estimate_is_the_kl(rng):
    old, new = torch.log_softmax(drawn(rng, 50), -1), torch.log_softmax(drawn(rng, 50), -1)
    estimates = approximate_kl(new, old)
    assert (estimates >= 0).all() and (approximate_kl(old, old) == 0).all()
    kl = (old.exp() * (old - new)).sum()
    assert (old.exp() * estimates).sum().item() == pytest.approx(kl.item(), abs=1e-9)


def test_the_coefficient_follows_the_kl():
    assert adapted(0.1, 6.0, 6.0, 100, 10) == pytest.approx(0.1)
    assert adapted(0.1, 600.0, 6.0, 100, 10) == pytest.approx(0.1 * 1.02)  # a fifth of 10 of 100 at most
    assert adapted(0.1, 0.0, 6.0, 100, 10) == pytest.approx(0.1 * 0.98)
    assert adapted(0.1, 6.6, 6.0, 100, 10) == pytest.approx(0.1 * 1.01)
    assert adapted(0.1, -1.0, 6.0, 1, 1000) == pytest.approx(0.08)  # a short horizon turns no sign


def test_explained_variance(rng, mask):
    returns = drawn(rng, *mask.shape)
    assert explained_variance(returns + 2, returns, mask) == pytest.approx(1)
    assert explained_variance(torch.zeros_like(returns), returns, mask) == pytest.approx(0)
    assert explained_variance(-returns, returns, mask) == pytest.approx(-3)
    assert explained_variance(returns, torch.ones_like(returns), mask) == 0


def test_tokens_are_drawn_as_often_as_they_are_probable(rng):
    logits = torch.tensor([[2.0, 0.0, -1.0, -100.0, 1.0]]).float()
    uniforms = torch.rand(40_000, generator=generator(0, "test"), dtype=torch.float64)
    found = pick(logits.expand(len(uniforms), -1), uniforms)
    shares = np.bincount(found.numpy(), minlength=5) / len(uniforms)
    expected = logits.softmax(-1)[0].numpy()
    assert np.abs(shares - expected).max() < 4 * math.sqrt(0.25 / len(uniforms)) and shares[3] == 0
    ends = pick(logits.expand(2, -1), torch.tensor([0.0, 1 - 2**-53]).double())
    assert ends.tolist() == [0, 4]


def test_a_generator_hangs_on_its_names_alone():
    first = torch.rand(5, generator=generator(0, "response", 3, 1, 0))
    torch.rand(7)
    assert torch.rand(5, generator=generator(0, "response", 3, 1, 0)).equal(first)
    assert not torch.rand(5, generator=generator(0, "response", 3, 1, 1)).equal(first)
    assert not torch.rand(5, generator=generator(1, "response", 3, 1, 0)).equal(first)
