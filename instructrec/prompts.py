"""An instruction set as prompts: what a policy is asked in training, and the rewards that its answers get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructrec.config import peek
from instructrec.core.errors import UserError
from instructrec.core.files import sha256_file
from instructrec.core.schema import HELD_OUT, TRAIN, VALIDATION, read_manifest, read_split
from instructrec.core.spans import Spans
from instructrec.data import QUICKSTART_SET, load_set
from instructrec.lineage import read_lineage
from instructrec.preflight import check_base
from instructrec.rewards.combined import Rewards
from instructrec.rewards.component import SECONDS, text_of

if TYPE_CHECKING:
    from datasets import Dataset

ALGORITHMS = ("grpo", "rloo")
"""Those of TRL's trainers that learn from groups of answers."""

_BATCH = 64
"""Rows whose own answers are judged together."""


@dataclass
class PromptsArguments:
    """What is asked, what answers are worth, and what is looked at meanwhile."""

    dataset_name: str = field(
        default=QUICKSTART_SET, metadata={"help": "Folder of an instruction set; its training rows are asked."}
    )
    rewards: str = field(
        default="recipes/rewards.yaml", metadata={"help": "YAML of what answers are worth (docs/rewards.md)."}
    )
    reward_seconds: float = field(default=SECONDS, metadata={"help": "For a reward to judge a batch, at most."})
    held_out_set: str | None = field(
        default=None,
        metadata={"help": "Instruction set whose validation rows are scored during training; default: dataset_name."},
    )
    max_train_rows: int | None = field(
        default=None, metadata={"help": "Ask that many rows, chosen by a fixed shuffle; default: all."}
    )
    max_prompt_length: int = field(
        default=512, metadata={"help": "Rows with a longer prompt, in tokens, are left out."}
    )


@dataclass
class AlgorithmArguments:
    """How a policy learns from the rewards of several answers to a prompt."""

    algorithm: str = field(
        default=ALGORITHMS[0],
        metadata={"help": "Group-relative policy optimization, or REINFORCE leave-one-out.", "choices": ALGORITHMS},
    )


def trl_names(default_config: Path | None, argv: Sequence[str] | None = None) -> tuple[str, str]:
    """The names of TRL's config and trainer for the `algorithm` that a YAML or the command line chooses.

    Raises:
        UserError: there is no such algorithm.
    """
    algorithm = peek("algorithm", default_config, argv) or ALGORITHMS[0]
    if algorithm not in ALGORITHMS:
        raise UserError(f"algorithm: must be one of {', '.join(ALGORITHMS)}, not {algorithm!r}")
    return f"{algorithm.upper()}Config", f"{algorithm.upper()}Trainer"


@dataclass(frozen=True)
class Prompts:
    """Instruction sets, and the rewards of answers to their rows.

    Attributes:
        given: the arguments that they were read by.
        watched: the folder of the set that training is watched with.
        rewards: of answers.
        rows: training and validation rows of the data set, with all columns, which rewards get.
        instructions: the validation rows of the watched set.
    """

    given: PromptsArguments
    watched: str
    rewards: Rewards
    rows: dict[str, Dataset]
    instructions: Dataset

    def asked(self, split: str, most: int | None, tokenizer: Any) -> tuple[Dataset, str]:
        """Rows of a split whose prompt is not too long and to whose own answer a reward applies.

        Args:
            most: so many at most, by a fixed shuffle; null for all in their order.
            tokenizer: with the chat template of the run.

        Returns:
            The rows, and a line that counts them and what was left out of those that were looked at.

        Raises:
            UserError: there are none, or a reward fails.
        """
        rows = self.rows[split] if most is None else self.rows[split].shuffle(seed=0)
        places: list[int] = []
        worth: list[float] = []
        long = without = 0
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            lengths = [len(ids) for ids in prompt_tokens(batch, tokenizer)]
            short = [i for i, length in enumerate(lengths) if length <= self.given.max_prompt_length]
            long += len(lengths) - len(short)
            chosen = {name: [values[i] for i in short] for name, values in batch.items()}
            found = self._own_rewards(chosen, tokenizer)
            applying = [(start + i, value) for i, value in zip(short, found, strict=True) if value is not None]
            without += len(short) - len(applying)
            places += [place for place, _ in applying]
            worth += [value for _, value in applying]
            if most is not None and len(places) >= most:
                break
        kept, worth = places[:most], worth[:most]
        left_out = (
            f"left out: {without:,} rows to which no reward applies, {long:,} with a prompt of more than "
            f"max_prompt_length ({self.given.max_prompt_length}) tokens"
        )
        if not kept:
            mend = "--eval_strategy no, or " if split == VALIDATION else ""
            raise UserError(
                f"{self.given.dataset_name}: no row of {split} can be asked ({left_out}); set {mend}other --rewards "
                "or a higher --max_prompt_length"
            )
        return rows.select(kept), (
            f"asking {len(kept):,} rows, whose own answers have a reward of {sum(worth) / len(worth):.3f} on average; "
            + left_out
        )

    def to_evaluate(self, most: int, tokenizer: Any, args: Any) -> Dataset | None:
        """Validation rows whose answers are judged in training, at most so many; null if a trainer evaluates nothing.

        Raises:
            UserError: see `asked`.
        """
        return None if args.eval_strategy == "no" else self.asked(VALIDATION, most, tokenizer)[0]

    def _own_rewards(self, rows: dict[str, list[Any]], tokenizer: Any) -> list[float | None]:
        """The rewards of rows' own answers, called with all that TRL's trainers call them with."""
        from transformers import TrainerState

        prompts, answers = rows["prompt"], rows["completion"]
        columns = {name: values for name, values in rows.items() if name not in ("prompt", "completion")}
        ids = [tokenizer(text_of(answer), add_special_tokens=False)["input_ids"] for answer in answers]
        tools = {"trainer_state": TrainerState(), "log_extra": _not_logged, "log_metric": _not_logged}
        return self.rewards(prompts, answers, completion_ids=ids, **columns, **tools)

    def inputs(self) -> dict[str, Any]:
        """What a lineage says of them."""
        name, rewards = self.given.dataset_name, self.rewards
        return {
            "dataset": {"name": name, "fingerprint": _fingerprint(name), "lineage": read_lineage(Path(name))},
            "held_out_set": {"name": self.watched, "fingerprint": _fingerprint(self.watched)},
            "rewards": {
                "name": self.given.rewards,
                "sha256": sha256_file(Path(self.given.rewards)),
                "weights": dict(zip((one.name for one in rewards.components), rewards.weights, strict=True)),
            },
        }

    def fingerprints(self) -> dict[str, str]:
        """What a run's config has to record, so that it is not resumed with other data or rewards."""
        return {
            "dataset_fingerprint": _fingerprint(self.given.dataset_name),
            "held_out_fingerprint": _fingerprint(self.watched),
            "rewards_sha256": sha256_file(Path(self.given.rewards)),
        }


def _not_logged(name: str, value: Any) -> None:
    """In the place of TRL's functions that log for a reward."""


def _fingerprint(folder: str) -> str:
    return read_manifest(Path(folder))["fingerprint"]


def prompt_tokens(rows: Any, tokenizer: Any) -> list[list[int]]:
    """The tokens of prompts up to where an answer begins, as TRL's trainers give them to the model.

    Args:
        rows: a data set, or a batch of one, with a column `prompt`.
    """
    return tokenizer.apply_chat_template(list(rows["prompt"]), add_generation_prompt=True, return_dict=True)[
        "input_ids"
    ]


def load_prompts(data: PromptsArguments) -> Prompts:
    """The rows and rewards of a config, after the contracts of the sets were checked.

    Raises:
        UserError: no such set or rewards, a row that breaks the contract, or a row that would be asked and shares a
            prompt or bytes of a document with what the watched set holds out.
    """
    from instructrec.rewards.load import load_rewards

    rewards = load_rewards(Path(data.rewards), data.reward_seconds)
    rows = load_set(data.dataset_name)
    watched, instructions = data.held_out_set or data.dataset_name, rows[VALIDATION]
    if Path(watched).resolve() != Path(data.dataset_name).resolve():
        instructions = load_set(watched)[VALIDATION]
        _check_apart(Path(data.dataset_name), Path(watched))
    return Prompts(data, watched, rewards, rows, instructions)


def _check_apart(folder: Path, watched: Path) -> None:
    """Refuse a set that would ask what another one holds out."""
    prompts: dict[str, str] = {}
    spans = Spans()
    for split in (VALIDATION, *HELD_OUT):
        for row in read_split(watched, split, ["id", "prompt", "source"]):
            name = f"{watched / split} row {row['id']}"
            prompts[row["prompt"][-1]["content"]] = name
            for source in row["source"]:
                spans.add(source["sha256"], source["start"], source["end"], name)
    for row in read_split(folder, TRAIN, ["id", "prompt", "source"]):
        other = prompts.get(row["prompt"][-1]["content"])
        for source in row["source"]:
            other = other or spans.overlapping(source["sha256"], source["start"], source["end"])
        if other:
            raise UserError(
                f"{folder}: training row {row['id']} overlaps with {other}; give as --held_out_set a set that was "
                "built from the same corpus with the same seed"
            )


def preflight_prompts(
    prompts: Prompts, base: Path, tokenizer: Any, args: Any, model: Any, strategy: str | None = None
) -> tuple[Dataset, str]:
    """Check the prompts of a run of GRPO or RLOO against its config and its base model.

    Args:
        base, tokenizer, model, strategy: as of `preflight.check_base`.
        args: TRL's `GRPOConfig` or `RLOOConfig`.

    Returns:
        The rows that are asked, and the line of `Prompts.asked`.

    Raises:
        UserError: see `check_base` and `Prompts.asked`; or prompts and answers that do not fit the model's context, or
            fewer rows than answers are sampled to together.
    """
    from transformers import AutoConfig

    check_base(base, tokenizer, args, model, strategy)
    config = AutoConfig.from_pretrained(str(base)).get_text_config()
    context = getattr(config, "max_position_embeddings", None)
    longest = prompts.given.max_prompt_length
    if context and longest + args.max_completion_length > context:
        raise UserError(
            f"max_completion_length: {args.max_completion_length} tokens after a prompt of {longest} do not fit the "
            f"model's context of {context}; lower it or --max_prompt_length"
        )
    rows, told = prompts.asked(TRAIN, prompts.given.max_train_rows, tokenizer)
    together = args.generation_batch_size // args.num_generations
    if len(rows) < together:
        raise UserError(
            f"{prompts.given.dataset_name}: {len(rows)} rows can be asked, fewer than the {together} that are asked "
            "together; lower --per_device_train_batch_size or --steps_per_generation, or raise --num_generations"
        )
    return rows, told
