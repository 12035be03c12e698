"""What a recipe trains on: one instruction set, or several sets and raw text mixed by weight.

    mixture:                                                 # in the recipe's YAML, in place of dataset_name
      - {name: outputs/mine/set, weight: 2}                  # an instruction set, each row twice in an epoch
      - {name: outputs/other/set}                            # weight 1: each row once
      - {name: owner/dataset, split: train, weight: 0.5}     # a set in one of TRL's formats: half of its rows
      - {text: my_documents, share: 0.1}                     # raw text, a tenth of the epoch's tokens

`weight` is how often an epoch has each row. With weights of 1 that is examples-proportional mixing (Raffel et al.,
2020, arXiv:1910.10683, section 3.5.2); other weights scale a part, as in the mixers of alignment-handbook and
open-instruct, and no part is cut because another one is small. `share` is a part's share of the epoch's tokens, of
which the parts with a weight have the rest. It is filled with rows or pieces of text, and with the same ones again if
there are too few. Which rows these are, and the order of all, is decided by a hash of their names and the seed.

All tokens of raw text are supervised: rehearsal of what the base model was trained on, against forgetting (Scialom et
al., 2022, arXiv:2205.12393; OPT-IML, Iyer et al., 2022, arXiv:2212.12017, mixes it into instruction tuning).

No part trains on what another one holds out: such rows are left out and counted (`instructrec.leaks`).

TRL has a mixture too (`datasets:`, `trl.scripts.utils.get_dataset`). It takes the first rows of each set, cuts all of
them to what the smallest allows, wants the same columns of all of them, and knows of nothing held out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from instructrec.core.errors import UserError
from instructrec.core.hashing import hashed
from instructrec.core.schema import INSTRUCTION, TRAIN, VALIDATION, read_manifest
from instructrec.data import DataArguments, load_set, row_labeller, trainable
from instructrec.leaks import HeldOut
from instructrec.lineage import read_lineage
from instructrec.parts import Part, read_parts
from instructrec.sources import BATCH, BLANK, Source, is_set, of_set, of_text, of_trl
from instructrec.trl_formats import TEXT, encoder, pieces_of, texts_of

if TYPE_CHECKING:
    from datasets import Dataset

MOST_PASSES = 4
"""How often a share may use a row: up to here repeated data are about as good as new (Muennighoff et al., 2023,
arXiv:2305.16264)."""

TEXT_BATCH = 1 << 20
"""Bytes of raw text that are tokenized together, about: of large documents a share needs few, and tokens take room."""

SEQUENCE = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int64()))])

Encoded = tuple["Dataset", list[str], "Dataset | None"]
"""Training rows as a trainer takes them, their names, and validation rows."""


@dataclass(frozen=True)
class Use:
    """What an epoch has of a part, before rows longer than `max_length` are left out.

    Attributes:
        name: folder, file or Hub name; label: the same with config, split and revision.
        kind: what it is.
        amount: the weight or share that was asked for.
        fingerprint: of the set's Parquet, or of the rows that were read.
        rows, distinct: of an epoch; different ones among them.
        tokens, portion: of an epoch; of all its tokens.
        left_out: reason → rows.
    """

    name: str
    label: str
    kind: str
    amount: str
    fingerprint: str
    rows: int
    distinct: int
    tokens: int
    portion: float
    left_out: dict[str, int]

    def __str__(self) -> str:
        return (
            f"mixture: {self.label} ({self.kind}, {self.amount}): {self.rows:,} rows ({self.distinct:,} different), "
            f"{self.tokens:,} tokens ({self.portion:.1%}){_told(self.left_out)}"
        )


def _told(left_out: Mapping[str, int]) -> str:
    return "; left out " + ", ".join(f"{n:,} {why}" for why, n in sorted(left_out.items())) if left_out else ""


def load_data(data: DataArguments) -> OneSet | Mixture:
    """What a recipe's config says to train on, read and checked.

    Raises:
        UserError: see `load_set` and `Mixture`.
    """
    if data.mixture is None:
        return OneSet(data.dataset_name, data.max_train_rows)
    return Mixture(read_parts(data.mixture), data.max_train_rows)


class OneSet:
    """The instruction set of `dataset_name`.

    Attributes:
        validation: its validation rows.
        fingerprint: of its Parquet.
        suites: what to score a trained model on.
        uses: of parts; none, for there is nothing to mix.
    """

    uses: tuple[Use, ...] = ()

    def __init__(self, name: str, max_rows: int | None) -> None:
        rows = load_set(name, max_rows)
        self._train, self.validation = rows[TRAIN], rows[VALIDATION]
        self.fingerprint = read_manifest(Path(name))["fingerprint"]
        self.suites = [name]

    def encode(self, validation: Dataset | None, tokenizer: Any, args: Any) -> Encoded:
        """Training rows, their ids, and the given validation rows, as a trainer takes them (see `trainable`)."""
        train, validation = trainable(self._train, validation, tokenizer)
        return train, list(self._train["id"]), validation

    def inputs(self) -> dict[str, Any]:
        """The set's entry in a lineage."""
        (name,) = self.suites
        return {"dataset": {"name": name, "fingerprint": self.fingerprint, "lineage": read_lineage(Path(name))}}


@dataclass(frozen=True)
class _Drawn:
    """A part's sequences, and which of them an epoch has, some of them several times.

    Attributes:
        lengths: tokens of each sequence.
        chosen: their places.
    """

    source: Source
    sequences: Dataset
    names: list[str]
    left_out: Counter[str]
    lengths: npt.NDArray[np.int64]
    chosen: npt.NDArray[np.int64]

    @property
    def tokens(self) -> int:
        """Of an epoch."""
        return int(self.lengths[self.chosen].sum())


class Mixture:
    """Several parts as one training set.

    Attributes:
        validation: the validation rows of its instruction sets.
        fingerprint: label of a part → what it held.
        suites: its instruction sets, to score a trained model on.
        uses: what an epoch has of each part, after `encode`.
    """

    def __init__(self, parts: Sequence[Part], max_rows: int | None) -> None:
        """Read the parts and leave out what one of them holds out.

        Raises:
            UserError: a part cannot be read or breaks its format, an instruction set breaks its contract, or nothing
                of a part is left.
        """
        import datasets

        self._max_rows = max_rows
        sets = {part.place: load_set(part.place) for part in parts if is_set(part)}
        self._held_out = HeldOut([Path(name) for name in sets])
        left_out = dict(zip(sets, self._held_out.left_out, strict=True))
        self._sources = [
            of_set(part, sets[part.place][TRAIN], left_out[part.place])
            if part.place in sets
            else of_text(part)
            if part.text
            else of_trl(part, self._held_out)
            for part in parts
        ]
        validation = [rows[VALIDATION] for rows in sets.values() if len(rows[VALIDATION])]
        empty = datasets.Dataset(INSTRUCTION.empty_table())
        self.validation = datasets.concatenate_datasets(validation) if validation else empty
        self.fingerprint = {source.part.label: source.fingerprint for source in self._sources}
        self.suites = list(sets)
        self.uses: tuple[Use, ...] = ()

    def encode(self, validation: Dataset | None, tokenizer: Any, args: Any) -> Encoded:
        """An epoch's rows and their names, and the given validation rows, as `input_ids` and `labels`.

        Args:
            validation: rows of `validation`, or null.
            tokenizer: with the chat template of the run.
            args: TRL's `SFTConfig`, of which `max_length` and the seed are read.

        Raises:
            UserError: a row cannot be tokenized, a weight comes to no row, or a share needs more than there is.
        """
        import datasets

        if args.max_length is None and any(source.part.text for source in self._sources):
            raise UserError("max_length: raw text is cut into pieces of so many tokens; set max_length: 1024")
        seed = args.seed if args.data_seed is None else args.data_seed

        def draw(source: Source, need: int | None = None) -> _Drawn:
            return self._draw(source, tokenizer, args.max_length, seed, need)

        parts = [draw(source) for source in self._sources if source.part.share is None]
        shares = {source: share for source in self._sources if (share := source.part.share) is not None}
        epoch = sum(part.tokens for part in parts) / (1 - sum(shares.values()))
        parts += [draw(source, round(share * epoch)) for source, share in shares.items()]
        order = _mixed(parts, seed)[: self._max_rows]
        self.uses = _uses(parts, order)
        offsets = np.cumsum([0, *(len(part.names) for part in parts)])
        rows = datasets.concatenate_datasets([part.sequences for part in parts])
        rows = rows.select([int(offsets[part]) + place for part, place in order])
        held = validation and _mapped(validation, row_labeller(tokenizer))
        return rows, [parts[part].names[place] for part, place in order], held

    def _draw(self, source: Source, tokenizer: Any, length: int, seed: int, need: int | None) -> _Drawn:
        """Tokenize a part and choose what an epoch has of it: by its weight, or until it has `need` tokens."""
        label, left_out = source.part.label, Counter(source.left_out)
        if source.part.text:
            sequences, names = self._pieces(source, tokenizer, length, seed, need, left_out)
            ranked = np.arange(len(names))  # documents came by rank
        else:
            sequences, names = _tokens(source, tokenizer), source.names
            ranked = np.array(sorted(range(len(names)), key=lambda place: hashed(seed, names[place])), np.int64)
        if not names:
            raise UserError(f"mixture: {label}: holds nothing to train on{_told(left_out)}")
        table = sequences.with_format("arrow")[:]
        lengths = pc.list_value_length(table["input_ids"]).to_numpy().astype(np.int64)
        if need is None:
            rows = round(source.part.weight * len(names))
            if not rows:
                raise UserError(f"mixture: {label}: {source.part.amount} takes none of its {len(names):,} rows")
        else:
            rows = _rows_for(need, lengths[ranked], label)
        return _Drawn(source, sequences, names, left_out, lengths, np.resize(ranked, rows))

    def _pieces(
        self, source: Source, tokenizer: Any, length: int, seed: int, need: int | None, left_out: Counter[str]
    ) -> tuple[Dataset, list[str]]:
        """Documents in the order of their rank, cut into pieces, until there are `need` tokens of them."""
        import datasets

        label = source.part.label
        batch = max(1, min(BATCH, TEXT_BATCH * len(source.rows) // max(source.rows.data.nbytes, 1)))
        order = sorted(range(len(source.rows)), key=lambda place: hashed(seed, f"{label}:{place}"))
        pieces: list[npt.NDArray[np.int64]] = []
        names: list[str] = []
        tokens = 0
        for start in range(0, len(order), batch):
            if need is not None and tokens >= need:
                break
            places = order[start : start + batch]
            rows = source.rows.select(places).to_list()
            said = [texts_of(row, TEXT, f"mixture: {label}, row {p}") for p, row in zip(places, rows, strict=True)]
            reasons = dict.fromkeys((at for at, texts in enumerate(said) if not texts), BLANK)
            reasons |= self._held_out.within(said, [source.files[place] for place in places])
            left_out.update(reasons.values())
            kept = [at for at in range(len(places)) if at not in reasons]
            cut = pieces_of([said[at][0] for at in kept], tokenizer, length) if kept else iter(())
            for at, found in zip(kept, cut, strict=True):
                names += [f"{label}:{places[at]}"] * len(found)
                pieces += [np.array(ids, np.int64) for ids in found]
                tokens += sum(map(len, found))
        features = datasets.Features.from_arrow_schema(SEQUENCE)
        return datasets.Dataset.from_dict({"input_ids": pieces, "labels": pieces}, features=features), names

    def inputs(self) -> dict[str, Any]:
        """The parts in a lineage: what an epoch has of each, and the lineage of the instruction sets."""
        lineages = {name: {"lineage": read_lineage(Path(name))} for name in self.suites}
        return {"mixture": [asdict(use) | lineages.get(use.name, {}) for use in self.uses]}


def _tokens(source: Source, tokenizer: Any) -> Dataset:
    if not source.columns:
        return _mapped(source.rows, row_labeller(tokenizer))
    encode, names = encoder(tokenizer, source.columns), source.names
    return _mapped(source.rows, lambda row, place: encode(row, names[place]), with_indices=True)


def _mapped(rows: Dataset, function: Any, **options: Any) -> Dataset:
    import datasets

    features = datasets.Features.from_arrow_schema(SEQUENCE)
    return rows.map(function, remove_columns=rows.column_names, features=features, **options)


def _rows_for(need: int, lengths: npt.NDArray[np.int64], label: str) -> int:
    """How many rows, taken in turn and then again from the first, have about `need` tokens; one at least."""
    ends = np.append(0, np.cumsum(lengths))
    there = int(ends[-1])
    if need > MOST_PASSES * there:
        raise UserError(
            f"mixture: {label}: its share is {need:,} tokens, and it has {there:,}, which are used {MOST_PASSES} times "
            "at most; give it more rows or a smaller share"
        )
    passes, rest = divmod(need, there)
    after = int(np.searchsorted(ends, rest))
    nearer = after if after == 0 or ends[after] - rest <= rest - ends[after - 1] else after - 1
    return max(1, passes * len(lengths) + nearer)


def _mixed(parts: Sequence[_Drawn], seed: int) -> list[tuple[int, int]]:
    """Part and place of every row of an epoch, in the order of their rank."""
    ranked = []
    for number, part in enumerate(parts):
        again: Counter[int] = Counter()
        for place in part.chosen.tolist():
            ranked.append((hashed(seed, part.names[place], place, again[place]), number, place))
            again[place] += 1
    return [(number, place) for _, number, place in sorted(ranked)]


def _uses(parts: Sequence[_Drawn], order: Sequence[tuple[int, int]]) -> tuple[Use, ...]:
    rows = [Counter(place for number, place in order if number == part) for part in range(len(parts))]
    tokens = [
        sum(int(part.lengths[place]) * times for place, times in used.items())
        for part, used in zip(parts, rows, strict=True)
    ]
    return tuple(
        Use(
            name=part.source.part.place,
            label=part.source.part.label,
            kind=part.source.kind,
            amount=part.source.part.amount,
            fingerprint=part.source.fingerprint,
            rows=used.total(),
            distinct=len(used),
            tokens=count,
            portion=count / sum(tokens),
            left_out=dict(part.left_out),
        )
        for part, used, count in zip(parts, rows, tokens, strict=True)
    )
