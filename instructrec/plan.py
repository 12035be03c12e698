"""What a training run will take, told before any weight is read: config, memory, tokens, steps and, if asked, time."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from instructrec.adapters import AdapterArguments, Parent, read_parent
from instructrec.config import parse_with_origins
from instructrec.core.errors import UserError
from instructrec.core.schema import TRAIN, VALIDATION
from instructrec.data import DataArguments, HeldOutArguments
from instructrec.launch import Launch, read_launch
from instructrec.memory import SCORES, Batch, Counted, Memory, MiB, count, estimate
from instructrec.preferences.data import Pairs, PairsArguments, load_pairs
from instructrec.preflight import (
    SIDES,
    PairTokens,
    Tokens,
    check_base,
    check_pairs,
    check_rows,
    tokens_of,
    tokens_of_pairs,
)
from instructrec.prompts import (
    AlgorithmArguments,
    Prompts,
    PromptsArguments,
    load_prompts,
    preflight_prompts,
    prompt_tokens,
    trl_names,
)

if TYPE_CHECKING:
    from datasets import Dataset
    from rich.console import Console

    from instructrec.mixture import Use

SHOWN_ROWS = 3
"""Rows whose supervised tokens are shown."""

PROBE_STEPS = 3
"""Steps of a probe; the first is left out, because it also allocates."""

DECISIVE = {
    *("model_name_or_path", "dtype", "use_peft", "load_in_4bit", "lora_r", "dataset_name", "output_dir", "max_length"),
    *("packing", "max_steps", "num_train_epochs", "per_device_train_batch_size", "per_device_eval_batch_size"),
    *("gradient_accumulation_steps", "learning_rate", "lr_scheduler_type", "warmup_steps", "optim", "bf16"),
    *("activation_checkpointing", "eval_strategy", "eval_items", "seed"),
    *("held_out_set", "init_adapter", "loss_type", "beta"),
    *("rewards", "algorithm", "num_generations", "num_iterations", "max_prompt_length", "max_completion_length"),
}
"""Keys that are shown even where nobody gave them: time, memory or results hang on them."""


@dataclass(frozen=True)
class Value:
    """A key's value, and where it is from: the YAML, the command line, TRL, this project or the machine."""

    value: Any
    origin: str


@dataclass(frozen=True)
class Sequences:
    """What a trainer makes of a split: one entry per sequence, or per pair of them.

    Attributes:
        tokens, supervised: of each entry.
        longest: tokens of the longest sequence of each entry.
        rows: that they were made of.
        each: sequences of an entry.
        joined: whether the sequences of a batch share one line of tokens, so that nothing is padded.
    """

    tokens: tuple[int, ...]
    supervised: tuple[int, ...]
    longest: tuple[int, ...]
    rows: int
    each: int = 1
    joined: bool = False


@dataclass(frozen=True)
class Run:
    """The steps of a run over its training rows.

    Attributes:
        rows, sequences: of one epoch; several rows share a sequence if they are packed, a pair is two.
        steps, epochs: of the whole run.
        tokens, supervised, padding: that it processes in all, padding not among the first two.
        left_out: rows that are longer than `max_length`.
        largest: tokens of the largest batch of one process, with padding.
    """

    rows: int
    sequences: int
    steps: int
    epochs: float
    tokens: int
    supervised: int
    padding: int
    left_out: int
    largest: int


@dataclass(frozen=True)
class Shown:
    """A row as pieces of text, each supervised or given."""

    id: str
    pieces: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class Plan:
    """Everything `instructrec plan` says; `parts` are those of a mixture, `seconds_per_step` is that of a probe."""

    config: dict[str, Value]
    launch: Launch
    model: Counted
    memory: Memory
    run: Run
    parts: tuple[Use, ...]
    shown: tuple[Shown, ...]
    seconds_per_step: float | None

    def as_json(self) -> dict[str, Any]:
        """The plan as JSON takes it."""
        plan = asdict(self)
        plan["launch"]["shards"] = sorted(self.launch.shards)
        plan["memory"]["peak"] = self.memory.peak
        return plan


class Stage(NamedTuple):
    """What a recipe makes of its config and its data before weights are read.

    Attributes:
        trainer: TRL's class, which a probe trains with.
        peft_config: of the adapter; null where all weights are trained.
        rows: as the trainer takes them.
        train, evaluated: sequences; null where nothing is evaluated.
        left_out: rows that are longer than `max_length`.
        shown: the first rows.
        parts: of a mixture.
        reference: the adapter that training goes on from, where a frozen copy of it is kept beside it.
        options: what else the trainer takes.
        batches: of a step of one process; default: `gradient_accumulation_steps`.
    """

    trainer: Any
    peft_config: Any
    rows: Dataset
    train: Sequences
    evaluated: Sequences | None
    left_out: int
    shown: tuple[Shown, ...]
    parts: tuple[Use, ...] = ()
    reference: Parent | None = None
    options: Mapping[str, Any] = MappingProxyType({})
    batches: int | None = None


def recipe_of(config: Path) -> str:
    """The recipe that a YAML is of, by its name: `dpo.yaml` of recipes/dpo.py; sft.py where the name tells none."""
    return config.stem if config.stem in RECIPES else "sft"


def plan(
    config: Path,
    overrides: Sequence[str] = (),
    accelerate: Path | None = None,
    probe: bool = False,
    recipe: str | None = None,
) -> Plan:
    """Plan a run of a recipe.

    Args:
        config: the recipe's YAML.
        overrides: `--key value …`, as the recipe takes them.
        accelerate: a file of `accelerate_configs/`; one process without it.
        probe: load the weights and time a few steps on this machine.
        recipe: `sft`, `dpo`, `reward`, `grpo` or `ppo`; default: by the YAML's name.

    Raises:
        UserError: whatever the recipe would refuse before it loads weights.
    """
    import torch

    from instructrec.models import EMBEDDED, resolve_model
    from instructrec.runtime import cpu_flags

    recipe = recipe or recipe_of(config)
    if recipe not in RECIPES:
        raise UserError(f"--recipe: must be one of {', '.join(RECIPES)}, not {recipe!r}")
    own, theirs, prepare = RECIPES[recipe]
    arguments = cpu_flags(list(overrides))
    given = ["--config", str(config), *arguments]
    if recipe == "grpo":
        theirs = (trl_names(None, given)[0], *theirs[1:])
    records = (*own, *_of_trl(theirs))
    instances, _, origins = parse_with_origins(records, None, given)
    args, model = instances[-2:]
    if len(arguments) > len(overrides):
        origins["use_cpu"] = "this machine"
    device = "cuda" if torch.cuda.is_available() and not args.use_cpu else "cpu"
    launch = read_launch(accelerate) if accelerate else Launch(device=device)
    name = model.model_name_or_path or EMBEDDED
    folder = resolve_model(name, model.model_revision, weights=probe)
    tokenizer, stage = prepare(instances, origins, name, folder, launch)

    run, largest = schedule(stage.train, args, launch.processes, stage.left_out, stage.batches)
    evaluated = None
    if stage.evaluated is not None:
        evaluated = largest_batch(stage.evaluated, args.per_device_eval_batch_size)
    bf16 = bool(args.bf16) or launch.bf16
    counted = count(folder, model, args, largest, bf16, stage.peft_config)
    copied = stage.reference is not None
    memory = estimate(
        counted, launch, largest, evaluated, args.gradient_accumulation_steps, str(args.optim.value), copied
    )
    return Plan(
        config=_resolved(records, instances, origins),
        launch=launch,
        model=counted,
        memory=memory,
        run=run,
        parts=stage.parts,
        shown=stage.shown,
        seconds_per_step=_probe(folder, args, model, tokenizer, stage) if probe else None,
    )


def _of_trl(names: Sequence[str]) -> list[Any]:
    """Records and trainers of TRL, which takes seconds to import, and what stands in their place."""
    import trl

    from instructrec.trainers.ppo_config import PPOConfig

    return [PPOConfig if name == "PPOConfig" else getattr(trl, name) for name in names]


def _sft(
    instances: Sequence[Any], origins: dict[str, str], name: str, folder: Path, launch: Launch
) -> tuple[Any, Stage]:
    """The tokenizer and the `Stage` of recipes/sft.py."""
    from trl import SFTTrainer, get_peft_config

    from instructrec.chat_templates import choose_template
    from instructrec.mixture import load_data
    from instructrec.models import load_tokenizer
    from instructrec.training import held_out

    data, start, watched, args, model = instances
    tokenizer = load_tokenizer(folder)
    choose_template(tokenizer, args.chat_template_path, args.assistant_only_loss)
    if parent := read_parent(start.init_adapter, name, folder):
        parent.check_template(tokenizer)
        parent.take_over(model, origins)
    dataset = load_data(data)
    validation, _ = held_out(watched, dataset.validation, args, tokenizer, launch.strategy)
    rows, ids, validation = dataset.encode(validation, tokenizer, args)

    check_base(folder, tokenizer, args, model, launch.strategy)
    tokens = list(tokens_of(rows, tokenizer))
    shown = tuple(_shown(tokenizer, *pair) for pair in zip(ids[:SHOWN_ROWS], tokens, strict=False))
    places, _ = check_rows(rows, tokens, ids, folder, tokenizer, args)
    packing = args.packing if args.eval_packing is None else args.eval_packing
    return tokenizer, Stage(
        trainer=SFTTrainer,
        peft_config=parent.config if parent else get_peft_config(model),
        rows=rows.select(places),
        train=arrange([tokens[place] for place in places], args, args.packing),
        evaluated=arrange(list(tokens_of(validation, tokenizer)), args, packing) if validation is not None else None,
        left_out=len(ids) - len(places),
        shown=shown,
        parts=dataset.uses,
    )


def _dpo(
    instances: Sequence[Any], origins: dict[str, str], name: str, folder: Path, launch: Launch
) -> tuple[Any, Stage]:
    """The tokenizer and the `Stage` of recipes/dpo.py."""
    from trl import DPOTrainer, get_peft_config

    from instructrec.models import load_tokenizer
    from instructrec.training import held_out

    data, start, watched, args, model = instances
    pairs = load_pairs(data)
    parent = read_parent(start.init_adapter, name, folder)
    tokenizer = load_tokenizer(folder, parent.folder if parent else None)
    if parent:
        parent.take_over(model, origins)
    held_out(watched, pairs.instructions, args, tokenizer, launch.strategy)
    peft_config = parent.config if parent else get_peft_config(model)
    stage = _of_pairs(pairs, DPOTrainer, peft_config, watched, folder, tokenizer, args, model, launch)
    return tokenizer, stage._replace(reference=parent)


def _reward(
    instances: Sequence[Any], origins: dict[str, str], name: str, folder: Path, launch: Launch
) -> tuple[Any, Stage]:
    """The tokenizer and the `Stage` of recipes/reward.py."""
    from trl import RewardTrainer, get_peft_config

    from instructrec.chat_templates import choose_template
    from instructrec.models import load_tokenizer
    from instructrec.training import held_out

    data, watched, args, model = instances
    pairs = load_pairs(data)
    tokenizer = load_tokenizer(folder)
    choose_template(tokenizer, args.chat_template_path)
    held_out(watched, pairs.rows[VALIDATION], args, None, launch.strategy)
    model.lora_task_type = SCORES
    stage = _of_pairs(pairs, RewardTrainer, get_peft_config(model), watched, folder, tokenizer, args, model, launch)
    return tokenizer, stage


def _grpo(
    instances: Sequence[Any], origins: dict[str, str], name: str, folder: Path, launch: Launch
) -> tuple[Any, Stage]:
    """The tokenizer and the `Stage` of recipes/grpo.py, all answers as long as they may be."""
    import trl

    data, chosen, *others = instances
    args = instances[-2]
    prompts = load_prompts(data)
    again = args.num_generations_eval or args.num_generations
    tokenizer, stage = _of_answers(prompts, others, origins, name, folder, launch, args.num_iterations, again)
    return tokenizer, stage._replace(
        trainer=getattr(trl, f"{chosen.algorithm.upper()}Trainer"),
        reference=stage.reference if args.beta else None,
        options={"reward_funcs": prompts.rewards},
    )


def _ppo(
    instances: Sequence[Any], origins: dict[str, str], name: str, folder: Path, launch: Launch
) -> tuple[Any, Stage]:
    """The tokenizer and the `Stage` of recipes/ppo.py, all answers as long as they may be."""
    from instructrec.trainers.ppo import PPOTrainer

    data, *others = instances
    args = instances[-2]
    prompts = load_prompts(data)
    tokenizer, stage = _of_answers(prompts, others, origins, name, folder, launch, args.num_ppo_epochs, 1)
    return tokenizer, stage._replace(
        trainer=PPOTrainer,
        options={"rewards": prompts.rewards},
        batches=args.gradient_accumulation_steps * args.num_mini_batches * args.num_ppo_epochs,
    )


def _of_answers(
    prompts: Prompts,
    instances: Sequence[Any],
    origins: dict[str, str],
    name: str,
    folder: Path,
    launch: Launch,
    passes: int,
    again: int,
) -> tuple[Any, Stage]:
    """The tokenizer and the `Stage` of a recipe that learns from answers to prompts, but for its trainer.

    Args:
        instances: of the records `AdapterArguments`, `HeldOutArguments`, the trainer's and `ModelConfig`.
        passes: over the answers.
        again: answers to each prompt of an evaluation.
    """
    from trl import get_peft_config

    from instructrec.models import load_tokenizer
    from instructrec.training import held_out

    start, watched, args, model = instances
    parent = read_parent(start.init_adapter, name, folder)
    tokenizer = load_tokenizer(folder, parent.folder if parent else None)
    if parent:
        parent.take_over(model, origins)
    held_out(watched, prompts.instructions, args, tokenizer, launch.strategy)
    rows, _ = preflight_prompts(prompts, folder, tokenizer, args, model, launch.strategy)
    evaluated = prompts.to_evaluate(watched.eval_items, tokenizer, args)
    longest, ids = args.max_completion_length, prompt_tokens(rows, tokenizer)
    shown = ((row, (tokens, [False] * len(tokens))) for row, tokens in zip(rows["id"][:SHOWN_ROWS], ids, strict=False))
    return tokenizer, Stage(
        trainer=None,
        peft_config=parent.config if parent else get_peft_config(model),
        rows=rows,
        train=arrange_answers(ids, longest, args.num_generations * passes),
        evaluated=None if evaluated is None else arrange_answers(prompt_tokens(evaluated, tokenizer), longest, again),
        left_out=0,
        shown=tuple(_shown(tokenizer, row, tokens) for row, tokens in shown),
        reference=parent,
    )


def _of_pairs(
    pairs: Pairs,
    trainer: Any,
    peft_config: Any,
    watched: HeldOutArguments,
    folder: Path,
    tokenizer: Any,
    args: Any,
    model: Any,
    launch: Launch,
) -> Stage:
    rows, validation = pairs.rows[TRAIN], pairs.to_evaluate(watched.eval_items, tokenizer, args)
    check_base(folder, tokenizer, args, model, launch.strategy)
    tokens = list(tokens_of_pairs(rows, tokenizer))
    places, _ = check_pairs(tokens, rows["name"], folder, tokenizer, args)
    shown = (
        _shown(tokenizer, f"{name} ({side})", sequence)
        for name, pair in zip(rows["name"][:SHOWN_ROWS], tokens, strict=False)
        for side, sequence in zip(SIDES, pair, strict=True)
    )
    return Stage(
        trainer=trainer,
        peft_config=peft_config,
        rows=rows.select(places).select_columns(["prompt", *SIDES]),
        train=arrange_pairs([tokens[place] for place in places]),
        evaluated=arrange_pairs(list(tokens_of_pairs(validation, tokenizer))) if validation is not None else None,
        left_out=len(tokens) - len(places),
        shown=tuple(shown),
    )


RECIPES: dict[str, tuple[tuple[type, ...], tuple[str, ...], Callable[..., tuple[Any, Stage]]]] = {
    "sft": ((DataArguments, AdapterArguments, HeldOutArguments), ("SFTConfig", "ModelConfig"), _sft),
    "dpo": ((PairsArguments, AdapterArguments, HeldOutArguments), ("DPOConfig", "ModelConfig"), _dpo),
    "reward": ((PairsArguments, HeldOutArguments), ("RewardConfig", "ModelConfig"), _reward),
    "grpo": (
        (PromptsArguments, AlgorithmArguments, AdapterArguments, HeldOutArguments),
        ("GRPOConfig", "ModelConfig"),  # or RLOO's
        _grpo,
    ),
    "ppo": ((PromptsArguments, AdapterArguments, HeldOutArguments), ("PPOConfig", "ModelConfig"), _ppo),
}
"""Recipe → its own records and TRL's, and what prepares it."""


def arrange(rows: Sequence[Tokens], args: Any, packing: bool) -> Sequences:
    """Truncate rows (of validation: no training row is too long) and, if asked for, pack them, both as TRL does."""
    from datasets import Dataset
    from trl import pack_dataset

    limit = args.max_length or max(len(ids) for ids, _ in rows)
    if args.completion_only_loss is False:
        rows = [(ids, [True] * len(ids)) for ids, _ in rows]
    kept = [(ids[:limit], supervised[:limit]) for ids, supervised in rows]
    if packing:
        table = Dataset.from_dict(dict(zip(("ids", "supervised"), map(list, zip(*kept, strict=True)), strict=True)))
        packed = pack_dataset(table, limit, args.packing_strategy)
        kept = list(zip(packed["ids"], packed["supervised"], strict=True))
    lengths = tuple(len(ids) for ids, _ in kept)
    return Sequences(
        tokens=lengths,
        supervised=tuple(sum(supervised) for _, supervised in kept),
        longest=lengths,
        rows=len(rows),
        joined=args.padding_free or packing,
    )


def arrange_pairs(pairs: Sequence[PairTokens]) -> Sequences:
    """Pairs as TRL's trainers take them: a batch has their chosen sequences and then their rejected ones, padded."""
    return Sequences(
        tokens=tuple(sum(len(ids) for ids, _ in pair) for pair in pairs),
        supervised=tuple(sum(sum(supervised) for _, supervised in pair) for pair in pairs),
        longest=tuple(max(len(ids) for ids, _ in pair) for pair in pairs),
        rows=len(pairs),
        each=2,
    )


def arrange_answers(prompts: Sequence[Sequence[int]], longest: int, each: int) -> Sequences:
    """What is learnt from answers to prompts, every one of `longest` tokens: `each` of them in an epoch."""
    lengths = tuple(len(ids) + longest for ids in prompts for _ in range(each))
    return Sequences(tokens=lengths, supervised=(longest,) * len(lengths), longest=lengths, rows=len(prompts))


def _batch(sequences: Sequences, chosen: Sequence[int]) -> Batch:
    supervised = sum(sequences.supervised[i] for i in chosen)
    if sequences.joined:
        return Batch(1, sum(sequences.tokens[i] for i in chosen), supervised, packed=True)
    longest = max(sequences.longest[i] for i in chosen)
    return Batch(sequences.each * len(chosen), longest, supervised, packed=False)


def largest_batch(sequences: Sequences, size: int) -> Batch:
    """The batch of most tokens where sequences come in their own order."""
    order = range(len(sequences.tokens))
    return max((_batch(sequences, order[i : i + size]) for i in order[::size]), key=lambda batch: batch.tokens)


def schedule(
    sequences: Sequences, args: Any, processes: int, left_out: int, batches_of_step: int | None = None
) -> tuple[Run, Batch]:
    """Follow the trainer through its batches: what it processes in all, and the largest batch of a process.

    Every epoch has an order of its own, drawn from seed + epoch (accelerate's `SeedableRandomSampler`); process i takes
    every batch number i modulo processes, and the first batches again where the last round is not full (which
    `dataloader_drop_last` leaves out).

    Raises:
        UserError: it leaves out everything.
    """
    import torch

    count_, size = len(sequences.tokens), args.per_device_train_batch_size
    whole = math.floor if args.dataloader_drop_last else math.ceil
    if not (rounds := whole(whole(count_ / size) / processes)):
        raise UserError(
            f"dataloader_drop_last: {count_} sequences fill no batch of {size} for each of {processes} processes; "
            "leave it out"
        )
    accumulated = batches_of_step or args.gradient_accumulation_steps
    steps_per_epoch = math.ceil(rounds / accumulated)
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * steps_per_epoch)
    seed = args.seed if args.data_seed is None else args.data_seed
    largest, tokens, supervised, padded = Batch(1, 1, 0, sequences.joined), 0, 0, 0
    for epoch in range(math.ceil(steps / steps_per_epoch)):
        order = torch.randperm(count_, generator=torch.Generator().manual_seed(seed + epoch)).tolist()
        batches = [order[i : i + size] for i in range(0, count_, size)]
        left = steps - epoch * steps_per_epoch
        for number in range(min(rounds, left * accumulated) * processes):
            chosen = batches[number % len(batches)]
            batch = _batch(sequences, chosen)
            largest = max(largest, batch, key=lambda batch: batch.tokens)
            tokens += sum(sequences.tokens[i] for i in chosen)
            supervised += batch.supervised
            padded += batch.tokens
    run = Run(
        rows=sequences.rows,
        sequences=sequences.each * count_,
        steps=steps,
        epochs=steps / steps_per_epoch,
        tokens=tokens,
        supervised=supervised,
        padding=padded - tokens,
        left_out=left_out,
        largest=largest.tokens,
    )
    return run, largest


def _resolved(records: Sequence[type], instances: Sequence[Any], origins: dict[str, str]) -> dict[str, Value]:
    """Every key's value and origin; what may hold a credential is left out."""
    from instructrec.lineage import without_secrets

    found = {}
    for record, instance in zip(records, instances, strict=True):
        whose = "instructrec" if record.__module__.startswith("instructrec.") else "TRL"
        values = {field.name: getattr(instance, field.name) for field in fields(record)}
        for key, value in without_secrets(values).items():
            value = getattr(value, "value", value)  # of an enumeration
            plain = isinstance(value, (str, int, float, bool, list, dict, type(None)))
            found[key] = Value(value if plain else str(value), origins.get(key, f"default of {whose}"))
    if "mixture" in found and found["mixture"].value is not None:
        del found["dataset_name"]  # which it takes the place of
    if found["model_name_or_path"].value is None:
        from instructrec.models import EMBEDDED

        found["model_name_or_path"] = Value(EMBEDDED, "default of instructrec")
    return found


def _shown(tokenizer: Any, row: str, tokenized: Tokens) -> Shown:
    """A row's tokens as text, joined where neighbours are alike."""
    runs: list[tuple[list[int], bool]] = []
    for token, supervised in zip(*tokenized, strict=True):
        if not runs or runs[-1][1] != supervised:
            runs.append(([], supervised))
        runs[-1][0].append(token)
    return Shown(row, tuple((tokenizer.decode(tokens), supervised) for tokens, supervised in runs))


def _probe(folder: Path, args: Any, model: Any, tokenizer: Any, stage: Stage) -> float:
    """Train for a few steps and return the seconds of one."""
    from transformers import TrainerCallback

    from instructrec.training import ending, make_trainer

    class Clock(TrainerCallback):
        ends: list[float]

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.ends = [time.perf_counter()]

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.perf_counter())

    clock = Clock()
    less = {"max_steps": PROBE_STEPS, "eval_strategy": "no", "eval_on_start": False, "save_strategy": "no"}
    less |= {"load_best_model_at_end": False, "report_to": ["none"]}
    with tempfile.TemporaryDirectory() as scratch:
        short = replace(args, output_dir=scratch, **less)
        given = {"train_dataset": stage.rows, "callbacks": [clock], **stage.options}
        trainer = make_trainer(stage.trainer, folder, short, model, tokenizer, stage.peft_config, **given)
        if stage.reference:
            stage.reference.load_into(trainer.model)
            stage.reference.load_into(trainer.model, "ref")
        with ending(trainer):
            trainer.train()
    return median(b - a for a, b in zip(clock.ends[1:], clock.ends[2:], strict=False))


def show(found: Plan, console: Console) -> None:
    """Print a plan."""
    from rich.table import Table
    from rich.text import Text

    table = Table("key", "value", "from", box=None, title="Config", title_justify="left")
    hidden = 0
    for key, value in found.config.items():
        if key in DECISIVE or not value.origin.startswith("default"):
            table.add_row(key, Text(str(value.value)), Text(value.origin, "dim" if "default" in value.origin else ""))
        else:
            hidden += 1
    console.print(table)
    console.print(f"{hidden} more keys have TRL's or this project's defaults (--json lists them)\n")

    model, launch, memory, run = found.model, found.launch, found.memory, found.run
    share = model.trainable / model.total
    console.print(f"Parameters: {model.total:,}, of which {model.trainable:,} are trained ({share:.2%})\n")

    devices = f"{launch.processes} × {launch.device}" if launch.processes > 1 else f"one {launch.device} device"
    table = Table("part", box=None, title=f"Memory of each device ({devices}, {launch.strategy})", title_justify="left")
    table.add_column("MiB", justify="right")
    for part, size in memory.parts.items():
        if size:
            table.add_row(part, f"{size / MiB:,.0f}")
    for phase, size in memory.phases.items():
        table.add_row(f"most while {phase}", f"{size / MiB:,.0f}", style="bold" if size == memory.peak else "")
    console.print(table)
    console.print(f"peak: {memory.peak / MiB:,.0f} MiB, beside the imported libraries\n")

    for use in found.parts:
        console.print(str(use), highlight=False)
    console.print(
        f"Run: {run.rows:,} rows in {run.sequences:,} sequences, {run.steps:,} steps ({run.epochs:.2f} epochs), "
        f"{run.tokens:,} tokens, {run.supervised:,} of them supervised ({run.supervised / run.tokens:.0%}); "
        f"padding {run.padding:,} ({run.padding / (run.tokens + run.padding):.0%}); "
        f"{run.left_out:,} rows left out as too long; "
        f"largest batch of a process {run.largest:,} tokens"
    )
    if found.seconds_per_step is not None:
        total = found.seconds_per_step * run.steps
        console.print(
            f"Time: {found.seconds_per_step:.2f} s per step here, {total / 60:.1f} minutes for {run.steps:,} steps "
            f"({PROBE_STEPS} steps probed, evaluations not among them)"
        )
    for row in found.shown:
        text = Text("".join(piece for piece, _ in row.pieces))
        place = 0
        for piece, supervised in row.pieces:
            text.stylize("bold green" if supervised else "dim", place, place + len(piece))
            place += len(piece)
        console.print(f"\nRow {row.id} (what is supervised is green):", highlight=False)
        console.print(text)
