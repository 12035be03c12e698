"""Proximal policy optimization of a causal LM's adapter, for rewards of whole responses.

One step draws responses y to prompts x from the policy, judges them, and makes `num_ppo_epochs` passes over them in
mini-batches, each an optimizer step. A token is an action a_t, the prompt with the tokens before it is the state s_t.

**What is maximized.** E[R(x, y)] - β KL(π(·|x) ‖ π_ref(·|x)): the reward without going far from what language was
(Ziegler et al., 2019, https://arxiv.org/abs/1909.08593, equation 2; Ouyang et al., 2022,
https://arxiv.org/abs/2203.02155). By the chain rule log π(y|x) is the sum of its tokens' log π(a_t|s_t), so that the
KL is E[Σ_t kl_t] with kl_t = log π(a_t|s_t) - log π_ref(a_t|s_t), and each token can pay its own part:

    r_t = -β kl_t + [t is the last token] (R - b)

The reference is the adapter that training started from, frozen, or the model with its adapter off; no second model is
loaded. b is the mean R of the run's first step. As every response earns R once, b lowers the returns of all states
alike, moves no optimum, and spares the critic from learning it (Ziegler et al. normalize so too): a reward that is the
same for all responses is none.

**Advantages.** With a critic V and δ_t = r_t + γV(s_{t+1}) - V(s_t), V = 0 after the last token,

    Â_t = Σ_l (γλ)^l δ_{t+l}      (Schulman et al., 2016, https://arxiv.org/abs/1506.02438, equation 16)

λ = 1 gives the return less V(s_t), without bias; a smaller λ trusts the critic more and has less variance. What the
critic learns are the returns Â_t + V(s_t). Then the advantages of all tokens of the step are whitened: to mean 0, for a
constant has no gradient in expectation (E[∇ log π] = 0), and to variance 1, so that the learning rate does not depend
on the scale of rewards.

**Policy loss.** The policy gradient E_π[Â ∇log π] is the gradient at π = π_old of E_{π_old}[ρ Â], ρ = π/π_old. Further
away that is a poor guide, so that what would be won beyond 1 ± ε is cut:

    L_π = E[max(-ρ_t Â_t, -clip(ρ_t, 1-ε, 1+ε) Â_t)]      (Schulman et al., 2017, https://arxiv.org/abs/1707.06347,
                                                            equation 7)

At the first mini-batch ρ is 1 exactly: π_old is computed by the same code, in the same micro-batches, without dropout,
and at temperature 1 from the whole vocabulary, which is what was drawn from.

**Value loss.** ½ E[max((V - G)², (V_old + clip(V - V_old, ±ε_v) - G)²)], G the return: the critic goes no further than
the policy may (Schulman et al.'s code, https://github.com/openai/baselines, `ppo2`). V is a linear layer on the last
hidden state from which the token is predicted. It starts at 0, and its gradient goes on into the policy's adapter
(`critic: shared`), stops (`stop_gradient`), or trains an adapter of its own on the same backbone (`adapter`, at the
price of a second pass).

**Entropy.** -c E[H(π(·|s_t))] delays collapse (Mnih et al., 2016, https://arxiv.org/abs/1602.01783, section 4).

    L = L_π + vf_coef L_V - entropy_coef E[H]

Each E is the mean over the tokens of a mini-batch, on all processes and in all micro-batches alike.

**β** follows the KL: with `kl_target` set, β ← β (1 + clip(KL/target - 1, ±0.2) n/horizon) after a step of n responses
(Ziegler et al., section 2.2). **Early stop**: a mini-batch whose mean of (ρ - 1) - log ρ exceeds `stop_kl` is not
learnt, nor are those after it (Schulman, 2020, http://joschu.net/blog/kl-approx.html; OpenAI's Spinning Up).

Resuming is exact. Checkpoints lie between steps, and what a step draws (order of prompts, tokens, mini-batches) comes
from generators seeded by the run's seed, the step, and the place of the prompt among those of all processes.
"""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Trainer, TrainerCallback, set_seed

from instructrec.core.errors import UserError
from instructrec.core.files import append_records, one_line, write_json
from instructrec.launch import strategy_here
from instructrec.prompts import prompt_tokens
from instructrec.rewards.combined import Rewards
from instructrec.trainers.advantages import (
    adapted,
    approximate_kl,
    entropy_of,
    explained_variance,
    gae,
    logprobs_of,
    masked_mean,
    policy_loss,
    token_rewards,
    value_loss,
    whiten,
)
from instructrec.trainers.policy import Passes, make_policy
from instructrec.trainers.ppo_config import PPOConfig
from instructrec.trainers.rollouts import Episode, Laid, Sampler, generator, lay_out, padded

HEAD, STATE, SAMPLES = "value_head.safetensors", "ppo.json", "samples.jsonl"
"""In a checkpoint: the critic's last layer, and what else a run goes on with; in the output folder: responses."""

STATISTICS = (
    *("loss/policy", "loss/value", "policy/entropy", "policy/approxkl", "policy/ratio", "policy/clipfrac"),
    "val/clipfrac",
)
"""Means over the tokens of a mini-batch, in the order in which they are computed."""


@dataclass(frozen=True)
class Experience:
    """What a step learns from, (responses, tokens), the same on all processes.

    Attributes:
        mask: 1 at tokens of responses.
        weights: the same, but 0 for a response that no reward applies to.
        logprobs, values: of the policy and the critic that the responses were drawn with.
        advantages, returns: whitened, and as they are.
    """

    mask: Tensor
    weights: Tensor
    logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor


class PPOTrainer(Trainer):
    """Trains an adapter by PPO; see the module's docstring.

    The reference is the adapter `ref`, if the model has got one by the time that training starts
    (`Parent.load_into(model, "ref")`), else the base model.

    Args:
        model: path of the base model.
        args: its config.
        processing_class: a tokenizer with a chat template.
        rewards: what responses are worth.
        train_dataset: rows with a `prompt` of messages; the other columns but `completion` go to the rewards.
        eval_dataset: rows of the same kind; one response to each is judged at an evaluation.
        quantization_config, peft_config: of the base model, and of the adapter.
        callbacks: as of transformers' `Trainer`.

    Raises:
        UserError: fewer rows than a step asks, or weights that are sharded, so that no process could generate alone.
    """

    args: PPOConfig
    model: Any
    optimizer: Any
    lr_scheduler: Any
    processing_class: Any
    train_dataset: Any

    def __init__(
        self,
        model: str,
        args: PPOConfig,
        processing_class: Any,
        rewards: Rewards,
        train_dataset: Dataset,
        eval_dataset: Dataset | None = None,
        quantization_config: Any = None,
        peft_config: Any = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        if strategy_here() in ("fsdp", "zero"):
            raise UserError("PPO: responses cannot be drawn while weights are sharded (FSDP, DeepSpeed); use ddp.yaml")
        self.rewards = rewards
        self.prompts_per_step = args.generation_batch_size // args.num_generations
        self.steps_per_epoch = len(train_dataset) // self.prompts_per_step
        if not self.steps_per_epoch:
            raise UserError(
                f"num_generations: a step asks {self.prompts_per_step} prompts and there are {len(train_dataset)}; "
                "raise it, lower --num_mini_batches or --gradient_accumulation_steps, or give more rows"
            )
        set_seed(args.seed)
        if args.ddp_find_unused_parameters is None:  # all are used, the critic's layer outside of the model's forward
            args.ddp_find_unused_parameters = False
        super().__init__(
            model=make_policy(model, args, quantization_config, peft_config),
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
        )
        self.passes = Passes(self.model, args.critic)
        self.kl_coef = args.kl_coef
        self.baseline: float | None = None
        self._metrics: dict[str, list[float]] = defaultdict(list)

    # What transformers' Trainer calls

    def get_train_dataloader(self) -> Any:
        """What has the length of one: the Trainer divides it by `gradient_accumulation_steps` for an epoch's steps."""
        return range(self.steps_per_epoch * self.args.gradient_accumulation_steps)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is not None:
            return self.optimizer
        self.passes.unfreeze()  # loading a checkpoint has frozen the critic's adapter
        optimizer = super().create_optimizer(model)
        if rate := self.args.value_head_learning_rate:
            head = list(self.model.value_head.parameters())
            own = {id(parameter) for parameter in head}
            for group in optimizer.param_groups:
                group["params"] = [parameter for parameter in group["params"] if id(parameter) not in own]
            optimizer.add_param_group({"params": head, "lr": rate, "weight_decay": 0.0})
        return optimizer

    def _run_epoch(
        self,
        model: Any,
        epoch: int,
        train_dataloader: Any,
        steps_in_epoch: int,
        num_update_steps_per_epoch: int,
        trial: Any,
        ignore_keys_for_eval: Any,
        start_time: float,
        resume_from_checkpoint: str | None,
        epochs_trained: int,
        steps_trained_in_current_epoch: int,
    ) -> None:
        """The steps of an epoch that are still to be made."""
        if resume_from_checkpoint is not None and epoch == epochs_trained:
            self._load_rng_state(resume_from_checkpoint)  # ours are seeded anew; rewards may draw too
        told = (model, trial, epoch, ignore_keys_for_eval, start_time)
        grad_norm: Any = None
        rate: float | None = None
        for place in range(self.state.global_step - epoch * num_update_steps_per_epoch, num_update_steps_per_epoch):
            self.control = self.callback_handler.on_step_begin(self.args, self.state, self.control)
            episodes, loss, grad_norm = self._step(model)
            self._tr_loss += loss
            rate = self._get_learning_rate()
            self.lr_scheduler.step()
            self.state.global_step += 1
            self.state.epoch = epoch + (place + 1) / num_update_steps_per_epoch
            self.control = self.callback_handler.on_step_end(self.args, self.state, self.control)
            if self.control.should_log and self.is_world_process_zero():
                self._keep_samples(episodes)
            self._tell(*told, grad_norm, rate)
            if self.control.should_epoch_stop or self.control.should_training_stop:
                break
        self.control = self.callback_handler.on_epoch_end(self.args, self.state, self.control)
        self._tell(*told, grad_norm, rate)

    def _tell(self, model: Any, trial: Any, epoch: int, keys: Any, start: float, norm: Any, rate: float | None) -> None:
        """Log, save and evaluate where it is time to."""
        self._maybe_log_save_evaluate(self._tr_loss, norm, model, trial, epoch, keys, start, learning_rate=rate)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs |= {key: fmean(values) for key, values in self._metrics.items()}
            self._metrics.clear()
        super().log(logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Judge one response to each evaluation row, every time drawn by the same numbers; nothing is learnt of it."""
        rows: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        self._set_mode()
        episodes = self.rollout(list(rows), 1, "evaluation")
        mine = range(self.args.process_index, len(episodes), self.args.world_size)
        logprobs, reference, _ = self._score(episodes, _parts(mine, self.args.per_device_eval_batch_size))
        found = self._judged(episodes) | {"objective/kl": float((logprobs - reference).sum(1).mean())}
        metrics = {f"{metric_key_prefix}_{key}": value for key, value in found.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            folder = Path(output_dir)
            save_file(self.model.value_head.state_dict(), folder / HEAD)
            write_json(folder / STATE, {"kl_coef": self.kl_coef, "baseline": self.baseline})

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            folder = Path(checkpoint)
            self.model.value_head.load_state_dict(load_file(folder / HEAD))
            state = json.loads((folder / STATE).read_text(encoding="utf-8"))
            self.kl_coef, self.baseline = state["kl_coef"], state["baseline"]

    # A step

    def _step(self, model: Any) -> tuple[list[Episode], float, Any]:
        """Draw, judge and learn; the responses of all processes, the loss, and the last norm of gradients."""
        step, clock = self.state.global_step, time.perf_counter()
        times: dict[str, float] = {}

        def lap(name: str) -> None:
            nonlocal clock
            times[f"time/{name}"], clock = time.perf_counter() - clock, time.perf_counter()

        self._set_mode()
        chosen = self._prompts(step)
        rows = [self.train_dataset[place] for place in chosen]
        episodes = self.rollout(rows, self.args.num_generations, "response", step)
        lap("rollout")
        experience, metrics = self._experience(episodes, self._mini_batches(len(episodes), step, 0))
        lap("score")
        learnt, grad_norm = self._update(model, episodes, experience, step)
        lap("update")
        for key, value in (metrics | self._judged(episodes) | learnt | times).items():
            self._metrics[key].append(value)
        self.state.num_input_tokens_seen += sum(episode.tokens for episode in episodes)
        if self.args.kl_target is not None:
            target, horizon = self.args.kl_target, self.args.kl_horizon
            self.kl_coef = adapted(self.kl_coef, metrics["objective/kl"], target, horizon, len(episodes))
        return episodes, learnt["loss/total"], grad_norm

    def _prompts(self, step: int) -> list[int]:
        """The rows that a step asks: each once in an epoch, in an order of its own."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = torch.randperm(len(self.train_dataset), generator=generator(self.args.seed, "prompts", epoch))
        return order[place * self.prompts_per_step : (place + 1) * self.prompts_per_step].tolist()

    def rollout(self, rows: Sequence[dict[str, Any]], n: int, *names: object) -> list[Episode]:
        """Draw `n` responses to each row and judge them; processes share the rows, and all get all of it.

        Args:
            names: tell these draws from all others of the run.

        Raises:
            UserError: a reward fails, or none applies to any response.
        """
        args, tokenizer = self.args, self.processing_class
        mine = list(range(args.process_index, len(rows), args.world_size))
        prompts = [rows[place]["prompt"] for place in mine]
        ids = prompt_tokens({"prompt": prompts}, tokenizer) if prompts else []  # fewer rows than processes
        sampler = Sampler(self.model, tokenizer, args.rollout_batch_size)
        drawn: dict[tuple[int, int], tuple[list[int], bool]] = {}
        training = self.model.training
        self.model.eval()
        longest_first = sorted(range(len(mine)), key=lambda k: -len(ids[k]))
        for part in _parts(longest_first, max(1, args.rollout_batch_size // n)):
            places = [(k, sample) for k in part for sample in range(n)]
            seeds = [generator(args.seed, *names, mine[k], sample) for k, sample in places]
            uniforms = torch.stack(
                [torch.rand(args.max_completion_length, generator=seed, dtype=torch.float64) for seed in seeds]
            )
            drawn |= zip(places, sampler.draw([ids[k] for k in part], uniforms), strict=True)
        self.model.train(training)
        episodes = [
            Episode(mine[k] * n + sample, prompts[k], sampler.text(found, stopped), ids[k], found, stopped, {}, None)
            for (k, sample), (found, stopped) in sorted(drawn.items())
        ]
        self._judge(episodes, [rows[mine[k]] for k, _ in sorted(drawn)])
        episodes = sorted(gather_object(episodes), key=lambda episode: episode.index)
        if all(episode.score is None for episode in episodes):
            raise UserError("rewards: none applies to any response of a step, so that there is nothing to learn")
        return episodes

    def _judge(self, episodes: Sequence[Episode], rows: Sequence[dict[str, Any]]) -> None:
        """Give episodes the rewards of their responses, which get the columns of their rows."""
        names = [name for name in self.train_dataset.column_names if name not in ("prompt", "completion")]
        found = self.rewards.each(
            [episode.prompt for episode in episodes],
            [[{"role": "assistant", "content": episode.text}] for episode in episodes],
            completion_ids=[episode.ids for episode in episodes],
            trainer_state=self.state,
            **{name: [row[name] for row in rows] for name in names},
        )
        for place, episode in enumerate(episodes):
            episode.rewards = {name: values[place] for name, values in found.items()}
            episode.score = self.rewards.combine(episode.rewards)

    def _judged(self, episodes: Sequence[Episode]) -> dict[str, float]:
        """What responses were worth, and their form."""
        scores = [episode.score for episode in episodes if episode.score is not None]
        found = {"reward": fmean(scores)}
        for component in self.rewards.components:
            values = [value for e in episodes if (value := e.rewards[component.name]) is not None]
            if values:
                found[f"rewards/{component.name}"] = fmean(values)
        found["completions/mean_length"] = fmean(len(episode.ids) for episode in episodes)
        found["completions/stopped"] = fmean(episode.stopped for episode in episodes)
        return found

    def _experience(
        self, episodes: Sequence[Episode], mini_batches: Sequence[list[int]]
    ) -> tuple[Experience, dict[str, float]]:
        """What a step learns from, with `objective/` and `val/` metrics.

        Args:
            mini_batches: the first pass's, in whose micro-batches the old log-probabilities are computed.
        """
        args, device = self.args, self.args.device
        groups = [group for members in mini_batches for group in self._micro_batches(members, episodes)]
        logprobs, reference, values = self._score(episodes, groups)
        mask = padded([torch.ones(len(episode.ids)) for episode in episodes]).to(device)
        known = [episode.score is not None for episode in episodes]
        judged = torch.tensor(known, device=device)
        weights = mask * judged[:, None]
        if self.baseline is None:
            self.baseline = fmean(episode.score for episode in episodes if episode.score is not None)
        baseline = self.baseline
        scores = [0.0 if e.score is None else e.score - baseline - self._penalty(e) for e in episodes]
        kl = logprobs - reference
        rewards = token_rewards(kl, torch.tensor(scores, device=device), mask, self.kl_coef)
        advantages, returns = gae(rewards, values, mask, args.gamma, args.lam)
        experience = Experience(mask, weights, logprobs, values, whiten(advantages, weights), returns)

        of_response = float((kl * weights).sum(1)[judged].mean())
        score = fmean(e.score - self._penalty(e) for e in episodes if e.score is not None)
        return experience, {
            "objective/kl": of_response,
            "objective/kl_coef": self.kl_coef,
            "objective/scores": score,
            "objective/non_score_reward": -self.kl_coef * of_response,
            "objective/rlhf_reward": score - self.kl_coef * of_response,
            "val/mean": float(masked_mean(values, weights)),
            "val/explained_variance": explained_variance(values, returns, weights),
        }

    def _penalty(self, episode: Episode) -> float:
        return 0.0 if episode.stopped else self.args.missing_eos_penalty

    def _mini_batches(self, episodes: int, step: int, epoch: int) -> list[list[int]]:
        """The places of the episodes of each mini-batch of a pass, on all processes."""
        order = torch.randperm(episodes, generator=generator(self.args.seed, "mini-batches", step, epoch)).tolist()
        return list(_parts(order, episodes // self.args.num_mini_batches))

    def _micro_batches(self, members: Sequence[int], episodes: Sequence[Episode]) -> list[list[int]]:
        """This process's share of a mini-batch; those of a like length together, so that little is padding."""
        longest_first = sorted(members, key=lambda place: (-episodes[place].tokens, place))
        mine = longest_first[self.args.process_index :: self.args.world_size]
        return list(_parts(mine, self.args.per_device_train_batch_size))

    @torch.no_grad()
    def _score(self, episodes: Sequence[Episode], groups: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities by the policy and by the reference, and values, of all episodes (episodes, tokens).

        Args:
            groups: of places, which this process computes together; those of all processes have each place once.
        """
        found: list[Any] = []
        for group in groups:
            laid = self._lay_out(episodes, group)
            logits, hidden = self.passes.logits(self.model, laid)
            columns = [logprobs_of(logits, laid.responses), self.passes.reference_logprobs(laid)]
            columns.append(self.passes.values(self.model, laid, hidden))
            pieces = ([piece.clone() for piece in column.cpu().split(laid.lengths)] for column in columns)
            found += zip(group, *pieces, strict=True)
        found = sorted(gather_object(found), key=lambda one: one[0])
        _, *kinds = zip(*found, strict=True)
        logprobs, references, values = (padded(kind).to(self.args.device) for kind in kinds)
        return logprobs, references, values

    def _update(
        self, model: Any, episodes: Sequence[Episode], experience: Experience, step: int
    ) -> tuple[dict[str, float], Any]:
        """Learn from the responses of a step; the means of the mini-batches' statistics, and a norm of gradients.

        Raises:
            UserError: a loss is not finite.
        """
        args = self.args
        grad_norm: Any = None
        found: list[dict[str, float]] = []
        for epoch in range(args.num_ppo_epochs):
            for members in self._mini_batches(len(episodes), step, epoch):
                statistics = self._mini_batch(model, episodes, experience, members)
                if not math.isfinite(statistics["loss/total"]):
                    raise UserError(
                        f"step {step + 1}: the loss is not finite; lower --learning_rate and choose another "
                        "--output_dir, or go on from the last checkpoint's adapter"
                    )
                if args.stop_kl is not None and statistics["policy/approxkl"] > args.stop_kl:
                    model.zero_grad()
                    return _means(found or [statistics]) | {"policy/updates": len(found)}, grad_norm
                grad_norm = self._clip_grad_norm(model) if args.max_grad_norm > 0 else None
                grad_norm = self._get_grad_norm(model, grad_norm=grad_norm)
                self.control = self.callback_handler.on_pre_optimizer_step(args, self.state, self.control)
                self.optimizer.step()
                model.zero_grad()
                found.append(statistics)
        return _means(found) | {"policy/updates": len(found)}, grad_norm

    def _mini_batch(
        self, model: Any, episodes: Sequence[Episode], experience: Experience, members: list[int]
    ) -> dict[str, float]:
        """Compute the gradients of a mini-batch, over all processes, and its `STATISTICS`."""
        args = self.args
        tokens = experience.weights[members].sum().clamp(min=1)
        groups = self._micro_batches(members, episodes)
        totals = torch.zeros(len(STATISTICS), device=args.device)
        for number, group in enumerate(groups, start=1):
            laid, kept = self._lay_out(episodes, group), experience.mask[group].bool()
            weights, old, old_values, advantages, returns = (
                values[group][kept]
                for values in (
                    *(experience.weights, experience.logprobs, experience.values),
                    *(experience.advantages, experience.returns),
                )
            )
            with nullcontext() if number == len(groups) else self.accelerator.no_sync(model):
                logits, hidden = self.passes.logits(model, laid)
                logprobs = logprobs_of(logits, laid.responses)
                with torch.set_grad_enabled(args.entropy_coef > 0):
                    entropy = entropy_of(logits)
                values = self.passes.values(model, laid, hidden)
                surrogate, ratio, clipped = policy_loss(logprobs, old, advantages, args.cliprange)
                error, value_clipped = value_loss(values, old_values, returns, args.cliprange_value)
                distance = approximate_kl(logprobs.detach(), old)
                terms = torch.stack(
                    [surrogate, error, entropy, distance, ratio, clipped.float(), value_clipped.float()]
                )
                means = (terms * weights).sum(1) / tokens
                loss = means[0] + args.vf_coef * means[1] - args.entropy_coef * means[2]
                self.accelerator.backward(loss * args.world_size)  # the mean over processes is taken of gradients
            totals += means.detach()
        found = dict(zip(STATISTICS, self.accelerator.reduce(totals, "sum").tolist(), strict=True))
        total = found["loss/policy"] + args.vf_coef * found["loss/value"] - args.entropy_coef * found["policy/entropy"]
        return found | {"loss/total": total}

    # Smaller things

    def _set_mode(self) -> None:
        """Without dropout both modes compute the same; layers are checkpointed in training mode only."""
        self.model.train(bool(self.args.activation_checkpointing))

    def _lay_out(self, episodes: Sequence[Episode], group: Sequence[int]) -> Laid:
        pad = self.processing_class.pad_token_id or 0
        return lay_out([episodes[place] for place in group], pad, self.args.device)

    def _keep_samples(self, episodes: Sequence[Episode]) -> None:
        """Append some responses to `SAMPLES`, in the form of `schema.SCORED_RESPONSE`, and print the first."""
        kept = episodes[:: max(1, len(episodes) // max(1, self.args.logged_samples))][: self.args.logged_samples]
        for episode in kept[:1]:
            worth = "no reward" if episode.score is None else f"reward {episode.score:.3f}"
            print(f"      sample      {one_line(episode.text, 120)!r}  {worth}", flush=True)
        append_records(
            Path(str(self.args.output_dir)) / SAMPLES,
            [
                {
                    "prompt": episode.prompt,
                    "completion": [{"role": "assistant", "content": episode.text}],
                    "rewards": episode.rewards,
                    "policy": f"step {self.state.global_step}",
                }
                for episode in kept
            ],
        )


def _means(found: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: fmean(one[key] for one in found) for key in found[0]}


def _parts(items: Sequence[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
