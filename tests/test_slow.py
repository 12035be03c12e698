"""The real base model: fetched atomically, tuned for a few steps, scored. `make test-slow` runs these."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, cli, recipe
from loopback_hub import LoopbackHub

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base_model():
    """The embedded model in the user's own cache, as every recipe uses it."""
    done = cli("base-model")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_killed_download_leaves_no_half_model(tmp_path):
    cache = tmp_path / "instructrec"
    command = [sys.executable, "-m", "instructrec", "base-model"]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    for seconds in (1.0, 6.0, 14.0):
        process = subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        final = cache / "smollm2-135m-q4"
        assert not final.exists() or (final / "origin.json").exists()
    done = cli("base-model", XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= {
        path.name for path in (cache / "smollm2-135m-q4").iterdir()
    }
    assert not list(cache.glob(".smollm2-135m-q4-*"))  # what the kills left behind is swept away
    again = cli("base-model", XDG_CACHE_HOME=str(tmp_path))
    assert again.stdout == done.stdout and again.stderr == ""


def test_ray_builds_the_same_bytes(tmp_path):
    for engine in ("local", "ray"):
        done = cli("build", "--output", str(tmp_path / engine), "--engine", engine, "--workers", "2")
        assert done.returncode == 0, done.stderr
    manifests = [(tmp_path / engine / "manifest.json").read_bytes() for engine in ("local", "ray")]
    assert manifests[0] == manifests[1]
    for path in (tmp_path / "local").rglob("*.parquet"):
        assert path.read_bytes() == (tmp_path / "ray" / path.relative_to(tmp_path / "local")).read_bytes()


def test_a_build_killed_twenty_times_has_the_bytes_of_an_undisturbed_one(tmp_path):
    """Kills at moments of the whole build, each followed by a resume; one that ends before its moment starts anew."""

    def start(output: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "instructrec", "build", "--output", str(output), "--workers", "2"]
        return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def content(folder: Path) -> dict[str, bytes]:
        files = [path for path in folder.rglob("*") if path.is_file()]
        files.remove(folder / "lineage.json")  # it says when the build started and how long it took
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    started = time.monotonic()
    assert start(tmp_path / "undisturbed" / "set").wait() == 0
    duration = time.monotonic() - started
    undisturbed, output = content(tmp_path / "undisturbed" / "set"), tmp_path / "killed" / "set"
    assert sum(name.startswith("train/") for name in undisturbed) > 2  # several shards, so that some are left to do

    rng = random.Random(11)
    moments = [duration * 0.95 * (number + rng.random()) / 20 for number in range(20)]
    rng.shuffle(moments)
    resumed = 0
    while moments:
        resumed += output.with_name("set.partial").exists()
        process = start(output)
        try:
            code = process.wait(moments[-1])
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            moments.pop()
            time.sleep(0.2)  # the workers' locks go with them
            if output.exists():  # killed between the rename and its exit
                assert content(output) == undisturbed
        else:
            assert code == 0 and content(output) == undisturbed
            shutil.rmtree(output)
            moments[-1] *= 0.8  # the undisturbed build may have met a slower minute of the machine
    assert resumed >= 10
    assert start(output).wait() == 0 and content(output) == undisturbed
    assert sorted(path.name for path in output.parent.iterdir()) == ["set"]


def test_the_base_model_talks(base_model):
    done = subprocess.run(
        [sys.executable, "-m", "instructrec", "chat", "--max-new-tokens", "16"],
        input="What is the capital of France?\n",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "Paris" in done.stdout, done.stderr


def test_a_bare_launch_builds_the_set_and_trains_what_can_be_published(base_model, tmp_path):
    """`accelerate launch recipes/sft.py` without a config, in an empty folder: set and base model are its own."""
    launch = [str(Path(sys.executable).with_name("accelerate")), "launch", str(ROOT / "recipes" / "sft.py")]
    flags = ["--max_steps", "1", "--warmup_steps", "0", "--max_length", "256", "--eval_items", "4"]
    done = subprocess.run([*launch, *flags], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    quickstart = tmp_path / "outputs" / "quickstart"
    assert (quickstart / "set" / "manifest.json").exists()
    lineage = json.loads((quickstart / "adapter" / "lineage.json").read_text())
    assert lineage["training"]["steps"] == 1 and lineage["inputs"]["model"]["name"] == "smollm2-135m-q4"

    hub = LoopbackHub()
    environment = hub.environment(tmp_path / "hf")
    done = cli("publish", str(quickstart / "adapter"), "--repo", "ada/quick", **environment)
    assert done.returncode == 0 and "largest difference 0.0" in done.stdout, done.stderr
    repo = hub.repos["model", "ada/quick"]
    card = repo.commits[repo.branches["main"]]["README.md"].decode()
    snippet = card.split("```python\n")[1].split("```")[0]
    ran = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, env=os.environ | environment)
    assert ran.returncode == 0 and ran.stdout.strip(), ran.stderr


def test_a_few_steps_lower_the_nll_on_unseen_documents(base_model, tmp_path):
    """The learning check: 12 of the quickstart's 40 steps, 16 items."""
    dataset, adapter, output = (str(tmp_path / name) for name in ("set", "adapter", "eval"))
    assert cli("build", "--output", dataset).returncode == 0
    flags = ["--max_steps", "12", "--warmup_steps", "1", "--save_steps", "12", "--eval_steps", "12"]
    done = recipe("sft.py", "--dataset_name", dataset, "--output_dir", adapter, *flags)
    assert done.returncode == 0, done.stderr
    flags = ["--max_items", "16", "--max_new_tokens", "8"]
    suite = f"{dataset}/test_documents"
    done = recipe("evaluate.py", "--adapter", adapter, "--suite", suite, "--output_dir", output, *flags)
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "eval" / "scores.json").read_text())
    delta = scores["suites"]["test_documents"]["metrics"]["gold_nll"]["deltas"][adapter]
    assert delta["ci95"][1] < 0, delta


def test_the_base_model_writes_instructions(base_model, corpus, tmp_path):
    flags = ("--families", "synthesized,title", "--synthesize", "smollm2-135m-q4", "--synthesize-rows", "6")
    done = cli("build", "--corpus", str(corpus), "--output", str(tmp_path / "set"), *flags)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert manifest["synthesis"]["model"] == "smollm2-135m-q4" and manifest["synthesis"]["spans"]["tried"] == 6
    lines = [json.loads(line) for line in (tmp_path / "set" / "synthesis.jsonl").read_text().splitlines()]
    assert any(entry["instructed"] is not None for entry in lines)  # it writes something that can be judged
