"""Instructions that a model writes: for spans of the corpus (instruction backtranslation), and as new wordings.

Li et al. (Self-Alignment with Instruction Backtranslation, 2023) let a model write the instruction to which a text is
the answer, and keep what the model itself finds good. Here a text is kept if it makes the answer likelier than no
instruction does, and likelier than the instruction of another span (or wording of another family) does: it must say
something, and something about this answer. A new wording must also do better than the one it is made from. The model is
a `Synthesizer` that the caller hands in.

All requests are made in batches that the corpus and the config alone determine, and each batch is kept on disk when it
is done: what a model makes of a text may depend on its batch by a rounding error.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pyarrow.parquet as pq

from data_builders.config import BuildConfig
from data_builders.families import Example, Family, Template, families
from data_builders.mining import unpack
from data_builders.rendering import held_out, mask_example
from data_builders.splits import pick
from data_builders.written import COPIED, FILE, KEPT, SYNTHESIZED, UNLIKELY, UNWRITTEN, Written, write_written
from instructrec.core.files import append_records, read_records
from instructrec.core.overlap import ngrams, normalise
from instructrec.core.privacy import mask
from instructrec.core.schema import TRAIN
from instructrec.core.segmentation import count_words

LANGUAGE = "en"
"""Of the requests below, and so of the spans and wordings that a model is asked for."""

INSTRUCTION_REQUEST = """\
Write the question or request that the text answers. Name its subject. Write one sentence and nothing else.

Text: A lighthouse keeper trims the wick every four hours, because a burnt wick smokes and dims the light.
Request: Explain why a lighthouse keeper trims the wick so often.

Text: To store apples over the winter, wrap each one in paper and lay them in a cool, dark room.
Request: How can I keep apples through the winter?

Text: {text}
Request:"""

WORDING_REQUEST = """\
Rewrite the following instruction in different words, so that it asks for exactly the same thing. Reply with the new
instruction only.

{text}"""

BATCH = 16
"""Requests made together, and lost together by a kill."""

EXAMPLES = 2
"""Examples of its family, from training documents, on which a wording is judged."""

LEAST_WORDS = 3
"""Words of what is written."""
LEAST_REWORDED = 5
"""Words of an instruction that can be said in other words."""
COPIED_WORDS = 6
"""Words in a row that an instruction must not have in common with its answer: they would make any answer likelier."""

_LABEL = re.compile(r"(?:request|question|instruction|prompt|in other words|answer)\s*:\s*", re.I)
_QUOTES = ('""', "''", "“”", "‘’", "``")
_STATEMENT = re.compile(r"(?:the|this|that|these|those|an?|it|there|you|we|they|i|he|she)\b[^?]*", re.I)
_OF_A_TEXT = re.compile(r"\b(?:this|the) (?:text|passage|sentence|answer)\b", re.I)
"""What an instruction that stands alone has no right to speak of."""
_JINJA = re.compile(r"\{[{%#]")


class Synthesizer(Protocol):
    """A model that writes, and one that judges.

    Attributes:
        identity: what tells both from all others, for the manifest: their names and weights, no place on this machine.
    """

    identity: dict[str, Any]

    def write(self, requests: Sequence[str]) -> list[str]:
        """An answer to each request; the empty string for one that did not come to its end."""
        ...

    def logprobs(self, questions: Sequence[tuple[str, str]]) -> list[float]:
        """For each (prompt, answer) the log-probability of the answer: natural, summed over its tokens."""
        ...


@dataclass(frozen=True)
class Candidate:
    """What a model is asked to write, and the examples by which it is judged.

    Attributes:
        family, name: as in `Written`.
        request: what the model is asked.
        examples: with the answers that must become likelier.
        before, after: the wording's Jinja source around the text; empty for a span, whose instruction stands alone.
        original: the wording's own instruction, which a new one must outdo; empty for a span.
        known: normalised texts that would be nothing new.
    """

    family: str
    name: str
    request: str
    examples: list[Example]
    before: str = ""
    after: str = ""
    original: str = ""
    known: frozenset[str] = frozenset()

    def flaw(self, text: str) -> str | None:
        """The verdict on a text that need not be scored."""
        if count_words(text) < LEAST_WORDS or _JINJA.search(text) or _STATEMENT.fullmatch(text):
            return UNWRITTEN
        if self.family == SYNTHESIZED and _OF_A_TEXT.search(text):
            return UNWRITTEN
        own = ngrams(text, COPIED_WORDS)
        copied = any(own & ngrams(example.answer, COPIED_WORDS) for example in self.examples)
        return COPIED if copied or normalise(text) in self.known else None

    @property
    def cases(self) -> int:
        """Questions that its text is judged by."""
        return len(self.examples) * (4 if self.original else 3)

    def questions(self, text: str) -> list[tuple[str, str]]:
        """(prompt, answer) of every example with `text` as the instruction."""
        template = Template(self.name, self.before + text + self.after)
        return [template.render(example)[:2] for example in self.examples]


class _Asked:
    """Answers of a model, kept on disk batch by batch: a kill loses one batch, and a second run asks for the rest."""

    def __init__(self, path: Path, identity: dict[str, Any], done: Callable[[int], None]) -> None:
        self.path, self.identity, self.done = path, identity, done
        self.known: dict[str, list[Any]] = dict(read_records(path))

    def ask(self, function: Callable[[Sequence[Any]], list[Any]], requests: Sequence[Any]) -> list[Any]:
        """What `function` makes of each request; requests of like length share a batch."""
        order = sorted(range(len(requests)), key=lambda i: -len("".join(requests[i])))
        answers: dict[int, Any] = {}
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            batch = [requests[i] for i in places]
            content = json.dumps([self.identity, function.__name__, batch]).encode()
            key = hashlib.sha256(content).hexdigest()
            if key not in self.known:
                self.known[key] = function(batch)
                append_records(self.path, [(key, self.known[key])])
            answers |= dict(zip(places, self.known[key], strict=True))
            self.done(len(batch))
        return [answers[i] for i in range(len(requests))]


def synthesize(
    mined: Path, sides: Path, store: Path, shards: int, config: BuildConfig, synthesizer: Synthesizer
) -> None:
    """Let the model write, judge what it wrote, and write `synthesis.jsonl` into `sides`, unless it is there.

    Args:
        mined: folder of the mined shards.
        sides: what the hold-out decided: only what can become a row is asked for.
        store: file for the model's answers.
    """
    if (sides / FILE).exists():
        return
    candidates = list(_candidates(mined, sides, shards, config))
    with _progress(sum(1 + candidate.cases for candidate in candidates)) as done:
        asked = _Asked(store, synthesizer.identity, done)
        texts = [tidy(text) for text in asked.ask(synthesizer.write, [candidate.request for candidate in candidates])]
        if "privacy" in config.gates:
            texts = [mask(text)[0] for text in texts]
        sound: list[tuple[Candidate, str]] = []
        written: list[Written] = []
        for candidate, text in zip(candidates, texts, strict=True):
            if flaw := candidate.flaw(text):
                written.append(_written(candidate, text, flaw))
                done(candidate.cases)
            else:
                sound.append((candidate, text))
        written += _judged(sound, lambda questions: asked.ask(synthesizer.logprobs, questions))
    write_written(sides, sorted(written, key=lambda entry: (entry.family, entry.name)))


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar with the time that is left, on a terminal; yields what is called with a number of requests."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("synthesis"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("synthesis", total=total)
        yield lambda number: bar.advance(task, number)


def _judged(
    sound: list[tuple[Candidate, str]], logprobs: Callable[[list[tuple[str, str]]], list[float]]
) -> Iterator[Written]:
    """Whether each text does better than none, the next candidate's (of spans, or of wordings) and its original."""
    parts = [[pair for pair in sound if (pair[0].family == SYNTHESIZED) == spans] for spans in (True, False)]
    tried = [
        (candidate, [text, "", part[(i + 1) % len(part)][1], *filter(None, [candidate.original])])
        for part in parts
        for i, (candidate, text) in enumerate(part)
    ]
    questions = [[candidate.questions(text) for text in texts] for candidate, texts in tried]
    values = iter(logprobs([question for each in questions for of_text in each for question in of_text]))
    for (candidate, texts), each in zip(tried, questions, strict=True):
        own, *others = (sum(next(values) for _ in of_text) for of_text in each)
        entry = _written(candidate, texts[0], KEPT if own > max(others) else UNLIKELY)
        yield replace(entry, instructed=own, bare=others[0], mismatched=others[1], original=(*others, None)[2])


def _written(candidate: Candidate, text: str, verdict: str) -> Written:
    return Written(candidate.family, candidate.name, candidate.before + text + candidate.after, verdict)


def tidy(text: str) -> str:
    """The first line of what a model wrote, without a label and quotation marks around it."""
    line = next(filter(None, map(str.strip, text.splitlines())), "")
    line = _LABEL.sub("", line, count=1).strip() if _LABEL.match(line) else line
    return line[1:-1].strip() if line[:1] + line[-1:] in _QUOTES and len(line) > 1 else line


def _candidates(mined: Path, sides: Path, shards: int, config: BuildConfig) -> Iterator[Candidate]:
    """The spans of the smallest keys, and one wording of each family that is trained on."""
    wordings = dict(_wordings(config))
    wanted = dict.fromkeys(wordings, EXAMPLES) | {SYNTHESIZED: config.synthesize_rows}
    examples = _examples(mined, sides, shards, wanted, config)
    for key, example in examples.pop(SYNTHESIZED, []):
        request = INSTRUCTION_REQUEST.format(text=example.answer)
        yield Candidate(SYNTHESIZED, f"{key:016x}", request, [example])
    for name, found in examples.items():
        template, (before, text, after) = wordings[name]
        known = frozenset(
            normalise(part) for other in families()[name].wordings(LANGUAGE) for part in _BLOCKS.split(other.prompt)
        )
        request = WORDING_REQUEST.format(text=text)
        of_family = [example for _, example in found]
        yield Candidate(name, f"{template.name}.{SYNTHESIZED}", request, of_family, before, after, text, known)


_BLOCKS = re.compile(r"(\n\n+)")


def _wordings(config: BuildConfig) -> Iterator[tuple[str, tuple[Template, tuple[str, str, str]]]]:
    """(family, one of its wordings that training sees, cut at the instruction), where any can be cut."""
    held = held_out(config)
    for family in config.mined_families:
        if family.name == SYNTHESIZED or family.group in config.held_out_groups:
            continue
        cut = ((template, _cut(template)) for template in _plain(family) if template.name not in held)
        parts = {template.name: (template, part) for template, part in cut if part}
        if parts:
            yield family.name, parts[pick([t for t, _ in parts.values()], config.seed, "synthesize", family.name).name]


def _plain(family: Family) -> Iterable[Template]:
    """The wordings without an answer format of their own, which a new wording would have to explain."""
    return (t for t in family.wordings(LANGUAGE) if t.answer == Template.answer and not t.labels)


def _cut(template: Template) -> tuple[str, str, str] | None:
    """A wording's source before its instruction, the instruction, and after it.

    The instruction is the paragraph with most letters beside the variables; null if it holds a variable itself, is
    the whole wording, or has too few words.
    """
    parts = _BLOCKS.split(template.prompt)
    if "{%" in template.prompt or len(parts) == 1:
        return None
    letters = [sum(map(str.isalpha, re.sub(r"\{\{.*?\}\}", "", part))) for part in parts]
    place = letters.index(max(letters))
    if "{{" in parts[place] or count_words(parts[place]) < LEAST_REWORDED:
        return None
    return ("".join(parts[:place]), parts[place], "".join(parts[place + 1 :]))


def _examples(
    mined: Path, sides: Path, shards: int, wanted: dict[str, int], config: BuildConfig
) -> dict[str, list[tuple[int, Example]]]:
    """Of each family the examples of the smallest keys, so many of them at most, as the privacy gate leaves them.

    Spans may be on any side; the examples by which wordings are chosen are from training documents.
    """
    limits = {(name, side): key for name, side, key in json.loads((sides / "limits.json").read_text())}
    found: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
    for rank in range(shards):
        by_unit = json.loads((sides / f"{rank:05d}.json").read_text())
        path = mined / f"{rank:05d}.examples.parquet"
        table = pq.read_table(path, columns=["family", "language", "unit", "key"]).to_pydict()
        here: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for number, (family, language, unit, key) in enumerate(zip(*table.values(), strict=True)):
            side = by_unit[unit]
            if family not in wanted or language != LANGUAGE or key > limits.get((family, side), 2**64):
                continue
            if side == TRAIN or (side and family == SYNTHESIZED):
                here[family].append((key, number))
        packed = pq.read_table(path, columns=["example"])["example"]
        for family, places in here.items():
            chosen = [(key, packed[number].as_py()) for key, number in heapq.nsmallest(wanted[family], places)]
            found[family] = heapq.nsmallest(wanted[family], [*found[family], *chosen])
    return {family: list(_shown(entries, config)) for family, entries in sorted(found.items())}


def _shown(entries: list[tuple[int, bytes]], config: BuildConfig) -> Iterator[tuple[int, Example]]:
    """The examples that a model may see: without what the privacy gate masks or drops."""
    for key, packed in entries:
        example: Example | None = unpack(packed)
        if example and "privacy" in config.gates:
            masked, findings = mask_example(example)
            example = None if findings and config.personal_data == "drop" else masked
        if example is not None:
            yield key, example
