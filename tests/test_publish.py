"""Publishing, on a Hub of our own: what goes out and what never does, every refusal, and the way back."""

import hashlib
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import ROOT, assert_one_line_error, cli, recipe
from loopback_hub import CUT, HOLD, LOST, LoopbackHub
from safetensors.numpy import save, save_file

from instructrec.core.files import fingerprint, write_json
from instructrec.core.licences import hub_licences, may_publish, read_terms
from instructrec.core.schema import INSTRUCTION, read_manifest, read_split
from instructrec.lineage import read_lineage, weights_sha256
from instructrec.outgoing import portable
from instructrec.secret_scan import EVERYTHING, scan

SECRET = "hf_" + "Qx7Lr2Vn9Tb4Kd8Wm3Zp6Hs1Jc5Yg0FaUe"
BASE = "ada/tiny"
BASE_WEIGHTS = b"the weights of a base model" * 40
MARK = "a-mark-that-must-stay-here"


@pytest.fixture
def hub():
    server = LoopbackHub()
    server.add(
        BASE, {"config.json": b"{}", "model.safetensors": BASE_WEIGHTS, "README.md": b"---\nlicense: mit\n---\n"}
    )
    yield server
    server.shutdown()
    server.server_close()


def lineage_of(folder: Path) -> dict:
    """A lineage as recipes/sft.py writes it, of the weights in `folder`."""
    families = {"title": {"group": "headline", "rows": 30, "languages": {"en": 30}}}
    described = {
        "corpus": {"name": "notes", "documents": 12, "bytes": 34_567},
        "splits": {"train": 30, "validation": 0, "test_documents": 0, "test_templates": 0, "test_tasks": 0},
        "families": families,
        "held_out": {"families": ["summary"], "templates": 3, "documents": 2},
        "licences": {"CC-BY-4.0": 30},
        "privacy": True,
        "written_by": None,
    }
    build = {"stage": "build", "inputs": {"inventory": "1" * 64, "output": "2" * 64, "set": described}}
    return {
        "stage": "sft",
        "command": ["sft.py", "--dataset_name", "/home/jane/set", "--output_dir=/home/jane/out/adapter"],
        "config": {"dtype": "float32", "learning_rate": 5e-4, "output_dir": "/home/jane/out/adapter"},
        "versions": {"python": "3.11.7", "trl": "1.16.0"},
        "seed": 0,
        "inputs": {
            "model": {
                "name": BASE,
                "revision": "main",
                "sha256": {"model.safetensors": hashlib.sha256(BASE_WEIGHTS).hexdigest()},
            },
            "dataset": {"name": "/home/jane/set", "fingerprint": "2" * 64, "lineage": build},
            "output": weights_sha256(folder),
        },
        "parent": None,
        "training": {"tokens": 1949, "steps": 4, "rows": 30, "loss": 1.12, "processes": 1, "trainable_parameters": 64},
        "started": "2026-11-22T19:07:33+00:00",
        "seconds": 28.6,
        "hardware": {"accelerators": [], "cpus": 2, "machine": "x86_64"},
    }


def write_weights(folder: Path, seed: int) -> None:
    drawn = np.random.default_rng(seed).standard_normal((64, 64)).astype(np.float32)
    save_file({"base_model.model.q_proj.lora_A.weight": drawn}, folder / "adapter_model.safetensors")


@pytest.fixture
def adapter(tmp_path):
    """A folder as a recipe leaves it and as a careless trainer fills it, with weights that nobody loads."""
    folder = tmp_path / "out" / "adapter"
    (folder / "ref").mkdir(parents=True)
    write_weights(folder, 0)
    config = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": ["q_proj"]}
    config |= {"base_model_name_or_path": BASE, "revision": None, "task_type": "CAUSAL_LM"}
    write_json(folder / "adapter_config.json", config)
    write_json(folder / "tokenizer_config.json", {"eos_token": "<|im_end|>", "name_or_path": "/home/jane/models/tiny"})
    write_json(folder / "tokenizer.json", {"model": {"vocab": {"at": 0, "example": 1, ".com": 2, "5550100": 3}}})
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    write_json(folder / "lineage.json", lineage_of(folder))
    write_json(folder / "run.json", {"output_dir": "/home/jane/out/adapter"})
    for name in ("optimizer.pt", "training_args.bin", "ref/adapter_model.safetensors", "README.md"):
        (folder / name).write_bytes(b"\x80\x02" + MARK.encode() + bytes(64))
    checkpoint = folder / "checkpoint-2"
    checkpoint.mkdir()
    write_weights(checkpoint, 1)
    shutil.copy(folder / "adapter_config.json", checkpoint)
    write_json(checkpoint / "trainer_state.json", {"global_step": 2, "num_input_tokens_seen": 777})
    (checkpoint / "optimizer.pt").write_bytes(b"\x80\x02" + MARK.encode() + bytes(64))
    return folder


GOES_OUT = {
    *("adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    *("chat_template.jinja", "README.md", "lineage.json"),
}


def publish(hub: LoopbackHub, folder: Path, *flags: str, token: str | None = "hf_writer", name: str = "ada/tuned"):
    environment = hub.environment(folder.parent / "hf", token)
    return cli("publish", str(folder), "--repo", name, *flags, **environment)


def publish_dry(folder: Path, **environment: str):
    """A dry run that writes the card into a new folder beside the adapter's."""
    flags = ["--repo", "ada/tuned", "--dry-run", "--card", str(folder.parent / "cards" / "card.md")]
    return cli("publish", str(folder), *flags, **environment)


def published(hub: LoopbackHub, name: str = "ada/tuned", kind: str = "model", branch: str = "main") -> dict[str, bytes]:
    repo = hub.repos[kind, name]
    return {path: data for path, data in repo.commits[repo.branches[branch]].items() if path != ".gitattributes"}


class TestWhatGoesOut:
    def test_a_dry_run_lists_every_file_with_its_size_and_asks_nobody(self, adapter):
        done = publish_dry(adapter, HF_ENDPOINT="http://127.0.0.1:9")
        assert done.returncode == 0, done.stderr
        assert (adapter.parent / "cards" / "card.md").read_text().startswith("---\n")
        sizes = {name: int(n.replace(",", "")) for n, name in re.findall(r"^ *([\d,]+)  (\S+)$", done.stdout, re.M)}
        assert sizes.keys() == GOES_OUT
        for name in ("adapter_model.safetensors", "tokenizer.json", "chat_template.jinja"):
            assert sizes[name] == (adapter / name).stat().st_size
        assert "stays here" in done.stdout and "training_args.bin" in done.stdout and "nothing was sent" in done.stdout

    def test_only_what_is_on_the_list_is_sent(self, hub, adapter):
        done = publish(hub, adapter, "--files-only")
        assert done.returncode == 0, done.stderr
        assert "every byte is the same" in done.stdout
        there = published(hub)
        assert there.keys() == GOES_OUT
        assert there["adapter_model.safetensors"] == (adapter / "adapter_model.safetensors").read_bytes()
        assert MARK.encode() not in hub.received and b"/home/jane" not in hub.received
        config = json.loads(there["adapter_config.json"])
        base = hub.repos["model", BASE].branches["main"]
        assert (config["base_model_name_or_path"], config["revision"], config["r"]) == (BASE, base, 16)
        lineage = json.loads(there["lineage.json"])
        assert lineage["command"] == ["sft.py", "--dataset_name", "set", "--output_dir=adapter"]
        assert lineage["inputs"]["output"] == weights_sha256(adapter)

    def test_the_clients_own_login_will_do(self, hub, adapter):
        home = adapter.parent / "hf"
        home.mkdir()
        (home / "token").write_text("hf_writer")
        assert publish(hub, adapter, "--files-only", token=None).returncode == 0
        assert published(hub).keys() == GOES_OUT

    def test_the_next_publication_takes_the_place_of_the_last(self, hub, adapter):
        assert publish(hub, adapter, "--files-only").returncode == 0
        repo = hub.repos["model", "ada/tuned"]
        files = repo.commits[repo.branches["main"]]
        repo.commit("main", {**files, "evaluation/ladder.png": b"old", "merges.txt": b"old", "NOTES.md": b"mine"})
        assert publish(hub, adapter, "--files-only").returncode == 0
        assert published(hub).keys() == GOES_OUT | {"NOTES.md"}

    def test_checkpoints_are_branches_with_their_own_weights_and_card(self, hub, adapter):
        done = publish(hub, adapter, "--files-only", "--checkpoints")
        assert done.returncode == 0, done.stderr
        there = published(hub, branch="checkpoint-2")
        assert there.keys() == GOES_OUT
        assert there["adapter_model.safetensors"] == (adapter / "checkpoint-2/adapter_model.safetensors").read_bytes()
        lineage = json.loads(there["lineage.json"])
        assert lineage["training"]["steps"] == 2 and lineage["training"]["tokens"] == 777
        assert lineage["inputs"]["output"] == weights_sha256(adapter / "checkpoint-2")
        assert "checkpoint after 2 steps" in there["README.md"].decode()
        assert published(hub)["adapter_model.safetensors"] == (adapter / "adapter_model.safetensors").read_bytes()

    def test_a_private_repository_is_for_its_owner(self, hub, adapter):
        done = publish(hub, adapter, "--files-only", "--private")
        assert done.returncode == 0 and "(private" in done.stdout
        assert hub.repos["model", "ada/tuned"].private
        home = adapter.parent / "elsewhere"
        for token in ("hf_other", None):
            done = cli("base-model", "ada/tuned", **hub.environment(home, token))
            assert done.returncode == 2

    def test_a_published_set_is_named_in_the_card_if_it_is_the_right_one(self, hub, adapter):
        manifest = dict.fromkeys(("corpus", "splits", "families", "held_out", "config", "versions", "seed"))
        for name, hexadecimal in (("right", "2"), ("wrong", "3")):
            text = json.dumps(manifest | {"fingerprint": hexadecimal * 64})
            hub.add(f"ada/{name}", {"manifest.json": text.encode()}, "dataset")
        done = publish(hub, adapter, "--files-only", "--trained-on", "ada/wrong")
        assert_one_line_error(done, "--trained-on ada/wrong", "333333333333")
        assert publish(hub, adapter, "--files-only", "--trained-on", "ada/right").returncode == 0
        assert front_matter(published(hub)["README.md"])["datasets"] == ["ada/right"]


def plant(adapter: Path, place: str) -> str:
    """Put a secret into the folder; return the name that the refusal must tell."""
    path = adapter / place
    if place == "training_args.bin":  # as torch saves it: a pickle in a zip that is not compressed
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({"output_dir": "out", "hub_token": SECRET}))
    elif place == "optimizer.pt":
        path.write_bytes(bytes(9_000_000) + SECRET.encode() + bytes(9_000_000))
    elif place == "lineage.json":  # what the card is made from
        lineage = json.loads(path.read_text())
        lineage["config"]["run_name"] = f"tuned with {SECRET}"
        write_json(path, lineage)
    else:
        path.write_text(f"first line\nsee {SECRET}\n")
    return place


class TestSecrets:
    @pytest.mark.parametrize(
        "place", ["notes.txt", "training_args.bin", "lineage.json", "chat_template.jinja", "optimizer.pt"]
    )
    def test_a_secret_anywhere_in_the_folder_stops_it(self, hub, adapter, place):
        named = plant(adapter, place)
        for flags in ([], ["--dry-run"]):
            done = publish(hub, adapter, *flags)
            assert_one_line_error(done, named, "a secret", "void")
            assert SECRET not in done.stdout + done.stderr
        assert SECRET.encode() not in hub.received and ("model", "ada/tuned") not in hub.repos

    def test_the_token_in_use_is_a_secret_whatever_it_looks_like(self, hub, adapter):
        hub.tokens["plainword"] = ("ada", "write")
        (adapter / "run.json").write_text('{"note": "plainword"}')
        assert_one_line_error(publish(hub, adapter, token="plainword"), "run.json", "key note", "a secret")
        assert b"plainword" not in hub.received
        done = publish(hub, adapter, "--dry-run", token="plainword")
        assert_one_line_error(done, "run.json", "key note", "a secret")

    def test_a_secret_in_the_name_of_a_file_stops_it_and_is_not_repeated(self, hub, adapter):
        (adapter / "additional_chat_templates").mkdir()
        (adapter / "additional_chat_templates" / f"{SECRET}.jinja").write_text("{{ messages }}")
        done = publish(hub, adapter, "--dry-run")
        assert_one_line_error(done, "additional_chat_templates", "name of a file", "a secret")
        assert SECRET not in done.stdout + done.stderr

    @pytest.mark.parametrize(
        ("key", "value", "kind"),
        [
            ("run_name", "by jane.roe@example.org", "an e-mail address"),
            ("note", "call +44 20 7946 0958", "a phone number"),
        ],
    )
    def test_personal_data_in_the_cards_source_stops_it(self, hub, adapter, key, value, kind):
        lineage = json.loads((adapter / "lineage.json").read_text())
        lineage["config"][key] = value
        write_json(adapter / "lineage.json", lineage)
        done = publish(hub, adapter)
        assert_one_line_error(done, "lineage.json", f"config.{key}", kind)
        assert value not in done.stderr and ("model", "ada/tuned") not in hub.repos

    def test_places_on_this_machine_are_no_ones_business(self):
        assert portable(
            {"/home/jane/a": ["--x=/home/jane/b", "~/c/d", "../../e", r"C:\jane\f", "g/h", "a=/i", "/"]}
        ) == {"a": ["--x=b", "d", "e", "f", "g/h", "a=/i", "/"]}
        assert portable("{name: /home/jane/set, from: file:///Users/jane/b}") == "{name: set, from: file://b}"
        assert portable("https://example.org/home/page") == "https://example.org/home/page"


def with_metadata(key: str, text: str) -> bytes:
    """A safetensors file whose metadata hold a text."""
    return save({"w": np.zeros(2)}, metadata={key: text})


def parquet_of(columns: dict, **metadata: str) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), buffer)
    return buffer.getvalue()


ADDRESS = "jane.roe@example.org"
PRIVATE_KEY = "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n" * 4 + "-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        ("notes.txt", f"see {SECRET}".encode("utf-16"), "line 1: a secret"),
        ("merges.txt", f"ca fé\n{ADDRESS}".encode("latin-1"), "line 2: an e-mail address"),
        ("config.json", f'{{"a": "{SECRET}", "a": "later"}}'.encode(), "key a: a secret"),
        ("training_args.bin", pickle.dumps({"key": PRIVATE_KEY, "n": bytes(9)}), "a secret"),
        ("state.bin", b"\x00\x01brief-one\x00", "byte 2: a secret"),
        ("w.safetensors", with_metadata("author", ADDRESS), "key __metadata__.author: an e-mail address"),
        ("w.safetensors", with_metadata("run", SECRET), "a secret"),
        ("rows.parquet", parquet_of({"id": ["1"]}, note=SECRET), "metadata note: a secret"),
        ("rows.parquet", parquet_of({"id": ["1"], "picture": [b"\x89\x00" + SECRET.encode()]}), "row 1: a secret"),
        ("half.parquet", f"PAR1\x00\x00{SECRET}".encode(), "a secret"),
    ],
)
def test_where_a_secret_can_hide(name, data, found):
    leaks = [str(leak) for leak in scan(name, data, EVERYTHING, ["brief-one"])]
    assert any(leak.startswith(name) and leak.endswith(found) for leak in leaks), leaks
    assert not any(hidden in leak for leak in leaks for hidden in (SECRET, ADDRESS, "brief-one"))


@pytest.mark.parametrize("key", ["j.roe@example.org", "+44 20 7946 0958"])
def test_a_finding_is_not_told_as_its_own_place(key):
    (leak,) = scan("a.json", json.dumps({"run": {key: "x"}}).encode(), EVERYTHING)
    assert leak.place == "key run"


def test_weights_and_a_vocabulary_are_no_secrets():
    drawn = np.random.default_rng(0).standard_normal(300_000).astype(np.float16)
    assert not list(scan("w.safetensors", save({"w": drawn}, metadata={"format": "pt"}), EVERYTHING))
    vocabulary = {"model": {"vocab": {"jane": 0, ".roe": 1, "@": 2, "example": 3, ".org": 4, "hf_": 5}}}
    assert not list(scan("tokenizer.json", json.dumps(vocabulary).encode(), EVERYTHING))


class TestRefusals:
    @pytest.mark.parametrize(
        ("token", "name", "parts"),
        [
            ("hf_nobody", "ada/tuned", ["401", "hf auth login", "HF_TOKEN"]),
            ("hf_reader", "ada/tuned", ["may only read", "HF_TOKEN"]),
            ("hf_writer", "bob/tuned", ["bob/tuned", "403"]),
            ("", "ada/tuned", ["no token", "hf auth login"]),
            ("hf_wr…", "ada/tuned", ["characters that no token has"]),
        ],
    )
    def test_without_the_right_to_write(self, hub, adapter, token, name, parts):
        done = publish(hub, adapter, token=token, name=name)
        assert_one_line_error(done, *parts)
        assert not token or token not in done.stderr

    @pytest.mark.parametrize("name", ["tuned", "ada/tu ned", "a/b/c", "ada/x--y"])
    def test_a_name_that_is_none(self, hub, adapter, name):
        assert_one_line_error(publish(hub, adapter, "--dry-run", name=name), "--repo", "USER/NAME")

    def test_a_name_of_another_kind(self, hub, adapter):
        hub.add("ada/tuned", {"manifest.json": b"{}"}, "dataset")
        assert_one_line_error(publish(hub, adapter), "ada/tuned", "409", "not by a model")

    def test_private_is_not_promised_of_a_public_repository(self, hub, adapter):
        hub.add("ada/tuned", {".gitattributes": b""})
        assert_one_line_error(publish(hub, adapter, "--private"), "--private", "public")
        assert published(hub) == {}

    def test_a_base_with_other_weights(self, hub, adapter):
        hub.add("ada/other", {"model.safetensors": b"others"})
        done = publish(hub, adapter, "--base", "ada/other")
        assert_one_line_error(done, "base ada/other", "model.safetensors", hashlib.sha256(b"others").hexdigest()[:12])
        assert_one_line_error(publish(hub, adapter, "--base", "ada/none"), "ada/none", "404")

    def test_a_revision_of_the_base_that_has_the_weights(self, hub, adapter):
        base = hub.repos["model", BASE]
        then = base.branches["main"]
        base.commit("main", {"model.safetensors": b"newer"})
        assert_one_line_error(publish(hub, adapter, "--files-only"), BASE, "@REVISION")
        assert publish(hub, adapter, "--files-only", "--base", f"{BASE}@{then}").returncode == 0
        assert json.loads(published(hub)["adapter_config.json"])["revision"] == then

    def test_a_base_that_readers_do_not_have(self, hub, adapter):
        config = json.loads((adapter / "adapter_config.json").read_text())
        write_json(adapter / "adapter_config.json", config | {"base_model_name_or_path": "/home/jane/models/tiny"})
        assert_one_line_error(publish(hub, adapter), "readers do not have", "--base OWNER/NAME")
        assert publish(hub, adapter, "--files-only", "--base", BASE).returncode == 0
        assert b"/home/jane" not in hub.received

    def test_a_lineage_of_other_weights_or_none(self, hub, adapter):
        write_weights(adapter, 5)
        assert_one_line_error(publish(hub, adapter, "--dry-run"), "its weights are not those")
        (adapter / "lineage.json").unlink()
        assert_one_line_error(publish(hub, adapter, "--dry-run"), "no lineage.json")

    @pytest.mark.parametrize(
        ("place", "text"),
        [
            ("tokenizer_config.json", "{"),
            ("adapter_config.json", "[]"),
            ("lineage.json", "[]"),
            ("lineage.json", '{"stage": "sft"}'),
        ],
    )
    def test_a_damaged_file(self, hub, adapter, place, text):
        (adapter / place).write_text(text)
        assert_one_line_error(publish(hub, adapter, "--dry-run"), place, str(adapter))

    def test_an_adapter_without_its_tokenizer(self, hub, adapter):
        (adapter / "tokenizer_config.json").unlink()
        assert_one_line_error(publish(hub, adapter, "--dry-run"), "no tokenizer_config.json", "chat template")

    def test_a_damaged_checkpoint(self, hub, adapter):
        (adapter / "checkpoint-2" / "trainer_state.json").write_text('{"global_')
        assert_one_line_error(publish(hub, adapter, "--dry-run", "--checkpoints"), "trainer_state.json", "JSON")

    def test_names_of_others_are_checked_without_a_network(self, hub, adapter):
        assert_one_line_error(publish(hub, adapter, "--dry-run", "--base", "a/b c"), "--base 'a/b c'")
        assert_one_line_error(publish(hub, adapter, "--dry-run", "--trained-on", "mine"), "--trained-on 'mine'")

    def test_a_whole_model(self, hub, tmp_path):
        (tmp_path / "config.json").write_text("{}")
        assert_one_line_error(publish(hub, tmp_path, "--dry-run"), "whole model", "adapters")

    def test_flags_of_the_other_kind(self, hub, adapter):
        assert_one_line_error(publish(hub, adapter, "--dataset", "--checkpoints"), "--checkpoints", "not a set")
        assert_one_line_error(publish(hub, adapter, "--licences", "x.yaml"), "--licences", "--dataset")


class TestABadNetwork:
    def test_nobody_there(self, hub, adapter):
        environment = hub.environment(adapter.parent / "hf") | {"HF_ENDPOINT": "http://127.0.0.1:9"}
        done = cli("publish", str(adapter), "--repo", "ada/tuned", **environment)
        assert_one_line_error(done, "cannot be reached", "HF_ENDPOINT")
        offline = environment | {"HF_HUB_OFFLINE": "1"}
        assert_one_line_error(cli("publish", str(adapter), "--repo", "ada/tuned", **offline), "HF_HUB_OFFLINE")

    def test_failures_that_pass_are_outlived(self, hub, adapter):
        hub.faults = [
            *(("POST", "/api/repos/create", 500), ("PUT", "/lfs/", 503), ("POST", "/commit/", 500)),
            *(("GET", "/tree/", 502), ("PUT", "/lfs/", CUT), ("GET", "adapter_model.safetensors", CUT)),
        ]
        done = publish(hub, adapter, "--files-only")
        assert done.returncode == 0, done.stderr
        assert not hub.faults and "every byte is the same" in done.stdout
        assert published(hub).keys() == GOES_OUT
        assert published(hub)["adapter_model.safetensors"] == (adapter / "adapter_model.safetensors").read_bytes()

    def test_a_commit_whose_answer_was_lost_is_no_failure(self, hub, adapter):
        hub.add("ada/tuned", {"evaluation/ladder.png": b"of an earlier publication"})
        hub.faults = [("POST", "/commit/", LOST)]
        done = publish(hub, adapter, "--files-only")
        assert done.returncode == 0, done.stderr
        assert not hub.faults and published(hub).keys() == GOES_OUT

    def test_a_hub_that_falls_silent_is_not_waited_for_for_ever(self, hub, adapter):
        hub.faults = [("PUT", "/lfs/", HOLD), ("GET", "/api/models/ada/tuned", HOLD), ("POST", "/commit/", HOLD)]
        flags = ["publish", str(adapter), "--repo", "ada/tuned", "--files-only"]
        impatient = (
            f"import instructrec.hub, instructrec.cli as c, sys; instructrec.hub.PATIENCE = 1; sys.argv[1:] = {flags}"
        )
        done = subprocess.run(
            [sys.executable, "-c", f"{impatient}; c.main()"],
            capture_output=True,
            text=True,
            env=os.environ | hub.environment(adapter.parent / "hf"),
            timeout=120,
        )
        hub.released.set()
        assert done.returncode == 0, done.stderr
        assert not hub.faults and published(hub).keys() == GOES_OUT

    def test_killed_and_called_again_it_goes_on(self, hub, adapter):
        """Killed when the weights have arrived and the commit has not: they are not sent again."""
        hub.faults = [("POST", "/commit/", HOLD)]
        command = [sys.executable, "-m", "instructrec", "publish", str(adapter), "--repo", "ada/tuned", "--files-only"]
        environment = os.environ | hub.environment(adapter.parent / "hf")
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while hub.faults and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
        process.wait()
        hub.released.set()
        assert not hub.faults and published(hub) == {}
        assert publish(hub, adapter, "--files-only").returncode == 0
        assert published(hub).keys() == GOES_OUT
        assert len([line for line in hub.asked if line.startswith("PUT")]) == 1

    def test_other_bytes_than_were_sent_are_found(self, hub, adapter):
        assert publish(hub, adapter, "--files-only").returncode == 0
        repo = hub.repos["model", "ada/tuned"]
        stored = repo.commits[repo.branches["main"]]
        stored["tokenizer.json"] = stored["tokenizer.json"].replace(b"example", b"exampel")
        from instructrec.core.errors import UserError
        from instructrec.hub import Hub

        class Same(Hub):  # the same comparison, on files that are there already
            def __init__(self) -> None:
                self.repo, self.kind = "ada/tuned", "model"

            address = "the Hub"

            def download(self, revision, paths, into):
                into.mkdir()
                for path in paths:
                    (into / path).write_bytes(stored[path])

        with pytest.raises(UserError, match=r"tokenizer\.json was downloaded again and differs"):
            Same().read_back("main", {"tokenizer.json": adapter / "tokenizer.json"}, adapter.parent / "back")


def front_matter(card: bytes) -> dict:
    return yaml.safe_load(card.decode().split("---\n")[1])


class TestTheCard:
    def test_says_what_the_lineage_knows(self, hub, adapter):
        assert publish(hub, adapter, "--files-only").returncode == 0
        card = published(hub)["README.md"]
        front = front_matter(card)
        assert front["library_name"] == "peft" and front["base_model_relation"] == "adapter"
        assert front["base_model"] == BASE and front["license"] == "mit" and front["language"] == ["en"]
        assert front["pipeline_tag"] == "text-generation" and "sft" in front["tags"]
        text = card.decode()
        for part in (
            *("| title | headline | 30 | en |", "| CC-BY-4.0 | 30 |", "| `learning_rate` | 0.0005 |", "rank 16"),
            *("1,949 tokens", "12 documents", "the families summary", "without an evaluation", "What it cannot do"),
            *(hashlib.sha256(BASE_WEIGHTS).hexdigest(), "trl 1.16.0", "| sft | 2026-11-22T19:07:33+00:00 | 4 |"),
        ):
            assert part in text, part
        assert "{{" not in text and "{%" not in text.replace("{% for m", "") and "\n\n\n" not in text

    def test_tells_what_was_merged_and_what_was_mixed(self, adapter):
        """An adapter on a base into which two adapters were merged, the second of them trained on a mixture."""
        last = json.loads((adapter / "lineage.json").read_text())
        first, second = (last | {"started": f"2026-11-2{day}T00:00:00+00:00"} for day in (0, 1))
        text = {"name": "/home/jane/notes", "kind": "raw text", "fingerprint": "7" * 64}
        second["inputs"] = {**last["inputs"], "dataset": None, "mixture": [text, last["inputs"]["dataset"]]}
        merged = last | {"stage": "merge", "training": None, "parent": second, "started": "2026-11-21T12:00:00+00:00"}
        merged["inputs"] = {
            "model": last["inputs"]["model"],
            "adapters": [{"name": "/home/jane/a", "sha256": {}, "lineage": one} for one in (first, second)],
            "output": {"model.safetensors": "5" * 64},
        }
        config = json.loads((adapter / "adapter_config.json").read_text())
        config |= {"target_parameters": ["mlp.experts.down_proj"], "modules_to_save": ["embed_tokens"]}
        write_json(adapter / "adapter_config.json", config)
        write_json(
            adapter / "lineage.json", last | {"parent": merged, "command": ["sft.py", "--run_name", "two words"]}
        )
        done = publish_dry(adapter)
        assert done.returncode == 0, done.stderr
        card = (adapter.parent / "cards" / "card.md").read_text()
        rows = re.findall(r"^\| (sft|merge) \| (\S+)T", card, re.MULTILINE)
        assert rows == [("sft", "2026-11-20"), ("sft", "2026-11-21"), ("merge", "2026-11-21"), ("sft", "2026-11-22")]
        assert "- **notes** (sft), fingerprint `7777777777777777777…`" in card and "/home/jane" not in card
        assert "sft.py --run_name 'two words'" in card and "on down_proj, q_proj, with all of embed_tokens" in card

    def test_its_licence_can_be_chosen(self, hub, adapter):
        assert publish(hub, adapter, "--files-only", "--licence", "apache-2.0").returncode == 0
        assert front_matter(published(hub)["README.md"])["license"] == "apache-2.0"
        done = publish(hub, adapter, "--files-only", "--licence", "my-own")
        assert_one_line_error(done, "license my-own")

    def test_an_evaluation_of_other_weights_is_not_its_own(self, hub, adapter):
        other = adapter.parent / "eval"
        other.mkdir()
        inputs = {"model": {"sha256": {}}, "adapters": {"x": {"sha256": {"adapter_model.safetensors": "0" * 64}}}}
        write_json(other / "lineage.json", {"stage": "evaluate", "inputs": inputs, "config": {}})
        done = publish(hub, adapter, "--dry-run")
        assert done.returncode == 0 and "evaluation/" not in done.stdout
        done = publish(hub, adapter, "--dry-run", "--evaluation", str(other))
        assert_one_line_error(done, "--evaluation", "other weights", "recipes/evaluate.py")
        done = publish(hub, adapter, "--dry-run", "--evaluation", str(adapter))
        assert_one_line_error(done, "--evaluation", "no evaluation")


TRAIN_ON = """
import sys, time
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from instructrec.lineage import read_lineage, weights_sha256, write_lineage

repo, output = sys.argv[1], Path(sys.argv[2])
folder = Path(snapshot_download(repo))
lineage = read_lineage(folder)
named = lineage["inputs"]["model"]
base = AutoModelForCausalLM.from_pretrained(named["name"], revision=named["revision"], dtype=torch.float32)
model = PeftModel.from_pretrained(base, repo, is_trainable=True)
tokenizer = AutoTokenizer.from_pretrained(repo)
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
ids = tokenizer("The lamp was lit at dusk.", return_tensors="pt")["input_ids"]
loss = model(input_ids=ids, labels=ids).loss
loss.backward()
optimizer.step()
model.save_pretrained(output)
tokenizer.save_pretrained(output)
training = {"tokens": ids.numel(), "steps": 1, "loss": float(loss)}
inputs = {"model": named, "dataset": lineage["inputs"]["dataset"], "output": weights_sha256(output)}
write_lineage(output, "sft", lineage["config"], inputs, time.time(), seed=0, parent=lineage, training=training)
"""


class TestRoundTrip:
    """A base on the Hub → trained on → scored → published → loaded by its snippet → trained on → published."""

    @pytest.fixture(scope="class")
    def hub(self, tiny_model):
        server = LoopbackHub()
        files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
        server.add(BASE, files | {"README.md": b"---\nlicense: apache-2.0\n---\n"})
        yield server
        server.shutdown()
        server.server_close()

    @pytest.fixture(scope="class")
    def adapter(self, hub, instruction_set, tmp_path_factory):
        folder = tmp_path_factory.mktemp("round") / "adapter"
        environment = hub.environment(folder.parent / "hf", None)
        flags = ["--model_name_or_path", BASE, "--dataset_name", str(instruction_set), "--output_dir", str(folder)]
        flags += ["--max_steps", "2", "--save_steps", "2", "--eval_steps", "2", "--eval_items", "4"]
        flags += ["--dtype", "float32"]
        done = recipe("sft.py", *flags, **environment)
        assert done.returncode == 0, done.stderr
        flags = ["--model_name_or_path", BASE, "--adapter", str(folder), "--suite", str(instruction_set)]
        flags += ["--output_dir", str(folder.parent / "eval"), "--max_items", "4", "--max_new_tokens", "4"]
        done = recipe("evaluate.py", *flags, **environment)
        assert done.returncode == 0, done.stderr
        return folder

    @pytest.fixture(scope="class")
    def done(self, hub, adapter):
        done = publish(hub, adapter, "--private")
        assert done.returncode == 0, done.stderr
        return done

    def test_what_comes_back_gives_the_same_logits(self, done):
        assert re.search(r"logits of 3 prompts: largest difference 0\.0$", done.stdout, re.MULTILINE), done.stdout

    def test_the_card_is_valid_and_shows_the_ladder(self, hub, adapter, done):
        from huggingface_hub import ModelCard

        there = published(hub)
        card = ModelCard(there["README.md"].decode())  # refuses a model-index that is none
        assert "POST /api/validate-yaml" in hub.asked
        results = {(one.dataset_split, one.metric_type): one for one in card.data.eval_results}
        scores = json.loads((adapter.parent / "eval" / "scores.json").read_text())
        metric = scores["suites"]["test_documents"]["metrics"]["gold_nll"]
        shown = results["test_documents", "gold_nll"]
        assert shown.metric_value == round(metric["values"][str(adapter)]["value"], 4)
        assert shown.metric_args["n"] == metric["n"]
        assert "![The generalization ladder" in card.text and "evaluation/ladder.png" in there
        assert there["evaluation/ladder.png"].startswith(b"\x89PNG")
        assert "### The generalization ladder" in card.text and "tuned" in card.text
        assert str(adapter.parent).encode() not in b"".join(there.values())
        assert json.loads(there["evaluation/scores.json"])["models"] == [BASE, "ada/tuned"]

    def test_the_lineage_can_be_read_back(self, hub, adapter, done, tmp_path):
        (tmp_path / "lineage.json").write_bytes(published(hub)["lineage.json"])
        lineage = read_lineage(tmp_path)
        assert lineage["inputs"]["output"] == weights_sha256(adapter)
        assert lineage["inputs"]["dataset"]["lineage"]["inputs"]["set"]["families"]
        assert lineage["inputs"]["model"]["name"] == BASE

    def test_the_cards_snippet_runs(self, hub, adapter, done, tmp_path):
        snippet = re.search(r"```python\n(.*?)```", published(hub)["README.md"].decode(), re.DOTALL)[1]
        environment = os.environ | hub.environment(tmp_path / "hf")
        ran = subprocess.run(
            [sys.executable, "-c", snippet], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300
        )
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.strip()

    def test_the_next_stage_starts_from_it_and_is_published_too(self, hub, adapter, done, tmp_path):
        folder = tmp_path / "next"
        environment = os.environ | hub.environment(tmp_path / "hf")
        ran = subprocess.run(
            [sys.executable, "-c", TRAIN_ON, "ada/tuned", str(folder)],
            capture_output=True,
            text=True,
            env=environment,
            timeout=300,
        )
        assert ran.returncode == 0, ran.stderr
        again = publish(hub, folder, name="ada/next")
        assert again.returncode == 0 and "largest difference 0.0" in again.stdout, again.stderr
        there = published(hub, "ada/next")
        assert there["adapter_model.safetensors"] != published(hub)["adapter_model.safetensors"]
        table = there["README.md"].decode().split("## Stages")[1].split("## Hyper")[0]
        weights = [next(iter(weights_sha256(place).values()))[:12] for place in (adapter, folder)]
        assert re.findall(r"`([0-9a-f]{12})…`", table) == weights


class TestSets:
    @pytest.fixture
    def folder(self, instruction_set, tmp_path):
        shutil.copytree(instruction_set, tmp_path / "out" / "set")
        (tmp_path / "out" / "set" / "rejected.jsonl").write_text(MARK)
        return tmp_path / "out" / "set"

    def test_rows_without_a_licence_stay(self, hub, folder):
        done = publish(hub, folder, "--dataset")
        assert_one_line_error(done, "'unknown'", "build --licence", "--licences", "train row")
        assert ("dataset", "ada/tuned") not in hub.repos

    def test_a_set_comes_back_as_it_was(self, hub, folder, tmp_path):
        table = tmp_path / "licences.yaml"
        table.write_text("unknown: true\n")
        done = publish(hub, folder, "--dataset", "--licences", str(table))
        assert done.returncode == 0, done.stderr
        there = published(hub, kind="dataset")
        back = tmp_path / "back"
        for path, data in there.items():
            (back / path).parent.mkdir(parents=True, exist_ok=True)
            (back / path).write_bytes(data)
        assert fingerprint(back, "*.parquet") == read_manifest(folder)["fingerprint"]
        assert MARK.encode() not in hub.received and "rejected.jsonl" not in there
        front = front_matter(there["README.md"])
        assert front["license"] == "other" and len(front["configs"][0]["data_files"]) == 5

    def test_a_row_with_an_address_stays(self, hub, folder, tmp_path):
        rows = list(read_split(folder, "train"))
        rows[3]["completion"][0]["content"] += " Write to jane.roe@example.org."
        for path in (folder / "train").glob("*.parquet"):
            path.unlink()
        pq.write_table(pa.Table.from_pylist(rows, INSTRUCTION), folder / "train" / "00000.parquet")
        manifest = read_manifest(folder)
        write_json(folder / "manifest.json", manifest | {"fingerprint": fingerprint(folder, "*.parquet")})
        table = tmp_path / "licences.yaml"
        table.write_text("unknown: true\n")
        done = publish(hub, folder, "--dataset", "--licences", str(table), "--dry-run")
        assert_one_line_error(done, f"row {rows[3]['id']}", "an e-mail address", "--personal-data mask")
        assert "jane.roe" not in done.stderr

    def test_a_licence_that_the_hub_does_not_know(self, hub, folder, tmp_path):
        table = tmp_path / "licences.yaml"
        table.write_text("unknown: {publish: true, hub: my-own}\n")
        done = publish(hub, folder, "--dataset", "--licences", str(table))
        assert_one_line_error(done, "license my-own", "--licences")
        assert ("dataset", "ada/tuned") not in hub.repos

    def test_a_set_without_a_card_stays(self, hub, folder, tmp_path):
        table = tmp_path / "licences.yaml"
        table.write_text("unknown: true\n")
        (folder / "README.md").unlink()
        done = publish(hub, folder, "--dataset", "--licences", str(table), "--dry-run")
        assert_one_line_error(done, "README.md", "build the set again")

    def test_a_set_that_changed_stays(self, hub, folder):
        next((folder / "train").glob("*.parquet")).unlink()
        assert_one_line_error(publish(hub, folder, "--dataset", "--dry-run"), "changed since it was built")
        assert_one_line_error(publish(hub, folder, "--dry-run"), "instruction set", "--dataset")


def test_the_docs_have_the_whole_table():
    text = (ROOT / "docs" / "publishing.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| (\S+) \| (yes|no) \| (.+) \| (\S+) \|$", text, re.MULTILINE)
    found = {name.lower(): (answer == "yes", asks, None if hub == "–" else hub) for name, answer, asks, hub in shown}
    assert found == {name: (terms.publish, terms.asks, terms.hub) for name, terms in read_terms().items()}


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        *(("MIT", True), ("cc-by-4.0", True), ("CC-BY-ND-4.0", False), ("unknown", False), ("", False)),
        *(("GPL-3.0-or-later", True), ("MIT OR CC-BY-ND-4.0", True), ("MIT AND CC-BY-ND-4.0", False)),
        *(("(MIT OR unknown) AND Apache-2.0", True), ("GPL-2.0-only WITH Classpath-exception-2.0", True)),
        *(("MIT OR", False), ("(MIT", False), ("MIT Apache-2.0", False), ("My-Own", False)),
    ],
)
def test_licences(expression, allowed):
    assert may_publish(expression, read_terms()) is allowed


def test_the_table_of_licences_can_be_extended():
    from instructrec.core.errors import UserError

    terms = read_terms({"My-Own": True, "MIT": False})
    assert may_publish("my-own", terms) and not may_publish("MIT", terms)
    assert hub_licences(["CC-BY-4.0", "MIT"], terms) == ["other"]
    assert hub_licences(["CC-BY-4.0", "Apache-2.0"], terms) == ["apache-2.0", "cc-by-4.0"]
    with pytest.raises(UserError, match=r"my\.yaml: key 'A'"):
        read_terms({"A": "yes"}, "my.yaml")
