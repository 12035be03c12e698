"""accelerate_configs/: what accelerate makes of each file, what it would pass over, and real runs of several processes.

No GPU is needed: `accelerate launch` is run up to where it would start processes, and what it would start them with is
compared. Data-parallel training runs for real, with gloo on the CPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from conftest import ROOT, assert_one_line_error, cli, largest_difference, losses, recipe, sft_flags

from instructrec.core.errors import UserError
from instructrec.launch import check_sharded_quantization, read_launch
from instructrec.training import prepare_output

CONFIGS = ROOT / "accelerate_configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
SFT = ROOT / "recipes" / "smollm2-135m" / "sft.yaml"
UNWATCHED = {"eval_strategy": "no", "load_best_model_at_end": "false"}


@dataclass
class Started:
    """What `accelerate launch` would start: a command or torchrun's arguments, with these variables on top."""

    command: list[str] | None
    torchrun: argparse.Namespace | None
    environment: dict[str, str]


@pytest.fixture
def start(monkeypatch):
    """Run `accelerate launch` with a file of accelerate_configs/ and more flags, without starting anything."""
    import torch.distributed.run
    from accelerate.commands import launch

    before = {key: value for key, value in os.environ.items() if not key.startswith(("ACCELERATE", "FSDP", "OMP_"))}
    for key in set(os.environ) - set(before):
        monkeypatch.delenv(key)
    found = {}

    def added(environment) -> dict[str, str]:
        return {key: value for key, value in environment.items() if before.get(key) != value}

    def popen(command, env):
        found["started"] = Started(command, None, added(env))
        return SimpleNamespace(wait=lambda: 0, returncode=0)

    monkeypatch.setattr(launch, "subprocess", SimpleNamespace(Popen=popen))
    monkeypatch.setattr(
        torch.distributed.run, "run", lambda args: found.update(started=Started(None, args, added(os.environ)))
    )
    monkeypatch.setattr(launch, "check_cuda_p2p_ib_support", lambda: True)
    monkeypatch.setattr("accelerate.utils.launch.is_port_in_use", lambda port: False)
    # DeepSpeed's launcher is imported for the name of a file only.
    monkeypatch.setattr(launch, "is_deepspeed_available", lambda: True)
    for name in ("deepspeed", "deepspeed.launcher", "deepspeed.launcher.runner"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(DEEPSPEED_ENVIRONMENT_NAME=".deepspeed_env"))

    def run(name: str, *flags: str) -> Started:
        arguments = ["--config_file", str(CONFIGS / f"{name}.yaml"), *flags, "recipes/sft.py", "--max_steps", "3"]
        launch.launch_command(launch.launch_command_parser().parse_args(arguments))
        return found["started"]

    return run


def test_there_is_one_file_per_way_to_run():
    assert NAMES == ["cpu", "ddp", "fsdp2", "multi_node", "single_gpu", "zero3"]


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_read_without_complaint(name):
    launch = read_launch(CONFIGS / f"{name}.yaml")
    assert launch.processes == yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["num_processes"]


@pytest.mark.parametrize(
    ("name", "environment"),
    [
        ("cpu", {"ACCELERATE_USE_CPU": "True", "ACCELERATE_MIXED_PRECISION": "no"}),
        (
            "single_gpu",
            {"ACCELERATE_USE_CPU": "False", "ACCELERATE_MIXED_PRECISION": "bf16", "CUDA_VISIBLE_DEVICES": "0"},
        ),
    ],
)
def test_one_process_is_started_as_a_command(name, environment, start):
    started = start(name)
    assert started.torchrun is None
    assert started.command == [sys.executable, "recipes/sft.py", "--max_steps", "3"]
    assert environment.items() <= started.environment.items()
    assert not {"MASTER_ADDR", "WORLD_SIZE", "ACCELERATE_USE_FSDP"} & started.environment.keys()


def test_data_parallel_starts_a_process_for_each_gpu(start):
    started = start("ddp", "--num_processes", "4")
    assert (started.torchrun.nnodes, started.torchrun.nproc_per_node) == ("1:1", "4")
    assert started.torchrun.training_script_args == ["--max_steps", "3"]
    assert started.environment["ACCELERATE_MIXED_PRECISION"] == "bf16"
    assert not {"ACCELERATE_USE_CPU", "ACCELERATE_USE_FSDP", "CUDA_VISIBLE_DEVICES"} & started.environment.keys()


def test_fsdp2_is_what_the_recipe_gets(start, monkeypatch):
    started = start("fsdp2")
    wanted = {
        "ACCELERATE_USE_FSDP": "true",
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "FSDP_VERSION": "2",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
        "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
        "FSDP_ACTIVATION_CHECKPOINTING": "false",
        "FSDP_OFFLOAD_PARAMS": "false",
    }
    assert wanted.items() <= started.environment.items()
    assert "FSDP_TRANSFORMER_CLS_TO_WRAP" not in started.environment  # so that the model's own layers are wrapped
    assert started.torchrun.nproc_per_node == "8"

    from accelerate.utils import FullyShardedDataParallelPlugin

    for key, value in started.environment.items():
        monkeypatch.setenv(key, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    assert plugin.state_dict_type.name == "FULL_STATE_DICT" and plugin.auto_wrap_policy is not None
    assert plugin.activation_checkpointing is False and plugin.cpu_ram_efficient_loading is True


def test_zero3_is_what_the_recipe_gets(start):
    started = start("zero3")
    wanted = {
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3",
        "ACCELERATE_DEEPSPEED_ZERO3_INIT": "true",
        "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true",
        "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "none",
        "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "none",
    }
    assert wanted.items() <= started.environment.items()
    given = yaml.safe_load((CONFIGS / "zero3.yaml").read_text())["deepspeed_config"]
    fields = set(started.environment["ACCELERATE_CONFIG_DS_FIELDS"].split(","))
    assert fields == {*given, "mixed_precision"}
    assert started.torchrun.nproc_per_node == "8"
    assert "ACCELERATE_GRADIENT_ACCUMULATION_STEPS" not in started.environment  # which the recipe decides


def rendezvous(torchrun: argparse.Namespace) -> tuple:
    """Where torchrun would look for the other machines, and as which of them."""
    from torch.distributed.run import config_from_args

    config, _, _ = config_from_args(torchrun)
    rank = config.rdzv_configs.get("rank")
    return config.rdzv_backend, config.rdzv_endpoint, (config.min_nodes, config.max_nodes), config.nproc_per_node, rank


def test_machines_meet_at_the_first_one(start):
    for rank in (0, 1, 2):
        place = ["--machine_rank", str(rank), "--main_process_ip", "10.0.0.7", "--main_process_port", "29511"]
        started = start("multi_node", "--num_machines", "3", "--num_processes", "24", *place)
        assert rendezvous(started.torchrun) == ("static", "10.0.0.7:29511", (3, 3), 8, rank)
    assert rendezvous(start("multi_node").torchrun) == ("static", "127.0.0.1:29500", (2, 2), 8, 0)


@pytest.mark.parametrize(
    ("name", "changes", "parts"),
    [
        ("fsdp2", {"fsdp_config.fsdp_reshard_after_foward": True}, ["in fsdp_config", "'fsdp_reshard_after_forward'"]),
        ("fsdp2", {"fsdp_config.reshard_after_foward": True}, ["in fsdp_config", "'fsdp_reshard_after_forward'"]),
        ("fsdp2", {"fsdp_config.zero_stage": 3}, ["unknown key 'zero_stage' in fsdp_config"]),
        ("fsdp2", {"fsdp_config": True}, ["fsdp_config must be a mapping"]),
        ("zero3", {"deepspeed_config.zero_stagee": 3}, ["in deepspeed_config", "'zero_stage'"]),
        ("zero3", {"deepspeed_config.fsdp_version": 2}, ["unknown key 'fsdp_version' in deepspeed_config"]),
        ("zero3", {"deepspeed_config.zero_stage": 4}, ["zero_stage must be 0, 1, 2 or 3, not 4"]),
        ("ddp", {"dynamo_config.dynamo_backnd": "INDUCTOR"}, ["in dynamo_config", "'dynamo_backend'"]),
        ("ddp", {"num_proceses": 4}, ["unknown key 'num_proceses'", "'num_processes'"]),
        ("ddp", {"num_processes": "four"}, ["num_processes must be a whole number of 1 or more, not 'four'"]),
        ("ddp", {"distributed_type": "MAGIC"}, ["distributed_type 'MAGIC'", "MULTI_GPU"]),
        ("cpu", {"num_processes": 2}, ["starts one process", "torchrun --nproc_per_node 2"]),
        ("cpu", {"num_processes": 2, "distributed_type": "MULTI_CPU"}, ["starts one process", "torchrun"]),
        ("multi_node", {"rdzv_backend": "c10d"}, ["every machine would wait alone", "rdzv_backend: static"]),
        ("multi_node", {"num_processes": 15}, ["num_processes, 15, must be a multiple of num_machines, 2"]),
    ],
)
def test_what_accelerate_passes_over_is_refused(name, changes, parts, tmp_path):
    values = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    for key, value in changes.items():
        section, dot, inner = key.partition(".")
        if dot:
            values[section][inner] = value
        else:
            values[section] = value
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UserError) as error:
        read_launch(tmp_path / "mine.yaml")
    for part in ("mine.yaml: ", *parts):
        assert part in str(error.value)


def test_keys_that_accelerate_completes_are_known(tmp_path):
    """It puts the section's name before a key of these sections, and converts two names of earlier versions."""
    values = yaml.safe_load((CONFIGS / "fsdp2.yaml").read_text())
    values["fsdp_config"] = {key.removeprefix("fsdp_"): value for key, value in values["fsdp_config"].items()}
    values["fsdp_config"]["reshard_after_forward"] = False
    values |= {"dynamo_config": {"backend": "no"}, "fp16": False}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    assert read_launch(tmp_path / "mine.yaml").shards == {"optimizer", "gradients"}


def test_the_stage_is_that_of_deepspeeds_own_file(tmp_path):
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": {"stage": 1}}))
    values = {"distributed_type": "DEEPSPEED", "num_processes": 2}
    values["deepspeed_config"] = {"deepspeed_config_file": str(tmp_path / "ds.json")}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    assert read_launch(tmp_path / "mine.yaml").shards == {"optimizer"}
    (tmp_path / "ds.json").write_text("[]")
    with pytest.raises(UserError, match=r"ds\.json: is no JSON object"):
        read_launch(tmp_path / "mine.yaml")


def test_a_misspelt_key_is_one_line_of_the_plan(tmp_path):
    text = (CONFIGS / "fsdp2.yaml").read_text().replace("fsdp_offload_params", "fsdp_ofload_params")
    (tmp_path / "mine.yaml").write_text(text)
    done = cli("plan", str(SFT), "--accelerate", "mine.yaml", cwd=tmp_path)
    assert_one_line_error(done, "mine.yaml", "'fsdp_ofload_params'", "'fsdp_offload_params'")


def test_four_bits_are_sharded_only_if_stored_in_dtype():
    model = SimpleNamespace(load_in_4bit=True, dtype="bfloat16", bnb_4bit_quant_storage=None)
    for strategy in ("single", "ddp", "zero"):
        check_sharded_quantization(model, strategy)
    with pytest.raises(UserError, match=r"FSDP shards .* not as uint8; set bnb_4bit_quant_storage: bf"):
        check_sharded_quantization(model, "fsdp")
    model.bnb_4bit_quant_storage = "bfloat16"
    check_sharded_quantization(model, "fsdp")
    model.dtype = "float32"
    with pytest.raises(UserError, match="set bnb_4bit_quant_storage: float32"):
        check_sharded_quantization(model, "fsdp")


def test_a_recipe_under_fsdp_refuses_what_would_stay_whole(instruction_set, tiny_model, tmp_path, monkeypatch):
    given = sft_flags(instruction_set, tiny_model, tmp_path / "out", load_in_4bit="true", **UNWATCHED)
    done = cli("plan", str(SFT), *given, "--accelerate", str(CONFIGS / "fsdp2.yaml"))
    assert_one_line_error(done, "bnb_4bit_quant_storage", "set bnb_4bit_quant_storage: float32")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    done = recipe("sft.py", *given)
    assert_one_line_error(done, "bnb_4bit_quant_storage", "set bnb_4bit_quant_storage: float32")


def test_nobody_generates_alone_with_a_share_of_the_weights(instruction_set, tiny_model, tmp_path):
    """Processes that score rows of their own would wait for each other's weights for ever."""
    given = sft_flags(instruction_set, tiny_model, tmp_path / "out")
    parts = ("eval_strategy: held-out instructions cannot", "sharded", "--eval_strategy no")
    assert_one_line_error(cli("plan", str(SFT), *given, "--accelerate", str(CONFIGS / "zero3.yaml")), *parts)
    assert_one_line_error(recipe("sft.py", *given, ACCELERATE_USE_FSDP="true"), *parts)


class TestOutputOfSeveralProcesses:
    @staticmethod
    def states(number: int) -> list[SimpleNamespace]:
        """What `prepare_output` knows of processes, which are threads here."""
        barrier = threading.Barrier(number, timeout=20)
        common = {"num_processes": number, "wait_for_everyone": barrier.wait, "print": lambda *_: None}
        return [SimpleNamespace(is_main_process=rank == 0, **common) for rank in range(number)]

    def prepared(self, folder: Path, config: dict) -> list[str | None]:
        """What each of three processes is told, of which the main one is the last to come."""
        others = self.states(3)
        main = others.pop(0)
        with ThreadPoolExecutor(2) as pool:
            told = [pool.submit(prepare_output, folder, config, state) for state in others]
            wait(told, timeout=0.2)
            return [prepare_output(folder, config, main), *(future.result() for future in told)]

    def test_all_resume_from_the_same_checkpoint(self, tmp_path):
        output = tmp_path / "out"
        assert self.prepared(output, {"lora_r": 4}) == [None] * 3
        for step in (2, 4):  # a kill came while the second was written
            (output / f"checkpoint-{step}").mkdir()
        (output / "checkpoint-2" / "trainer_state.json").write_text("{}")
        assert self.prepared(output, {"lora_r": 4}) == [str(output / "checkpoint-2")] * 3
        assert not (output / "checkpoint-4").exists()

    def test_another_number_of_processes_is_another_run(self, tmp_path):
        output = tmp_path / "out"
        self.prepared(output, {"lora_r": 4})
        (output / "checkpoint-2").mkdir()
        (one,) = self.states(1)
        with pytest.raises(UserError, match=r"another config \(processes: 3 then, 1 now\)"):
            prepare_output(output, {"lora_r": 4}, one)

    def test_a_run_without_weights_makes_room_for_another(self, tmp_path):
        output, (one,) = tmp_path / "out", self.states(1)
        prepare_output(output, {"use_peft": False}, one)
        (output / "unchecked").mkdir()
        (output / "unchecked" / "model.safetensors").write_text("diverged")
        assert prepare_output(output, {"use_peft": True}, one) is None
        assert [path.name for path in output.iterdir()] == ["run.json"]  # or an adapter would be saved beside a model
        (output / "model.safetensors").write_text("a kill came before the lineage was written")
        with pytest.raises(UserError, match="use_peft: True then, False now"):
            prepare_output(output, {"use_peft": False}, one)


def processes(output: Path) -> int:
    return json.loads((output / "lineage.json").read_text())["training"]["processes"]


FOUR_STEPS = UNWATCHED | {
    "max_steps": 4,
    "save_steps": 4,
    "logging_steps": 1,
    "gradient_accumulation_steps": 1,
    "max_train_rows": 200,
}


@pytest.mark.parametrize("packing", ["true", "false"])
def test_two_processes_equal_one(packing, instruction_set, tiny_model, tmp_path):
    """Two processes with two sequences each take the same steps as one with four: DDP for real, over gloo."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for name, launcher, batch in (("one", [sys.executable], 4), ("two", torchrun, 2)):
        more = FOUR_STEPS | {"packing": packing, "per_device_train_batch_size": batch}
        given = sft_flags(instruction_set, tiny_model, tmp_path / name, **more)
        command = [*launcher, str(ROOT / "recipes" / "sft.py"), *given]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
    assert processes(tmp_path / "one") == 1
    assert processes(tmp_path / "two") == 2  # an exit code of 0 would prove nothing
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
    assert len(set(losses(tmp_path / "one"))) == 4
    assert largest_difference(tmp_path / "one", tmp_path / "two") <= 1e-6


@pytest.mark.slow
def test_a_quantized_base_is_trained_by_two_processes(instruction_set, tiny_model_of, tmp_path):
    """As its YAML says of two GPUs: evaluations, checkpointing and the best adapter among them."""
    config = ROOT / "recipes" / "qwen3-8b" / "sft.yaml"
    more = {"dtype": "bfloat16", "gradient_accumulation_steps": 1, "max_train_rows": 100}
    given = sft_flags(instruction_set, tiny_model_of("qwen3-8b"), tmp_path / "out", **more)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*torchrun, str(ROOT / "recipes" / "sft.py"), "--config", str(config), *given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert processes(tmp_path / "out") == 2 and "held out    gold_nll" in done.stdout
    again = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert again.returncode == 0 and again.stdout.count("already trained") == 1, again.stderr


@pytest.mark.skipif(not importlib.util.find_spec("deepspeed"), reason="needs `pip install deepspeed`")
def test_zero3_in_one_cpu_process_equals_a_plain_run(instruction_set, tiny_model, tmp_path, monkeypatch):
    """DeepSpeed shards nothing among one process, but its engine, its optimizer and its saving are the real ones."""
    given = {name: sft_flags(instruction_set, tiny_model, tmp_path / name, **FOUR_STEPS) for name in ("plain", "zero")}
    done = recipe("sft.py", *given["plain"])
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / "zero3.yaml")]
    flags = ["--num_processes", "1", "--mixed_precision", "no", "--main_process_port", "0"]
    command = [*launcher, *flags, str(ROOT / "recipes" / "sft.py"), *given["zero"]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "zero") == pytest.approx(losses(tmp_path / "plain"), abs=1e-5)
    assert largest_difference(tmp_path / "plain", tmp_path / "zero") <= 1e-6


JOB = CONFIGS / "multi_node.sbatch"

STUBS = {
    "scontrol": 'printf "127.0.0.1\\nelsewhere\\n"',
    # Every node at once, as Slurm does it: the job is done when all are, and fails if one does.
    "srun": """while [[ $1 == --* ]]; do shift; done
for ((node = 0; node < SLURM_JOB_NUM_NODES; node++)); do SLURM_NODEID=$node "$@" & nodes+=($!); done
for node in "${nodes[@]}"; do wait "$node" || exit 1; done""",
    "accelerate": '[[ $1 == launch ]] && printf "%s\\n" "$@" > "node$SLURM_NODEID"',
}
"""Slurm in miniature, all nodes on this machine, and an `accelerate` that only says what it was asked."""


def submit(folder: Path, arguments: list[str], stubs: list[str], gpus: int) -> subprocess.CompletedProcess[str]:
    """Run the job script in the repository's place, with stand-ins for the commands named in `stubs`."""
    (folder / "bin").mkdir()
    for name in stubs:
        (folder / "bin" / name).write_text(f"#!/usr/bin/env bash\n{STUBS[name]}\n")
        (folder / "bin" / name).chmod(0o755)
    (folder / "accelerate_configs").symlink_to(CONFIGS)
    path = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    # Another number for each process, so that tests beside one another do not meet at one port.
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "node[0-1]", "SLURM_JOB_NUM_NODES": "2"}
    environment = os.environ | job | {"SLURM_GPUS_ON_NODE": str(gpus), "PATH": path}
    command = ["bash", str(JOB), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


def test_the_slurm_job_starts_one_launcher_per_node(tmp_path, start):
    subprocess.run(["bash", "-n", JOB], check=True)
    done = submit(tmp_path, ["recipes/sft.py", "--output_dir", "a folder"], ["scontrol", "srun", "accelerate"], gpus=8)
    assert done.returncode == 0, done.stderr
    places = []
    for node in (0, 1):
        _, _, config, *asked = (tmp_path / f"node{node}").read_text().splitlines()
        assert config == "accelerate_configs/multi_node.yaml"
        assert asked[-3:] == ["recipes/sft.py", "--output_dir", "a folder"]
        places.append(rendezvous(start("multi_node", *asked[:-3]).torchrun))
    port = 20000 + os.getpid() % 10000
    assert places == [("static", f"127.0.0.1:{port}", (2, 2), 8, rank) for rank in (0, 1)]


@pytest.mark.slow
def test_the_slurm_job_trains_on_two_nodes(instruction_set, tiny_model, tmp_path):
    given = sft_flags(instruction_set, tiny_model, tmp_path / "out", **FOUR_STEPS)
    done = submit(tmp_path, [str(ROOT / "recipes" / "sft.py"), *given], ["scontrol", "srun"], gpus=1)
    assert done.returncode == 0, done.stderr
    assert processes(tmp_path / "out") == 2
