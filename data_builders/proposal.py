"""The build config that `instructrec init` proposes, and what it says about a corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from data_builders.forecast import Range, Survey
from data_builders.sniff import Format
from instructrec.core.files import one_line
from instructrec.core.schema import SPLITS

if TYPE_CHECKING:
    from rich.console import Console

MOST_NAMED = 5
"""Languages, licences, suffixes and fields that a line names."""

LEAST_SHARE = 0.01
"""Of the documents, from which a warning is given."""

LEAST_COPIES = 0.05
"""Near duplicates in a sample, from which a warning is given: the whole has more, and so fewer rows than foretold."""

LANGUAGE, LICENCE = 1, 2
"""Places in the keys of `Sample.seen`."""

Seen = Mapping[tuple[str, str, str], float]

LEFT_ALONE = 0.1
"""A language for which fewer of the families have wordings counts as one without."""


def build_yaml(survey: Survey, command: str, time: str) -> str:
    """A file for `instructrec build --config`, with what was seen as comments.

    Args:
        command: that builds it.
        time: what the build will take, in words.
    """
    config = survey.config
    notes = [*facts(survey), *expected(survey), f"time: {time}", *(f"warning: {text}" for text in warnings(survey))]
    keys: list[tuple[str, Any, str]] = [("corpus", config.corpus, "")]
    if config.fields:
        keys.append(("fields", dict(config.fields), "of records: the text and what else is not called as usual"))
    keys += [
        ("personal_data", config.personal_data, "e-mail addresses, phone numbers, cards and keys; or drop"),
        ("test_documents", config.test_documents, "share of the documents for test_documents, _templates and _tasks"),
        ("validation_documents", config.validation_documents, "share for validation, which training watches"),
        ("rows_per_family", config.rows_per_family, "training rows of a kind of instruction at most"),
        ("seed", config.seed, ""),
    ]
    lines = ["# Proposed by `instructrec init`. What every key means: instructrec build --help", f"#   {command}", "#"]
    lines += [f"# {note}" for note in notes]
    for key, value, comment in keys:
        lines.append(yaml.safe_dump({key: value}, width=10**6, allow_unicode=True).rstrip("\n"))
        if comment and not isinstance(value, dict):
            lines[-1] += f" # {comment}"
        elif comment:
            lines.insert(-1, f"# {comment}")
    if _without_licence(survey):
        lines.append("# licence: CC-BY-4.0 # SPDX identifier, for the documents that name none")
    return "\n".join(lines) + "\n"


def facts(survey: Survey) -> list[str]:
    """What is in the corpus, one line for each kind of fact."""
    sample = survey.sample
    read = f"all {sample.files:,} files, {_size(sample.bytes)}"
    if not sample.complete:
        files = sum(form.read_files for form in sample.formats)
        size = sum(form.read_bytes for form in sample.formats)
        read = (
            f"{files:,} of {sample.files:,} files, {_size(size)} of {_size(sample.bytes)}: a fixed sample, from which"
            " the rest is told"
        )
    lines = [f"read: {read}"]
    seen = sample.seen()
    for kind in sorted({kind for kind, *_ in seen}, key=lambda kind: (-_documents(seen, kind), kind)):
        lines.append(
            f"{kind}: {_about(_documents(seen, kind), sample.complete)} documents; languages:"
            f" {_shares(_by(seen, kind, LANGUAGE))}; licences: {_shares(_by(seen, kind, LICENCE))}"
        )
    for suffix, (name, columns) in survey.records.found.items():
        text, title = (
            f"{role} {one_line(column, 60)!r} ({columns.words[column]:.0f} words)" if column else f"no {role}"
            for role, column in (("text", columns.text), ("title", columns.title))
        )
        others = sorted(set(columns.words) - {columns.text, columns.title})
        more = f"; also {', '.join(one_line(other, 60) for other in others[:MOST_NAMED])}" if others else ""
        lines.append(f"fields of {one_line(suffix, 20)} files such as {one_line(name, 80)}: {text}, {title}{more}")
    if skipped := sample.skipped():
        unread = Counter({one_line(form.suffix, 20): len(form.files) for form in sample.formats if not form.readable})
        which = ", ".join(f"{suffix or 'no suffix'} {n:,}" for suffix, n in unread.most_common(MOST_NAMED))
        counts = ", ".join(
            f"{_about(n, sample.complete or reason == 'unsupported_type')} {reason}"
            + (f" ({which})" if reason == "unsupported_type" else "")
            for reason, n in skipped.items()
        )
        lines.append(f"not read (files or records): {counts}")
    return lines


def expected(survey: Survey) -> list[str]:
    """How many rows a build will give."""
    forecast = survey.forecast
    rows = ", ".join(f"{split} {in_words(forecast.splits[split])}" for split in SPLITS)
    how = "counted, as everything was read" if forecast.exact else "with 95 % ranges"
    fruitful, mined = forecast.families
    return [f"expected rows, {how}: {rows}", f"training rows from {fruitful} of {mined} families of instructions"]


def warnings(survey: Survey) -> list[str]:
    """What the user should know before building, in plain words."""
    sample, records = survey.sample, survey.records
    found = []
    if share := _without_licence(survey):
        found.append(
            f"no licence was found for {share:.0%} of the documents: find out what holds for them, and give it as"
            " `licence:` in build.yaml"
        )
    seen = sample.seen()
    everything = sum(seen.values())
    for kind in sorted({kind for kind, *_ in seen}):
        families = [family for family in survey.config.mined_families if family.kind == kind]
        of_kind = _documents(seen, kind)
        for language, n in sorted(_by(seen, kind, LANGUAGE).items(), key=lambda entry: (-entry[1], entry[0])):
            able = sum(bool(family.wordings(language)) for family in families)
            if n < LEAST_SHARE * everything or able >= max(LEFT_ALONE * len(families), 1):
                continue
            if language:
                found.append(
                    f"{n / of_kind:.0%} of the {kind} is in {language!r}, for which {able} of {len(families)} families"
                    f" have wordings: these documents are left alone{', but for those' if able else ''}"
                )
            else:
                what = "documented functions" if kind == "code" else "prose"
                found.append(
                    f"{n / of_kind:.0%} of the documents of {kind} have no {what}, or too little to tell a language by:"
                    " they are left alone"
                )
    if (copies := survey.forecast.copies) >= LEAST_COPIES:
        found.append(
            f"{copies:.0%} of the documents of the sample are near duplicates of others in it, of which one is used; in"
            " the whole corpus there are probably more: expect fewer rows than stated"
        )
    if empty := [split for split in SPLITS if not survey.forecast.splits[split].value]:
        found.append(f"no rows are expected in {', '.join(empty)}: the corpus has too few documents to hold that out")
    if personal := sample.personal():
        counts = ", ".join(f"{kind} in {n:,}" for kind, n in personal.items())
        found.append(
            f"personal data or secrets in documents of the sample ({counts}): they are masked, unless you set"
            " `personal_data: drop`, which leaves such examples out"
        )
    if records.others:
        name = f"named {survey.config.fields['text']!r}" if records.names.get("text") else "of a usual name"
        found.append(
            f"in {records.others} of {records.looked_at} files of records that were looked at, the text is not"
            f" {one_line(name)}: build these on their own, with `fields:` of their own"
        )
    if records.without:
        found.append(
            f"in {records.without} of {records.looked_at} files of records that were looked at, no field looks like a"
            " text; if one is, name it in `fields:`"
        )
    if (reason := "needs_extra_pdf") in sample.skipped():
        found.append(f"PDF files are not read ({reason}): pip install 'instructrec[pdf]'")
    return found


def show(survey: Survey, console: Console) -> None:
    """Print what is in the corpus and what a build will give."""
    from rich.table import Table
    from rich.text import Text

    sample, forecast = survey.sample, survey.forecast
    table = Table("files", "read as", box=None, title=one_line(sample.corpus), title_justify="left")
    for name in ("number", "size", "read", "documents"):
        table.add_column(name, justify="right")
    for form in sorted(sample.formats, key=lambda form: (-form.bytes, form.suffix))[: 2 * MOST_NAMED]:
        read = f"{form.read_files:,}" if form.readable else "–"
        documents = _about(form.documents, form.share == 1) if form.readable else "–"
        suffix = Text(one_line(form.suffix, 20) or "no suffix")
        table.add_row(suffix, _kinds(form), f"{len(form.files):,}", _size(form.bytes), read, documents)
    console.print(table)
    for line in facts(survey):
        console.print(Text(line))
    kinds = sorted({kind for _, kind in forecast.kinds if forecast.kinds[SPLITS[0], kind].high})
    table = Table("expected rows", box=None, title_justify="left")
    for name in (*kinds, "all"):
        table.add_column(name, justify="right")
    for split in SPLITS:
        cells = [in_words(forecast.kinds[split, kind]) for kind in kinds]
        table.add_row(split, *cells, in_words(forecast.splits[split]))
    console.print()
    console.print(table)
    console.print(Text(expected(survey)[1]))


def in_words(rows: Range) -> str:
    """A number with its range, where it has one."""
    return f"{rows.value:,}" + ("" if rows.low == rows.high else f" [{rows.low:,}, {rows.high:,}]")


def duration(seconds: float) -> str:
    """A time that is only estimated."""
    if seconds < 30:
        return "under half a minute"
    if seconds < 5400:
        return f"about {max(1, round(seconds / 60))} minute{'s' * (seconds >= 90)}"
    return f"about {seconds / 3600:.1f} hours"


def _kinds(form: Format) -> str:
    kinds = sorted({kind for excerpt in form.excerpts for kind, *_ in excerpt.seen})
    return ", ".join(kinds) if kinds else "nothing"


def _size(size: float) -> str:
    return f"{size / 1e3:,.0f} kB" if size < 1e6 else f"{size / 1e6:,.1f} MB"


def _about(n: float, exact: bool) -> str:
    """A number; of one that is only estimated, two digits."""
    if exact or n < 10:
        return f"{n:,.0f}"
    size = 10 ** (len(str(int(n))) - 2)
    return f"about {round(n / size) * size:,}"


def _shares(counts: Mapping[str, float]) -> str:
    total = sum(counts.values())
    ranked = sorted(((n, name) for name, n in counts.items() if n), key=lambda entry: (-entry[0], entry[1]))
    named = [f"{one_line(name, 40) or 'unknown'} {n / total:.0%}" for n, name in ranked[:MOST_NAMED]]
    return ", ".join(named) + (f" and {len(ranked) - MOST_NAMED} more" if len(ranked) > MOST_NAMED else "")


def _documents(seen: Seen, kind: str) -> float:
    return sum(n for (its, *_), n in seen.items() if its == kind)


def _by(seen: Seen, kind: str, place: int) -> dict[str, float]:
    """Language or licence → documents of a kind."""
    found: dict[str, float] = {}
    for key, n in seen.items():
        if key[0] == kind:
            found[key[place]] = found.get(key[place], 0) + n
    return found


def _without_licence(survey: Survey) -> float:
    """The share of the documents without a licence; 0 if it is negligible."""
    seen = survey.sample.seen()
    unknown = sum(n for (*_, licence), n in seen.items() if licence == "unknown") / sum(seen.values())
    return unknown if unknown >= LEAST_SHARE else 0.0
