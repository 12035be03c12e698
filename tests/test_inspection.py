"""The page of a set: what it shows, that hostile rows stay text, that it loads nothing, its size, and token masks."""

import hashlib
import html.parser
import json
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import assert_one_line_error, cli

from data_builders.inspection import SPAN_CHARACTERS, inspect, sample
from instructrec.core.errors import UserError
from instructrec.core.files import fingerprint
from instructrec.core.schema import INSTRUCTION, SPLITS, read_manifest, read_split

HOSTILE = "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)> & \u2028 🦊 \\u003c {{ 7 * 7 }}"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class _Elements(html.parser.HTMLParser):
    """The scripts of a page, and the attributes that could load something."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.loading: list[str] = []
        self._inside = False

    def handle_starttag(self, tag, attributes):
        self._inside = tag == "script"
        if self._inside:
            self.scripts.append("")
        self.loading += [name for name, _ in attributes if name in ("src", "href", "srcset", "onerror", "onload")]

    def handle_endtag(self, tag):
        self._inside = False

    def handle_data(self, data):
        if self._inside:
            self.scripts[-1] += data


def page_data(path: Path) -> dict:
    """The data of a page, as a browser reads it."""
    elements = _Elements()
    elements.feed(path.read_text(encoding="utf-8"))
    assert len(elements.scripts) == 2 and not elements.loading
    return json.loads(elements.scripts[0])


def make_set(folder: Path, rows: dict[str, list[dict]], **config: object) -> Path:
    """A set with the given rows, written by hand."""
    for split in SPLITS:
        (folder / split).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows.get(split, []), INSTRUCTION), folder / split / "00000.parquet")
    manifest = {
        "corpus": {"documents": 1, "bytes": 1, "skipped": {}},
        "splits": {split: len(rows.get(split, [])) for split in SPLITS},
        "families": {"title": {"kind": "text", "group": HOSTILE, "rows": 1, "languages": {}, "rejected": {"leak": 1}}},
        "held_out": {"families": [], "templates": [], "documents": []},
        "config": {"corpus": "docs", "gates": []} | config,
        "versions": {},
        "seed": 0,
        "fingerprint": "0" * 64,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def make_row(number: int, prompt: str, answer: str, source: dict) -> dict:
    return {
        "id": hashlib.sha256(str(number).encode()).hexdigest()[:32],
        "prompt": [{"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": answer}],
        "family": "title",
        "group": "naming",
        "template": "title.en.01",
        "language": "en",
        "kind": "text",
        "targets": [answer],
        "source": [source],
    }


def make_source(path: Path, start: int, end: int) -> dict:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"path": path.name, "sha256": digest, "start": start, "end": end, "extractor": "utf8/1", "licence": "MIT"}


def test_the_page_shows_a_sample_with_its_bytes_and_leaves_the_set_as_it_is(instruction_set, corpus, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(instruction_set, folder)
    done = cli("inspect", str(folder), "--corpus", str(corpus), "--rows", "3")
    assert done.returncode == 0, done.stderr
    assert str(folder / "inspect.html") in done.stdout
    assert fingerprint(folder, "*.parquet") == read_manifest(folder)["fingerprint"]
    data = page_data(folder / "inspect.html")
    expected = defaultdict(list)
    for split in SPLITS:
        for row in read_split(folder, split):
            expected[split, row["family"]].append(row["id"])
    shown = defaultdict(list)
    for row in data["rows"]:
        shown[row["split"], row["family"]].append(row["id"])
    assert shown == {key: sorted(ids)[:3] for key, ids in expected.items()}
    by_id = {row["id"]: row for split in SPLITS for row in read_split(folder, split)}
    for row in data["rows"]:
        original = by_id[row["id"]]
        assert row["prompt"] == original["prompt"] and row["completion"] == original["completion"]
        assert row.get("choices") == original["choices"]
        for index, source in zip(row["source"], original["source"], strict=True):
            span = data["spans"][index]
            assert (span["path"], span["start"], span["end"]) == (source["path"], source["start"], source["end"])
            raw = (corpus / source["path"]).read_bytes()[source["start"] : source["end"]].decode()
            assert span["text"] == raw[: SPAN_CHARACTERS[0]]
    kept = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
    assert [(r["gate"], r["answer"]) for r in data["rejects"]] == [(r["gate"], r["answer"]) for r in kept]
    text = (folder / "inspect.html").read_text()
    for name, family in read_manifest(folder)["families"].items():
        assert name in text and family["group"] in text
    assert cli("inspect", str(folder), "--corpus", str(corpus), "--rows", "3").returncode == 0
    assert (folder / "inspect.html").read_text() == text  # equal input, equal page


def test_without_a_corpus_the_page_says_how_to_have_the_sources(instruction_set, tmp_path):
    inspect(instruction_set, tmp_path / "page.html", 1, None)
    assert not any("text" in span for span in page_data(tmp_path / "page.html")["spans"])
    assert "--corpus" in (tmp_path / "page.html").read_text()


@pytest.fixture
def hostile_set(tmp_path):
    path = tmp_path / "docs" / "a<b>.md"
    path.parent.mkdir()
    path.write_text(HOSTILE, encoding="utf-8")
    source = make_source(path, 0, len(HOSTILE.encode()))
    folder = make_set(tmp_path / "a<script>set", {"train": [make_row(1, HOSTILE, HOSTILE, source)]})
    reject = {"family": HOSTILE, "gate": HOSTILE, "prompt": HOSTILE, "answer": "\ud800", "source": [source]}
    (folder / "rejected.jsonl").write_text(json.dumps(reject) + "\n")
    return folder


def test_hostile_rows_stay_text(hostile_set, tmp_path):
    inspect(hostile_set, tmp_path / "page.html", 5, str(tmp_path / "docs"))
    data = page_data(tmp_path / "page.html")
    assert data["rows"][0]["prompt"][0]["content"] == HOSTILE
    assert data["spans"][0]["text"] == HOSTILE and data["rejects"][0]["gate"] == HOSTILE
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(|fetch\(|innerHTML|eval\(", text)
    assert "default-src 'none'" in text


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_shows_and_filters_the_page(hostile_set, tmp_path):
    def rendered(script: str) -> str:
        page = tmp_path / "probe.html"
        page.write_text((tmp_path / "page.html").read_text(encoding="utf-8") + f"<script>{script}</script>")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        flags += ["--virtual-time-budget=2000", f"--user-data-dir={tmp_path / 'profile'}"]
        command = [CHROMIUM, *flags, "--dump-dom", page.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120).stdout

    def tokens(prompt, completion):
        return ["<s>", HOSTILE[:3], HOSTILE[3:-1], HOSTILE[-1:], "<a>", HOSTILE, "</s>"], 5

    inspect(hostile_set, tmp_path / "page.html", 5, str(tmp_path / "docs"), tokens)
    dom = rendered(
        "addEventListener('load', () => { for (const d of document.querySelectorAll('details')) d.open = true;"
        "const search = document.querySelector('#reject-filters input'); setTimeout(() => { const said = ["
        "document.querySelectorAll('#row-list .odd, #row-list .even').length,"
        "document.querySelector('#row-list pre').textContent.length,"
        "document.querySelectorAll('img').length, document.querySelectorAll('script').length];"
        "search.value = 'no such text'; search.dispatchEvent(new Event('input'));"
        "said.push(document.querySelector('#reject-filters .tag').textContent);"
        "document.title = JSON.stringify(said); }, 50); });"
    )
    said = json.loads(re.search(r"<title>(\[.*?\])</title>", dom)[1])
    units = len(("<s>" + HOSTILE + "<a>" + HOSTILE + "</s>").encode("utf-16-le")) // 2
    assert said == [2, units, 0, 3, "0 of 1"]


def test_personal_data_is_masked_beside_rows_that_mask_it(tmp_path):
    path = tmp_path / "docs" / "a.md"
    path.parent.mkdir()
    filler = "x " * 980
    path.write_text(f"{filler} write to jane.miller@harbour-office.org, or not.")
    source = make_source(path, 0, path.stat().st_size)
    rows = {"train": [make_row(1, "Who?", "Nobody.", source)]}
    for gates, masked in ((["privacy"], True), ([], False)):
        folder = make_set(tmp_path / f"set{masked}", rows, gates=gates)
        inspect(folder, tmp_path / "page.html", 5, str(tmp_path / "docs"))
        # The cut goes through the address, which must not hide it from the mask.
        assert ("jane" not in (tmp_path / "page.html").read_text()) == masked


def test_five_thousand_rows_stay_below_ten_megabytes(tmp_path):
    path = tmp_path / "docs" / "a.txt"
    path.parent.mkdir()
    path.write_text("The harbour office keeps a list of boats. " * 5000)
    digest_source = make_source(path, 0, 0)
    rows = [
        make_row(
            n,
            f"{n} " + "Name the harbour of this boat. " * 24,
            "No name.",
            digest_source | {"start": n, "end": n + 4000},
        )
        for n in range(5000)
    ]
    folder = make_set(tmp_path / "set", {"train": rows})
    line = inspect(folder, tmp_path / "page.html", 5000, str(tmp_path / "docs"))
    assert "5000 of 5000 rows" in line
    assert (tmp_path / "page.html").stat().st_size < 10_000_000
    data = page_data(tmp_path / "page.html")
    assert len(data["rows"]) == 5000 and all(len(span["text"]) >= 500 and span["cut"] for span in data["spans"])


def test_files_that_changed_are_left_out_and_counted(tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.md").write_text("One text.")
    (docs / "b.md").write_text("Another.")
    sources = [make_source(docs / name, 0, 8) for name in ("a.md", "b.md")]
    rows = {"train": [make_row(n, f"What {n}?", "That.", source) for n, source in enumerate(sources)]}
    folder = make_set(tmp_path / "set", rows)
    (docs / "b.md").write_text("Changed since.")
    assert "1 sources are not shown" in inspect(folder, tmp_path / "page.html", 5, str(docs))
    texts = {span["path"]: span.get("text") for span in page_data(tmp_path / "page.html")["spans"]}
    assert texts == {"a.md": "One text", "b.md": None}
    (docs / "a.md").unlink()
    with pytest.raises(UserError, match="none of the set's files"):
        inspect(folder, tmp_path / "page.html", 5, str(docs))


def test_the_sample_counts_the_licences_of_all_rows(tmp_path):
    path = tmp_path / "a.md"
    path.write_text("text")
    rows = [make_row(n, f"What {n}?", "That.", make_source(path, 0, 4)) for n in range(7)]
    rows[3]["source"][0]["licence"] = "CC0-1.0"
    chosen, licences = sample(make_set(tmp_path / "set", {"validation": rows}), 2)
    assert [row["id"] for row in chosen] == sorted(row["id"] for row in rows)[:2]
    assert licences == {"MIT": 6, "CC0-1.0": 1}


def test_token_masks_are_what_training_supervises(tiny_model, instruction_set, tmp_path):
    from transformers import AutoTokenizer

    from instructrec.cli import _token_texts

    texts = _token_texts(str(tiny_model))
    tokenizer = AutoTokenizer.from_pretrained(str(tiny_model))
    prompt = [{"role": "user", "content": "Wie heißt das Tier 🦊?"}]
    completion = [{"role": "assistant", "content": "Füchsin 🦊"}]
    pieces, given = texts(prompt, completion)
    ids = tokenizer.apply_chat_template(prompt + completion, tokenize=True, return_dict=True)["input_ids"]
    alone = tokenizer.apply_chat_template(prompt, tokenize=True, return_dict=True, add_generation_prompt=True)
    assert len(pieces) == len(ids) and given == len(alone["input_ids"])
    assert "".join(pieces) == tokenizer.apply_chat_template(prompt + completion, tokenize=False)
    assert "".join(pieces[given:]) == "Füchsin 🦊<|im_end|>\n"
    done = cli("inspect", str(instruction_set), "--tokenizer", str(tiny_model), "--output", str(tmp_path / "p.html"))
    assert done.returncode == 0, done.stderr
    data = page_data(tmp_path / "p.html")
    assert data["glue"] == [["<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>\n"]]
    for row in data["rows"][:20]:
        wrapped = sum(map(len, data["glue"][row["tokens"]["glue"]]))
        contents = "".join(m["content"] for m in (*row["prompt"], *row["completion"]))
        assert sum(row["tokens"]["lengths"]) == wrapped + len(contents.encode("utf-16-le")) // 2


def test_an_evaluation_has_its_own_report(tmp_path):
    (tmp_path / "scores.json").write_text("{}")
    assert_one_line_error(cli("inspect", str(tmp_path)), "no report.html")
    (tmp_path / "report.html").write_text("<p>")
    done = cli("inspect", str(tmp_path))
    assert done.returncode == 0 and done.stdout.split() == [str(tmp_path / "report.html")]


def test_mistakes_are_one_line(instruction_set, hostile_set, tmp_path):
    set_ = str(instruction_set)
    page = ("--output", str(tmp_path / "page.html"))
    assert_one_line_error(cli("inspect", str(tmp_path)), "not an instruction set")
    assert_one_line_error(cli("inspect", set_, *page, "--rows", "0"), "--rows", "1 or more")
    assert_one_line_error(cli("inspect", set_, *page, "--corpus", "missing"), "corpus 'missing'")
    assert_one_line_error(
        cli("inspect", set_, *page, "--tokenizer", "./missing"), "model './missing'", "no such folder"
    )
    (tmp_path / "file").write_text("")
    assert_one_line_error(cli("inspect", set_, "--output", str(tmp_path / "file" / "page.html")), "cannot be written")
    (hostile_set / "rejected.jsonl").write_text('{"family": "title"}\n')
    assert_one_line_error(cli("inspect", str(hostile_set), *page), "rejected.jsonl:1", "not a reject")
    assert not (tmp_path / "page.html").exists()
