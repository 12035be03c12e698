"""What a run would train on, counted before any weight is loaded; what could not be learnt from is refused by row."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from instructrec.core.errors import UserError, nearest
from instructrec.core.schema import SIDES
from instructrec.data import NOT_SUPERVISED, common_prefix
from instructrec.launch import check_sharded_quantization, strategy_here
from instructrec.models import check_lora_targets, check_quantization, stop_tokens

if TYPE_CHECKING:
    from datasets import Dataset

LEFT_OUT = 0.1
"""The largest share of rows that may be longer than `max_length`: more is a wrong `max_length`, not a few long rows."""

_BATCH = 512
"""Rows tokenized together."""

Tokens = tuple[Sequence[int], Sequence[bool]]
"""A row's tokens, and whether each is supervised."""


class RowTokens(NamedTuple):
    """A row as a trainer sees it, in tokens.

    Attributes:
        total: its length.
        prompt: those before the first supervised one.
        supervised: those that the loss is computed on.
        stops: whether a token that ends generation is among the last supervised ones, so that stopping is learnt.
    """

    total: int
    prompt: int
    supervised: int
    stops: bool


@dataclass(frozen=True)
class TokenCounts:
    """What the rows of a data set come to, in tokens where nothing else is said.

    Attributes:
        rows: how many rows.
        tokens: all their tokens.
        supervised: those that the loss is computed on.
        longest: the longest row.
        longest_prompt: the most tokens before the first supervised one.
        longest_completion: the most supervised tokens of a row.
        too_long: rows longer than `max_length`.
        unsupervised: rows without a supervised token.
        left_out: which rows are not among these, and why; empty if all are.
    """

    rows: int
    tokens: int
    supervised: int
    longest: int
    longest_prompt: int
    longest_completion: int
    too_long: int
    unsupervised: int
    left_out: str = ""

    def __str__(self) -> str:
        return (
            f"training on {self.rows:,} rows of {self.tokens:,} tokens, {self.supervised / self.tokens:.0%} of them "
            f"supervised; the longest row has {self.longest:,}" + f"\n{self.left_out}" * bool(self.left_out)
        )


def tokens_of(rows: Dataset, tokenizer: Any) -> Iterator[Tokens]:
    """The tokens of every row, in order.

    Args:
        rows: as `instructrec.data.trainable` returns them: `prompt` and `completion`, which are tokenized as TRL does
            (the completion is what the chat template adds to the prompt), or `input_ids` and `labels`.
        tokenizer: with the chat template of the run.
    """
    return _labelled(rows) if "labels" in rows.column_names else _completions(rows, tokenizer)


def measure(tokens: Iterable[Tokens], stops: set[int]) -> list[RowTokens]:
    """What rows come to; `stops` are the tokens that end generation."""
    return [_row_tokens(ids, supervised, stops) for ids, supervised in tokens]


def _row_tokens(ids: Sequence[int], supervised: Sequence[bool], stops: set[int]) -> RowTokens:
    places = [place for place, kept in enumerate(supervised) if kept]
    if not places:
        return RowTokens(len(ids), len(ids), 0, False)
    last_answer = takewhile(lambda place: supervised[place], range(places[-1], -1, -1))
    return RowTokens(len(ids), places[0], len(places), any(ids[place] in stops for place in last_answer))


def _labelled(rows: Dataset) -> Iterator[Tokens]:
    for row in rows:
        yield row["input_ids"], [label != NOT_SUPERVISED for label in row["labels"]]


def _completions(rows: Dataset, tokenizer: Any) -> Iterator[Tokens]:
    for batch in rows.iter(_BATCH):
        wholes = [prompt + answer for prompt, answer in zip(batch["prompt"], batch["completion"], strict=True)]
        asked = _tokens(tokenizer, batch["prompt"], ask=True)
        for before, whole in zip(asked, _tokens(tokenizer, wholes), strict=True):
            shared = common_prefix(before, whole)
            yield whole, [False] * shared + [True] * (len(whole) - shared)


def _tokens(tokenizer: Any, conversations: list[list[dict[str, str]]], ask: bool = False) -> list[list[int]]:
    return tokenizer.apply_chat_template(conversations, add_generation_prompt=ask, return_dict=True)["input_ids"]


def count(measured: Sequence[RowTokens], max_length: int | None = None) -> TokenCounts:
    """The sums and extremes of measured rows."""
    return TokenCounts(
        rows=len(measured),
        tokens=sum(row.total for row in measured),
        supervised=sum(row.supervised for row in measured),
        longest=max((row.total for row in measured), default=0),
        longest_prompt=max((row.prompt for row in measured), default=0),
        longest_completion=max((row.supervised for row in measured), default=0),
        too_long=sum(max_length is not None and row.total > max_length for row in measured),
        unsupervised=sum(not row.supervised for row in measured),
    )


def preflight(
    rows: Dataset, ids: Sequence[str], base: Path | Any, tokenizer: Any, args: Any, model: Any
) -> tuple[Dataset, TokenCounts]:
    """Check the rows of a run against its config and its base model.

    Args:
        rows: as `instructrec.data.trainable` returns them.
        ids: their ids.
        base: the folder of the base model, or a model that is loaded already.
        tokenizer: of the base model, with the chat template of the run; gets `args.eos_token` if that is set.
        args: TRL's `SFTConfig`.
        model: TRL's `ModelConfig`.

    Returns:
        The rows that are not longer than `max_length`, because a truncated row teaches not to stop, and their counts,
        which tell of a few longer ones.

    Raises:
        UserError: see `check_base` and `check_rows`.
    """
    check_base(base, tokenizer, args, model)
    places, counts = check_rows(rows, tokens_of(rows, tokenizer), ids, base, tokenizer, args)
    return rows.select(places), counts


def check_base(base: Path | Any, tokenizer: Any, args: Any, model: Any, strategy: str | None = None) -> None:
    """Check the config of a run, of whatever kind, against its base model.

    Args:
        base, tokenizer, model: as of `preflight`.
        args: of a trainer of TRL.
        strategy: of the `Launch`; default: that of this process.

    Raises:
        UserError: quantization that would be ignored or that FSDP could not shard, adapted modules that the model does
            not have, or special tokens that the tokenizer does not have.
    """
    check_quantization(base, model)
    check_sharded_quantization(model, strategy_here() if strategy is None else strategy)
    check_lora_targets(base, model)
    _tell_lost_updates(model)
    _check_special_tokens(tokenizer, args)


def check_rows(
    rows: Dataset, tokens: Iterable[Tokens], ids: Sequence[str], base: Path | Any, tokenizer: Any, args: Any
) -> tuple[list[int], TokenCounts]:
    """Check rows of which completions are learnt.

    Args:
        rows, ids, base, tokenizer, args: as of `preflight`.
        tokens: of the rows, see `tokens_of`.

    Returns:
        The places of the rows that are not longer than `max_length`, and their counts.

    Raises:
        UserError: a row of which nothing is supervised or (raw text apart) not the end, or a `max_length` that is too
            short for a completion or for many rows.
    """
    if "labels" in rows.column_names and (args.assistant_only_loss or args.completion_only_loss is False):
        key = "assistant_only_loss" if args.assistant_only_loss else "completion_only_loss"
        raise UserError(
            f"{key}: of this set's conversations, as of the sets of a mixture, all answers are supervised, and only "
            "they; leave it out"
        )
    measured = _supervised(tokens, ids, base, tokenizer)
    places, counts = _fitting(ids, measured, args.max_length)
    if args.completion_only_loss is False:
        counts = replace(counts, supervised=counts.tokens)
    return places, counts


def _supervised(tokens: Iterable[Tokens], ids: Sequence[str], base: Path | Any, tokenizer: Any) -> list[RowTokens]:
    """What rows come to. Raises `UserError` for one of which nothing is supervised, or not the end."""
    stops = stop_tokens(base, tokenizer)
    measured = measure(tokens, stops)
    for name, row in zip(ids, measured, strict=True):
        if not row.supervised:
            raise UserError(
                f"row {name}: none of its {row.total} tokens is supervised, because the chat template writes nothing "
                "of its answer; mend the template or give another with --chat_template_path"
            )
        if row.prompt and not row.stops:  # without a prompt it is raw text, which may be cut anywhere
            endings = ", ".join(repr(tokenizer.decode([token])) for token in sorted(stops))
            raise UserError(
                f"row {name}: the end of its answer is not supervised ({endings} does not follow it), so that the "
                "model would never learn to stop; give the token that the chat template writes there as --eos_token"
            )
    return measured


PairTokens = tuple[Tokens, Tokens]
"""The tokens of a prompt with its chosen answer, and with its rejected one."""


def tokens_of_pairs(pairs: Dataset, tokenizer: Any) -> Iterator[PairTokens]:
    """The tokens of every pair, in order.

    Args:
        pairs: `prompt`, `chosen` and `rejected`, each messages.
        tokenizer: with the chat template of the run.
    """
    sides = (pairs.select_columns(["prompt", side]).rename_column(side, "completion") for side in SIDES)
    return zip(*(tokens_of(side, tokenizer) for side in sides), strict=True)


def preflight_pairs(pairs: Dataset, base: Path, tokenizer: Any, args: Any, model: Any) -> tuple[Dataset, TokenCounts]:
    """Check the pairs of a run against its config and its base model.

    Args:
        pairs: `prompt`, `chosen` and `rejected`, each messages, and a `name`.
        base, tokenizer, model: as of `preflight`.
        args: TRL's `DPOConfig` or `RewardConfig`.

    Returns:
        What the trainer takes of those of which both sequences are not longer than `max_length`, and their counts.

    Raises:
        UserError: see `check_base` and `check_pairs`.
    """
    check_base(base, tokenizer, args, model)
    places, counts = check_pairs(tokens_of_pairs(pairs, tokenizer), pairs["name"], base, tokenizer, args)
    return pairs.select(places).select_columns(["prompt", *SIDES]), counts


def check_pairs(
    tokens: Iterable[PairTokens], names: Sequence[str], base: Path, tokenizer: Any, args: Any
) -> tuple[list[int], TokenCounts]:
    """Check pairs of answers, of both of which the likelihood or the reward is asked.

    Returns:
        The places of the pairs whose longer sequence is not longer than `max_length`, and the counts of both sequences.

    Raises:
        UserError: an answer that the chat template leaves out or does not end, a pair that is the same for the model,
            or a `max_length` that is too short for an answer or for many pairs.
    """
    pairs = list(tokens)
    for name, ((chosen, _), (rejected, _)) in zip(names, pairs, strict=True):
        if list(chosen) == list(rejected):
            raise UserError(
                f"pair {name}: its chosen and its rejected answer have the same tokens in the chat template, so that "
                "there is nothing to prefer; leave it out"
            )
    measured = [
        _supervised((pair[place] for pair in pairs), [f"{name} ({side})" for name in names], base, tokenizer)
        for place, side in enumerate(SIDES)
    ]
    longer = [max(pair, key=lambda row: row.total) for pair in zip(*measured, strict=True)]
    places, counts = _fitting(names, longer, args.max_length)
    both = count([side[place] for place in places for side in measured])
    return places, replace(counts, tokens=both.tokens, supervised=both.supervised)


def _fitting(
    ids: Sequence[str], measured: Sequence[RowTokens], max_length: int | None
) -> tuple[list[int], TokenCounts]:
    counts = count(measured, max_length)
    if max_length is None or not counts.too_long:
        return list(range(len(measured))), counts
    named, longest = max(zip(ids, measured, strict=True), key=lambda pair: pair[1].supervised)
    mend = f"set --max_length {counts.longest}, the tokens of the longest row"
    if longest.supervised > max_length:
        raise UserError(
            f"max_length {max_length}: is shorter than the answer of row {named} ({longest.supervised} tokens); {mend}"
        )
    named, longest = max(zip(ids, measured, strict=True), key=lambda pair: pair[1].total)
    found = (
        f"{counts.too_long:,} of {counts.rows:,} rows are longer (row {named} has {longest.total} tokens, "
        f"{longest.prompt} of them before its answer)"
    )
    if counts.too_long > LEFT_OUT * counts.rows:
        raise UserError(f"max_length {max_length}: {found} and would be truncated; {mend}")
    fitting = [place for place, row in enumerate(measured) if row.total <= max_length]
    counts = count([measured[place] for place in fitting], max_length)
    left_out = f"left out, for max_length {max_length}: {found}; {mend}, to keep them"
    return fitting, replace(counts, left_out=left_out)


def _tell_lost_updates(model: Any) -> None:
    if not model.use_peft and model.dtype in ("bfloat16", "float16"):
        from accelerate import PartialState

        PartialState().print(
            f"all weights are trained in {model.dtype}, which rounds small updates away; --dtype float32 keeps them",
            file=sys.stderr,
        )


def _check_special_tokens(tokenizer: Any, args: Any) -> None:
    for key in ("eos_token", "pad_token"):
        token = getattr(args, key, None)
        if token is not None and token not in tokenizer.get_vocab():
            special = nearest(token, tokenizer.all_special_tokens)
            raise UserError(f"{key}: {token!r} is not in the tokenizer's vocabulary.{special}")
    if getattr(args, "eos_token", None) is not None:
        tokenizer.eos_token = args.eos_token
