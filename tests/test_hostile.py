"""Every hostile file in one corpus, through the public door: it builds, and each is named with its reason."""

from __future__ import annotations

import gzip
import json
import os
import random
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_corpus

from instructrec.core.schema import SPLITS, read_manifest, read_split

LIMIT = 32 << 20
MOST_MEMORY = 1536 << 20
PROSE = "The harbour was built in a single summer, and ships from many countries have waited there ever since."

CONTENTS: dict[str, tuple[str, str | bytes]] = {
    "nul.txt": ("binary", b"a\0b"),
    "noise.md": ("binary", random.Random(0).randbytes(5000).removeprefix(b"\xff") + b"\0"),
    "nul.jsonl": ("binary", b'{"text": "a\0b"}\n'),
    "latin.txt": ("invalid_utf8", "Größe ".encode("latin-1") * 40),
    "utf16.txt": ("utf16", PROSE.encode("utf-16")),
    "utf16-chinese.md": ("utf16", b"\xfe\xff" + "今天下雨。".encode("utf-16-be")),
    "utf16.csv": ("utf16", f"title,text\na,{PROSE}\n".encode("utf-16")),
    "utf16.jsonl": ("utf16", json.dumps({"text": PROSE}).encode("utf-16")),
    "empty.txt": ("empty", b""),
    "empty.jsonl": ("empty", b""),
    "empty.parquet": ("empty", b""),
    "white.md": ("empty", " \n\t\n" * 1000),
    "deep.jsonl": ("invalid_json", "[" * 100_000 + "]" * 100_000 + "\n"),
    "deep-objects.jsonl": ("invalid_json", '{"a":' * 100_000 + "1" + "}" * 100_000 + "\n"),
    "number.jsonl": ("invalid_json", '{"text": ' + "9" * 100_000 + "}\n"),
    "surrogates.jsonl": ("invalid_utf8", r'{"text": "a\ud800b", "title": "\udfff"}' + "\n"),
    "ragged.csv": ("ragged_row", "title,text\na,b,c\n"),
    "giant-field.csv": ("too_large", 'title,text\na,"' + "b" * (LIMIT + 10) + '"\n'),
    "old-mac.csv": ("invalid_csv", f"title,text\ra,{PROSE}\r"),
    "broken.parquet": ("corrupt", b"no Parquet at all"),
    "broken.po": ("invalid_po", 'msgid "a"\nmsgstr[x] "b"\nnothing\n'),
    "broken.mbox": ("invalid_mbox", "no mail\n"),
    "parts.mbox": ("invalid_message", "From a\n" + "--a\nContent-Type: multipart/mixed; boundary=a\n\n" * 50_000),
    "charset.mbox": ("invalid_message", "From a\nContent-Type: text/plain; charset=none\n\nHello.\n"),
    "broken.html": ("no_text", "<script>x"),
    "broken.srt": ("no_text", "no cue\n"),
    "broken.pdf": ("invalid_pdf" if find_spec("pypdfium2") else "needs_extra_pdf", b"%PDF-1.7\n1 0 obj\n<<"),
    "brackets.py": ("invalid_python", "(" * 100_000),
    "minus.py": ("invalid_python", "x = " + "-" * 100_000 + "1\n"),
    "attributes.py": ("invalid_python", "a" + ".b" * 100_000 + "\n"),
    "picture.png": ("unsupported_type", b"\x89PNG"),
    "line\nbreak.txt": ("invalid_utf8", b"\xff"),
    "x" * 250 + ".txt": ("binary", b"\0"),
}
"""Name → (reason, content)."""

CUE = "00:00:01.000 --> 00:00:02.000\nHello there.\n"
SLOW = {
    "headings.md": "# A heading\n" * 200_000,
    "underlined.rst": "Abc\n===\n" * 200_000,
    "rules.md": "=" * (5 << 20),
    "bullets.rst": "- " * (5 << 19),
    "bullet-lines.txt": "- \n" * (5 << 19),
    "backticks.md": "`" * (5 << 20),
    "fences.md": "```\n" * (5 << 18),
    "tildes.md": "~" * (5 << 20) + "\n",
    "brackets.md": "[" * (1 << 20),
    "parentheses.txt": "(((" * (1 << 20),
    "comments.md": "<!--" * (1 << 18),
    "spaces.md": "# a" + " " * 100_000 + "b",
    "hashes.md": "# a" + "#" * 100_000 + "b",
    "lines.txt": "a\n" * (4 << 20),
    "deep.html": "<div>" * 100_000 + "x",
    "headers.html": "<header>" * 50_000 + "<p>a" * 50_000 + "<h1>x</h1>" + "</header>" * 50_000,
    "cues.srt": CUE * 50_000,
    "subject.mbox": f"From a\nSubject: {'=?utf-8?q?a?= ' * 50_000}\n\nHello.\n",
    "parameters.mbox": f"From a\nContent-Type: text/plain; {'a=b; ' * 100_000}\n\nHello.\n",
}
"""What a reader that goes back takes minutes or gigabytes for; all of it is text, and so has no reason to be named."""


def write(path: Path, content: str | bytes) -> None:
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def bomb(path: Path, size: int) -> None:
    """A compressed file that unpacks to `size` bytes, a record and then nothing but spaces."""
    block = b" " * (1 << 20)
    first = json.dumps({"title": "A harbour", "text": PROSE}).encode() + b"\n"
    if path.suffix == ".gz":
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.write(first)
            for _ in range(size >> 20):
                file.write(block)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(first)
            for _ in range(size >> 20):
                stream.write(block)


def sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def giant_line(path: Path, size: int) -> None:
    """A record of `size` bytes and a good one after it."""
    with path.open("wb") as file:
        file.write(b'{"text": "')
        for _ in range(size >> 20):
            file.write(b"a " * (1 << 19))
        file.write(b'"}\n' + json.dumps({"text": PROSE}).encode() + b"\n")


def hostile(folder: Path, giant: int, unpacked: int) -> dict[str, str]:
    """Write every hostile file into `folder`; returns name → reason as the set must list it."""
    expected = {}
    for name, (reason, content) in CONTENTS.items():
        write(folder / name, content)
        expected[name] = reason

    sparse(folder / "giant.txt", giant)
    giant_line(folder / "giant.jsonl", giant)
    expected |= {"giant.txt": "too_large", "giant.jsonl": "too_large"}
    for suffix in ("gz", "zst"):
        bomb(folder / f"bomb.jsonl.{suffix}", unpacked)
        expected[f"bomb.jsonl.{suffix}"] = "too_large"

    pq.write_table(pa.table({"text": [PROSE] * 1000}), folder / "truncated.parquet")
    os.truncate(folder / "truncated.parquet", 500)
    pq.write_table(pa.table({"number": [1]}), folder / "numbers.parquet")
    pq.write_table(pa.table({"text": [{"a": 1}]}), folder / "nested.parquet")
    expected |= dict.fromkeys(("numbers.parquet", "nested.parquet"), "no_text_field")
    expected["truncated.parquet"] = "truncated"

    (folder / "itself.md").symlink_to(folder / "itself.md")
    (folder / "dangling.txt").symlink_to(folder / "nowhere")
    (folder / "zero.txt").symlink_to("/dev/zero")
    (folder / "a.jsonl").symlink_to("b.jsonl")
    (folder / "b.jsonl").symlink_to("a.jsonl")
    (folder / "parent").symlink_to(folder.parent, target_is_directory=True)
    os.mkfifo(folder / "pipe.txt")
    os.mkfifo(folder / "pipe.bin")
    os.mkfifo(folder / "LICENSE")
    here = Path.cwd()
    os.chdir(folder)  # the whole path may be longer than the name of a socket can be
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket.jsonl")
    finally:
        os.chdir(here)
    names = ("itself.md", "parent", "dangling.txt", "zero.txt", "a.jsonl", "b.jsonl", "pipe.txt", "pipe.bin", "LICENSE")
    expected |= dict.fromkeys((*names, "socket.jsonl"), "not_a_file")

    if os.geteuid():
        write(folder / "locked.txt", PROSE)
        (folder / "locked.txt").chmod(0)
        expected["locked.txt"] = "unreadable"

    with open(os.fsencode(folder) + b"/caf\xe9.txt", "wb") as file:  # noqa: PTH123
        file.write(b"\xff")
    expected["caf\\xe9.txt"] = "invalid_utf8"
    expected[too_deep(folder)] = "not_a_file"
    return expected


def too_deep(folder: Path) -> str:
    """Folders in folders until no path can name them; returns the name of the first that cannot be listed."""
    name, first = "d" * 250, len(str(folder))
    handle = os.open(folder, os.O_RDONLY)
    for _ in range(20):
        os.mkdir(name, dir_fd=handle)
        inner = os.open(name, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(handle)
    most = os.pathconf(folder, "PC_PATH_MAX") - 1
    return "/".join([name] * ((most - first) // (len(name) + 1) + 1))


def run(corpus: Path, output: Path, timeout: float) -> tuple[subprocess.CompletedProcess[str], int]:
    """Build with two workers; returns what came of it and the most memory that its processes held together."""
    command = [sys.executable, "-m", "instructrec", "build", "--corpus", str(corpus), "--output", str(output)]
    process = subprocess.Popen(
        [*command, "--workers", "2"],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=(corpus.parent / "stdout").open("w"),
        stderr=(corpus.parent / "stderr").open("w"),
    )
    peak, deadline = 0, time.monotonic() + timeout
    try:
        while process.poll() is None:
            assert time.monotonic() < deadline, "the build hangs"
            peak = max(peak, memory(process.pid))
            time.sleep(0.05)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()
    texts = [(corpus.parent / name).read_text() for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess(command, process.returncode, *texts), peak


def memory(group: int) -> int:
    """Bytes that the living processes of a group hold, each at its highest; what forks share counts twice."""
    total = 0
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rsplit(")", 1)[1].split()
            if int(fields[2]) == group:
                status = (place / "status").read_text()
                total += int(status.partition("VmHWM:")[2].split()[0]) << 10
        except (OSError, IndexError):  # it has ended meanwhile
            continue
    return total


def listed(output: Path) -> dict[str, set[str]]:
    """Name → reasons, as the set's list of skipped files has them."""
    found: dict[str, set[str]] = {}
    for line in (output / "skipped.jsonl").read_text(encoding="utf-8").split("\n")[:-1]:
        entry = json.loads(line)
        found.setdefault(entry["path"], set()).add(entry["reason"])
    return found


def build_all(folder: Path, output: Path, giant: int, unpacked: int) -> None:
    write_corpus(folder)
    expected = hostile(folder, giant, unpacked)
    done, peak = run(folder, output, 400)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert listed(output) == {name: {reason} for name, reason in expected.items()}
    assert sum(read_manifest(output)["corpus"]["skipped"].values()) >= len(expected)
    sources = {s["path"] for split in SPLITS for row in read_split(output, split) for s in row["source"]}
    assert len(sources) > 30 and sources <= {path.name for path in folder.iterdir()} - set(expected)
    assert 0 < peak < MOST_MEMORY, f"{peak >> 20} MiB"


def test_every_hostile_file_is_named_and_the_prose_beside_it_is_built(tmp_path):
    build_all(tmp_path / "docs", tmp_path / "set", LIMIT + (2 << 20), 400 << 20)


@pytest.mark.slow
def test_files_of_a_gigabyte_and_bombs_of_more(tmp_path):
    build_all(tmp_path / "docs", tmp_path / "set", 1 << 30, 4 << 30)


def test_pages_made_to_be_slow_are_not(tmp_path):
    folder = write_corpus(tmp_path / "docs")
    for name, content in SLOW.items():
        write(folder / name, content)
    started = time.monotonic()
    done, peak = run(folder, tmp_path / "set", 400)
    assert done.returncode == 0, done.stderr
    assert listed(tmp_path / "set") == {}
    assert time.monotonic() - started < 120  # a square of any of them would take longer alone
    assert 0 < peak < MOST_MEMORY, f"{peak >> 20} MiB"


def test_old_mac_line_ends_in_python_lead_to_the_same_functions(tmp_path):
    from data_builders.documents import Document, read

    text = (write_corpus(tmp_path / "docs") / "tools0.py").read_text()
    found = []
    for ends in ("\n", "\r", "\r\n"):
        write(tmp_path / "a.py", text.replace("\n", ends))
        (document,) = read(tmp_path / "a.py", "a.py", "MIT")
        assert isinstance(document, Document)
        for function in document.functions:
            assert document.content[function.start :].startswith(f"def {function.name}")
        found.append([(f.name, f.source, f.docstring) for f in document.functions])
    assert len(found[0]) == 4 and found[0] == found[1] == found[2]
