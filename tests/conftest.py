"""Fixtures: a corpus of our own writing beside Python's documentation, a set built from it, and tiny chat models."""

from __future__ import annotations

import functools
import json
import os
import pydoc_data.topics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

import pytest

from instructrec.core.errors import run

ROOT = Path(__file__).parent.parent
os.environ["HF_HUB_OFFLINE"] = "1"  # no test may need the Hub
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    # Each worker its own cores: threads of small models that share cores do little but wait for each other.
    _worker, _workers = int(os.environ["PYTEST_XDIST_WORKER"][2:]), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    _cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, _cores[_worker::_workers] or {_cores[_worker % len(_cores)]})

CODE = '''"""Small tools for lists of numbers, used by the tests as a corpus of code."""


def running_total(numbers):
    """Return the list of partial sums of the numbers."""
    total, sums = 0, []
    for number in numbers:
        total += number
        sums.append(total)
    return sums


def largest_gap(numbers):
    """Return the largest difference between neighbours in sorted order."""
    ordered = sorted(numbers)
    return max(b - a for a, b in zip(ordered, ordered[1:]))


def drop_repeats(items):
    """Return the items in order, each of them only once."""
    seen = set()
    return [item for item in items if not (item in seen or seen.add(item))]


def split_evenly(items, parts):
    """Cut a list into parts whose lengths differ by one at most."""
    size, rest = divmod(len(items), parts)
    cuts = [i * size + min(i, rest) for i in range(parts + 1)]
    return [items[a:b] for a, b in zip(cuts, cuts[1:])]
'''


ENVIRONMENT = dict(os.environ)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Begin every test in the environment of the first.

    A build or a recipe that ran in this process leaves its own behind, in which no later run would be a warm one.
    """
    now = {key: value for key, value in os.environ.items() if key == "PYTEST_CURRENT_TEST"}
    os.environ.clear()
    os.environ.update(ENVIRONMENT | now)


SECONDS = 900
"""After which a command of a test is ended."""

WARM = ("plan", "publish", "merge", "init", "pairs", "rank")
"""Commands that import what recipes do."""


@functools.cache
def warm() -> tuple[subprocess.Popen[str], dict[str, str]]:
    """A process that runs recipes without importing anew, and the environment it imported in (see warm.py)."""
    command = [sys.executable, str(Path(__file__).with_name("warm.py"))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, _environment()


def _environment() -> dict[str, str]:
    """This process's, without what pytest writes into it for every test."""
    return {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"}


def ran_warm(script: Path | None, *arguments: str, cwd: Path | None) -> subprocess.CompletedProcess[str] | None:
    """What a run in the warm process gave; none if the environment is not the one it imported in."""
    process, environment = warm()
    if _environment() != environment:
        return None
    assert process.stdin and process.stdout
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        job = {
            "script": script and str(script),
            "arguments": arguments,
            "cwd": str(cwd or Path.cwd()),
            "environment": dict(os.environ),
            "stdout": str(out),
            "stderr": str(err),
            "timeout": SECONDS,
        }
        print(json.dumps(job), file=process.stdin, flush=True)
        status = int(process.stdout.readline())
        texts = [one.read_text(encoding="utf-8") if one.exists() else "" for one in (out, err)]
    return subprocess.CompletedProcess([str(script or "instructrec"), *arguments], status, *texts)


def _run(command: list[str], cwd: Path | None, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *command]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=os.environ | environment, timeout=SECONDS
    )


def cli(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `instructrec` as a user would."""
    done = ran_warm(None, *arguments, cwd=cwd) if arguments[:1] and arguments[0] in WARM and not environment else None
    return done or _run(["-m", "instructrec", *arguments], cwd, environment)


def recipe(name: str, *arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a recipe as a user would, without the launcher."""
    script = ROOT / "recipes" / name
    done = None if environment else ran_warm(script, *arguments, cwd=cwd)
    return done or _run([str(script), *arguments], cwd, environment)


def assert_one_line_error(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """A user's mistake: exit code 2, one line on stderr that names the parts, no traceback."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == 2, done.stderr + done.stdout
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    for part in parts:
        assert part in lines[0], lines[0]


def assert_refused(
    main: Callable[[], None],
    arguments: list[str],
    parts: Iterable[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A recipe's `main`, called in this process, ends as `assert_one_line_error` says."""
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as end:
        run(main)
    printed = capsys.readouterr()
    done = subprocess.CompletedProcess(arguments, cast(int, end.value.code), printed.out, printed.err)
    assert_one_line_error(done, *parts)


def write_corpus(folder: Path) -> Path:
    """Forty of Python's help topics as reStructuredText files, and six modules of code."""
    folder.mkdir(parents=True)
    for name, text in sorted(pydoc_data.topics.topics.items())[:40]:
        (folder / f"{name}.rst").write_text(text, encoding="utf-8")
    for number in range(6):
        renamed = CODE.replace("numbers", f"values{number}").replace("items", f"entries{number}")
        (folder / f"tools{number}.py").write_text(renamed, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "docs")


@pytest.fixture(scope="session")
def instruction_set(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("built") / "set"
    done = cli("build", "--corpus", str(corpus), "--output", str(output), "--workers", "1")
    assert done.returncode == 0, done.stderr
    return output


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

THINKING = (  # what SmolLM3's does: a mode that the system message names, and an empty thought where there is none
    "{%- if enable_thinking is not defined -%}{%- set enable_thinking = true -%}{%- endif -%}"
    "{%- set thought = '' if enable_thinking else '<think>\n\n</think>\n' -%}"
    "{{- '<|im_start|>system\nReasoning mode: ' + ('/think' if enable_thinking else '/no_think') + '<|im_end|>\n' -}}"
    "{%- for m in messages -%}{{- '<|im_start|>' + m['role'] + '\n' -}}"
    "{%- if m['role'] == 'assistant' -%}{{- thought -}}{%- endif -%}{{- m['content'] + '<|im_end|>\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' + thought -}}{%- endif -%}"
)


def published_template(name: str) -> str:
    """A model's own chat template, which TRL knows models by."""
    import trl

    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def tiny_model_of(instruction_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Tiny models by the name of a folder of recipes/: the architecture and the chat template of its model, two layers
    with random weights, and a tokenizer trained on the set. Any other name gives a Llama with ChatML."""
    families: dict[str, dict] = {
        "smollm3-3b": {"model_type": "smollm3", "template": THINKING},
        "qwen3-8b": {"model_type": "qwen3", "template": published_template("qwen3"), "head_dim": 12},
        "llama-3.1-8b": {"model_type": "llama", "template": published_template("llama3_1"), "end": "<|eot_id|>"},
    }

    @functools.cache
    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp("model") / "tiny"
        save_tiny_model(folder, instruction_set, **families.get(name, {"model_type": "llama", "template": CHATML}))
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_model(tiny_model_of: Callable[[str], Path]) -> Path:
    """A two-layer Llama with random weights, a tokenizer trained on the set, and a ChatML template."""
    return tiny_model_of("llama")


def save_tiny_model(
    folder: Path, instruction_set: Path, model_type: str, template: str, end: str = "<|im_end|>", **sizes: float
) -> None:
    """Save a two-layer model of an architecture, with a tokenizer and a chat template whose turns end with `end`."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    from instructrec.core.schema import read_split

    base = Tokenizer(models.BPE())
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False)
    # Large models' tokenizers take line breaks together, whatever follows: a template may end with two.
    lines = pre_tokenizers.Split(Regex("\n+"), "isolated")
    base.pre_tokenizer = pieces if template == CHATML else pre_tokenizers.Sequence([lines, pieces])
    base.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", end]
    if "<|start_header_id|>" in template:
        special = ["<|endoftext|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", end]
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    texts = [row["prompt"][0]["content"] for row in read_split(instruction_set, "train")]
    base.train_from_iterator(texts[:200], trainer)
    bos = "<|begin_of_text|>" if "<|begin_of_text|>" in special else None
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=base, bos_token=bos, eos_token=end, pad_token="<|endoftext|>")
    tokenizer.chat_template = template
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        model_type,
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        **sizes,
    )
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # tied embeddings of the default scale could never give a peaked distribution
        model.get_input_embeddings().weight.mul_(8)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def pairs(instruction_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of preference pairs: a row's answer, and what is left of it, or another row's."""
    folder = tmp_path_factory.mktemp("pairs") / "pairs"
    save_pairs(folder, instruction_set)
    return folder


def said(text: str, role: str = "assistant") -> list[dict[str, str]]:
    """One message."""
    return [{"role": role, "content": text}]


def save_pairs(folder: Path, instruction_set: Path, most: int = 60) -> None:
    """Save pairs of the rows of a set, by split."""
    from instructrec.core.schema import read_split
    from instructrec.preferences.write import pair

    def corrupted(answer: str, other: str, number: int) -> tuple[str, str]:
        reversed_ = " ".join(reversed(answer.split()))
        kinds = [("shuffled", reversed_), ("other_answer", other), ("cut", answer[: len(answer) // 2])]
        origin, text = kinds[number % 3]
        return (origin, text) if text.strip() not in ("", answer.strip()) else ("marked", f"{answer} ???")

    splits: dict[str, list[dict]] = {}
    for split in ("train", "validation", "test_documents"):
        rows = list(read_split(instruction_set, split))[:most]
        answers = [row["completion"][0]["content"] for row in rows]
        pairs = splits[split] = []
        for number, (row, answer) in enumerate(zip(rows, answers, strict=True)):
            origin, text = corrupted(answer, answers[(number + 7) % len(rows)], number)
            pairs.append(pair(row["prompt"], answer, text, origin, row["source"], 1.0))
    splits["test_corruptors"] = [
        one | {"origin": "twice", "rejected": said(f"{text} {text}")}
        for one in splits["test_documents"]
        for text in [one["chosen"][0]["content"]]
    ]
    save_splits(folder, splits)


def save_splits(folder: Path, splits: dict[str, list[dict]]) -> None:
    """Save a folder of preference pairs in the contract's form, whatever is in them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from instructrec.core.files import fingerprint
    from instructrec.core.schema import PAIR

    for split, rows in splits.items():
        (folder / split).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=PAIR), folder / split / "00000.parquet")
    manifest: dict = {"plan": {}, "origins": {}, "dropped": {}, "held_out": [], "versions": {}, "seed": 0}
    manifest["splits"] = {name: len(rows) for name, rows in splits.items()}
    manifest["fingerprint"] = fingerprint(folder, "*.parquet")
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="session")
def sharp(instruction_set, tmp_path_factory) -> Path:
    """A tiny model whose weights are large enough that an answer can become likely."""
    folder = tmp_path_factory.mktemp("sharp") / "tiny"
    save_tiny_model(folder, instruction_set, "llama", CHATML, initializer_range=0.3)
    return folder


@pytest.fixture(scope="session")
def start_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Adapters to go on from, of whatever base: as one of `recipes/sft.py`, with random weights."""

    @functools.cache
    def make(base: Path) -> Path:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = tmp_path_factory.mktemp("start") / "adapter"
        config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        torch.manual_seed(0)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.02)
        model.peft_config["default"].base_model_name_or_path = str(base)
        model.save_pretrained(folder)
        (folder / "README.md").unlink()
        AutoTokenizer.from_pretrained(base).save_pretrained(folder)
        return folder

    return make


FOUR_STEPS = {"max_steps": 4, "save_steps": 2, "learning_rate": 1e-2, "warmup_steps": 0, "logging_steps": 1}
FOUR_STEPS |= {"max_length": 1024}
"""For runs of recipes on pairs that are compared step by step."""


def without(given: list[str], flags: Iterable[str]) -> list[str]:
    """The flags and values of `given` that `flags` do not name again."""
    places = {given.index(flag) + k for flag in flags if flag.startswith("--") and flag in given for k in (0, 1)}
    return [part for place, part in enumerate(given) if place not in places]


def pair_flags(pairs: Path, instruction_set: Path, model: Path, output: Path, **more: object) -> list[str]:
    """Two steps of recipes/dpo.py or recipes/reward.py on a tiny model; in float32, unless `more` says otherwise."""
    given = {"held_out_set": instruction_set, "max_train_rows": 24, "gradient_accumulation_steps": 1, "ranked_pairs": 6}
    return sft_flags(pairs, model, output, **given | more)


def sft_flags(instruction_set: Path, model: Path, output: Path, **more: object) -> list[str]:
    """Two steps of recipes/sft.py on a tiny model; in float32, unless `more` says otherwise."""
    flags = {
        "model_name_or_path": model,
        "dataset_name": instruction_set,
        "output_dir": output,
        "max_steps": 2,
        "eval_steps": 2,
        "save_steps": 2,
        "eval_items": 2,
        "max_train_rows": 200,
        "dtype": "float32",
    }
    return [text for key, value in {**flags, **more}.items() for text in (f"--{key}", str(value))]


def weights(folder: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def largest_difference(a: Path, b: Path) -> float:
    """Between the weights of two adapters."""
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    return max(float((first[key] - second[key]).abs().max()) for key in first)


def log_history(folder: Path, step: int) -> list[dict]:
    """What a trainer had logged by a checkpoint."""
    return json.loads((folder / f"checkpoint-{step}" / "trainer_state.json").read_text())["log_history"]


def losses(folder: Path, step: int = 4) -> list[float]:
    """The training loss of every step that was logged by a checkpoint."""
    return [entry["loss"] for entry in log_history(folder, step) if "loss" in entry]
