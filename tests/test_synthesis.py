"""Instructions that a model writes: kept only if they help, the same bytes whatever happens, traced to their spans."""

import json
import shutil
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from conftest import assert_one_line_error, cli

from data_builders.config import BuildConfig
from data_builders.pipeline import build
from data_builders.splits import hashed
from data_builders.synthesis import BATCH, tidy
from data_builders.trace import trace
from data_builders.written import FILE, read_written
from instructrec import synthesis
from instructrec.core.errors import UserError
from instructrec.core.schema import HELD_OUT, SPLITS, TEST_TASKS, TRAIN, read_manifest, read_split
from instructrec.data import check_hold_out

KEY = "sk-" + "never-to-be-seen"
USELESS = "Write down what comes to mind."


def span_of(request: str) -> str:
    """The span, or the wording, that a request is about."""
    *_, line, last = request.splitlines()
    return line.partition("Text: ")[2] or last


class Fake:
    """Names the rarest word of a span, or says nothing of use; likes answers that share words with their prompt."""

    def __init__(self, name: str = "fake", calls: int = 1 << 30):
        self.identity = {"model": name}
        self.calls = calls
        self.seen: list[object] = []

    def _see(self, batch):
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        self.seen += batch

    def write(self, requests):
        self._see(requests)
        texts = [span_of(request) for request in requests]
        words = [max(text.split(), key=len).strip(".,:;()") for text in texts]
        return [
            USELESS if hashed(t) % 4 == 0 else f'Request: "Tell me about {w} in short, please."'
            for t, w in zip(texts, words, strict=True)
        ]

    def logprobs(self, questions):
        self._see(questions)
        return [-50.0 + len({*prompt.split()} & {*answer.split()}) for prompt, answer in questions]


def made(corpus: Path, output: Path, fake: Fake, workers: int = 1, **options: object) -> Path:
    config = BuildConfig(corpus=str(corpus), synthesize=fake.identity["model"], **options)
    build(config, output, workers, lambda folder: None, synthesizer=fake)
    return output


def rows(folder: Path, *splits: str) -> list[dict]:
    return [row for split in splits or SPLITS for row in read_split(folder, split)]


def content(folder: Path) -> dict[str, bytes]:
    files = [*folder.rglob("*.parquet"), folder / "manifest.json", folder / FILE, folder / "rejected.jsonl"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def fake():
    return Fake()


@pytest.fixture(scope="module")
def written_set(corpus, fake, tmp_path_factory):
    return made(corpus, tmp_path_factory.mktemp("written") / "set", fake, synthesize_rows=40)


def test_only_what_makes_its_answer_likelier_becomes_a_row(written_set):
    written = read_written(written_set)
    spans = [entry for entry in written if entry.family == "synthesized"]
    assert len(spans) == 40 and {entry.verdict for entry in spans} >= {"kept", "unlikely"}
    for entry in written:
        if entry.verdict in ("kept", "unlikely"):
            others = [entry.bare, entry.mismatched, *([] if entry.original is None else [entry.original])]
            assert (entry.original is None) == (entry.family == "synthesized")
            rises = entry.instructed > max(others)
            assert rises == (entry.verdict == "kept"), entry
    assert not any(entry.text == USELESS and entry.verdict == "kept" for entry in written)
    found = [row for row in rows(written_set) if row["family"] == "synthesized"]
    kept = {entry.text for entry in spans if entry.verdict == "kept"}
    assert found and {row["prompt"][0]["content"] for row in found} <= kept
    assert {(row["group"], row["template"], row["language"]) for row in found} == {
        ("synthesis", "synthesized.en.span", "en")
    }
    manifest = read_manifest(written_set)
    counts = Counter(entry.verdict for entry in spans)
    assert manifest["synthesis"]["model"] == "fake"
    assert manifest["synthesis"]["spans"] == {"tried": 40, "kept": counts["kept"]}
    assert manifest["families"]["synthesized"]["rejected"]["unlikely"] == counts["unlikely"]
    card = (written_set / "README.md").read_text()
    assert "with the help of fake" in card and "or a language model" not in card


def test_an_instruction_that_quotes_its_answer_is_not_even_scored(corpus, tmp_path):
    class Copyist(Fake):
        def write(self, requests):
            return ["Say: " + span_of(request) for request in requests]

    folder = made(corpus, tmp_path / "set", Copyist(), synthesize_rows=10, families=("synthesized", "title"))
    verdicts = {entry.verdict for entry in read_written(folder) if entry.family == "synthesized"}
    assert verdicts == {"copied"} and not any(row["family"] == "synthesized" for row in rows(folder))


def test_a_statement_and_talk_of_a_text_that_is_not_there_are_no_instructions(corpus, tmp_path):
    class Chatty(Fake):
        def write(self, requests):
            said = (
                "The lamp is lit at dusk.",
                "What is the purpose of this text?",
                "Say {{ x }} again, please.",
                "Why?",
            )
            return [said[i % 4] for i in range(len(requests))]

    folder = made(corpus, tmp_path / "set", Chatty(), synthesize_rows=8, families=("synthesized", "title"))
    assert {entry.verdict for entry in read_written(folder) if entry.family == "synthesized"} == {"unwritten"}


def test_a_kept_wording_is_used_in_training_and_is_not_that_of_a_held_out_one(corpus, tmp_path):
    class Eager(Fake):
        def write(self, requests):
            return [f"Would you kindly do this number {i + hashed(r) % 1000}?" for i, r in enumerate(requests)]

        def logprobs(self, questions):
            return [float(p.count("Would you kindly") and len(a)) + hashed(p) / 2**65 for p, a in questions]

    folder = made(corpus, tmp_path / "set", Eager(), synthesize_rows=1)
    written = [entry for entry in read_written(folder) if entry.family != "synthesized"]
    manifest = read_manifest(folder)
    kept = {entry.name for entry in written if entry.verdict == "kept"}
    assert len(kept) > 3 and manifest["synthesis"]["wordings"] == {"tried": len(written), "kept": len(kept)}
    originals = {entry.name.removesuffix(".synthesized") for entry in written}
    assert not originals & set(manifest["held_out"]["templates"])
    assert not {entry.family for entry in written} & set(manifest["held_out"]["families"])
    used = {row["template"] for row in rows(folder, TRAIN)} & kept
    assert used and not {row["template"] for row in rows(folder, "test_templates", TEST_TASKS)} & kept
    row = next(row for row in rows(folder, TRAIN) if row["template"] in used)
    assert "Would you kindly" in row["prompt"][0]["content"]
    assert trace(folder, row["id"], str(corpus))[1]


def test_the_hold_out_binds_what_a_model_wrote(corpus, written_set, tmp_path):
    check_hold_out(written_set)
    sides = {
        split: {row["source"][0]["path"] for row in rows(written_set, split) if row["family"] == "synthesized"}
        for split in (TRAIN, *HELD_OUT)
    }
    assert sides[TRAIN] and not sides[TRAIN] & set().union(*(sides[split] for split in HELD_OUT))
    assert "synthesized" not in read_manifest(written_set)["held_out"]["families"]
    held = made(corpus, tmp_path / "set", Fake(), synthesize_rows=40, held_out_groups=("synthesis",))
    assert {split for split in SPLITS for row in rows(held, split) if row["family"] == "synthesized"} == {TEST_TASKS}


def test_workers_do_not_matter(corpus, written_set, tmp_path):
    assert content(made(corpus, tmp_path / "set", Fake(), 2, synthesize_rows=40)) == content(written_set)


def test_after_a_kill_only_what_is_missing_is_asked(corpus, fake, written_set, tmp_path):
    output, asked = tmp_path / "set", 0
    for calls in (2, 3, 0):
        broken = Fake(calls=calls)
        with pytest.raises(KeyboardInterrupt):
            made(corpus, output, broken, synthesize_rows=40)
        asked += len(broken.seen)
        assert len(broken.seen) > (calls - 1) * BATCH
        with (tmp_path / "set.partial" / "asked.jsonl").open("a") as file:
            file.write('\n["half a li')
    last = Fake()
    assert content(made(corpus, output, last, synthesize_rows=40)) == content(written_set)
    assert asked + len(last.seen) == len(fake.seen)


def test_another_model_is_another_set(corpus, written_set, tmp_path):
    shutil.copytree(written_set, tmp_path / "set")
    with pytest.raises(UserError, match="another corpus or config"):
        made(corpus, tmp_path / "set", Fake("other"), synthesize_rows=40)


def test_trace_shows_the_span_and_derives_the_row_from_what_is_kept(corpus, written_set, tmp_path):
    row = next(row for row in rows(written_set) if row["family"] == "synthesized")
    text, identical = trace(written_set, row["id"], str(corpus))
    assert identical and "written by fake; what it wrote is looked up" in text and "with another's" in text
    start = row["completion"][0]["content"][:20]
    assert start in text.split("┌ source")[1].split("┌ user")[0]
    shutil.copytree(written_set, tmp_path / "set")
    (tmp_path / "set" / FILE).unlink()
    text, identical = trace(tmp_path / "set", row["id"], str(corpus))
    assert not identical and "synthesis.jsonl does not hold it" in text and "unwritten rejects it" in text


def test_a_model_never_sees_what_the_privacy_gate_masks(tmp_path):
    folder, mail = tmp_path / "docs", "jane.roe@" + "harbourmail.org"
    folder.mkdir()
    for number in range(3):
        (folder / f"harbour{number}.md").write_text(
            f"# Harbour {number}\n\nQuestions about northern harbours go to {mail} before the month ends. The letters "
            "of the northern captains are kept in an archive that nobody may enter without a lamp. Every letter of the "
            f"archive was copied by hand before the harbour was built. Copy {number * 37} of it.\n"
        )
    fake = Fake()
    made(folder, tmp_path / "set", fake, gates=("empty", "privacy"))
    assert "<EMAIL>" in json.dumps(fake.seen) and mail not in json.dumps(fake.seen)


@pytest.mark.parametrize(
    ("text", "tidied"),
    [
        ("Explain it.", "Explain it."),
        ('\n\n "What is a lamp?"\nIt is …', "What is a lamp?"),
        ("Request: What is a lamp?", "What is a lamp?"),
        ("  \n", ""),
        ('"', '"'),
    ],
)
def test_one_line_is_kept_of_what_a_model_says(text, tidied):
    assert tidy(text) == tidied


class Handler(BaseHTTPRequestHandler):
    """Answers as the path says: /v1 as OpenAI does, /500 with that status, /slow too late, /junk no completion."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((dict(self.headers), body))
        kind = self.path.split("/")[1]
        status = 401 if kind == "v1" and self.headers["Authorization"] != f"Bearer {KEY}" else 200
        status = int(kind) if kind.isdigit() else status
        if kind == "slow":
            time.sleep(1.0)
        choice = {"message": {"content": "Explain the lamp.\nAnd"}, "finish_reason": "length"}
        reply = json.dumps(
            {} if kind == "junk" else {"choices": [choice]} if status == 200 else {"error": KEY}
        ).encode()
        self.send_response(status)
        if status == 302:
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/v1/chat/completions")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def endpoint(server: HTTPServer, kind: str = "v1") -> synthesis.Endpoint:
    return synthesis.Endpoint(f"http://127.0.0.1:{server.server_port}/{kind}", "big-model", Fake("judge"))


def test_a_server_is_asked_greedily_with_the_key_of_the_environment(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    writer = endpoint(server)
    assert writer.write(["One?", "Two?"]) == ["Explain the lamp."] * 2  # the line that was cut off is not kept
    (headers, body), (_, other) = server.asked
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("big-model", 0, synthesis.NEW_TOKENS)
    assert body["messages"] == [{"role": "user", "content": "One?"}] and body["seed"] != other["seed"]
    assert KEY not in json.dumps(writer.identity) and "127.0.0.1" not in json.dumps(writer.identity)


@pytest.mark.parametrize(
    ("kind", "key", "part"),
    [
        ("v1", "wrong", "answered 401 Unauthorized; check OPENAI_API_KEY"),
        ("500", KEY, "answered 500 Internal Server Error"),
        ("302", KEY, "answered 302 Found"),
        ("slow", KEY, "gave no answer in 0.2 s"),
        ("junk", KEY, "did not answer as chat completions do"),
    ],
)
def test_a_server_that_fails_is_one_line_without_the_key(server, monkeypatch, kind, key, part):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    monkeypatch.setattr(synthesis, "TIMEOUT", 0.2 if kind == "slow" else 10.0)
    with pytest.raises(UserError) as caught:
        endpoint(server, kind).write(["One?"])
    message = str(caught.value)
    assert part in message and key not in message and "\n" not in message and len(server.asked) == 1


def test_no_server_is_one_line(server):
    with pytest.raises(UserError, match="cannot be reached"):
        synthesis.Endpoint("http://127.0.0.1:9", "big-model", Fake()).write(["One?"])


def test_a_build_with_a_server_and_one_with_a_folder(corpus, tiny_model, server, tmp_path, monkeypatch):
    """The tiny model stands in for the embedded one that judges what a server wrote."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(synthesis, "EMBEDDED", str(tiny_model))
    address = f"http://127.0.0.1:{server.server_port}/v1#big-model"
    options = {"families": ("synthesized", "title"), "synthesize_rows": 5}
    config = BuildConfig(corpus=str(corpus), synthesize=address, **options)
    build(config, tmp_path / "served", 1, lambda folder: None, synthesizer=synthesis.load_writer(address))
    assert {entry.text for entry in read_written(tmp_path / "served") if entry.family == "synthesized"} == {
        "Explain the lamp."
    }
    flags = ("--families", "synthesized,title", "--synthesize", str(tiny_model), "--synthesize-rows", "5")
    for name in ("one", "two"):
        done = cli("build", "--corpus", str(corpus), "--output", str(tmp_path / name), *flags)
        assert done.returncode == 0, done.stderr
    assert content(tmp_path / "one") == content(tmp_path / "two")
    for name, model in (("served", "big-model"), ("one", tiny_model.name)):
        manifest = read_manifest(tmp_path / name)
        assert manifest["synthesis"]["model"] == model == manifest["config"]["synthesize"]
        assert manifest["synthesis"]["spans"]["tried"] == 5
        assert len(manifest["synthesis"].get("weights") or manifest["synthesis"]["judge"]["weights"]) == 64
        texts = [path.read_text() for path in (tmp_path / name).iterdir() if path.is_file() and path.stem != "lineage"]
        assert not any(KEY in text or str(tiny_model) in text or "127.0.0.1" in text for text in texts)
    assert "weights" in json.loads((tmp_path / "one" / "lineage.json").read_text())["inputs"]["synthesis"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--synthesize", "./nowhere"], ["model './nowhere'", "no such folder"]),
        (["--synthesize", "http://127.0.0.1:9/v1"], ["--synthesize", "http(s)://host:port/v1#model-name"]),
        (["--synthesize", "http://user:secret@127.0.0.1/v1#m"], ["--synthesize", "OPENAI_API_KEY"]),
        (["--families", "synthesized"], ["'synthesized' needs a model", "--synthesize"]),
        (["--synthesize-rows", "0"], ["synthesize_rows", "1 or more"]),
    ],
)
def test_mistakes_are_one_line(corpus, tmp_path, arguments, parts):
    done = cli("build", "--corpus", str(corpus), "--output", str(tmp_path / "set"), *arguments)
    assert_one_line_error(done, *parts)
    assert "secret" not in done.stderr and not list(tmp_path.iterdir())
