"""PPO of recipes/ppo.py beside TRL 1.12's, the last that TRL had: final reward, episodes per second, memory.

    python benchmarks/ppo.py --trl-python other_environment/bin/python --seeds 3

`other_environment` has `trl==1.12.0` and the torch and transformers of this one. Both train a LoRA adapter of the same
rank in float32 on the same prompts, for the same reward (the share of a response's words that have at most four
letters), with the same episodes, optimizer steps, learning rate, clipping and KL penalty. Each run is a process of its
own, by turns; the same command again goes on after the last that ended. TRL's critic is a second model, here with a
LoRA adapter of its own too (`trl`), or all of its weights are trained as in TRL's example script (`trl, full critic`).
A run is timed from its first step to its last. Memory is the process's peak less what it had when everything was
imported. Results go to benchmarks/results as JSON, Markdown and a picture.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evaluate import ratio, shown
from record import RESULTS, cores, provenance

TRL = "1.12.0"
OURS, THEIRS, FULL = "instructrec", "trl", "trl, full critic"
SIDES = (OURS, THEIRS, FULL)
PROMPT, RESPONSE = 64, 24
"""Tokens at most."""
BATCH, MINI, MICRO, EPOCHS = 16, 8, 8, 2
"""Episodes of a step, of an optimizer step, and those that pass the model at once; passes over a step's."""
SHARED: dict[str, Any] = {
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "kl_coef": 0.02,
    "cliprange": 0.2,
    "cliprange_value": 0.2,
    "vf_coef": 0.1,
    "gamma": 1.0,
    "lam": 0.95,
    "num_ppo_epochs": EPOCHS,
    "num_mini_batches": BATCH // MINI,
    "per_device_train_batch_size": MICRO,
    "save_strategy": "no",
    "report_to": [],
    "disable_tqdm": True,
    "bf16": False,
    "use_cpu": True,
}
LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
LAST = 8
"""Steps whose mean is the final reward."""


def short_words(text: str) -> float:
    """The share of words that have at most four letters; 0 without words."""
    words = re.findall(r"\w+", text)
    return sum(len(word) <= 4 for word in words) / max(1, len(words))


class Log:
    """Rewards in the order in which responses were judged, and the memory of the process."""

    def __init__(self) -> None:
        self.rewards: list[float] = []
        self.before = int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text()).group(1))  # type: ignore[union-attr]

    def judge(self, texts: Sequence[str]) -> list[float]:
        found = [short_words(text) for text in texts]
        self.rewards += found
        return found

    def timed(self, train: Callable[[], Any]) -> dict[str, Any]:
        started = time.perf_counter()
        train()
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {"seconds": seconds, "mib": (peak - self.before) / 1024, "rewards": self.rewards}


def ours(task: dict[str, Any]) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig

    from instructrec.models import load_tokenizer
    from instructrec.rewards.combined import Rewards
    from instructrec.rewards.component import Component, text_of
    from instructrec.trainers.ppo import PPOConfig, PPOTrainer

    log = Log()
    torch.set_num_threads(task["threads"])

    def reward(prompts: Sequence[Any], completions: Sequence[Any]) -> list[float | None]:
        return [*log.judge([text_of(completion) for completion in completions])]

    with tempfile.TemporaryDirectory() as output:
        args = PPOConfig(
            output_dir=output,
            seed=task["seed"],
            max_steps=task["steps"],
            num_generations=1,
            max_completion_length=RESPONSE,
            rollout_batch_size=BATCH,
            gradient_accumulation_steps=MINI // MICRO,
            value_head_learning_rate=1e-3,
            logged_samples=0,
            **SHARED,
        )
        args.model_init_kwargs = {"dtype": "float32"}  # type: ignore[attr-defined]
        trainer = PPOTrainer(
            task["model"],
            args,
            load_tokenizer(Path(task["model"])),
            Rewards((Component("short_words", 1.0, reward, 60.0),)),
            Dataset.from_list([{"prompt": row["prompt"]} for row in task["rows"]]),
            peft_config=LoraConfig(**LORA, task_type="CAUSAL_LM"),
        )
        return log.timed(trainer.train)


def theirs(task: dict[str, Any]) -> dict[str, Any]:
    """TRL's; this runs where instructrec need not be installed."""
    import torch
    import transformers
    from datasets import Dataset
    from peft import LoraConfig, inject_adapter_in_model
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    transformers.logging.set_verbosity_error()
    log = Log()
    torch.set_num_threads(task["threads"])
    tokenizer = AutoTokenizer.from_pretrained(task["model"], padding_side="left")
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):  # it takes padding for the end of a response
        tokenizer.pad_token_id = 0
    policy = AutoModelForCausalLM.from_pretrained(task["model"], dtype="float32")
    torch.manual_seed(task["seed"])
    critic = AutoModelForSequenceClassification.from_pretrained(task["model"], dtype="float32", num_labels=1)
    if task["side"] == THEIRS:
        inject_adapter_in_model(LoraConfig(**LORA | {"target_modules": targets(critic)}), critic)
        critic.score.requires_grad_(True)
    rule, learnt = torch.nn.Module(), ppo_trainer.get_reward

    def get_reward(model: Any, ids: Any, pad: int, start: int) -> Any:
        """It asks the critic by the same function."""
        if model is not rule:
            return learnt(model, ids, pad, start)
        texts = tokenizer.batch_decode(ids[:, start:], skip_special_tokens=True)
        return None, torch.tensor(log.judge(texts)), None

    ppo_trainer.get_reward = get_reward
    rows = Dataset.from_list([{"input_ids": row["ids"]} for row in task["rows"]])
    with tempfile.TemporaryDirectory() as output:
        args = PPOConfig(
            output_dir=output,
            seed=task["seed"],
            gradient_accumulation_steps=BATCH // MICRO,  # here it is that of a step's mini-batches taken together
            total_episodes=task["steps"] * BATCH,
            response_length=RESPONSE,
            stop_token="eos",
            temperature=1.0,
            local_rollout_forward_batch_size=BATCH,
            num_sample_generations=0,
            gradient_checkpointing=False,
            **SHARED,
        )
        trainer = PPOTrainer(
            args=args,
            processing_class=tokenizer,
            model=policy,
            ref_model=None,
            reward_model=rule,
            train_dataset=rows,
            eval_dataset=rows.select(range(MICRO)),
            value_model=critic,
            peft_config=LoraConfig(**LORA, task_type="CAUSAL_LM"),
        )
        return log.timed(trainer.train)


def targets(model: Any) -> list[str]:
    """The linear layers that "all-linear" stands for: all but the last."""
    import torch

    linear = (name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear))
    return sorted({name.rpartition(".")[2] for name in linear} - {"score"})


def work(path: Path) -> None:
    """Train in this process and leave what came out beside the task."""
    task = json.loads(path.read_text(encoding="utf-8"))
    path.with_suffix(".result").write_text(json.dumps((ours if task["side"] == OURS else theirs)(task)))


def measure(task: dict[str, Any], python: str, work: Path) -> dict[str, Any]:
    """Train in a process of its own, unless `work` has what came of the same task."""
    settings = {key: task[key] for key in task if key != "rows"} | {"rows": len(task["rows"]), "shared": SHARED}
    kept = work / f"{task['side']}-{task['seed']}.json"
    if kept.exists() and (known := json.loads(kept.read_text()))["settings"] == settings:
        return known["found"]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "task.json")
        path.write_text(json.dumps(task), encoding="utf-8")
        offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(task["threads"]), "TRL_EXPERIMENTAL_SILENCE": "1"}
        interpreter = sys.executable if task["side"] == OURS else python
        done = subprocess.run(
            [interpreter, __file__, "--worker", str(path)], env=os.environ | offline, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"error: {task['side']}: exit code {done.returncode}\n{done.stderr[-3000:]}")
        found = json.loads(path.with_suffix(".result").read_text())
    steps = [statistics.mean(found["rewards"][k : k + BATCH]) for k in range(0, task["steps"] * BATCH, BATCH)]
    found = {
        "rewards": steps,
        "final": statistics.mean(steps[-LAST:]),
        "episodes_per_second": task["steps"] * BATCH / found["seconds"],
        **{key: found[key] for key in ("seconds", "mib")},
    }
    work.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({"settings": settings, "found": found}))
    return found


def prompts(folder: Path, model: Path, most: int) -> list[dict[str, Any]]:
    """Training rows of a set with short prompts, as messages and as tokens."""
    from datasets import Dataset

    from instructrec.core.schema import TRAIN, read_split
    from instructrec.models import load_tokenizer
    from instructrec.prompts import prompt_tokens

    rows = sorted(read_split(folder, TRAIN), key=lambda row: row["id"])[: 4 * most]
    found = Dataset.from_list([{"prompt": row["prompt"]} for row in rows])
    ids = prompt_tokens(found[:], load_tokenizer(model))
    both = zip(found["prompt"], ids, strict=True)
    return [{"prompt": prompt, "ids": list(tokens)} for prompt, tokens in both if len(tokens) <= PROMPT][:most]


def reward_apart(runs: dict[str, list[dict[str, Any]]], side: str) -> dict[str, Any]:
    """Our final reward less theirs, paired by seed, with a t-interval over seeds."""
    from scipy.stats import t

    apart = [own["final"] - other["final"] for own, other in zip(runs[OURS], runs[side], strict=True)]
    mean, n = statistics.mean(apart), len(apart)
    half = float(t.ppf(0.975, n - 1)) * statistics.stdev(apart) / n**0.5 if n > 1 else None
    return {"value": mean, "ci95": None if half is None else [mean - half, mean + half]}


def report(runs: dict[str, list[dict[str, Any]]], conditions: dict[str, Any]) -> None:
    """Write what was measured as JSON, Markdown and a picture."""
    record: dict[str, Any] = {**provenance(), **conditions, "runs": runs, "against": {}}
    for side in [*runs][1:]:
        pairs = [*zip(runs[OURS], runs[side], strict=True)]
        record["against"][side] = {
            "reward": reward_apart(runs, side),
            "speed": ratio([(own["seconds"], other["seconds"]) for own, other in pairs]),
            "memory": ratio([(other["mib"], own["mib"]) for own, other in pairs]),
        }
    (RESULTS / "ppo.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    def row(side: str) -> str:
        mean = {key: statistics.mean(one[key] for one in runs[side]) for key in runs[side][0] if key != "rewards"}
        first = statistics.mean(one["rewards"][0] for one in runs[side])
        cells = [f"{first:.3f}", f"{mean['final']:.3f}", f"{mean['episodes_per_second']:.2f}", f"{mean['mib']:,.0f}"]
        against = record["against"].get(side)
        if against:
            apart = against["reward"]
            bounds = f" [{apart['ci95'][0]:+.3f}, {apart['ci95'][1]:+.3f}]" if apart["ci95"] else ""
            cells += [f"{apart['value']:+.3f}{bounds}", shown(against["speed"]), shown(against["memory"])]
        else:
            cells += ["", "", ""]
        return f"| {side} | {' | '.join(cells)} |"

    columns = ("", "first reward", "last reward", "episodes/s", "memory, MiB")
    columns += ("our reward more by", "times as fast", "times the memory")
    (RESULTS / "ppo.md").write_text(
        f"""# PPO beside TRL {TRL}'s

`{record["command"]}`, {record["date"]}, {record["machine"]}; torch
{conditions["torch"]}, {conditions["threads"]} threads.

SmolLM2-135M-Instruct (dequantized 4-bit weights) in float32 with a LoRA adapter of rank {LORA["r"]};
{conditions["steps"]} steps of {BATCH} episodes, over which {EPOCHS} passes in optimizer steps of {MINI}; responses of
at most {RESPONSE} tokens, prompts of at most {PROMPT}. The reward is the share of words with at most four letters; the
last is the mean of {LAST} steps. Means over {len(runs[OURS])} seeds; on the right ours against each of theirs, paired
by seed, with 95 % t-intervals over seeds (of ratios: of their logarithm).

| {" | ".join(columns)} |
| --- |{" ---: |" * 4}{" --- |" * 3}
{chr(10).join(map(row, runs))}

![ppo](ppo.png)
""",
        encoding="utf-8",
    )
    draw(runs, RESULTS / "ppo.png")


def draw(runs: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Reward over steps, and over seconds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharey=True)
    for number, side in enumerate(runs):
        for one in runs[side]:
            n = len(one["rewards"])
            for axis, width in zip(axes, (1, one["seconds"] / n), strict=True):
                label = side if one is runs[side][0] and axis is axes[0] else None
                axis.plot([width * (k + 1) for k in range(n)], one["rewards"], color=f"C{number}", lw=1, label=label)
    axes[0].set(xlabel="step", ylabel="reward")
    axes[1].set(xlabel="seconds")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl-python", help=f"interpreter that has trl {TRL}, peft, torch and transformers")
    parser.add_argument("--set", type=Path, default=Path("outputs/quickstart/set"), help="default: %(default)s")
    parser.add_argument("--against", choices=SIDES[1:], nargs="+", default=SIDES[1:], help="default: both critics")
    parser.add_argument("--work", type=Path, default=Path("outputs/ppo"), help="finished runs; default: %(default)s")
    parser.add_argument("--seeds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=40, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=cores(), help="default: %(default)s")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(arguments.worker)
    if arguments.trl_python is None:
        return print(f"skipped: name an interpreter that has trl {TRL} with --trl-python")

    import torch

    from instructrec.models import EMBEDDED, resolve_model

    model = resolve_model(EMBEDDED)
    if not arguments.set.exists():
        subprocess.run([sys.executable, "-m", "instructrec", "build", "--output", arguments.set], check=True)
    shared = {"model": str(model), "rows": prompts(arguments.set, model, 1024), "steps": arguments.steps}
    shared["threads"] = arguments.threads
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in (OURS, *arguments.against)}
    for seed in range(arguments.seeds):
        for side in runs:
            found = measure({**shared, "side": side, "seed": seed}, arguments.trl_python, arguments.work)
            runs[side].append(found)
            print(side, seed, {key: round(found[key], 3) for key in found if key != "rewards"}, flush=True)
    report(runs, {"steps": arguments.steps, "threads": arguments.threads, "torch": torch.__version__})


if __name__ == "__main__":
    main()
