"""What a build will give, told by mining a sample of the corpus.

A corpus that is read whole is built as `pipeline` builds it, and the rows are counted. Of a larger one the examples of
every family are counted in the sample, scaled to the corpus, cut to what the quotas of its shards ask for and to what
the balance keeps, and multiplied with the rows that an example becomes. The range is a bootstrap over the parts of the
sample.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from data_builders.balance import maximum
from data_builders.config import BuildConfig
from data_builders.mining import mine_files
from data_builders.overlaps import drop_overlaps
from data_builders.pipeline import hold_out, majorities, plan_shards
from data_builders.quota import REVIEW, SURPLUS, Quota
from data_builders.readers.files import hashing_up_to
from data_builders.rendering import Renderer, render_shard, write_shard
from data_builders.sniff import Format, Limits, Records, Sample, draw, record_fields
from data_builders.splits import TEST
from instructrec.core.errors import UserError
from instructrec.core.minhash import SLOTS, clusters
from instructrec.core.schema import SPLITS, TEST_DOCUMENTS, TEST_TASKS, TEST_TEMPLATES, TRAIN, VALIDATION

SPLITS_OF = {TRAIN: (TRAIN,), TEST: (TEST_DOCUMENTS, TEST_TEMPLATES, TEST_TASKS), VALIDATION: (VALIDATION,)}
"""Side of the documents → splits that are made from it."""

RENDERED = 40
"""Examples of a family that are rendered, to see how many rows an example becomes."""

DRAWS = 200
"""Of the bootstrap."""

LEAST_PARTS = 8
"""Parts of a format from which whole parts are drawn; documents of one part are alike. Else documents are."""

MARGIN = 0.1
"""By which a range is widened at both ends, for what a sample cannot show: copies, and prompts that come again."""

HASHED = 64 << 20
"""Bytes of a file from which its hash is left out."""

Array = npt.NDArray[np.float64]
Message = list[dict[str, str]]


@dataclass(frozen=True)
class Range:
    """An expected number and its 95 % range; of what was counted, all three are the same."""

    value: int
    low: int
    high: int


@dataclass(frozen=True)
class Row:
    """A training row of the sample, which stands for `weight` rows of the set."""

    weight: float
    prompt: Message
    completion: Message


@dataclass(frozen=True)
class Forecast:
    """What a build with the default settings will give.

    Attributes:
        exact: whether the rows were counted and not scaled.
        splits: split → rows.
        kinds: (split, kind of document) → rows.
        families: how many families give training rows, and how many are mined.
        training: training rows, all of them if `exact`.
        seconds: of one processor, without the start.
        copies: share of the sample's documents that are near duplicates of others in it; 0 if `exact`.
    """

    exact: bool
    splits: dict[str, Range]
    kinds: dict[tuple[str, str], Range]
    families: tuple[int, int]
    training: list[Row]
    seconds: float
    copies: float = 0.0


@dataclass(frozen=True)
class Survey:
    """What is in a corpus, how it should be built, and what that will give."""

    sample: Sample
    records: Records
    config: BuildConfig
    forecast: Forecast


def survey(corpus: str, limits: Limits | None = None) -> Survey:
    """Read and mine a sample of a corpus.

    Args:
        corpus: a folder, a file, or `python`.
        limits: of the sample.

    Raises:
        UserError: nothing is there, nothing of it can be read, or nothing could be mined from it.
    """
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sample = draw(corpus, limits or Limits())
        records = record_fields(sample)
        config = BuildConfig(corpus=corpus, fields=records.names)
        for family in config.mined_families:
            _ = family.templates  # read now, not on the sample's time
        if sample.whole:
            _mine(sample, config, folder, sample.readable_bytes)
        if not (counted := sample.complete):
            sample = sample.again()
            _mine(sample, config, folder, 0)
        if not sample.seen():
            reasons = ", ".join(f"{n:.0f} {reason}" for reason, n in sample.skipped().items())
            raise UserError(f"corpus {corpus!r}: none of its {sample.files:,} files can be read ({reasons})")
        found = _counted(config, folder, sample) if counted else _scaled(config, folder, sample)
        if not any(rows.high for rows in found.splits.values()):
            spoken = sorted({language or "unknown" for _, language, _ in sample.seen()})
            raise UserError(
                f"corpus {corpus!r}: no instruction could be mined from {sum(sample.seen().values()):,.0f} documents"
                f" (languages: {', '.join(spoken)}); prose needs paragraphs of 30 to 110 words in a language with"
                " templates, code needs documented functions"
            )
        return Survey(sample, records, config, found)


def _mining_seconds(sample: Sample) -> float:
    return sum(excerpt.seconds / form.share for excerpt, form in sample.order if form.share)


def _mine(sample: Sample, config: BuildConfig, folder: Path, size: int) -> None:
    """Mine a sample: of `size` bytes asked for what its part of the corpus is asked for in a build; of 0, for all."""
    with hashing_up_to(HASHED):
        readings = sample.readings(config.document_licence, config.record_fields)
        mine_files(readings, config, Quota(config, size, sample.readable_bytes), folder, 0)


def _counted(config: BuildConfig, mined: Path, sample: Sample) -> Forecast:
    """The rows of a corpus that was mined whole, through the other stages of a build."""
    started = time.process_time()
    sides, rendered, written, folder = (mined / name for name in ("sides", "rendered", "written", "set"))
    for place in (sides, rendered, written, *(folder / split for split in SPLITS)):
        place.mkdir(parents=True)
    hold_out(mined, sides, 1, config)
    render_shard(mined, sides, rendered, 0, config)
    drop_overlaps(rendered, 1, repeats="duplicate" in config.gates)
    write_shard(rendered, folder, written, 0, config.turns_per_document)
    rows: Counter[tuple[str, str]] = Counter()
    training: list[Row] = []
    fruitful = set()
    for path in sorted(folder.rglob("*.parquet")):
        table = pq.read_table(path, columns=["prompt", "completion", "kind", "family"])
        rows.update((path.parent.name, kind) for kind in table["kind"].to_pylist())
        if path.parent.name == TRAIN:
            fruitful = set(table["family"].to_pylist())
            training = [Row(1.0, row["prompt"], row["completion"]) for row in table.to_pylist()]
    kinds = sorted({family.kind for family in config.mined_families})
    splits = {split: sum(rows[split, kind] for kind in kinds) for split in SPLITS}
    return Forecast(
        exact=True,
        splits={split: Range(n, n, n) for split, n in splits.items()},
        kinds={(split, kind): Range(*[rows[split, kind]] * 3) for split in SPLITS for kind in kinds},
        families=(len(fruitful), len(config.mined_families)),
        training=training,
        seconds=_mining_seconds(sample) + time.process_time() - started,
    )


@dataclass
class _Mined:
    """The sample's examples in numbers.

    Attributes:
        weights: of each unit: how many of the corpus it stands for.
        groups, parts: number of each unit's format, and of the part of that which is drawn as one.
        counts: (units, families): examples; none of a near duplicate.
        copies: share of the units that are near duplicates of others.
        words: of each family's answers, mean.
        rows: split → rows that an example of each family becomes.
        training: family → training rows.
        seconds: for rendering one row.
    """

    weights: Array
    groups: npt.NDArray[np.int64]
    parts: npt.NDArray[np.int64]
    counts: Array
    copies: float
    words: Array
    rows: dict[str, Array]
    training: dict[int, list[tuple[Message, Message]]]
    seconds: float


def _scaled(config: BuildConfig, folder: Path, sample: Sample) -> Forecast:
    """The rows of a corpus of which a part was mined."""
    families = config.mined_families
    kind_of = np.array([family.kind for family in families])
    formats = [form for form in sample.formats if form.readable]
    mined = _mined(config, folder, sample, formats)
    shards = _shards(sample, formats)
    examples = np.zeros((len(formats), len(families)))
    np.add.at(examples, mined.groups, mined.weights[:, None] * mined.counts)
    expected = _rows(config, mined, shards, {side: share * examples for side, share, _ in config.examples_wanted})
    draws = [_rows(config, mined, shards, drawn) for drawn in _draws(config, mined, len(formats))]
    drawn = {split: np.array([rows[split] for rows in draws]) for split in SPLITS}

    def around(split: str, kinds: list[str]) -> Range:
        chosen = np.isin(kind_of, kinds)
        low, high = np.percentile(drawn[split][:, chosen].sum(axis=1), [2.5, 97.5])
        value = round(expected[split][chosen].sum())
        return Range(value, int(min(low, value) * (1 - MARGIN)), int(np.ceil(max(high, value) * (1 + MARGIN))))

    kinds = sorted(set(kind_of.tolist()))
    training = []
    for number, messages in sorted(mined.training.items()):
        weight = expected[TRAIN][number] / len(messages)
        training += [Row(weight, prompt, completion) for prompt, completion in messages if weight]
    rows = sum(float(numbers.sum()) for numbers in expected.values())
    timed = sample.again()
    _mine(timed, config, folder, round(sum(form.read_bytes for form in sample.formats)))
    return Forecast(
        exact=False,
        splits={split: around(split, kinds) for split in SPLITS},
        kinds={(split, kind): around(split, [kind]) for split in SPLITS for kind in kinds},
        families=(int((expected[TRAIN] >= 0.5).sum()), len(families)),
        training=training,
        seconds=_mining_seconds(timed) + mined.seconds * rows,
        copies=mined.copies,
    )


def _mined(config: BuildConfig, folder: Path, sample: Sample, formats: list[Format]) -> _Mined:
    """Read what `mine_files` wrote, and render some examples of every family."""
    number_of = {family.name: i for i, family in enumerate(config.mined_families)}
    units = pq.read_table(folder / "00000.units.parquet", columns=["unit", "signature", "examples"])
    examples = pq.read_table(folder / "00000.examples.parquet")
    unit = examples["unit"].to_numpy()
    family = np.array([number_of[name] for name in examples["family"].to_pylist()], np.int64)
    counts = np.zeros((len(units), len(number_of)))
    np.add.at(counts, (unit, family), 1)
    copies = _copies(units)
    counts[copies] = 0
    found = np.maximum(np.bincount(family, minlength=len(number_of)), 1)
    words = np.bincount(family, examples["words"].to_numpy(), len(number_of)) / found
    place_of = {name: place for place, (excerpt, _) in enumerate(sample.order) for name in excerpt.units}
    places = [place_of[name] for name in units["unit"].to_pylist()]
    form_of = {form.suffix: i for i, form in enumerate(formats)}
    weights = np.array([1 / sample.order[place][1].share for place in places])
    groups = np.array([form_of[sample.order[place][1].suffix] for place in places], np.int64)
    parts = np.array(places, np.int64)
    for group in set(groups.tolist()):
        if len(set(parts[groups == group].tolist())) < LEAST_PARTS:
            parts[groups == group] = np.arange((groups == group).sum())

    mine = {name: (answer, share) for name, answer, share in majorities(folder, 1)}
    renderer = Renderer(config, {}, majorities=mine)
    tried: Counter[int] = Counter()
    rows = {split: np.zeros(len(number_of)) for split in SPLITS}
    training: dict[int, list[tuple[Message, Message]]] = defaultdict(list)
    started = time.process_time()
    for i in np.argsort(examples["key"].to_numpy(), kind="stable").tolist():
        if tried[family[i]] == RENDERED or not counts[unit[i], family[i]]:
            continue
        tried[family[i]] += 1
        for split, prompt, completion in _rendered(renderer, examples, i):
            rows[split][family[i]] += 1
            if split == TRAIN:
                training[int(family[i])].append((prompt, completion))
    seconds = time.process_time() - started
    made = sum(float(numbers.sum()) for numbers in rows.values())
    each = np.array([max(tried[number], 1) for number in range(len(number_of))])
    rows = {split: numbers / each for split, numbers in rows.items()}
    rows[VALIDATION] = rows[TRAIN]  # rendered alike
    return _Mined(
        weights=weights,
        groups=groups,
        parts=parts,
        counts=counts,
        copies=len(copies) / max(len(units), 1),
        words=words,
        rows=rows,
        training=training,
        seconds=seconds / max(made, 1),
    )


def _copies(units: Any) -> list[int]:
    """The numbers of units that are near duplicates of others."""
    productive = np.flatnonzero(units["examples"].to_numpy())
    signatures = b"".join(units["signature"].take(productive).to_pylist())
    first = clusters(np.frombuffer(signatures, np.uint32).reshape(-1, SLOTS))
    return productive[first != np.arange(len(first))].tolist()


def _rendered(renderer: Renderer, examples: Any, i: int) -> Iterator[tuple[str, Message, Message]]:
    """The rows of an example, were its document on the side of training and on that of the tests."""
    family, language, packed, source = (
        examples[name][i].as_py() for name in ("family", "language", "example", "source")
    )
    for side in (TRAIN, TEST):
        for row in renderer.rows(family, language, packed, source, side):
            yield row.split, row.values[1], row.values[2]


@dataclass(frozen=True)
class _Shards:
    """How a build will cut the corpus.

    Attributes:
        spread: (shards, formats): the part of a format's documents in a shard.
        wanted: (shards, 1): a shard's part of all bytes, and so of the examples that are asked for.
        asked_all: (shards, 1): the part of its documents that is asked for everything, before the first review.
    """

    spread: Array
    wanted: Array
    asked_all: Array


def _shards(sample: Sample, formats: list[Format]) -> _Shards:
    form_of = {name: (i, size) for i, form in enumerate(formats) for _, name, size in form.files}
    shards, sizes = plan_shards(sample.listed())
    spread = np.zeros((len(shards), len(formats)))
    for number, pieces in enumerate(shards):
        for _, name, start, end in pieces:
            if name not in form_of:
                continue  # no reader takes it
            i, size = form_of[name]
            of_file = 1.0 if end is None else (end - start) / size
            of_format = size / max(formats[i].bytes, 1) if formats[i].cut else 1 / len(formats[i].files)
            spread[number, i] += of_file * of_format
    documents = spread @ np.array([form.documents for form in formats])
    asked_all = np.minimum(REVIEW / np.maximum(documents, 1), 1)
    return _Shards(spread, np.array(sizes)[:, None] / max(sum(sizes), 1), asked_all[:, None])


def _rows(config: BuildConfig, mined: _Mined, shards: _Shards, examples: dict[str, Array]) -> dict[str, Array]:
    """The rows of every family in every split, if the documents of a side hold so many `examples` (formats, families).

    What a shard finds is what it holds or what its quota asks for, whichever is less (`quota.Quota`).
    """
    found: dict[str, Array] = {}
    wanted = {side: SURPLUS * rows * shards.wanted for side, _, rows in config.examples_wanted}
    for side, of_format in examples.items():
        held = shards.spread @ of_format
        asked = np.minimum(held, np.maximum(wanted[side] + 1, shards.asked_all * held)).sum(axis=0)
        most = np.array([maximum((family.name, side), config) for family in config.mined_families])
        kept = np.minimum(np.minimum(asked, most[:, 0]), most[:, 1] / np.maximum(mined.words, 1))
        for split in SPLITS_OF[side]:
            found[split] = kept * mined.rows[split]
    return found


def _draws(config: BuildConfig, mined: _Mined, formats: int) -> Iterator[dict[str, Array]]:
    """`DRAWS` times: side → (formats, families), examples there had other parts been read and other documents come."""
    rng = np.random.default_rng(config.seed)
    shape = (DRAWS, formats, mined.counts.shape[1])
    totals = {side: np.zeros(shape) for side, *_ in config.examples_wanted}
    for group in sorted(set(mined.groups.tolist())):
        chosen = np.flatnonzero(mined.groups == group)
        names, part = np.unique(mined.parts[chosen], return_inverse=True)
        times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), DRAWS)[:, part]
        units = times.sum(axis=1, keepdims=True)
        for side, share, _ in config.examples_wanted:
            number = np.rint(share * mined.weights[chosen[0]] * units[:, 0]).astype(np.int64)
            totals[side][:, group] = rng.multinomial(number, times / units) @ mined.counts[chosen]
    for draw_number in range(DRAWS):
        yield {side: total[draw_number] for side, total in totals.items()}
