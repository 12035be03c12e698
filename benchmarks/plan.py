"""How far `instructrec plan` is from the memory that a run then takes, on a CPU.

    python benchmarks/plan.py --dataset_name outputs/quickstart/set

Each configuration is planned (`instructrec plan --json`) and then trained by recipes/sft.py for two steps in a process
of its own, which first imports what the recipe imports. Measured is the peak of its resident memory (`VmHWM`, reset
after the imports) less what was resident then (`VmRSS`), both from /proc: so this runs on Linux only. Pages of the
checkpoint that safetensors has mapped count, as they do for the kernel. Results go to benchmarks/results as JSON and
Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from record import RESULTS, provenance

from instructrec.memory import MiB

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "recipes" / "smollm2-135m" / "sft.yaml"

SHORT = {"max_steps": 2, "eval_strategy": "no", "load_best_model_at_end": "false", "save_strategy": "no"}
FULL = {"use_peft": "false", "dtype": "float32", "learning_rate": "1e-5"}
EVALUATION = {"eval_strategy": "steps", "eval_steps": 2, "eval_items": 32, "load_best_model_at_end": "false"}

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "LoRA": SHORT,
    "QLoRA": SHORT | {"load_in_4bit": "true"},
    "full": SHORT | FULL,
    "full, padded": SHORT | FULL | {"packing": "false", "per_device_train_batch_size": 4, "max_length": 256},
    "LoRA, 1024 tokens": SHORT | {"max_length": 1024},
    "LoRA, saving and evaluating": SHORT | EVALUATION | {"save_strategy": "steps", "save_steps": 2},
}
"""What is changed in the recipe's YAML."""


def flags(changes: dict[str, Any]) -> list[str]:
    return [text for key, value in changes.items() for text in (f"--{key}", str(value))]


def status(key: str) -> int:
    """A figure of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{key}:")).split()[1])


def work(arguments: list[str]) -> None:
    """Run the recipe in this process and print what it took of memory as the last line."""
    import accelerate  # noqa: F401
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401
    import transformers.trainer  # noqa: F401
    from trl import SFTTrainer  # noqa: F401

    import instructrec.training  # noqa: F401

    imported = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    sys.argv = ["sft.py", *arguments]
    runpy.run_path(str(ROOT / "recipes" / "sft.py"), run_name="__main__")
    print(json.dumps({"imported": imported, "peak": status("VmHWM")}))


def run(command: list[str]) -> dict[str, Any]:
    """The JSON that ends a command's output."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout[done.stdout.index("{\n") :] if "--json" in command else done.stdout.splitlines()[-1])


def measure(changes: dict[str, Any], dataset: str, model: str) -> dict[str, Any]:
    """Plan a configuration, train it, and compare."""
    with tempfile.TemporaryDirectory() as scratch:
        chosen = flags({"model_name_or_path": model, "dataset_name": dataset, "output_dir": Path(scratch, "out")})
        chosen += flags(changes)
        plan = run(["-m", "instructrec", "plan", str(CONFIG), *chosen, "--json"])
        found = run([__file__, "--worker", "--config", str(CONFIG), *chosen])
    planned, measured = plan["memory"]["peak"], found["peak"] - found["imported"]
    return {"memory": plan["memory"], "planned": planned, **found, "measured": measured, "ratio": planned / measured}


def report(entries: dict[str, dict[str, Any]]) -> None:
    """Write what was measured as JSON and Markdown."""
    RESULTS.mkdir(exist_ok=True)
    record = {**provenance(), "configurations": entries}
    (RESULTS / "plan.json").write_text(json.dumps(record, indent=2) + "\n")
    lines = ["| configuration | planned, MiB | measured, MiB | planned / measured | phase of the peak |"]
    lines += ["| --- | ---: | ---: | ---: | --- |"]
    for name, entry in entries.items():
        phases = entry["memory"]["phases"]
        figures = f"{entry['planned'] / MiB:,.0f} | {entry['measured'] / MiB:,.0f} | {entry['ratio']:.2f}"
        lines.append(f"| {name} | {figures} | {max(phases, key=phases.get)} |")
    text = f"""# Planned and measured memory

`{record["command"]}`, {record["date"]}, {record["machine"]}; recipes/smollm2-135m/sft.yaml with the changes that
`CONFIGURATIONS` of the script names, two steps, one run each. Measured: peak of resident memory less what was resident
after the imports.

"""
    (RESULTS / "plan.md").write_text(text + "\n".join(lines) + "\n")


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        return work(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_name", default="outputs/quickstart/set", help="an instruction set; built if absent")
    parser.add_argument("--model_name_or_path", default="smollm2-135m-q4", help="embedded, a Hub name or a folder")
    parser.add_argument("--only", nargs="+", choices=CONFIGURATIONS, help="these configurations; default: all")
    arguments = parser.parse_args()
    entries = {}
    for name in arguments.only or CONFIGURATIONS:
        entry = entries[name] = measure(CONFIGURATIONS[name], arguments.dataset_name, arguments.model_name_or_path)
        print(f"{name}: planned {entry['planned'] / MiB:,.0f} MiB, measured {entry['measured'] / MiB:,.0f}", flush=True)
    report(entries)


if __name__ == "__main__":
    main()
