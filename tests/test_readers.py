"""Readers: real pages, hostile files, and that nothing is lost or read twice."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import mailbox
import os
import sys
import time
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_builders.documents import Document, Fields, Skipped, Unreadable, corpus_files, read, splittable
from data_builders.readers import document as limits
from data_builders.readers import files as files_module
from data_builders.readers.html_page import page_blocks
from data_builders.readers.licences import recognised, spdx
from instructrec.core.errors import UserError

CORPORA = Path(os.environ.get("INSTRUCTREC_CORPORA", Path(__file__).parent.parent.parent / "shared" / "corpora"))
PROSE = "The harbour was built in a single summer, and ships from many countries have waited there ever since."


def everything(path: Path, **options) -> list[Document | Skipped]:
    return list(read(path, path.name, "unknown", **options))


def documents(path: Path, **options) -> list[Document]:
    return [found for found in everything(path, **options) if isinstance(found, Document)]


def reasons(path: Path, **options) -> list[str]:
    """Reasons of skipped records in order, and of the rest of the file if it is unreadable."""
    found = []
    try:
        for one in read(path, path.name, "unknown", **options):
            if isinstance(one, Skipped):
                assert one.start < one.end and one.path == path.name
                found.append(one.reason)
    except Unreadable as reason:
        found.append(str(reason))
    return found


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def corpus(name: str) -> Path:
    if not (CORPORA / name).is_dir():
        pytest.skip(f"{name} is not on this machine")
    return CORPORA / name


def pack(path: Path, raw: bytes) -> Path:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(raw, mtime=0))
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(raw)
    return path


@pytest.fixture
def small_limit(monkeypatch):
    monkeypatch.setattr(limits, "MAX_DOCUMENT_BYTES", 4096)


# Records


RECORDS = [{"text": f"{PROSE} Number {i}, 中文.", "title": f"Page {i}", "licence": "MIT"} for i in range(7)]
JSONL = "".join(json.dumps(record, ensure_ascii=i % 2 == 0) + "\n" for i, record in enumerate(RECORDS)).encode()


def test_jsonl_records_lead_back_to_their_bytes(tmp_path):
    path = write(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + JSONL)
    found = documents(path)
    assert [d.title for d in found] == [r["title"] for r in RECORDS]
    raw = path.read_bytes()
    for document, record in zip(found, RECORDS, strict=True):
        assert json.loads(raw[document.start : document.end].decode("utf-8-sig")) == record
        assert document.content == f"{record['title']}\n\n{record['text']}"
        assert [(b.kind, b.level) for b in document.blocks] == [("heading", 1), ("paragraph", 0)]
        assert document.span(3, 9) == (document.start, document.end)
        assert (document.extractor, document.licence, document.language) == ("jsonl/1", "MIT", "en")
        assert document.sha256 == hashlib.sha256(raw).hexdigest()
        assert document.unit == document.key == f"a.jsonl:{document.start}"


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_records_have_places_in_the_decompressed_stream(tmp_path, suffix):
    path = pack(tmp_path / f"a.jsonl{suffix}", JSONL)
    found = documents(path)
    assert [json.loads(JSONL[d.start : d.end]) for d in found] == RECORDS
    assert {d.extractor for d in found} == {f"jsonl+{suffix[1:]}/1"}
    assert not splittable(path) and splittable(tmp_path / "a.jsonl")
    path.write_bytes(path.read_bytes()[:-9])
    assert reasons(path) == ["truncated"]
    path.write_bytes(b"nothing that could be unpacked")
    assert reasons(path) == ["corrupt"]


def test_fields_are_configurable(tmp_path):
    record = {"meta": {"name": "A title"}, "story": PROSE, "lang": "de_DE"}
    code = {"story": 'def f(x):\n    """Give it back."""\n    return x\n', "lang": "Python"}
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, [record, code, {**code, "story": "def ("}])))
    assert reasons(path) == ["no_text_field"] * 3
    fields = Fields(text=("story",), title=("meta.name",))
    first, second = documents(path, fields=fields)
    assert (first.title, first.declared_language, first.language) == ("A title", "de", "de")
    assert (second.kind, second.functions[0].name) == ("code", "f")
    assert reasons(path, fields=fields) == ["invalid_python"]


def test_one_bad_line_does_not_lose_the_rest(tmp_path, small_limit):
    good = json.dumps({"text": PROSE}).encode()
    bad = {
        b"{": "invalid_json",
        b"[" * 4000: "invalid_json",
        b'{"n": ' + b"9" * 4080 + b"}": "no_text_field",
        b'{"text": "a\0b"}': "binary",
        rb'{"text": "a\u0000b"}': "binary",
        rb'{"text": "a\ud800b"}': "invalid_utf8",
        b'{"text": "\xff"}': "invalid_utf8",
        b"[1, 2]": "not_a_record",
        b'{"text": 3}': "no_text_field",
        b'{"text": " "}': "empty",
        b'{"text": "' + b"x" * 5000 + b'"}': "too_large",
    }
    path = write(tmp_path / "a.jsonl", b"\n".join(line + b"\r\n\n" + good for line in bad))
    assert reasons(path) == list(bad.values())
    assert len(documents(path)) == len(bad)


def test_a_line_of_any_length_takes_no_memory(tmp_path):
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.truncate(300 << 20)
        file.seek(0, io.SEEK_END)
        file.write(b"\n" + JSONL)
    tracemalloc.start()
    found = everything(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [one.reason for one in found if isinstance(one, Skipped)] == ["too_large"]
    assert len(found) == 1 + len(RECORDS)
    assert peak < 150 << 20


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_zip_bomb_is_left_after_its_limit(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(files_module, "LEAST_EXPANSION", 1 << 20)
    path = pack(tmp_path / f"a.jsonl{suffix}", JSONL + b" " * (64 << 20))
    assert len(list(_until_unreadable(path))) == len(RECORDS)
    assert reasons(path) == ["too_large"]


def _until_unreadable(path):
    try:
        yield from read(path, path.name, "unknown")
    except Unreadable:
        return


lines = st.lists(
    st.one_of(
        st.text(max_size=30).map(lambda text: json.dumps({"text": text}, ensure_ascii=False).encode()),
        st.sampled_from([b"", b" ", b"{", b"\xff", b"x" * 90, b'{"text": "a"}\r']),
    ),
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(lines, st.lists(st.integers(0, 400), max_size=6), st.booleans())
def test_splitting_yields_every_record_once(tmp_path_factory, written, cuts, closed):
    path = tmp_path_factory.getbasetemp() / "split.jsonl"
    raw = b"\n".join(written) + (b"\n" if closed else b"")
    path.write_bytes(raw + b"{}")
    limit, limits.MAX_DOCUMENT_BYTES = limits.MAX_DOCUMENT_BYTES, 64
    try:
        whole = everything(path)
        edges = sorted({0, *cuts})
        parts = [everything(path, start=a, end=b) for a, b in zip(edges, [*edges[1:], None], strict=True)]
    finally:
        limits.MAX_DOCUMENT_BYTES = limit
    assert [one for part in parts for one in part] == whole
    for (a, b), part in zip(zip(edges, [*edges[1:], 1 << 40], strict=True), parts, strict=True):
        assert all(a <= one.start < b for one in part)


def test_parquet_by_rows_and_by_ranges(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([*RECORDS, {"text": None}]), path, row_group_size=2)
    found = documents(path)
    assert [(d.title, d.start, d.end) for d in found] == [(r["title"], i, i + 1) for i, r in enumerate(RECORDS)]
    assert found[0].extractor == "parquet-row/1" and found[0].size == len(found[0].content.encode())
    edges = [0, 5, 700, 1500, path.stat().st_size]
    parts = [everything(path, start=a, end=b) for a, b in pairwise(edges)]
    assert [one for part in parts for one in part] == everything(path)
    assert sum(map(bool, parts)) > 1
    assert reasons(path) == ["no_text_field"]
    assert reasons(path, fields=Fields(text=("nope",))) == ["no_text_field"]
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert reasons(path) == ["truncated"]
    path.write_bytes(b"no Parquet at all, though its name says so")
    assert reasons(path) == ["corrupt"]
    damaged = bytearray(whole)
    damaged[4:200] = bytes(196)
    path.write_bytes(damaged)
    assert reasons(path)  # damaged pages cost their row group, and no exception


def test_parquet_with_bytes_that_are_no_text(tmp_path):
    array = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0\4\0\0\0"), pa.py_buffer(b"\xff\xffok")]
    )
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": array}), path)
    assert [d.content for d in documents(path)] == ["ok"] and reasons(path) == ["invalid_utf8"]


def test_csv(tmp_path, small_limit):
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["title", "text"])
    writer.writerows([[f"Row {i}", f'{PROSE}\nWith a line break, a comma and “quotes".'] for i in range(3)])
    good = out.getvalue().encode()
    bad = b"one,two,three\r\n\xff,b\r\na,\0\r\n\r\n"
    path = write(tmp_path / "a.csv", b"\xef\xbb\xbf" + good + bad + b"Last," + b"y" * 50)
    found = documents(path)
    assert [d.title for d in found] == ["Row 0", "Row 1", "Row 2", "Last"]
    raw = path.read_bytes()
    assert [next(csv.reader([raw[d.start : d.end].decode()]))[0] for d in found] == [d.title for d in found]
    assert reasons(path) == ["ragged_row", "invalid_utf8", "binary"]
    assert reasons(write(tmp_path / "b.csv", good + b'a,"' + b"never closed\n" * 900 + b"a,b\n"))[0] == "too_large"
    assert reasons(write(tmp_path / "c.csv", "x,y\n1,2\n")) == ["no_text_field"]
    assert documents(write(tmp_path / "d.tsv", f"text\ttitle\n{PROSE}\tT\n"))[0].title == "T"
    assert documents(write(tmp_path / "e.csv", f"title;text\nT;{PROSE}\n"))[0].title == "T"


# Pages


PAGE = """<!DOCTYPE html><html lang="xx"><head><title>Site</title><style>p {}</style><script>if (a < b) "<p>no</p>"
</script></head><body><header><a href="/">Home</a></header><nav><p>Menu</p></nav>
<header><h1>The <em>harbour</em></h1></header>
<p>Built in a
single summer &amp; never <a title="a > b">changed</a>.<p>Second.
<ul><li>one<li>two <ul><li>deep</ul></ul>
<pre><code>x = 1
  y &lt; 2</code></pre><table><tr><th>a<th>b<tr><td>1<td>2</table>
<!-- <p>hidden</p> --><p><a href="x">Only</a> <a href="y">links</a></p>
<div>Bare text<br>in a div</div><footer><p>Imprint</p></footer></body></html>"""


def test_html_becomes_the_blocks_of_a_page(tmp_path):
    (document,) = documents(write(tmp_path / "a.html", "\ufeff" + PAGE.replace("summer", "sümmer")))
    assert [(b.kind, b.level, b.text) for b in document.blocks] == [
        ("heading", 1, "The harbour"),
        ("paragraph", 0, "Built in a single sümmer & never changed."),
        ("paragraph", 0, "Second."),
        ("list", 0, "one\ntwo\ndeep"),
        ("code", 0, "x = 1\n  y < 2"),
        ("table", 0, "a | b\n1 | 2"),
        ("paragraph", 0, "Bare text in a div"),
    ]
    raw = (tmp_path / "a.html").read_bytes()
    for block in document.blocks:
        assert document.content[block.start : block.end] == block.text
        first, last = document.span(block.start, block.end)
        assert set(block.text.split()[0]) <= set(raw[first:last].decode())
    first, last = document.span(document.blocks[1].start, document.blocks[2].end)
    assert raw[first:last].decode().startswith("Built") and raw[first:last].decode().endswith("Second.")


def test_html_without_headings_has_its_title_and_main_goes_first():
    assert [b[:2] for b in page_blocks("<title>A &amp; B</title><p>Text.")] == [
        ("heading", "A & B"),
        ("paragraph", "Text."),
    ]
    assert [b[1] for b in page_blocks("<div>Ad</div><main><h1>T</h1><p>Text.</main><div>Ad</div>")] == ["T", "Text."]
    assert [b[1] for b in page_blocks("<table><tr><td><h1>T</h1><p>Text.<td>More.</table>")] == ["T", "Text.", "More."]
    assert page_blocks("<p>今天下雨，\n我们在家。</p>")[0][1] == "今天下雨，我们在家。"


@pytest.mark.parametrize(
    "piece",
    ["<", "<a", "<a '", "<a \"'>", "<!--", "<![CDATA[", "<p>", "<div><ul><li>", "</", "<script>", "<nav>", "&", "<a b"],
)
def test_hostile_html_takes_linear_time(piece):
    start = time.process_time()
    page_blocks(piece * 60_000)
    assert time.process_time() - start < 4


names = ["p", "ul", "li", "table", "td", "tr", "pre", "h2", "header", "main", "nav", "a"]
tags = st.sampled_from([f"<{close}{name}>" for close in ("", "/") for name in names])


@settings(max_examples=200, deadline=None)
@given(st.lists(tags | st.text(max_size=6), max_size=25))
def test_html_blocks_are_in_order_and_inside_the_page(parts):
    html = "".join(parts)
    place = 0
    for kind, text, _, start, end in page_blocks(html):
        assert text.strip() and 0 <= start <= end <= len(html)
        if kind != "heading" or text not in html[:place]:
            assert start >= place or kind in ("list", "table")
        place = max(place, start)


def test_xhtml_book():
    folder = corpus("pride_prejudice")
    found = [d for path, name in corpus_files(str(folder)) for d in read(path, name, "") if isinstance(d, Document)]
    chapter = next(d for d in found if d.path.endswith("chapter-1.xhtml"))
    assert chapter.blocks[0].kind == "heading" and chapter.language == "en"
    assert chapter.blocks[1].text.startswith("It is a truth universally acknowledged")
    assert len(found) >= 60 and {d.licence for d in found} == {"CC0-1.0"}


PO = """# Name Surname <name@example.org>, 2020.
msgid ""
msgstr ""
"Last-Translator: Name Surname <name@example.org>\\n"
"Content-Type: text/plain; charset=UTF-8\\n"
"Language: zh_CN\\n"

#: a.rst:1
msgid "It rains today."
msgstr "今天"
"下雨。"

#, fuzzy
msgid "Not sure."
msgstr "不确定。"

msgid "Python"
msgstr "Python"

msgctxt "menu"
msgid "%d file"
msgid_plural "%d files"
msgstr[0] "%d 个文件"

msgid "Empty."
msgstr ""

#~ msgid "Old."
#~ msgstr "旧的。"
"""


def test_po_gives_prose_in_the_target_language_and_pairs(tmp_path):
    (document,) = documents(write(tmp_path / "a.po", PO))
    assert document.content == "今天下雨。\n\n%d 个文件"
    assert [(p.source, p.target, p.context) for p in document.pairs] == [
        ("It rains today.", "今天下雨。", ""),
        ("%d files", "%d 个文件", "menu"),
    ]
    assert (document.language, document.kind, document.unit) == ("zh", "text", "a.po")
    raw = (tmp_path / "a.po").read_bytes()
    for pair in document.pairs:
        assert pair.source in raw[pair.start : pair.end].decode()
    first, last = document.span(0, 3)
    assert "It rains" in raw[first:last].decode() and "fuzzy" not in raw[first:last].decode()
    assert "example.org" not in document.content + str(document.pairs)
    assert reasons(write(tmp_path / "b.po", 'msgid "a\nmsgstr')) == ["invalid_po"]
    assert reasons(write(tmp_path / "c.po", str(tmp_path / "a.po"))) == ["invalid_po"]  # never opens what it names


def test_real_po():
    folder = corpus("python_docs_zh")
    (document,) = read(folder / "tutorial/appetite.po", "tutorial/appetite.po", "")
    assert isinstance(document, Document)
    raw = (folder / "tutorial/appetite.po").read_bytes()
    assert len(document.pairs) == 17 and document.language == "zh" and document.licence == "PSF-2.0"
    for pair in document.pairs:
        entry = raw[pair.start : pair.end].decode()
        assert entry.startswith("#: ") and entry.count("msgid ") == entry.count("msgstr ") == 1
        assert pair.source.split()[0] in entry


def test_real_prose():
    for name, licence in (("rust_book_en", "MIT OR Apache-2.0"), ("peps", "CC0-1.0")):
        found = [d for path, file in corpus_files(str(corpus(name)))[:40] for d in read(path, file, "")]
        assert {d.licence for d in found if isinstance(d, Document)} == {licence}


def test_subtitles(tmp_path):
    srt = (
        "1\r\n00:00:01,000 --> 00:00:02,500\r\n<i>It rains</i>\r\ntoday.\r\n\r\n2\r\n00:00:03,000 --> 00:00:04,000\r\n"
        "We stay. [thunder]\r\n\r\n3\r\n00:00:09,000 --> 00:00:10,000 X1:40\r\nLater, überall.\r\n"
    )
    (document,) = documents(write(tmp_path / "a.srt", srt))
    assert [b.text for b in document.blocks] == ["It rains today. We stay.", "Later, überall."]
    raw = srt.encode()
    first, last = document.span(document.blocks[1].start, document.blocks[1].end)
    assert raw[first:last].decode().startswith("00:00:09") and "Later" in raw[first:last].decode()
    vtt = "WEBVTT\n\nNOTE a --> b\n\n01:02.000 --> 01:03.000 align:start\n<v Ann>Hello &amp; welcome.</v>\n\n"
    assert documents(write(tmp_path / "a.vtt", vtt))[0].content == "Hello & welcome."
    assert reasons(write(tmp_path / "b.srt", "no cue")) == ["no_text"]


def test_code_of_other_languages_is_code_without_functions(tmp_path):
    (document,) = documents(write(tmp_path / "a.rs", "// SPDX-License-Identifier: MIT\nfn main() {}\n"))
    assert (document.kind, document.layout, document.functions, document.blocks) == ("code", "rust", [], [])
    assert (document.licence, document.language) == ("MIT", None)


# Optional extras


def _pdf(lines: list[str]) -> bytes:
    text = " T* ".join(f"({line}) Tj" for line in lines)
    stream = f"BT /F1 12 Tf 14 TL 50 700 Td {text} ET".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    out = b"%PDF-1.4\n" + b"".join(b"%d 0 obj%s endobj\n" % (i, body) for i, body in enumerate(objects, 1))
    return out + b"trailer<</Root 1 0 R/Size 6>>\n%%EOF"


def test_pdf(tmp_path, monkeypatch):
    pytest.importorskip("pypdfium2")
    lines = ["A first paragraph that is long enough", "to wrap here.", "A second paragraph that is as long", "ends."]
    path = write(tmp_path / "a.pdf", _pdf(lines))
    (document,) = documents(path)
    assert [b.text for b in document.blocks] == [" ".join(lines[:2]), " ".join(lines[2:])]
    assert reasons(write(tmp_path / "b.pdf", b"%PDF-1.4 nothing")) == ["invalid_pdf"]
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    assert reasons(path) == ["needs_extra_pdf"]


def test_mbox(tmp_path):
    path = tmp_path / "a.mbox"
    box = mailbox.mbox(str(path))
    for subject, body in (
        ("Re: [list] The harbour", f"Ann wrote:\n> old words\n\n{PROSE} Write to ann@example.org.\n\n-- \nAnn"),
        ("=?utf-8?q?Gr=C3=BC=C3=9Fe?=", PROSE),
    ):
        message = mailbox.mboxMessage()
        message["Subject"], message["From"] = subject, "Ann <ann@example.org>"
        message.set_payload(body)
        box.add(message)
    box.close()
    first, second = documents(path)
    assert first.content == f"The harbour\n\n{PROSE} Write to <address>."
    assert second.title == "Grüße"
    raw = path.read_bytes()
    assert raw[second.start :].startswith(b"From ") and first.end == second.start and second.end == len(raw)
    assert reasons(write(tmp_path / "b.mbox", "no mail\n")) == ["invalid_mbox"]


def test_mbox_keeps_what_is_answered_but_nobody_of_the_headers(tmp_path):
    body = (
        "Hello Jo,\n\nOn Monday Jo wrote:\n> > Is it blue?\n> It is green.\n> -- \n> Jo\n\n"
        "No, it is yellow.\n\nYours,\nAnn\n"
        "> Mail me at jo@example.org then.\nGreen Wall Paint: I will, to jo@example.org.\n"
        "> Ask Vik.\nWhy him?\n-- \n> Nothing.\nAnn\n"
    )
    people = "From: Ann Lind <ann@example.org>\nTo: Green Wall <jo@example.org>, Jo\nCc: Vik (who knows)\n"
    raw = f"From a\n{people}Subject: Re: [green] Paint\nList-Id: Paint for the wall <paint.example.org>\n\n{body}"
    (document,) = documents(write(tmp_path / "a.mbox", raw))
    found = [(reply.quoted, document.content[reply.start : reply.end]) for reply in document.replies]
    assert found == [
        ("It is green.", "No, it is yellow."),
        ("Mail me at <address> then.", "Green Wall Paint: I will, to <address>."),
    ]
    assert not {"It is green.", "Ask Vik."} & set(document.content.split("\n"))


def test_git_history(tmp_path, monkeypatch):
    porcelain = pytest.importorskip("dulwich.porcelain")
    folder = tmp_path / "project"
    repository = porcelain.init(str(folder))
    for number, text in enumerate(["one\n", "one\ntwo\n"]):
        write(folder / "a.txt", text)
        porcelain.add(str(folder), [str(folder / "a.txt")])
        message = f"Write line {number}\n\nBecause it was missing.\n\nSigned-off-by: Ann <ann@example.org>\n".encode()
        porcelain.commit(str(folder), message=message, author=b"Ann <ann@example.org>", committer=b"A <a@b.org>")
    repository.close()
    ((path, name),) = corpus_files(f"git:{folder}")
    assert name == "git:project"
    last, first = read(path, name, "MIT")
    assert isinstance(last, Document) and isinstance(first, Document)
    assert (last.kind, last.title) == ("commit", "Write line 1")
    assert [b.kind for b in last.blocks] == ["heading", "paragraph", "code"]
    assert "+two" in last.blocks[-1].text and "ann@" not in last.content
    assert all(last.content[b.start : b.end] == b.text for b in last.blocks)
    monkeypatch.setitem(sys.modules, "dulwich.repo", None)
    with pytest.raises(Unreadable, match="needs_extra_git"):
        list(read(path, name, "MIT"))


def test_git_and_data_sets_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        corpus_files(f"dataset:{tmp_path}/none")
    pytest.importorskip("dulwich")
    with pytest.raises(UserError, match="no git repository"):
        list(read(*corpus_files(f"git:{tmp_path}")[0], "MIT"))


def test_a_local_data_set_is_streamed(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.Dataset.from_list(RECORDS).save_to_disk(str(tmp_path / "saved"))
    write(tmp_path / "plain" / "train.jsonl", JSONL)
    for place in ("saved", "plain"):
        ((path, name),) = corpus_files(f"dataset:{tmp_path / place}#train")
        found = list(read(path, name, "MIT"))
        assert [d.title for d in found if isinstance(d, Document)] == [r["title"] for r in RECORDS]
        assert {d.unit for d in found if isinstance(d, Document)} == {f"{name}:{i}" for i in range(len(RECORDS))}
        assert str(tmp_path) not in name
    with pytest.raises(UserError, match=r"dataset:plain#nope.*cannot be read"):
        list(read(tmp_path / "plain", "dataset:plain#nope", "MIT"))
    assert corpus_files("hf://owner/name") == [(Path("hf://owner/name"), "hf://owner/name")]


# Hostile files, licences


def test_hostile_files_have_a_reason(tmp_path, small_limit):
    (tmp_path / "loop.md").symlink_to(tmp_path / "loop.md")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "folder.txt").mkdir()
    for name, content in (
        ("a.xyz", "x"),
        ("a.md", " \n"),
        ("b.md", b"a\0b"),
        ("c.html", b"\xff"),
        ("d.txt", b"x" * 5000),
        ("e.jsonl", b""),
        ("e.jsonl.gz", b""),
        ("f.py", "def (:"),
        ("g.html", "<script>x"),
    ):
        write(tmp_path / name, content)
    expected = {
        "loop.md": "not_a_file",
        "pipe.txt": "not_a_file",
        "folder.txt": "not_a_file",
        "missing.txt": "not_a_file",
        "missing.jsonl": "not_a_file",
        "a.xyz": "unsupported_type",
        "a.md": "empty",
        "b.md": "binary",
        "c.html": "invalid_utf8",
        "d.txt": "too_large",
        "e.jsonl": "empty",
        "e.jsonl.gz": "empty",
        "f.py": "invalid_python",
        "g.html": "no_text",
    }
    assert {name: reasons(tmp_path / name) for name in expected} == {name: [why] for name, why in expected.items()}


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_file_that_may_not_be_read(tmp_path, monkeypatch, name):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path / name, PROSE)
    monkeypatch.setattr(Path, "open", refuse)
    assert reasons(path) == ["unreadable"]


def test_names_that_are_no_utf8_or_hold_line_breaks(tmp_path):
    write(tmp_path / "line\nbreak.txt", PROSE)
    with open(os.fsencode(tmp_path) + b"/caf\xe9.txt", "wb") as file:  # noqa: PTH123
        file.write(PROSE.encode())
    found = [d for path, name in corpus_files(str(tmp_path)) for d in read(path, name, "")]
    assert [d.path for d in found] == ["caf\\xe9.txt", "line\nbreak.txt"]


def test_licences_are_found_by_line_then_folder_then_argument(tmp_path):
    mit = "MIT License\n\n(c) 2020 Ann\n\nPermission is hereby granted, free of charge, to any person obtaining a\n"
    write(tmp_path / "LICENSE", mit + "copy of this software and associated documentation files")
    write(tmp_path / "sub" / "COPYING.txt", "GNU GENERAL PUBLIC LICENSE\n  Version 3, 29 June 2007")
    write(tmp_path / "both" / "LICENSE-MIT", mit + "copy of this software")
    write(tmp_path / "both" / "LICENSE-APACHE", "Apache License\n   Version 2.0, January 2004")
    for folder in (".", "sub/deep", "both"):
        write(tmp_path / folder / "a.md", f"# A\n\n{PROSE}\n")
    write(tmp_path / "sub" / "b.c", "/* SPDX-License-Identifier: BSD-3-Clause */\nint x;\n")
    write(tmp_path / "sub" / "late.c", "\n" * 30 + "// SPDX-License-Identifier: MIT\n")
    found = {
        name: d.licence
        for path, name in corpus_files(str(tmp_path))
        for d in read(path, name, "X")
        if not name.split("/")[-1].startswith(("LIC", "COP"))
    }
    assert found == {
        "a.md": "MIT",
        "sub/deep/a.md": "GPL-3.0",
        "both/a.md": "Apache-2.0 OR MIT",
        "sub/b.c": "BSD-3-Clause",
        "sub/late.c": "GPL-3.0",
    }
    (document,) = read(tmp_path / "sub/deep/a.md", "a.md", "X")  # the corpus is sub/deep: nothing above it is looked at
    assert isinstance(document, Document) and document.licence == "X"


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("Apache License\n Version 2.0, January 2004", "Apache-2.0"),
        ("GNU GENERAL PUBLIC LICENSE\n Version 2, June 1991", "GPL-2.0"),
        ("Mozilla Public License Version 2.0\n====", "MPL-2.0"),
        ("Creative Commons Attribution 4.0 International Public License", "CC-BY-4.0"),
        ("Attribution-ShareAlike 4.0 International\n===", "CC-BY-SA-4.0"),
        ("Creative Commons Attribution-NonCommercial 4.0 International", None),
        ("CC0 1.0 Universal\n", "CC0-1.0"),
        ("A. HISTORY OF THE SOFTWARE\n=====\n\nPython was created", "PSF-2.0"),
        ("repo=x licence=MIT OR Apache-2.0 ; markdown", "MIT OR Apache-2.0"),
        ("All rights reserved.", None),
        (
            "Copyright Ann. Redistribution and use in source and binary forms, with or without modification, are"
            " permitted. * Neither the name of the copyright holder nor",
            "BSD-3-Clause",
        ),
    ],
)
def test_licences_are_recognised_by_their_opening(text, licence):
    assert recognised(text) == licence


def test_spdx():
    assert spdx("# SPDX-License-Identifier: GPL-2.0-only OR MIT\n") == "GPL-2.0-only OR MIT"
    assert spdx("<!-- SPDX-License-Identifier: CC-BY-4.0 -->\n") == "CC-BY-4.0"
    assert spdx("Write `SPDX-License-Identifier: X` on top.") is None
