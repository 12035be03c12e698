"""An instruction set as one page to read: counts, a sample of its rows beside their sources, and kept rejects.

The page is static and self-contained: no network, no other file, and everything in it is data, never markup.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from data_builders.documents import Fields
from data_builders.trace import RawFiles
from instructrec.core.errors import UserError
from instructrec.core.files import write_text
from instructrec.core.parquet import batches
from instructrec.core.privacy import mask
from instructrec.core.schema import SPLITS, Manifest, check_instruction, read_manifest, read_split, split_files

TokenTexts = Callable[[list[dict[str, str]], list[dict[str, str]]], tuple[list[str], int]]
"""(prompt, completion) → the texts of the tokens that a model is trained on, and how many of them are not supervised.
Together the texts are the row as the chat template renders it."""

MOST_BYTES = 10_000_000
"""Size of a page from which the sources in it are cut shorter."""

SPAN_CHARACTERS = (2000, 1000, 500, 200)
"""Characters of a source span that a page shows: the first number with which it stays below `MOST_BYTES`."""

_MARGIN = 200
"""Characters read beyond a cut, so that what the cut goes through is recognised as personal data."""


def inspect(folder: Path, output: Path, rows: int, corpus: str | None, tokens: TokenTexts | None = None) -> str:
    """Write the page.

    Args:
        folder: of the set.
        output: the page's file.
        rows: of each family in each split, those with the smallest ids.
        corpus: where the set's corpus is; null leaves the text of the sources out.
        tokens: splits a row into tokens; null leaves them out.

    Returns:
        One line on what was written.

    Raises:
        UserError: no such set or corpus, or a file of it is damaged.
    """
    if rows < 1:
        raise UserError(f"--rows: must be 1 or more, not {rows}")
    manifest = read_manifest(folder)
    sampled, licences = sample(folder, rows)
    rejects = list(read_rejects(folder / "rejected.jsonl"))
    spans = _Spans(manifest, corpus, [source for row in (*sampled, *rejects) for source in row["source"]])
    glue: dict[tuple[str, ...], int] = {}
    entries = [_entry(row, spans, tokens, glue) for row in sampled]
    bad = [_reject(reject, spans) for reject in rejects]
    for limit in SPAN_CHARACTERS:
        data = {"rows": entries, "rejects": bad, "spans": spans.listed(limit), "glue": [list(parts) for parts in glue]}
        text = _page(folder, manifest, data, licences, rows, limit if corpus else None, tokens is not None)
        if len(text.encode()) < MOST_BYTES:
            break
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_text(output, text)
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror}); choose another --output") from None
    line = f"{output}: {len(entries)} of {sum(manifest['splits'].values())} rows and {len(bad)} rejects"
    line += f", {len(text.encode()) / 1e6:.1f} MB"
    if corpus and spans.absent:
        line += f"; {spans.absent} sources are not shown, as their files are not those of the build"
    return line


def sample(folder: Path, most: int) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Rows to show, in the order of split, family and id, and how many rows of the whole set have each licence.

    Ids are hashes, so that the smallest ones of a family and split are a random choice that never changes.
    """
    licences: Counter[str] = Counter()
    chosen: list[dict[str, Any]] = []
    for split in SPLITS:
        ids: dict[str, list[str]] = defaultdict(list)
        for row in read_split(folder, split, ["id", "family", "source"]):
            ids[row["family"]].append(row["id"])
            licences.update({source["licence"] for source in row["source"]})
        wanted = pa.array([name for names in ids.values() for name in heapq.nsmallest(most, names)], pa.string())
        rows = [row | {"split": split} for row in _rows_with(folder, split, wanted)]
        chosen += sorted(rows, key=lambda row: (row["family"], row["id"]))
    return chosen, licences


def _rows_with(folder: Path, split: str, ids: pa.Array) -> Iterator[dict[str, Any]]:
    for path in split_files(folder, split):
        for batch in batches(path):
            for row in batch.filter(pc.is_in(batch["id"], value_set=ids)).to_pylist():
                check_instruction(row, str(path))
                yield row


def read_rejects(path: Path) -> Iterator[dict[str, Any]]:
    """The kept rejects of a set; none where there is no such file.

    Raises:
        UserError: a line is not a reject; the message names it.
    """
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            try:
                entry = json.loads(line)
                fits = all(isinstance(entry[key], str) for key in ("family", "gate", "prompt", "answer"))
                fits = fits and all({"path", "start", "end"} <= source.keys() for source in entry["source"])
            except (ValueError, KeyError, TypeError, AttributeError):
                fits = False
            if not fits:
                raise UserError(
                    f"{path}:{number}: not a reject (family, gate, prompt, answer, source); build the set again"
                )
            yield entry


class _Spans:
    """The sources of all rows, each once, with their text where the corpus has it."""

    def __init__(self, manifest: Manifest, corpus: str | None, sources: list[dict[str, Any]]) -> None:
        self.sources: list[dict[str, Any]] = []
        self._index: dict[str, int] = {}
        self.absent = 0
        for source in sources:
            if self._index.setdefault(self._key(source), len(self.sources)) == len(self.sources):
                self.sources.append(source)
        self._texts: list[tuple[str, bool] | None] = [None] * len(self.sources)
        if corpus is None:
            return
        raw = RawFiles(corpus, Fields.named(manifest["config"].get("fields", {})))
        present = [source for source in self.sources if self._verified(raw, source)]
        if self.sources and not present:
            raise UserError(f"corpus {corpus!r}: holds none of the set's files as they were at the build")
        found = raw.spans(present, SPAN_CHARACTERS[0] + _MARGIN)
        masking = "privacy" in manifest["config"].get("gates", ())
        for source in present:
            if span := found.get((source["path"], source["start"], source["end"])):
                # A page is passed on more easily than a corpus: what the rows mask is masked beside them too.
                text = mask(span.text)[0] if masking else span.text
                self._texts[self.index(source)] = (text, span.complete)
        self.absent = self._texts.count(None)

    @staticmethod
    def _key(source: dict[str, Any]) -> str:
        return json.dumps(source, sort_keys=True)

    @staticmethod
    def _verified(raw: RawFiles, source: dict[str, Any]) -> bool:
        try:
            raw.verify(source)
        except UserError:
            return False
        return True

    def index(self, source: dict[str, Any]) -> int:
        """The place of a source in `listed`."""
        return self._index[self._key(source)]

    def listed(self, limit: int) -> list[dict[str, Any]]:
        """Every source as the page holds it, with `limit` characters of its text at most."""
        entries = []
        for source, found in zip(self.sources, self._texts, strict=True):
            entry: dict[str, Any] = {key: value for key, value in source.items() if key != "sha256"}
            if found is not None:
                text, complete = found
                entry["text"] = text[:limit]
                if not complete or len(text) > limit:
                    entry["cut"] = True
            entries.append(entry)
        return entries


def _entry(
    row: dict[str, Any], spans: _Spans, tokens: TokenTexts | None, glue: dict[tuple[str, ...], int]
) -> dict[str, Any]:
    """A row as the page holds it: without keys that say nothing."""
    entry = {key: row[key] for key in ("id", "split", "family", "template", "language", "prompt", "completion")}
    entry |= {key: row[key] for key in ("conversation", "turn", "choices", "checks") if row[key] is not None}
    if row["targets"] != [row["completion"][0]["content"]]:
        entry["targets"] = row["targets"]
    entry["source"] = [spans.index(source) for source in row["source"]]
    if tokens is not None:
        entry["tokens"] = _packed(row, tokens, glue)
    return entry


def _packed(row: dict[str, Any], tokens: TokenTexts, glue: dict[tuple[str, ...], int]) -> dict[str, Any]:
    """Tokens as lengths in the rendered text, and that text as what stands around the messages: rows share it."""
    texts, unsupervised = tokens(row["prompt"], row["completion"])
    rendered = "".join(texts)
    # JavaScript counts UTF-16 units.
    packed: dict[str, Any] = {"prompt": unsupervised, "lengths": [len(t.encode("utf-16-le")) // 2 for t in texts]}
    parts, place = [], 0
    for message in (*row["prompt"], *row["completion"]):
        start = rendered.find(message["content"], place)
        if start < 0:  # a template that changes a message
            return packed | {"text": rendered}
        parts.append(rendered[place:start])
        place = start + len(message["content"])
    parts.append(rendered[place:])
    return packed | {"glue": glue.setdefault(tuple(parts), len(glue))}


def _reject(reject: dict[str, Any], spans: _Spans) -> dict[str, Any]:
    entry = {key: reject[key] for key in ("family", "gate", "prompt", "answer")}
    return entry | {"source": [spans.index(source) for source in reject["source"]]}


def _page(
    folder: Path,
    manifest: Manifest,
    data: dict[str, Any],
    licences: Counter[str],
    rows: int,
    limit: int | None,
    has_tokens: bool,
) -> str:
    environment = Environment(loader=PackageLoader("data_builders", "."), autoescape=True, undefined=StrictUndefined)
    kept = sum(manifest["splits"].values())
    rejected: Counter[str] = Counter()
    for family in manifest["families"].values():
        rejected.update(family["rejected"])
    return environment.get_template("inspection.html.jinja").render(
        name=folder.resolve().name,
        manifest=manifest,
        splits=[split for split in SPLITS if split in manifest["splits"]],
        masked="privacy" in manifest["config"].get("gates", ()),
        shown=Counter(row["split"] for row in data["rows"]),
        languages=sum((Counter(family["languages"]) for family in manifest["families"].values()), Counter()),
        gates=sorted(rejected),
        rejected=rejected,
        attempts=kept + rejected.total(),
        licences=licences.most_common(),
        rows=rows,
        limit=limit,
        has_tokens=has_tokens,
        data=embedded(data),
    )


def embedded(value: Any) -> Markup:
    """JSON that no HTML parser takes for anything but text, to stand in a `<script type="application/json">`."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    # Half of a surrogate pair, as JSON can hold it, is no character of UTF-8.
    return Markup(text.encode("utf-8", "replace").decode("utf-8"))
