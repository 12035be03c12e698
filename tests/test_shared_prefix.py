"""Pairs whose prompt is encoded once give what two sequences give; a head that scores answers only, what it gave."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Qwen3Config,
)
from trl.trainer import utils

from instructrec.trainers.shared_prefix import can_share, pack, shared_prefixes
from instructrec.training import score_answers_only

SMALL = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 64,
}


def small(kind, **options):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(kind(**SMALL | options)).double().eval()


LLAMA, QWEN = small(LlamaConfig), small(Qwen3Config)
tokens = st.lists(st.integers(1, 31), min_size=1, max_size=7)


def batch(pairs):
    """Ids and mask of prompts, each with two answers, as TRL's collators lay them out."""
    rows = [[*prompt, *chosen] for prompt, chosen, _ in pairs] + [[*prompt, *rejected] for prompt, _, rejected in pairs]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    return ids, torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])


def hidden(model, ids, mask):
    found = model(input_ids=ids, attention_mask=mask, use_cache=False)
    return found.logits * mask[..., None]


class TestSharedPrefixes:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(tokens, tokens, tokens), min_size=1, max_size=3), st.sampled_from([LLAMA, QWEN]))
    def test_give_what_two_sequences_give(self, pairs, model):
        ids, mask = batch(pairs)
        with torch.no_grad():
            plain = hidden(model, ids, mask)
            with shared_prefixes(model):
                shared = hidden(model, ids, mask)
        torch.testing.assert_close(shared, plain, atol=1e-10, rtol=0)

    def test_their_gradients_are_the_same(self):
        ids, mask = batch([([5, 6, 7], [8, 9], [8, 10, 11]), ([1], [2], [2])])
        gradients = []
        for share in (False, True):
            LLAMA.zero_grad()
            if share:
                with shared_prefixes(LLAMA):
                    found = hidden(LLAMA, ids, mask)
            else:
                found = hidden(LLAMA, ids, mask)
            found.pow(2).sum().backward()
            gradients.append([parameter.grad.clone() for parameter in LLAMA.parameters()])
        for plain, shared in zip(*gradients, strict=True):
            torch.testing.assert_close(shared, plain, atol=1e-6, rtol=1e-5)  # norms are in float32

    def test_a_prompt_is_laid_out_once(self):
        packed = pack(*batch([(list(range(1, 21)), [21, 22], [23])]))
        assert packed.ids.tolist() == [[*range(1, 21), 21, 22, 23]]
        assert packed.positions.tolist() == [[*range(22), 20]]

    @pytest.mark.parametrize(
        ("config", "shares"),
        [
            (LlamaConfig(**SMALL), True),
            (Qwen3Config(**SMALL), True),
            (MistralConfig(**SMALL, sliding_window=None), True),
            (MistralConfig(**SMALL, sliding_window=8), False),
            (Qwen3Config(**SMALL, layer_types=["full_attention", "sliding_attention"], sliding_window=8), False),
            (GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2), False),
            (MambaConfig(vocab_size=32, hidden_size=16, num_hidden_layers=1, state_size=4), False),
        ],
        ids=["llama", "qwen3", "mistral", "window", "mixed", "gpt2", "mamba"],
    )
    def test_only_models_that_see_no_difference_share(self, config, shares):
        assert can_share(AutoModelForCausalLM.from_config(config)) == shares

    def test_a_model_with_another_kernel_does_not_share(self):
        assert not can_share(AutoModelForCausalLM.from_config(LlamaConfig(**SMALL), attn_implementation="eager"))


class TestFusedHead:
    def test_scores_answers_only_and_the_same(self, monkeypatch):
        rows = []
        apply = utils._ChunkedLogProbFunction.apply
        spy = SimpleNamespace(apply=lambda hidden, *rest: rows.append(len(hidden)) or apply(hidden, *rest))
        monkeypatch.setattr(utils, "_ChunkedLogProbFunction", spy)
        monkeypatch.setattr(utils, "_use_triton", lambda device: False)  # as TRL has it on a CPU
        model = AutoModelForCausalLM.from_config(LlamaConfig(**SMALL))
        utils.add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
        ids, _ = batch([([5, 6, 7, 8], [9, 10], [11, 12])])
        labels = ids.masked_fill(torch.arange(ids.shape[1]) < 4, -100)
        before = model(input_ids=ids, labels=labels, fused_lm_head=True)
        score_answers_only()
        after = model(input_ids=ids, labels=labels, fused_lm_head=True)
        assert rows == [10, 4]  # all positions but the last, and those before a token of an answer
        torch.testing.assert_close(after.log_probs, before.log_probs)
        torch.testing.assert_close(after.loss, before.loss)
